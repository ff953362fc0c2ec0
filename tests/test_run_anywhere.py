"""The programs of docs/run-anywhere.md, run as they stand there."""

import os
import re
import shutil
import subprocess
import sys
from pathlib import Path

import numpy as np
import onnx
import onnxruntime
import pytest

from tests.conftest import EXAMPLES
from tmdeploy.backends.onnxruntime.runner import OnnxRuntimeRunner
from tmdeploy.data.images import ImageReader
from tmdeploy.native.headers import find_ort_headers

PAGE = Path(__file__).parent.parent / "docs" / "run-anywhere.md"
PHOTO = EXAMPLES / "digits" / "3_0.png"
STEPS, CHANGED = 6, 4  # of the example; what the page sets its amounts to


def _program(language: str, *, saying: str) -> str:
    (found,) = [code for code in re.findall(rf"```{language}\n(.*?)```", PAGE.read_text(), re.DOTALL) if saying in code]
    return found


def _expected(path: Path, images: np.ndarray, amount: int | None) -> np.ndarray:
    runner = OnnxRuntimeRunner(path)
    try:
        return runner.infer(images, None if amount is None else [amount] * STEPS)
    finally:
        runner.close()


def _photo(path: Path) -> np.ndarray:
    runner = OnnxRuntimeRunner(path)
    spec = runner.preprocessing
    runner.close()
    return ImageReader([PHOTO], spec).all().images


def test_python(digits_onnx: Path, tmp_path: Path):
    shutil.copy(digits_onnx, tmp_path / "model.onnx")
    shutil.copy(PHOTO, tmp_path / "photo.jpg")
    dump = "\nnp.savez('got.npz', images=images, logits=logits, faster=faster)\n"
    code = "import sys; sys.modules['tmdeploy'] = sys.modules['torch'] = None\n" + _program(
        "python", saying="preprocess"
    )
    done = subprocess.run(
        [sys.executable, "-c", code + dump], cwd=tmp_path, capture_output=True, text=True, check=False
    )
    assert (done.returncode, done.stderr, done.stdout) == (0, "", "3\n")  # the digit; and no warning
    with np.load(tmp_path / "got.npz") as got:
        np.testing.assert_allclose(got["images"], _photo(digits_onnx), atol=1e-6)
        for name, amount in (("logits", None), ("faster", CHANGED)):
            expected = _expected(digits_onnx, got["images"], amount)
            np.testing.assert_allclose(got[name], expected, atol=1e-5)


def test_the_schedule_as_a_required_input(digits_onnx: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    shutil.copy(digits_onnx, tmp_path / "model.onnx")
    monkeypatch.chdir(tmp_path)
    exec(compile(_program("python", saying="required"), str(PAGE), "exec"), {})
    onnx.checker.check_model(onnx.load("model.required.onnx"))
    session = onnxruntime.InferenceSession("model.required.onnx", providers=["CPUExecutionProvider"])
    assert [entry.name for entry in session.get_inputs()] == ["images", "r"]
    images = _photo(digits_onnx)
    (got,) = session.run(None, {"images": images, "r": np.full(STEPS, CHANGED)})
    np.testing.assert_allclose(got, _expected(digits_onnx, images, CHANGED), atol=1e-5)


def test_values_out_of_range_are_clipped_and_other_lengths_refused(digits_onnx: Path):
    options = onnxruntime.SessionOptions()
    options.log_severity_level = 4
    session = onnxruntime.InferenceSession(digits_onnx, options, providers=["CPUExecutionProvider"])
    images = _photo(digits_onnx)
    for beyond, clipped in ((-5, 0), (5000, 32)):
        (got,) = session.run(None, {"images": images, "r": np.full(STEPS, beyond)})
        (same,) = session.run(None, {"images": images, "r": np.full(STEPS, clipped)})
        np.testing.assert_array_equal(got, same)
    for wrong in (np.full(STEPS - 1, 4), np.full(STEPS, 4, np.int32)):
        with pytest.raises(Exception, match=r"invalid dimensions|Unexpected input data type"):
            session.run(None, {"images": images, "r": wrong})


HEADERS, COMPILER = find_ort_headers(), shutil.which("g++")
LIBRARY = next(iter(sorted((Path(onnxruntime.__file__).parent / "capi").glob("libonnxruntime.so*"))), None)


@pytest.mark.skipif(
    HEADERS is None or COMPILER is None or LIBRARY is None,
    reason="needs g++, ONNX Runtime's headers (tmdeploy plugins build --fetch-headers) and its library",
)
def test_cpp(digits_onnx: Path, tmp_path: Path):
    (tmp_path / "run.cpp").write_text(_program("cpp", saying="main"))
    for name in ("libonnxruntime.so", "libonnxruntime.so.1"):
        (tmp_path / name).symlink_to(LIBRARY)
    command = [COMPILER, "-std=c++17", "run.cpp", "-I", HEADERS, "-L", ".", "-lonnxruntime", "-o", "run"]
    subprocess.run(command, cwd=tmp_path, check=True, capture_output=True)
    images = np.full((1, 3, 32, 32), 0.1, dtype=np.float32)
    environment = {**os.environ, "LD_LIBRARY_PATH": str(tmp_path)}
    for more, amount in (([], None), (["r"], CHANGED)):
        done = subprocess.run(
            [tmp_path / "run", digits_onnx, *more], capture_output=True, text=True, check=True, env=environment
        )
        got = np.array([float(line) for line in done.stdout.split()])
        np.testing.assert_allclose(got, _expected(digits_onnx, images, amount)[0], atol=1e-5)
        assert done.stderr == ""
