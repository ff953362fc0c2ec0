"""Every command on broken files: a documented exit code, one line that says what is wrong, nothing left behind.

How many cases: `TMDEPLOY_FUZZ_CASES`, by default what takes about two minutes; `python -m tests.fuzz` runs more.
"""

from __future__ import annotations

import os
from pathlib import Path

from tests.fuzz.cases import TARGETS, Case, draw
from tests.fuzz.running import UNBROKEN, run_all, run_here

CASES = int(os.environ.get("TMDEPLOY_FUZZ_CASES", "1000"))
SEED = 9
# Two different models are compared.
DISAGREES = {target.command: 1 for target in TARGETS if target.command.startswith("validate {evit.onnx} {tome.onnx}")}


def test_no_broken_file_breaks_a_command():
    outcomes = list(run_all([draw(number, SEED) for number in range(CASES)]))
    assert len(outcomes) == CASES
    wrong = [
        f"{outcome.complaint}: python -m tests.fuzz --again {outcome.case.seed}\n{outcome.error[-400:]}"
        for outcome in outcomes
        if outcome.complaint
    ]
    assert not wrong, "\n".join(wrong[:20])
    refused = sum(outcome.code == 4 for outcome in outcomes)
    assert refused > CASES // 4  # the files were broken indeed


def test_what_is_not_broken_runs(tmp_path: Path):
    for number, target in enumerate(TARGETS):
        if target.command.split()[0] in {"build", "refit"} or target.broken == "tiny.plan.json":
            continue  # they need a toolkit, or an engine that is one
        folder = tmp_path / str(number)
        folder.mkdir()
        outcome = run_here(Case(target, UNBROKEN, "0/0"), folder)
        assert (outcome.code, outcome.complaint) == (DISAGREES.get(target.command, 0), ""), outcome
