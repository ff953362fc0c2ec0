"""`tmdeploy validate`: does the candidate compute what the reference computes?"""

from __future__ import annotations

from tmdeploy.api.validate import validate as verb

from .command import Call, command
from .console import warn_skipped


@command(verb, "timeout", "native", "trust_engine")
def validate(call: Call) -> None:
    """Compare two models level by level: ops on the same inputs, decisions, logits, accuracy. Exit code 1 if any fails.

    tmdeploy validate deit_small.pth deit_s.onnx --data photos/
    """
    from tmdeploy.errors import CheckFailed
    from tmdeploy.report.tables.validation import print_validation

    out = call.output(reads=call.files("reference", "candidate", "data"))
    report = call()
    print_validation(report, out.console)
    warn_skipped(report.skipped_images, read=report.images)
    out.emit(report)
    if not report.passed:
        failed = [f"{check.level}: {check.name}" for check in report.checks if not check.passed]
        raise CheckFailed(f"{call['candidate']} failed {len(failed)} check(s): {', '.join(failed)}")
