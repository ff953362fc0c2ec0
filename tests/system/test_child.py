"""No command runs Python code of the directory it is called in: neither itself nor in the processes it starts."""

from __future__ import annotations

import ast
import json
import os
import subprocess
import sys
from pathlib import Path

import pytest

import tmdeploy
from tests.cli.running import run
from tmdeploy.native import build, openvino, tensorrt, tensorrt_headers
from tmdeploy.system import child
from tmdeploy.system.child import last_words, run_python

ROOT = Path(tmdeploy.__file__).parent
NAMES = (
    *("numpy", "onnx", "onnxruntime", "openvino", "torch", "PIL", "psutil", "pydantic", "rich", "typer", "pip"),
    *("tmdeploy", "tmdeploy_cli", "cli", "json", "subprocess", "runpy", "ctypes", "sitecustomize", "usercustomize"),
)


@pytest.fixture
def planted(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """The current directory, with modules that leave a trace where they are imported."""
    folder = tmp_path / "downloads"
    folder.mkdir()
    for name in NAMES:
        code = f"open({str(tmp_path / 'ran')!r}, 'a').write({name!r} + chr(10))\nraise SystemExit('planted')\n"
        (folder / f"{name}.py").write_text(code)
    monkeypatch.chdir(folder)
    monkeypatch.delenv("PYTHONPATH", raising=False)
    return folder


def ran(planted: Path) -> str:
    """Names of the modules that ran."""
    trace = planted.parent / "ran"
    return trace.read_text() if trace.exists() else ""


def test_the_plant_works(planted: Path):
    subprocess.run([sys.executable, "-c", "import numpy"], capture_output=True, check=False)
    assert ran(planted) == "numpy\n"


def test_bench_measures_memory(planted: Path, digits_onnx: Path, capsys: pytest.CaptureFixture[str]):
    fast = ("--duration", "0.01s", "--warm-up", "0s", "--rounds", 3, "--iterations", 1, "--no-twin")
    done = run(capsys, "bench", digits_onnx, *fast, "--json", "-")
    assert done.code == 0, done.err
    assert json.loads(done.out)["models"][0]["peak_mib"] > 0
    assert ran(planted) == ""


def test_doctor_and_plugins_list_try_libraries(
    planted: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
):
    monkeypatch.delenv("TMDEPLOY_NATIVE", raising=False)
    tried = []

    def recorded(code: str, *arguments: str, timeout: float | None = None) -> subprocess.CompletedProcess[str]:
        done = run_python(code, *arguments, timeout=timeout)
        tried.append((code, last_words(done)))
        return done

    for module in (build, openvino):  # tensorrt's goes through build's
        monkeypatch.setattr(module, "run_python", recorded)
    for problem in (build.load_problem, openvino.openvino_problem, tensorrt.tensorrt_problem):
        assert problem(tmp_path / "no_library.so")
    assert len(tried) == 3
    assert [words for _, words in tried if "planted" in words] == []
    assert all("no_library.so" in words for _, words in tried)
    assert run(capsys, "doctor").code == 0
    assert run(capsys, "plugins", "list").code == 0
    assert ran(planted) == ""


def test_pip_downloads_headers(planted: Path, monkeypatch: pytest.MonkeyPatch):
    done = run_python(tensorrt_headers._PIP, "--version")
    assert (done.returncode, done.stdout.startswith("pip ")) == (0, True), done.stderr
    assert ran(planted) == ""


def test_the_way_before_python_311(planted: Path, monkeypatch: pytest.MonkeyPatch):
    """Without -P, on whatever Python this is: the code that cleans the path is the same."""
    old = [sys.executable, "-c", child._clean(False) + child._HOME + "import numpy, tmdeploy; print(numpy.pi)"]
    done = subprocess.run(old, capture_output=True, text=True, check=False)
    assert (done.returncode, done.stdout[:4]) == (0, "3.14"), done.stderr
    safe = subprocess.run(old, capture_output=True, text=True, check=False, env={**os.environ, "PYTHONSAFEPATH": "1"})
    assert safe.returncode == 0, safe.stderr
    assert ran(planted) == ""


def test_pythonpath_and_a_tmdeploy_that_is_not_installed_hold(tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    (tmp_path / "theirs").mkdir()
    (tmp_path / "theirs" / "of_theirs.py").write_text("")
    monkeypatch.setenv("PYTHONPATH", str(tmp_path / "theirs"))
    assert run_python("import of_theirs").returncode == 0
    monkeypatch.setattr(child, "_HOME", f"import sys; sys.path.append({str(tmp_path / 'home')!r})\n")
    (tmp_path / "home").mkdir()
    (tmp_path / "home" / "only_there.py").write_text("")
    assert run_python("import only_there").returncode == 0


def test_a_failure_says_how_it_ended():
    assert last_words(run_python("raise ValueError('this one')")) == "ValueError: this one"
    assert last_words(run_python("import os; os._exit(7)")) == "exit code 7"


def test_nothing_else_starts_a_python():
    starters = {}
    for path in [*ROOT.rglob("*.py"), *(ROOT.parent / "cli").glob("*.py")]:
        used = {
            ast.unparse(node)
            for node in ast.walk(ast.parse(path.read_text()))
            if isinstance(node, ast.Attribute | ast.Name | ast.alias)
            and (
                ast.unparse(node) in {"sys.executable", "multiprocessing", "runpy"}
                or "ProcessPool" in ast.unparse(node)
            )
        }
        if used:
            starters[path.relative_to(ROOT.parent).as_posix()] = used
    assert starters.pop("tmdeploy/system/child.py") == {"sys.executable"}
    assert starters == {"tmdeploy/doctor.py": {"sys.executable"}}  # doctor shows it
