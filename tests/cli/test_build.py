import json
from pathlib import Path

import pytest

from tests.cli.running import run
from tests.conftest import EXAMPLES
from tests.tensorrt.engines import engine_file, full_bytes, needs_rtx, rtx_bytes
from tmdeploy.errors import EnvironmentMissing
from tmdeploy.lazy import install_command
from tmdeploy.tensorrt.build import run as building
from tmdeploy.tensorrt.cuda.gpu import gpu_or_none
from tmdeploy.tensorrt.record.sidecar import Options

CHECKPOINT = EXAMPLES / "digits_tome.pt"
no_gpu = pytest.mark.skipif(gpu_or_none() is not None, reason="there is a GPU here")


@needs_rtx
@no_gpu
def test_build_inspect_bench(digits_onnx: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]):
    plan = tmp_path / "digits.plan"
    done = run(
        capsys, "build", digits_onnx, "-o", plan, "--flavor", "rtx", "--precision", "fp16", "--keep-fp32", "+Gelu",
        "--profile", "1:4:8", "--schedule-range", "0:8:10", "--target-sm", "sm_89", "--json", "-",
    )  # fmt: skip
    assert done.code == 0, done.err
    document = json.loads(done.out)
    assert document["schema"] == "tmdeploy.build/2"
    engine = document["engine"]
    assert engine == json.loads(Path(f"{plan}.json").read_text())
    assert engine["keep_fp32"] == ["planner", "size", "softmax", "layernorm", "Gelu"]
    assert engine["target_sm"] == ["sm_89"]
    assert engine["profiles"] == [{"min": 1, "opt": 4, "max": 8}]
    assert engine["schedule"]["max"] == [10] * 6
    assert engine["model"]["card"]["recipe"]["method"] == "tome"

    shown = run(capsys, "inspect", plan)
    assert shown.code == 0
    for text in (
        "TensorRT-RTX",
        "fp16; in fp32: planner, size",
        "sm_89",
        "r 0:8:10",
        "shape input",
        "Kernels of the red",
    ):
        assert text in shown.out
    assert "does not run on this machine" in shown.out
    found = json.loads(run(capsys, "inspect", plan, "--json", "-").out)
    assert found["schema"] == "tmdeploy.inspect-engine/2"
    assert found["engine"] == engine
    assert found["runs_here"] is False
    (listing,) = found["listings"]
    assert listing["source"] == "build log"
    assert len(listing["layers"]) >= engine["kernels"]["total"]
    assert "Layers by kind, from the build log" in shown.out
    assert "of the reduction step in block 0, the first of 6 steps" in shown.out
    everything = run(capsys, "inspect", plan, "--layers").out
    assert len(everything) > 3 * len(shown.out)
    assert "Layers, from the build log" in everything

    timed = run(capsys, "inspect", plan, "--profile", "--batch", 4)
    assert (timed.code, timed.err.count("\n"), timed.out) == (3, 1, "")
    assert "needs an NVIDIA GPU, and there is none here" in timed.err
    given = run(capsys, "refit", plan, digits_onnx)
    assert (given.code, given.err.count("\n"), given.out) == (2, 1, "")
    assert "was built with its weights, for good" in given.err

    for arguments in (["--engine", plan], [plan], [digits_onnx, "--engine", plan]):
        timed = run(capsys, "bench", *arguments)
        assert (timed.code, timed.err.count("\n"), timed.out) == (3, 1, "")
        assert "needs an NVIDIA GPU, and there is none here" in timed.err


@needs_rtx
def test_the_image_size_of_a_checkpoint_can_be_chosen(tmp_path: Path, capsys: pytest.CaptureFixture[str]):
    plan = tmp_path / "digits.plan"
    done = run(capsys, "build", CHECKPOINT, "-o", plan, "--flavor", "rtx", "--profile", 1, "--image-size", 40)
    assert done.code == 0, done.err
    record = json.loads((tmp_path / "digits.plan.json").read_text())
    assert record["inputs"][0]["shape"][-2:] == [40, 40]


@needs_rtx
def test_a_checkpoint_is_exported_first(tmp_path: Path, capsys: pytest.CaptureFixture[str]):
    plan = tmp_path / "digits.plan"
    done = run(capsys, "build", CHECKPOINT, "-o", plan, "--flavor", "rtx", "--max-batch", 4, "--r", 4)
    assert done.code == 0, done.err
    files = {path.name for path in tmp_path.iterdir()}
    assert files == {"digits.onnx", "digits.plan", "digits.plan.json", "digits.plan.layers.json"}
    record = json.loads((tmp_path / "digits.plan.json").read_text())
    assert record["profiles"] == [{"min": 1, "opt": 4, "max": 4}]
    assert set(record["model"]["card"]["recipe"]["amounts"]) == {4}
    again = run(capsys, "build", CHECKPOINT, "-o", plan, "--flavor", "rtx")
    assert again.code == 2
    assert "digits.onnx exists already. Build from it" in again.err


@pytest.mark.parametrize(
    ("arguments", "code", "message"),
    [
        (["-o", "x.onnx"], 2, "x.onnx: an engine ends in .plan or .engine"),
        (["-o", "gone/x.plan"], 4, "gone/x.plan: cannot be written"),
        (["--profile", "8", "--max-batch", "8"], 2, "say the same: give one kind"),
        (["--profile", "8:4:1"], 2, "not in ascending order"),
        (["--opt-batch", "4", "--max-batch", "2"], 2, "not in ascending order"),
        (["--strip-weights", "--weight-streaming"], 2, "exclude each other"),
        (["--embed-plugin"], 2, "there is no plugin to embed"),
        (["--plugins", "none", "--plugin", "x.so"], 2, "--plugins none and --plugin exclude each other"),
        (["--plugin", "gone.so"], 4, "gone.so: no such plugin library"),
        (["--keep-fp32", "+a,b"], 2, "with and without a sign"),
        (["--r", "8"], 2, "only a checkpoint is exported"),
        (["--image-size", "32"], 2, "--image-size: only a checkpoint is exported"),
        (["--version-compatible", "--strip-weights"], 2, "the lean runtime that such an engine runs on cannot refit"),
        (["--version-compatible", "--refittable"], 2, "--version-compatible and --refittable exclude each other"),
    ],
)
def test_options_that_cannot_be_meant(
    arguments: list[str],
    code: int,
    message: str,
    digits_onnx: Path,
    tmp_path: Path,
    capsys: pytest.CaptureFixture[str],
    monkeypatch: pytest.MonkeyPatch,
):
    monkeypatch.chdir(tmp_path)
    out = [] if "-o" in arguments else ["-o", "x.plan"]
    done = run(capsys, "build", digits_onnx, *arguments, *out)
    assert (done.code, done.err.count("\n")) == (code, 1), done.err
    assert message in done.err
    assert list(tmp_path.iterdir()) == []


@needs_rtx
@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["--schedule-range", "0:8,8:9"], "2 values for 6 reduction steps"),
        (["--keep-fp32", "Gulu", "--precision", "fp16"], "no node fits 'Gulu'"),
        (["--target-sm", "sm_1"], "--target-sm sm_1: unknown here"),
        (["--hardware-compatible", "ampere+"], "TensorRT-RTX does not have it"),
        (["--version-compatible"], "run on the version that built them"),
        (["--plugins", "aot"], "--plugins aot: TensorRT-RTX has no plugins"),
    ],
)
def test_options_that_do_not_fit_the_file(
    arguments: list[str], message: str, digits_onnx: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
):
    done = run(capsys, "build", digits_onnx, "-o", tmp_path / "x.plan", "--flavor", "rtx", *arguments)
    assert (done.code, done.err.count("\n")) == (2, 1), done.err
    assert message in done.err
    assert list(tmp_path.iterdir()) == []


def test_without_tensorrt_it_says_what_to_install(
    digits_onnx: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
):
    monkeypatch.setitem(__import__("sys").modules, "tensorrt_rtx", None)
    done = run(capsys, "build", digits_onnx, "-o", tmp_path / "x.plan", "--flavor", "rtx")
    assert (done.code, done.err) == (
        3, f"error: building an engine needs the Python package 'tensorrt_rtx'. {install_command('rtx')}.\n",
    )  # fmt: skip


def test_full_tensorrt_without_a_gpu(
    digits_onnx: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
):
    from types import SimpleNamespace

    def missing(purpose: str) -> None:
        raise EnvironmentMissing(f"{purpose} needs an NVIDIA GPU, and there is none here")

    fake = SimpleNamespace(__version__="11.4.0.106")
    monkeypatch.setitem(__import__("sys").modules, "tensorrt", fake)
    monkeypatch.setattr(building, "find_gpu", missing)
    done = run(capsys, "build", digits_onnx, "-o", tmp_path / "x.plan", "--flavor", "tensorrt")
    assert (done.code, done.err) == (
        3, "error: building with full TensorRT needs an NVIDIA GPU, and there is none here\n",
    )  # fmt: skip
    fake.__version__ = "10.12.0.36"
    done = run(capsys, "build", digits_onnx, "-o", tmp_path / "x.plan", "--flavor", "tensorrt")
    assert done.code == 3
    assert "TensorRT 10.12.0.36 is not supported, only 10.13 to 11.x" in done.err


def test_inspect_and_bench_of_broken_engines(tmp_path: Path, capsys: pytest.CaptureFixture[str]):
    path = engine_file(tmp_path, rtx_bytes())
    path.write_bytes(path.read_bytes()[:-9])
    for command in (["inspect", path], ["bench", "--engine", path]):
        done = run(capsys, *command)
        assert (done.code, done.err.count("\n"), done.out) == (4, 1, "")
        assert "is truncated or damaged" in done.err
    shown = run(capsys, "inspect", engine_file(tmp_path, full_bytes()))
    assert shown.code == 0
    assert "NVIDIA L4 (sm_89)" in shown.out


def test_a_stripped_engine_is_not_run(tmp_path: Path, capsys: pytest.CaptureFixture[str]):
    path = engine_file(tmp_path, rtx_bytes(), options=Options(strip_weights=True))
    for command in (["bench", "--engine", path], ["infer", path, EXAMPLES / "digits" / "3_0.png"]):
        done = run(capsys, *command)
        assert (done.code, done.err.count("\n"), done.out) == (4, 1, "")
        assert "was built with --strip-weights and has none. Give them to it: tmdeploy refit" in done.err
    shown = run(capsys, "inspect", path)
    assert shown.code == 0
    assert "puts them in" in shown.out


def test_bench_needs_something_to_time(capsys: pytest.CaptureFixture[str]):
    done = run(capsys, "bench", "--batch", 1)
    assert (done.code, done.err.count("\n")) == (2, 1)
    assert "nothing to time" in done.err
