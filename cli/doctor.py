"""`tmdeploy doctor`: what works on this machine."""

from __future__ import annotations

import dataclasses

from .console import Output, progress
from .options import JsonOption


def doctor(json: JsonOption = None) -> None:
    """Show what is installed, which backends work (each is really tried), and what to install for the others."""
    from tmdeploy.doctor import examine
    from tmdeploy.errors import EnvironmentMissing
    from tmdeploy.report.listing import print_facts, print_states

    out = Output(json)
    with progress() as tell:
        tell("trying the backends")
        found = examine()
    packages = ", ".join(f"{name} {version}" for name, version in found.packages.items() if version is not None)
    facts = (
        ("Python", found.python),
        ("platform", found.platform),
        ("CPU", f"{found.cpu}, {found.cores} usable cores, {found.memory_gib} GiB"),
        ("GPU", found.gpu),
        ("packages", packages),
    )
    print_facts("This machine", facts, out.console)
    states = [(state.name, state.works, state.detail, state.remedy) for state in found.backends]
    print_states("Backends", states, out.console)
    out.emit({"schema": "tmdeploy.doctor/1", **dataclasses.asdict(found)})
    if not found.usable:
        raise EnvironmentMissing("the embedded default does not work", remedy=found.backends[0].remedy)
