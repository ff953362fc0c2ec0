"""What every command prints with: tables to stdout, progress and errors to stderr, JSON where asked for."""

from __future__ import annotations

import contextlib
import sys
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

from tmdeploy.report.text import printable

if TYPE_CHECKING:
    from tmdeploy.report.console import PlainConsole
    from tmdeploy.report.schemas.document import Result
    from tmdeploy.system.progress import Progress


@dataclass
class _Settings:
    debug: bool = False
    quiet: bool = False


settings = _Settings()


class Output:
    """Where one command's result goes. Made before the command's work begins: it checks all that is to be written.

    Args:
        json_target: Value of `--json`: a file, `-` for stdout, or None.
        reads: Every file, folder and glob that the command reads.
        writes: Every other file that it writes, by its option (`-o`) or, without one, by what it is (`the sidecar`).

    Raises:
        UsageError: An output is an input, or another output.
        ArtifactError: An output cannot be written.
    """

    def __init__(
        self,
        json_target: str | None,
        *,
        reads: Iterable[str | Path] = (),
        writes: Mapping[str, Path | None] | None = None,
    ) -> None:
        self._target = json_target
        outputs = {**(writes or {}), "--json": None if json_target in {None, "-"} else Path(str(json_target))}
        if any(target is not None for target in outputs.values()):
            from tmdeploy.system.files import check_outputs

            check_outputs(outputs, _files_read(list(reads), outputs.values()))

    @property
    def console(self) -> PlainConsole:
        """For tables and sentences: stdout, or stderr when stdout is for JSON."""
        from tmdeploy.report.console import PlainConsole

        return PlainConsole(stderr=self._target == "-", quiet=settings.quiet)

    def emit(self, document: Result | dict[str, Any]) -> None:
        """Write the JSON document, if one was asked for.

        Raises:
            ArtifactError: The file cannot be written.
        """
        if self._target is None:
            return
        if self._target == "-":
            utf8 = (sys.stdout.encoding or "").lower().replace("-", "") == "utf8"
            sys.stdout.write(_json(document, ascii_only=not utf8))
            return
        from tmdeploy.system.files import write_text

        write_text(Path(self._target), _json(document), option="--json")


def _json(document: Result | dict[str, Any], *, ascii_only: bool = False) -> str:
    if not isinstance(document, dict):
        return document.to_json(ascii_only=ascii_only)
    from tmdeploy.report.schemas.document import json_text

    return json_text(document, ascii_only=ascii_only)


def _files_read(sources: Sequence[str | Path], outputs: Iterable[Path | None]) -> list[str | Path]:
    """The files of these sources; of folders and globs only those that are outputs too."""
    if not sources:
        return []
    from tmdeploy.data.images import is_among

    found: list[str | Path] = [target for target in outputs if target is not None and is_among(target, sources)]
    for engine in (Path(source) for source in sources if Path(source).suffix in {".plan", ".engine"}):
        from tmdeploy.tensorrt.record.sidecar import engine_files

        found += engine_files(engine).values()
    return [*(source for source in sources if Path(source).is_file()), *found]


def complain(message: str) -> None:
    """One line on stderr, never wrapped: tools read it."""
    print(printable(message), file=sys.stderr)


def warn(message: str) -> None:
    """A line on stderr that `--quiet` silences."""
    if not settings.quiet:
        complain(f"warning: {message}")


def warn_skipped(skipped: Iterable[tuple[object, str]], *, read: int) -> None:
    """Name and count the images that could not be read."""
    images = list(skipped)
    for path, reason in images:
        warn(f"skipped {path}: {reason}")
    if images:
        warn(f"{len(images)} of {len(images) + read} images skipped")


def own_stdout(against: str | None) -> contextlib.AbstractContextManager[object]:
    """What the owner's code prints goes to stderr: stdout is for the result, which may be JSON."""
    return contextlib.nullcontext() if against is None else contextlib.redirect_stdout(sys.stderr)


@contextlib.contextmanager
def progress() -> Iterator[Progress]:
    """Show what is going on, on stderr, with a bar where it is known how far. Off without terminal, or with --quiet."""
    from rich import progress as rich
    from rich.text import Text

    from tmdeploy.report.console import PlainConsole

    class Bar(rich.BarColumn):
        def render(self, task: rich.Task) -> Any:
            return Text() if task.total is None else super().render(task)

    console = PlainConsole(stderr=True)
    off = settings.quiet or not console.is_terminal
    text = rich.TextColumn("{task.description}", markup=False)
    columns = (rich.SpinnerColumn("line"), text, Bar(), rich.TimeElapsedColumn())
    with rich.Progress(*columns, console=console, transient=True, disable=off) as display:
        task = display.add_task("starting", total=None)

        def show(text: str, share: float | None = None, /) -> None:
            total = None if share is None else 1.0
            display.update(task, description=printable(text), total=total, completed=share or 0.0)

        yield show
