"""Labels of the arms of a benchmark: short, and broken only between words."""

from __future__ import annotations

from collections import Counter
from collections.abc import Sequence
from pathlib import Path

from tmdeploy.bench.arm import EngineMode
from tmdeploy.report.schemas.bench import ArmRow, BenchReport, ModelRow


class Labels:
    """Labels of one report.

    Args:
        report: The whole report: a label says only what distinguishes its arm.
    """

    def __init__(self, report: BenchReport) -> None:
        paths = [Path(row.path) for row in report.models]
        self._names = dict(zip(map(str, paths), _told_apart(paths), strict=True))
        self.backend = "" if len(found := {_backend(row) for row in report.arms}) > 1 else next(iter(found), "")

    def words(self, row: ArmRow, name_width: int) -> list[str]:
        """`deit_s`, `r=13`, `openvino bf16`; how an engine is called."""
        parts = [shortened(self._names[row.path], name_width)]
        parts += [] if row.amounts is None else [row.amounts]
        parts += [] if self.backend else _backend(row).split()
        parts += str(EngineMode(row.gpu.cuda_graph, row.gpu.transfers)).split() if row.gpu is not None else []
        return parts

    def model(self, row: ModelRow, name_width: int) -> list[str]:
        """Of a file: its name, and its backend where there are several."""
        name = shortened(self._names[row.path], name_width)
        return [name] if row.backend is None else [name, row.backend]


def kind_text(row: ArmRow) -> str:
    """The kind of an arm: merged, unmerged, free merge or foreign."""
    if row.kind != "model":
        return row.kind.replace("-", " ")
    if row.amounts is not None:
        return "merged"
    return "foreign" if row.gmacs is None else "unmerged"


def packed(words: Sequence[str], width: int) -> str:
    """Fill lines with words; an overlong word is shortened in the middle."""
    lines: list[str] = []
    for word in (shortened(word, width) for word in words):
        if lines and len(lines[-1]) + 1 + len(word) <= width:
            lines[-1] += f" {word}"
        else:
            lines.append(word)
    return "\n".join(lines)


def shortened(text: str, width: int) -> str:
    """Shorten a name in the middle, `deit_small…_tome_r13`: both ends identify it."""
    if len(text) <= width:
        return text
    head = width // 2
    return f"{text[:head]}…{text[len(text) - (width - head - 1) :]}"


def _told_apart(paths: Sequence[Path]) -> list[str]:
    """The stem of each file; the whole name, or the folder too, where stems are equal."""
    stems, names = Counter(path.stem for path in set(paths)), Counter(path.name for path in set(paths))
    found = []
    for path in paths:
        if stems[path.stem] == 1:
            found.append(path.stem)
        else:
            found.append(path.name if names[path.name] == 1 else f"{path.parent.name}/{path.name}")
    return found


def _backend(row: ArmRow) -> str:
    return f"{row.backend.get('backend', '')} {row.precision}".strip()
