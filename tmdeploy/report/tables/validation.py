"""What `tmdeploy validate` prints."""

from __future__ import annotations

from typing import TYPE_CHECKING, get_args

from tmdeploy.card.schedule import schedule_text
from tmdeploy.data.samples import counted
from tmdeploy.report.schemas.validation import ImageRow, LevelName, Share, ValidationReport
from tmdeploy.report.tables.table import plain_table
from tmdeploy.report.text import styled

if TYPE_CHECKING:
    from rich.console import Console
    from rich.table import Table

_SHOWN = 20


def print_validation(report: ValidationReport, console: Console) -> None:
    """Print the levels, the images that differ, and the verdict."""
    batches = ", ".join(map(str, report.batch_sizes))
    console.print(
        styled(
            (report.candidate["name"], "bold"),
            f" ({_who(report.candidate)}) against ",
            (report.reference["name"], "bold"),
            f" ({_who(report.reference)})",
        )
    )
    console.print(f"{report.data}; batch {batches}; {counted(len(report.schedules), 'schedule')}\n")
    console.print(_levels(report))
    for line in _evidence(report):
        console.print(styled("  ", (line, "dim")))
    console.print()
    if report.differing:
        console.print(_images(report.differing))
        if len(report.differing) > _SHOWN:
            console.print(f"... and {len(report.differing) - _SHOWN} more (--json lists all)")
    stats = report.model
    console.print(
        f"all images: top-1 {_share(stats.top1)}, top-5 {_share(stats.top5)}, "
        f"largest logits error {stats.logits_error_max:.2g}, KL mean {stats.kl_mean:.2g}, max {stats.kl_max:.2g}"
    )
    if stats.logits_error_near_ties_max is not None:
        console.print(f"near-ties: largest logits error {stats.logits_error_near_ties_max:.2g} (not judged)")
    if report.realisations:
        console.print(f"reduction steps: {proved_text(report)}")
    for note in report.notes:
        console.print(styled(("note", "yellow"), f" {note}"))
    console.print(styled(("PASSED", "bold green") if report.passed else ("FAILED", "bold red")))


def proved_text(report: ValidationReport) -> str:
    """The ways in which the reduction steps can be computed, and how each was proved."""
    names = {"native": "native kernels", "bodies": "function bodies", "standard ops": "standard ops in the file"}
    parts = []
    for row in report.realisations:
        looked = (["with the model"] if row.levels else []) + ([f"by {row.inputs} test inputs"] if row.ops else [])
        verdict = "wrong" if row.wrong else "proved" if report.passed else "compared"
        parts.append(f"{names.get(row.name, f'{row.name} kernels')} {verdict} ({' and '.join(looked)})")
    return ", ".join(parts)


def _levels(report: ValidationReport) -> Table:
    table = plain_table()
    table.add_column("level", no_wrap=True)
    table.add_column("check", no_wrap=True)
    for column in ("measured", "limit"):
        table.add_column(column, justify="right", no_wrap=True)
    table.add_column("flag", no_wrap=True)
    table.add_column("")
    for level in get_args(LevelName):
        for check in report.checks:
            if check.level == level:
                verdict = styled(("ok", "green") if check.passed else ("FAILED", "red"))
                limit = f"{'≤' if check.sense == '<=' else '≥'} {check.limit:.4g}"
                table.add_row(level, check.name, f"{check.value:.4g}", limit, check.option, verdict)
        if any(entry.level == level for entry in report.skipped):
            table.add_row(level, styled(("not judged", "yellow")), "", "", "", styled(("-", "yellow")))
    return table


def _evidence(report: ValidationReport) -> list[str]:
    """On what each number was measured, and why a level was skipped."""
    lines = [f"{check.level}, {check.name}: {check.detail}" for check in report.checks if check.detail]
    return lines + [f"{entry.level} not judged: {entry.reason}" for entry in report.skipped]


def _images(rows: tuple[ImageRow, ...]) -> Table:
    table = plain_table("Images with another plan: the first block that differs")
    table.add_column("image", overflow="fold")
    for column in ("batch", "schedule", "block", "gap", "tokens", "logits error"):
        table.add_column(column, justify="right")
    table.add_column("verdict")
    for row in rows[:_SHOWN]:
        tie = row.kind == "near-tie"
        verdict = styled(("near-tie", "yellow")) if tie else styled(("divergent", "red"), f": {row.reason}")
        table.add_row(
            row.image,
            str(row.batch),
            "default" if row.schedule is None else schedule_text(row.schedule),
            "-" if row.block is None else str(row.block),
            "-" if row.gap is None else f"{row.gap:.2g}",
            str(row.tokens),
            f"{row.logits_error:.2g}",
            verdict,
        )
    return table


def _share(share: Share) -> str:
    return f"{share.share:.1%} [{share.low:.1%}, {share.high:.1%}]"


def _who(described: dict[str, str]) -> str:
    who = " ".join(described[key] for key in ("backend", "version") if key in described)
    precision = described.get("precision", "fp32")
    return who if precision == "fp32" else f"{who}, {precision}"
