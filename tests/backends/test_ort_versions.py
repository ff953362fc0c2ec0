"""Exported files, and tmdeploy itself, in older versions of ONNX Runtime down to the oldest that is supported."""

from __future__ import annotations

import json
import os
import re
import subprocess
import sys
from pathlib import Path

import pytest

from tests.conftest import EXAMPLES
from tests.fetching import unpacked_wheel
from tmdeploy.backends.onnxruntime.packages import OLDEST, oldest_runtime

ROOT = EXAMPLES.parent
VERSIONS = (f"{OLDEST}.1", "1.22.1", "1.25.1")
_LOUD = "EXPORTED FILES ARE NOT RUN IN OLD VERSIONS OF ONNX RUNTIME"


def _in_old(package: Path, *command: object) -> subprocess.CompletedProcess[str]:
    environment = {**os.environ, "PYTHONPATH": str(package), "TMDEPLOY_NATIVE": "0", "PYTHONWARNINGS": "ignore"}
    arguments = [str(part) for part in command]
    return subprocess.run(arguments, env=environment, capture_output=True, text=True, check=False, timeout=300)


def test_the_oldest_version_is_the_declared_one():
    declared = re.search(r'"onnxruntime>=([\d.]+)"', (ROOT / "pyproject.toml").read_text())
    assert declared is not None
    assert declared[1] == OLDEST
    assert [oldest_runtime(opset) for opset in (18, 21, 22, 23)] == [OLDEST, OLDEST, "1.21", "1.23"]


def test_files_of_every_method_run_at_the_default_level(tmp_path: Path):
    packages = tmp_path / "packages"
    packages.mkdir()
    for version in VERSIONS:
        (packages / version).symlink_to(unpacked_wheel(f"onnxruntime=={version}", _LOUD))
    found = tmp_path / "matrix.json"
    options = ["--opsets", "20", "--lowerings", "custom", "--levels", "ORT_ENABLE_ALL", "--json", found]
    command = [ROOT / "scripts" / "ort_matrix.py", "--versions", ",".join(VERSIONS), "--packages", packages, *options]
    done = subprocess.run([sys.executable, *map(str, command)], capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stdout + done.stderr
    rows = json.loads(found.read_text())["rows"]
    assert {row["version"] for row in rows} == set(VERSIONS)
    assert {row["method"] for row in rows} == {"tome", "evit", "topk", "mstm"}
    assert {row["result"] for row in rows} == {"ok"}
    assert len(rows) == len(VERSIONS) * 4


def test_the_oldest_version_exports_proves_and_says_what_works(tmp_path: Path):
    package = unpacked_wheel(f"onnxruntime=={VERSIONS[0]}", _LOUD)
    program = (
        "import sys, onnxruntime, tmdeploy_cli; print(onnxruntime.__version__, file=sys.stderr); tmdeploy_cli.main()"
    )
    tool, output = (sys.executable, "-c", program), tmp_path / "digits.onnx"
    done = _in_old(package, *tool, "export", EXAMPLES / "digits_tome.pt", "-o", output)
    assert VERSIONS[0] in done.stderr
    assert (done.returncode, output.exists()) == (0, True), done.stdout + done.stderr
    done = _in_old(package, *tool, "doctor", "--json", "-")
    states = {state["name"]: state for state in json.loads(done.stdout)["backends"]}
    assert states["ONNX Runtime (CPU)"]["works"], states
    assert VERSIONS[0] in states["ONNX Runtime (CPU)"]["detail"]


def test_what_old_versions_crash_on_or_cannot_read_is_refused(tmp_path: Path):
    program = """
import sys
import numpy as np
import onnx
from pathlib import Path
from tmdeploy.backends import open_runner
from tmdeploy.errors import TmdeployError

path = Path(sys.argv[1])
try:
    open_runner(path).infer(np.zeros((0, 3, 64, 64), np.float32))
except TmdeployError as error:
    print(error)
model = onnx.load(path)
node = next(node for node in model.graph.node if node.op_type == "TokenMatch")
outputs = list(node.output)
del node.output[2:]
few = path.with_name("few.onnx")
onnx.save(model, few)
node.output[:] = outputs
next(entry for entry in model.opset_import if entry.domain == "").version = 23
newer = path.with_name("newer.onnx")
onnx.save(model, newer)
for path in (few, newer):
    try:
        open_runner(path)
    except TmdeployError as error:
        print(error)
"""
    from tests.export.exporting import save_tiny
    from tests.vits import tiny_vit
    from tmdeploy import patch
    from tmdeploy.export import ExportRequest, export_checkpoint

    checkpoint = save_tiny(patch(tiny_vit(depth=1), "tome", r=8), tmp_path)
    output = tmp_path / "tiny.onnx"
    export_checkpoint(ExportRequest(checkpoint=checkpoint, output=output, verify=False))
    done = _in_old(unpacked_wheel(f"onnxruntime=={VERSIONS[0]}", _LOUD), sys.executable, "-c", program, output)
    assert done.returncode == 0, done.stderr
    empty, few, newer = done.stdout.splitlines()
    assert "was given a batch without images" in empty
    assert "takes 2 of the 3 outputs of TokenMatch, on which ONNX Runtime 1.20.1 crashes" in few
    assert "pip install --upgrade onnxruntime" in few
    assert "is of opset 23, and ONNX Runtime 1.20.1 reads up to opset 21. Install ONNX Runtime 1.23 or later" in newer


@pytest.mark.parametrize("opset", [18, 23])
def test_inspect_says_which_version_a_file_needs(opset: int, tmp_path: Path):
    import onnx
    from onnx import TensorProto, helper

    from tmdeploy.inspection import inspect_onnx

    value = helper.make_tensor_value_info("images", TensorProto.FLOAT, [1, 3, 8, 8])
    graph = helper.make_graph(
        [helper.make_node("Relu", ["images"], ["out"])],
        "g",
        [value],
        [helper.make_tensor_value_info("out", TensorProto.FLOAT, None)],
    )
    path = tmp_path / "one.onnx"
    onnx.save(helper.make_model(graph, opset_imports=[helper.make_opsetid("", opset)], ir_version=10), path)
    assert inspect_onnx(path).oldest_onnxruntime == {18: "1.20", 23: "1.23"}[opset]
