"""Run the command line in this process."""

from __future__ import annotations

from dataclasses import dataclass

import pytest
import tmdeploy_cli


@dataclass(frozen=True)
class Run:
    """Exit code and what was printed."""

    code: int
    out: str
    err: str


def run(capsys: pytest.CaptureFixture[str], *arguments: object) -> Run:
    """`tmdeploy ARGUMENTS...`"""
    capsys.readouterr()
    with pytest.raises(SystemExit) as stopped:
        tmdeploy_cli.main([str(argument) for argument in arguments])
    printed = capsys.readouterr()
    code = stopped.value.code
    return Run(code if isinstance(code, int) else 0, printed.out, printed.err)
