"""`tmdeploy doctor`: what works on this machine."""

from __future__ import annotations

import dataclasses

from .console import JsonOption, Output, progress


def doctor(json: JsonOption = None) -> None:
    """Show what is installed, which backends work (each is really tried), and what to install for the others."""
    from tmdeploy.environment import examine
    from tmdeploy.errors import EnvironmentMissing
    from tmdeploy.report.table import facts_table, plain_table
    from tmdeploy.report.text import styled

    out = Output(json)
    with progress() as tell:
        tell("trying the backends")
        found = examine()
    machine = facts_table("This machine")
    machine.add_row("Python", found.python)
    machine.add_row("platform", found.platform)
    machine.add_row("CPU", f"{found.cpu}, {found.cores} usable cores, {found.memory_gib} GiB")
    machine.add_row("GPU", found.gpu)
    machine.add_row(
        "packages", ", ".join(f"{name} {version}" for name, version in found.packages.items() if version is not None)
    )
    backends = plain_table("Backends")
    for column in ("backend", "works", "detail", "what to do"):
        backends.add_column(column, overflow="fold")
    for state in found.backends:
        works = styled(("yes", "green") if state.works else ("no", "red"))
        backends.add_row(state.name, works, state.detail, state.remedy)
    out.console.print(machine)
    out.console.print(backends)
    out.emit({"schema": "tmdeploy.doctor/1", **dataclasses.asdict(found)})
    if not found.usable:
        raise EnvironmentMissing("the embedded default does not work", remedy=found.backends[0].remedy)
