"""What `tmdeploy validate` prints."""

from __future__ import annotations

from typing import TYPE_CHECKING, get_args

from tmdeploy.report.schedule import schedule_text
from tmdeploy.validate.report import ImageRow, LevelName, Share, ValidationReport

if TYPE_CHECKING:
    from rich.console import Console
    from rich.table import Table

_SHOWN = 20


def print_validation(report: ValidationReport, console: Console) -> None:
    """The levels, the images that differ, and the verdict last."""
    batches = ", ".join(map(str, report.batch_sizes))
    console.print(
        f"[bold]{report.candidate['name']}[/bold] ({_who(report.candidate)}) against "
        f"[bold]{report.reference['name']}[/bold] ({_who(report.reference)})"
    )
    console.print(f"{report.data}; batch {batches}; {len(report.schedules)} schedule(s)\n")
    console.print(_levels(report))
    if report.differing:
        console.print(_images(report.differing))
        if len(report.differing) > _SHOWN:
            console.print(f"... and {len(report.differing) - _SHOWN} more (--json lists all)")
    stats = report.model
    console.print(
        f"all images: top-1 {_share(stats.top1)}, top-5 {_share(stats.top5)}, "
        f"largest logits error {stats.logits_error_max:.2g}, KL mean {stats.kl_mean:.2g}, max {stats.kl_max:.2g}"
    )
    for path, reason in report.skipped_images:
        console.print(f"[yellow]skipped[/yellow] {path}: {reason}")
    console.print("[bold green]PASSED[/bold green]" if report.passed else "[bold red]FAILED[/bold red]")


def _levels(report: ValidationReport) -> Table:
    from rich.table import Table

    table = Table()
    for column in ("level", "check", "measured", "limit", "flag", ""):
        table.add_column(column)
    skipped = {entry.level: entry.reason for entry in report.skipped}
    for level in get_args(LevelName):
        if level in skipped:
            table.add_row(level, f"[dim]skipped: {skipped[level]}[/dim]", "", "", "", "[yellow]-[/yellow]")
        for check in report.checks:
            if check.level == level:
                verdict = "[green]ok[/green]" if check.passed else "[red]FAILED[/red]"
                name = check.name + (f" [dim]({check.detail})[/dim]" if check.detail else "")
                limit = f"{'≤' if check.sense == '<=' else '≥'} {check.limit:.4g}"
                table.add_row(level, name, f"{check.value:.4g}", limit, check.option, verdict)
    return table


def _images(rows: tuple[ImageRow, ...]) -> Table:
    from rich.table import Table

    table = Table(title="Images with another plan", title_justify="left")
    for column in ("image", "batch", "schedule", "block", "gap", "tokens", "logits error", "verdict"):
        table.add_column(column)
    for row in rows[:_SHOWN]:
        verdict = "[yellow]near-tie[/yellow]" if row.kind == "near-tie" else f"[red]divergent[/red]: {row.reason}"
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
    return " ".join(described[key] for key in ("backend", "version") if key in described)
