import json
from pathlib import Path

import pytest
import torch

from tests.cli.running import run
from tests.conftest import EXAMPLES

CHECKPOINT, DIGITS = EXAMPLES / "digits_tome.pt", EXAMPLES / "digits"
FAST = ("--duration", "0.01s", "--warm-up", "0s", "--rounds", 3, "--iterations", 3)


def _report(capsys: pytest.CaptureFixture[str], *arguments: object) -> dict:
    done = run(capsys, "bench", *arguments, *FAST, "--json", "-")
    assert done.code == 0, done.err
    return json.loads(done.out)


def test_models_and_their_twins_side_by_side(digits_onnx: Path, capsys: pytest.CaptureFixture[str]):
    report = _report(capsys, digits_onnx, CHECKPOINT, "--batch", "1,3", "--free-merge", "--data", DIGITS)
    assert report["schema"] == "tmdeploy.bench/1"
    name = digits_onnx.name
    kinds = [(arm["name"], arm["kind"]) for arm in report["arms"] if arm["batch"] == 3]
    assert kinds == [
        (f"{name}, unmerged", "unmerged"),
        (f"{name}, free-merge", "free-merge"),
        (name, "model"),
        ("digits_tome.pt, unmerged", "unmerged"),
        ("digits_tome.pt", "model"),
    ]
    for arm in report["arms"]:
        assert len(arm["rounds_ms"]) == 3
        assert arm["median_ms"] > 0
        assert arm["percentiles_ms"]["50"] <= arm["percentiles_ms"]["99"]
        assert arm["images_per_s"] == pytest.approx(arm["batch"] / arm["median_ms"] * 1e3)
    merged = [arm for arm in report["arms"] if arm["kind"] == "model"]
    for arm in merged:
        assert arm["ratio"]["low"] <= arm["ratio"]["median"] <= arm["ratio"]["high"]
        saved = (1 - arm["ratio"]["median"]) / (1 - arm["mac_ratio"])
        assert arm["realised"] == pytest.approx(saved)
    assert [row["name"] for row in report["models"]] == [name, "digits_tome.pt"]
    assert all(row["peak_mib"] > row["model_mib"] > 0 for row in report["models"])
    assert report["data"].startswith("3 images from") or report["data"].startswith("30 images from")


def test_schedules_are_arms_of_their_own(digits_onnx: Path, capsys: pytest.CaptureFixture[str]):
    report = _report(
        capsys, digits_onnx, "--batch", 1, "--schedule", 0, "--schedule", 8, "--no-twin", "--no-memory",
        "--percentile", "50,75",
    )  # fmt: skip
    assert [arm["schedule"] for arm in report["arms"]] == [[0] * 6, [8] * 6]
    assert report["arms"][0]["gmacs"] > report["arms"][1]["gmacs"]
    assert set(report["arms"][0]["percentiles_ms"]) == {"50", "75"}
    assert report["models"][0]["peak_mib"] is None


def test_every_schedule_has_a_free_merge_of_its_own(digits_onnx: Path, capsys: pytest.CaptureFixture[str]):
    report = _report(
        capsys, digits_onnx, "--batch", 1, "--r", "0", "--r", "16:0", "--free-merge", "--no-memory", "--threads", 1
    )
    name = digits_onnx.name
    arms = {arm["name"].removeprefix(f"{name}, "): arm for arm in report["arms"]}
    assert list(arms) == ["unmerged", "0, free-merge", "0", "16, 12, 9, 6, 3, 0, free-merge", "16, 12, 9, 6, 3, 0"]
    assert [arm["amounts"] for arm in report["arms"]] == [None, "r=0", "r=0", "r=16..0", "r=16..0"]
    assert [arm["number"] for arm in report["arms"]] == [1, 2, 3, 4, 5]
    for schedule in ("0", "16, 12, 9, 6, 3, 0"):
        assert arms[f"{schedule}, free-merge"]["gmacs"] == arms[schedule]["gmacs"]
        assert arms[f"{schedule}, free-merge"]["ratio"]["baseline"] == f"{name}, unmerged"
    assert arms["0"]["gmacs"] == arms["unmerged"]["gmacs"] > arms["16, 12, 9, 6, 3, 0"]["gmacs"]


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["--min-speedup", "1000"], "wanted: at least 1e+03x (at most 0.001)"),
        (["--max-ratio", "0.001"], "wanted: at least 1e+03x (at most 0.001)"),
    ],
)
def test_a_gate_that_is_not_met_is_a_failed_check(
    arguments: list[str], message: str, digits_onnx: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
):
    target = tmp_path / "bench.json"
    done = run(
        capsys, "bench", digits_onnx, "--batch", 1, "--r", 0, "--r", 8, *FAST, "--no-memory", *arguments,
        "--json", target,
    )  # fmt: skip
    assert (done.code, done.err.count("\n")) == (1, 1)
    assert f"error: {digits_onnx.name}, 8 at batch 1 is " in done.err
    assert "as fast as its unmerged twin" in done.err
    assert message in done.err
    (row,) = json.loads(target.read_text())["gate"]  # r = 0 cannot be any faster
    assert (row["arm"], row["passed"], row["limit"]) == (f"{digits_onnx.name}, 8", False, 0.001)


def test_a_gate_that_is_met(digits_onnx: Path, capsys: pytest.CaptureFixture[str]):
    report = _report(capsys, digits_onnx, "--batch", 1, "--no-memory", "--min-speedup", "0.0001")
    assert [row["passed"] for row in report["gate"]] == [True]


def test_a_gate_without_a_twin_is_refused_before_anything_is_timed(
    digits_onnx: Path, capsys: pytest.CaptureFixture[str]
):
    done = run(capsys, "bench", digits_onnx, "--no-twin", "--min-speedup", "1.3", "--duration", "100s")
    assert (done.code, done.err.count("\n")) == (2, 1)
    assert "--min-speedup: digits.onnx has no unmerged twin to be compared with. Leave out --no-twin" in done.err


def test_plain_weights_run_as_the_file_beside_them_was_exported(
    digits_onnx: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
):
    plain = tmp_path / "plain.pth"
    torch.save({"model": torch.load(CHECKPOINT, weights_only=True)["state_dict"]}, plain)
    report = _report(capsys, digits_onnx, plain, "--batch", 1, "--no-memory")
    arms = {arm["name"]: arm for arm in report["arms"]}
    assert arms["plain.pth"]["gmacs"] == arms[digits_onnx.name]["gmacs"] < arms["plain.pth, unmerged"]["gmacs"]
    assert arms["plain.pth"]["backend"]["method"] == "tome"


def test_tables_name_what_was_measured(digits_onnx: Path, capsys: pytest.CaptureFixture[str]):
    done = run(capsys, "bench", digits_onnx, "--batch", 1, *FAST, "--no-memory")
    assert done.code == 0
    assert "milliseconds a batch" in done.out
    assert "unmerged" in done.out
    assert "peak memory" not in done.out, "no table of dashes"


@pytest.mark.parametrize(
    ("arguments", "code", "message"),
    [
        (["--batch", "0"], 2, "a batch has at least one image"),
        (["--percentile", "101"], 2, "a percentile is above 0 and at most 100, not 101"),
        (["--percentile", "p50"], 2, "--percentile p50: not numbers"),
        (["--duration", "soon"], 2, "--duration soon: not a duration"),
        (["--r", "1,2,3,4,5,6,7"], 2, "--r 1,2,3,4,5,6,7: 7 values for 6 blocks"),
        (["--max-ratio", "0"], 2, "--max-ratio 0: a factor is above 0"),
        (["--data", "nowhere"], 4, "nowhere: no such file, folder or match"),
    ],
)
def test_bad_arguments(
    arguments: list[str], code: int, message: str, digits_onnx: Path, capsys: pytest.CaptureFixture[str]
):
    done = run(capsys, "bench", digits_onnx, "--no-memory", *arguments)
    assert (done.code, done.err.count("\n")) == (code, 1)
    assert message in done.err


def test_models_of_other_images_are_not_compared(digits_onnx: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]):
    from tests.export.exporting import save_tiny
    from tests.vits import tiny_vit
    from tmdeploy.export import ExportRequest, export_checkpoint

    other = tmp_path / "other.onnx"
    checkpoint = save_tiny(tiny_vit(), tmp_path, with_recipe=False)
    export_checkpoint(ExportRequest(checkpoint=checkpoint, output=other, method="none", verify=False))
    done = run(capsys, "bench", digits_onnx, other, "--no-memory", *FAST)
    assert done.code == 2
    assert "take different images" in done.err


def test_backends_of_one_file_side_by_side(digits_onnx: Path, capsys: pytest.CaptureFixture[str]):
    arguments = [digits_onnx, "--batch", 2, "--backend", "onnxruntime,openvino", "--free-merge"]
    report = _report(capsys, *arguments, "--threads", 1)
    name = digits_onnx.name
    arms = {arm["name"]: arm for arm in report["arms"]}
    for backend in ("onnxruntime", "openvino"):
        label = f"{name}, {backend}"
        for kind in ("", ", unmerged", ", free-merge"):
            assert arms[label + kind]["backend"]["backend"] == backend
        assert arms[label]["ratio"]["baseline"] == f"{label}, unmerged"
    assert len(arms) == 6
    memory = {row["name"]: row for row in report["models"]}
    assert set(memory) == {f"{name}, onnxruntime", f"{name}, openvino"}
    assert all(row["peak_mib"] > row["model_mib"] > 0 for row in memory.values())
    assert report["machine"]["versions"]["openvino"]


@pytest.mark.parametrize(
    ("backend", "message"),
    [
        ("openvino,openvino", "a backend twice"),
        ("tensorflow", "no backend 'tensorflow'"),
        ("openvino:int8", "no precision 'int8' of openvino"),
    ],
)
def test_backends_that_cannot_be_meant(
    backend: str, message: str, digits_onnx: Path, capsys: pytest.CaptureFixture[str]
):
    done = run(capsys, "bench", digits_onnx, "--no-memory", "--backend", backend)
    assert (done.code, done.err.count("\n")) == (2, 1)
    assert message in done.err
