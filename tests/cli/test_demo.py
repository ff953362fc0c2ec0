import json
from pathlib import Path

import pytest

from tests.cli.running import run


def test_the_demo_does_the_main_job(tmp_path: Path, capsys: pytest.CaptureFixture[str]):
    done = run(capsys, "demo", "-o", tmp_path / "made" / "here", "--json", tmp_path / "made" / "here" / "all.json")
    assert done.code == 0, done.err
    assert (tmp_path / "made" / "here" / "digits_tome.onnx").is_file()
    for command in ("export", "validate", "bench", "infer"):
        assert f"tmdeploy {command} " in done.out
    assert "30 images from" in done.out
    document = json.loads((tmp_path / "made" / "here" / "all.json").read_text())
    schemas = [step["result"]["schema"] for step in document["steps"]]
    assert schemas == ["tmdeploy.export/2", "tmdeploy.validate/1", "tmdeploy.bench/1", "tmdeploy.infer/1"]


def test_without_the_examples_it_says_where_to_get_them(tmp_path: Path, capsys: pytest.CaptureFixture[str]):
    done = run(capsys, "demo", "--examples", tmp_path)
    assert (done.code, done.err.count("\n")) == (4, 1)
    assert "--examples" in done.err
