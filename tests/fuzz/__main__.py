"""`python -m tests.fuzz --cases 20000 --seed 1`: fuzz for longer, and print what was tried as a table."""

from __future__ import annotations

import argparse
import os
import sys
import tempfile
import time
from collections import Counter, defaultdict
from pathlib import Path

from tests.fuzz.cases import draw
from tests.fuzz.running import Outcome, arguments, broken_corpus, run_all, run_here


def main() -> int:
    parser = argparse.ArgumentParser(prog="python -m tests.fuzz", description=__doc__)
    parser.add_argument("--cases", type=int, default=2000)
    parser.add_argument("--seed", type=int, default=9)
    parser.add_argument("--seconds", type=float, help="stop after these, whatever is left")
    parser.add_argument("--again", metavar="SEED/NUMBER", help="run one case in this process, with its traceback")
    parser.add_argument("--keep", type=Path, help="with --again: write the broken corpus here, and run nothing")
    given = parser.parse_args()
    if given.again:
        return _again(given.again, given.keep)
    start, outcomes = time.monotonic(), []
    for outcome in run_all([draw(number, given.seed) for number in range(given.cases)]):
        outcomes.append(outcome)
        if outcome.complaint:
            lines = outcome.error.strip().splitlines()
            print(f"{outcome.case.seed} {outcome.complaint}\n  {outcome.case.target.command}", file=sys.stderr)
            print(f"  {lines[-1][:300] if lines else ''}", file=sys.stderr, flush=True)
        if given.seconds and time.monotonic() - start > given.seconds:
            break
    print(table(outcomes))
    wrong = sum(bool(outcome.complaint) for outcome in outcomes)
    print(f"\n{len(outcomes)} cases of seed {given.seed}, {wrong} of them not as they should be")
    return 1 if wrong else 0


def table(outcomes: list[Outcome]) -> str:
    """What was tried, how often, and what came of it, in Markdown."""
    rows: dict[str, list[Outcome]] = defaultdict(list)
    for outcome in outcomes:
        rows[outcome.case.target.name].append(outcome)
    lines = ["| command and file | tries | how it was broken | refused | ran | not as it should be |"]
    lines.append("|---|--:|---|--:|--:|--:|")
    for name, found in sorted(rows.items()):
        ways = Counter(outcome.case.mutator for outcome in found)
        told = ", ".join(f"{way} {count}" for way, count in ways.most_common())
        refused = sum(outcome.code not in {0, 1} for outcome in found)
        wrong = sum(bool(outcome.complaint) for outcome in found)
        lines.append(f"| `{name}` | {len(found)} | {told} | {refused} | {len(found) - refused} | {wrong} |")
    return "\n".join(lines)


def _again(which: str, keep: Path | None) -> int:
    seed, number = map(int, which.split("/"))
    case = draw(number, seed)
    if keep is not None:
        broken_corpus(case, keep)
        print("tmdeploy", *arguments(case, keep, keep))
        return 0
    os.environ["TMDEPLOY_NATIVE"] = "0"
    with tempfile.TemporaryDirectory() as root:
        outcome = run_here(case, Path(root))
    print(outcome.error)
    print(f"{case.target.command}\n{case.mutator}: exit code {outcome.code}. {outcome.complaint or 'As it should be'}")
    return 1 if outcome.complaint else 0


if __name__ == "__main__":
    sys.exit(main())
