"""`tmdeploy validate` where the native library, the function body, or both compute something else."""

from __future__ import annotations

import shutil
from pathlib import Path

import pytest

from tests.cli.running import run
from tests.conftest import EXAMPLES
from tests.plugins import building
from tests.validate.test_realisations import changed, merge_the_least_similar
from tmdeploy.native import build
from tmdeploy.native.library import LIBRARY_VARIABLE

_RIGHT = "first_target + similarity.where[row]"


def _wrong_sources(folder: Path) -> Path:
    """Ours with one change: tokens are merged into others than the most similar ones."""
    sources = folder / "plugins"
    shutil.copytree(build.plugin_sources(), sources, ignore=shutil.ignore_patterns("cuda", "tensorrt", "openvino"))
    source = sources / "kernels" / "cpu" / "token_match.cpp"
    text = source.read_text()
    assert text.count(_RIGHT) == 1
    source.write_text(text.replace(_RIGHT, f"{_RIGHT} / 2"))
    return sources


def test_a_wrong_kernel_a_wrong_body_and_both(
    digits_onnx: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
):
    right_library, right_file = building.built_ort(), digits_onnx
    sources = _wrong_sources(tmp_path)
    for module in (build, building):
        monkeypatch.setattr(module, "plugin_sources", lambda: sources)
    wrong_library = building.built_ort()
    assert wrong_library != right_library
    wrong_file = changed(digits_onnx, tmp_path / "wrong.onnx", merge_the_least_similar)

    kernels, bodies = "wrong kernels", "wrong bodies"
    for file, library, caught in (
        (right_file, right_library, set()),
        (right_file, wrong_library, {kernels}),
        (wrong_file, right_library, {bodies}),
        (wrong_file, wrong_library, {kernels, bodies}),
    ):
        monkeypatch.setenv(LIBRARY_VARIABLE, str(library))
        options = ("--data", EXAMPLES / "digits", "--limit", 4, "--batch", 4)
        done = run(capsys, "validate", EXAMPLES / "digits_tome.pt", file, *options)
        assert done.code == (1 if caught else 0), done.out
        failed = done.err.partition("failed")[2]
        assert {name for name in (kernels, bodies) if name in failed} == caught, done.err
