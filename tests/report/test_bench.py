"""The tables of `bench`, as they are rendered."""

from __future__ import annotations

import io

import pytest

from tmdeploy.report.console import PlainConsole
from tmdeploy.report.schemas.bench import ArmRow, BenchReport, Machine, ModelRow, RatioRow
from tmdeploy.report.tables.bench import print_bench
from tmdeploy.report.tables.bench_labels import packed, shortened

LONG = "models/deit_small_patch16_224_token_merging_r13_fp16.onnx"


def _arm(
    number: int, kind: str = "model", *, path: str = LONG, backend: str = "onnxruntime", **changes: object
) -> ArmRow:
    fields: dict[str, object] = {
        "number": number, "name": f"a long name, {number}", "kind": kind, "path": path, "batch": 1, "schedule": None,
        "amounts": None if kind == "unmerged" else "r=13", "backend": {"backend": backend}, "precision": "fp32",
        "median_ms": 396.12, "mean_ms": 396.12, "min_ms": 390.0,
        "percentiles_ms": {"50": 33.296, "90": 396.12, "99": 1234.5}, "cv": 0.01, "calls": 9, "stable_warm_up": True,
        "images_per_s": 1030.4, "gmacs": 4.61, "rounds_ms": (),
    }  # fmt: skip
    return ArmRow.model_validate(fields | changes)


def _report(*arms: ArmRow, memory: bool = True) -> BenchReport:
    measured = (512.0, 900.0, 300.0) if memory else (None, None, None)
    models = tuple(
        ModelRow(
            name=path, path=path, bytes=88_000_000, load_ms=measured[0], peak_mib=measured[1], model_mib=measured[2]
        )
        for path in dict.fromkeys(arm.path for arm in arms)
    )
    machine = Machine(
        cpu="AMD EPYC", cores=2, platform="x", load_before=0.0, load_after=0.0, versions={}, command="", date=""
    )
    return BenchReport(
        tool_version="1",
        data="8 random images",
        rounds=5,
        models=models,
        arms=arms,
        warnings=("noisy",),
        machine=machine,
    )


def _shown(report: BenchReport, width: int) -> list[str]:
    console = PlainConsole(width=width)
    console.file = io.StringIO()
    print_bench(report, console)
    return console.file.getvalue().splitlines()


RATIO = RatioRow(baseline="a long name, 1", median=0.65, low=0.63, high=0.81, decided=True)
PAIR = (
    _arm(1, "unmerged"),
    _arm(2, "free-merge", ratio=RATIO, mac_ratio=0.59, realised=0.85),
    _arm(3, ratio=RATIO, mac_ratio=0.59, realised=0.85),
    _arm(4, path="models/other.onnx", backend="openvino", precision="bf16", ratio=RATIO, mac_ratio=0.59, realised=0.85),
)


@pytest.mark.parametrize("width", [80, 100, 140])
def test_numbers_are_whole_and_labels_break_between_words(width: int):
    lines = _shown(_report(*PAIR), width)
    assert max(map(len, lines)) <= width
    table = [line for line in lines if "faster" not in line][
        : next(i for i, line in enumerate(lines) if "faster" in line)
    ]
    rows = {line.split()[0]: line for line in table if line[:3].strip().isdigit()}
    assert list(rows) == ["1", "2", "3", "4"]
    for number, kind in (("1", "unmerged"), ("2", "free merge"), ("3", "merged"), ("4", "merged")):
        assert f"{kind} " in rows[number]
        for cell in ("33.30", "396.1", "1234 ", "1030 ", "4.61"):
            assert cell in rows[number], (width, rows[number])
    assert "0.65" in rows["3"]
    words = " ".join(lines).split()
    for word in ("r=13", "onnxruntime", "openvino", "bf16"):
        assert word in words
    assert len(table) <= 8 + 3 * 4, "a label takes three lines at most"


def test_at_140_columns_a_label_is_one_line():
    lines = _shown(_report(*PAIR), 140)
    assert any(line.startswith(" 3  deit_small_patch…erging_r13_fp16 r=13 onnxruntime fp32  merged") for line in lines)
    assert any("x unmerged" in line for line in lines)


def test_footnotes_name_arms_by_their_number():
    text = " ".join(" ".join(_shown(_report(*PAIR), 80)).split())
    assert "3: 1.54x faster than unmerged (0.63 to 0.81 of its time over the rounds); 85% of the 41% MAC saving" in text
    assert "a long name" not in text


def test_a_backend_that_all_share_is_said_once():
    lines = _shown(_report(*PAIR[:3]), 80)
    assert lines[0].startswith("AMD EPYC, 2 cores; onnxruntime fp32; 8 random images")
    assert sum("onnxruntime" in line for line in lines) == 1


def test_without_memory_there_is_no_table_of_it():
    assert any("peak memory" in line for line in _shown(_report(*PAIR), 80))
    assert not any("peak memory" in line for line in _shown(_report(*PAIR, memory=False), 80))


def test_files_of_one_stem_are_told_apart():
    same = (_arm(1, path="a/m.onnx"), _arm(2, path="b/m.onnx"), _arm(3, path="c/n.onnx"), _arm(4, path="c/n.pt"))
    lines = _shown(_report(*same), 80)
    for number, name in enumerate(("a/m.onnx", "b/m.onnx", "n.onnx", "n.pt"), 1):
        assert any(line.startswith(f" {number}  {name} r=13") for line in lines), lines


def test_a_terminal_that_is_too_narrow_gets_a_wider_table():
    lines = _shown(_report(*PAIR), 40)
    assert any("1234" in line and "1030" in line for line in lines)


def test_shortening_keeps_both_ends():
    assert shortened("deit_small_patch16_r13", 12) == "deit_s…6_r13"
    assert len(shortened("deit_small_patch16_r13", 12)) == 12
    assert shortened("deit", 12) == "deit"
    assert packed(["deit_s", "r=13", "openvino", "bf16"], 13) == "deit_s r=13\nopenvino bf16"
    assert packed(["onnxruntime-tensorrt"], 10) == "onnxr…orrt"
