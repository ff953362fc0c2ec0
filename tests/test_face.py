"""The public face: every verb from Python, on the example, and the commands made of them."""

from __future__ import annotations

import inspect
import json
import subprocess
import sys
from pathlib import Path

import pytest
from tmdeploy_cli.app import COMMANDS, build_app
from tmdeploy_cli.command import parameters_of
from tmdeploy_cli.options import OPTIONS, PROCESS
from typer.main import get_command

import tmdeploy
from tests.cli.running import run
from tests.cli.test_main import BLOCK_TORCH
from tests.conftest import EXAMPLES
from tmdeploy.errors import ArtifactError, UsageError
from tmdeploy.export.request import ExportRequest, FileForm
from tmdeploy.quantize.request import QuantizeRequest
from tmdeploy.report.schemas.document import Result
from tmdeploy.tensorrt.build.request import BuildRequest
from tmdeploy.tensorrt.record.sidecar import Options

CHECKPOINT, DIGITS = EXAMPLES / "digits_tome.pt", EXAMPLES / "digits"
PHOTO = DIGITS / "3_0.png"
QUICK = {"duration": 0.05, "rounds": 3, "iterations": 3, "memory": False, "threads": 1}
VERBS = ("bench", "build", "export", "infer", "inspect", "quantize", "refit", "validate", "visualize")
# What a command has beside its verb's parameters, and what only Python can give.
CLI_ONLY = {"json", *PROCESS, "bench.engine", "quantize.int8", "quantize.fp8", "infer.csv", "inspect.layers"}
PYTHON_ONLY = {
    *("progress", "quantize.scheme"),
    *("export.preprocessing", "export.class_names", "export.name"),  # of modules
}


def _same(result: Result, written: Path, *, apart_from: tuple[str, ...] = ()) -> None:
    """`--json` wrote what `to_json` gives."""
    ours, theirs = json.loads(result.to_json()), json.loads(written.read_text())
    assert list(ours) == list(theirs)
    for name in apart_from:
        assert ours.pop(name) is not None
        del theirs[name]
    assert ours == theirs


def test_export(tmp_path: Path, capsys: pytest.CaptureFixture[str]):
    told: list[str] = []
    made = tmp_path / "m.onnx"
    result = tmdeploy.export(
        str(CHECKPOINT),
        made,
        r=8,
        runtime_r=False,
        verify_data=PHOTO,
        progress=lambda text, share=None: told.append(text),
    )
    assert (result.path, result.metadata.schedule_input) == (made, None)
    assert result.metadata.card.reduction.amounts == (8,) * 6
    assert result.verification is not None
    assert result.verification.passed
    assert "comparing with PyTorch" in told
    made.unlink()
    arguments = ("--r", 8, "--static-r", "--verify-data", PHOTO, "--json", tmp_path / "x.json")
    assert run(capsys, "export", CHECKPOINT, "-o", made, *arguments).code == 0
    _same(result, tmp_path / "x.json")


def test_what_is_for_checkpoints_is_refused_for_modules_and_the_other_way_round(tmp_path: Path):
    from tests.vits import tiny_vit

    module = tmdeploy.patch(tiny_vit(), "tome", r=2)
    for option in ({"r": 3}, {"method": "evit"}, {"deterministic": False}, {"arch": "deit"}, {"against": "timm:x"}):
        with pytest.raises(UsageError, match=f"{next(iter(option))} is not for a module: pass it to tmdeploy.patch"):
            tmdeploy.export(module, tmp_path / "m.onnx", **option)
    with pytest.raises(UsageError, match=r"a module has no file name\. Name the \.onnx to write"):
        tmdeploy.export(module)
    with pytest.raises(UsageError, match="name is not for a checkpoint"):
        tmdeploy.export(CHECKPOINT, tmp_path / "m.onnx", name="mine")
    assert not list(tmp_path.iterdir())


def test_infer(digits_onnx: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]):
    found = tmdeploy.infer(str(digits_onnx), [PHOTO], top_k=2, r=[4] * 6)
    assert [guess.name for guess in found.images[0].top] == ["3", "5"]
    arguments = ("--top-k", 2, "--r", "4,4,4,4,4,4", "--json", tmp_path / "x.json")
    assert run(capsys, "infer", digits_onnx, PHOTO, *arguments).code == 0
    _same(found, tmp_path / "x.json")
    names = [f"digit {number}" for number in range(10)]
    assert tmdeploy.infer(CHECKPOINT, PHOTO, class_names=names, threads=1).images[0].top[0].name == "digit 3"


def test_validate(digits_onnx: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]):
    report = tmdeploy.validate(CHECKPOINT, digits_onnx, data=[PHOTO, DIGITS / "4_0.png"], batch=2, r=["8", "4"])
    assert report.passed
    assert report.schedules == ((8,) * 6, (4,) * 6)
    arguments = ("--data", PHOTO, "--data", DIGITS / "4_0.png", "--batch", 2, "--r", 8, "--r", 4)
    assert run(capsys, "validate", CHECKPOINT, digits_onnx, *arguments, "--json", tmp_path / "x.json").code == 0
    _same(report, tmp_path / "x.json")
    judged = tmdeploy.validate(CHECKPOINT, digits_onnx, random=2, batch=1, atol=0.0)
    assert not judged.passed  # a report, and no exception


def test_bench(digits_onnx: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]):
    report = tmdeploy.bench([digits_onnx], batch=[1, 2], warm_up=0.0, twin=False, **QUICK)
    assert [(arm.batch, arm.amounts) for arm in report.arms] == [(1, "r=8"), (2, "r=8")]
    flags = ("--no-twin", "--no-memory", "--warm-up", "0s", "--duration", "50ms", "--rounds", 3, "--iterations", 3)
    done = run(capsys, "bench", digits_onnx, "--batch", "1,2", *flags, "--threads", 1, "--json", tmp_path / "x.json")
    assert done.code == 0, done.err
    _same(report, tmp_path / "x.json", apart_from=("arms", "warnings", "machine"))  # measured, or of this moment


def test_quantize(digits_onnx: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]):
    made, options = tmp_path / "q.onnx", {"images": 4, "eval_images": 4, "keep_float": ["+head"]}
    report = tmdeploy.quantize(digits_onnx, made, scheme="int8", data=[str(DIGITS)], **options)
    assert (report.written, made.is_file(), report.record.scheme) == (True, True, "int8")
    arguments = ("--int8", "-o", made, "--data", DIGITS, "--images", 4, "--eval-images", 4, "--keep-float", "+head")
    assert run(capsys, "quantize", digits_onnx, *arguments, "--json", tmp_path / "x.json").code == 0
    _same(report, tmp_path / "x.json", apart_from=("calibration_seconds",))


def test_inspect_and_visualize(digits_onnx: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]):
    found = tmdeploy.inspect(digits_onnx)
    assert run(capsys, "inspect", digits_onnx, "--json", tmp_path / "x.json").code == 0
    _same(found, tmp_path / "x.json")
    drawn = tmdeploy.visualize(digits_onnx, PHOTO, tmp_path / "g.png", block=[0, 5])
    assert [panel.block for panel in drawn.drawings[0].blocks] == [0, 5]
    arguments = ("-o", tmp_path / "g.png", "--block", 0, "--block", 5, "--json", tmp_path / "y.json")
    assert run(capsys, "visualize", digits_onnx, PHOTO, *arguments).code == 0
    _same(drawn, tmp_path / "y.json")


def test_open_runner(digits_onnx: Path):
    with tmdeploy.open_runner(str(digits_onnx), threads=1) as runner:
        assert runner.facts.backend == "onnxruntime"
    with pytest.raises(ArtifactError, match="no such file"):
        tmdeploy.open_runner("gone.onnx")


@pytest.mark.parametrize("verb", VERBS)
def test_a_command_has_its_verbs_options_and_defaults(verb: str):
    """Names, in the verb's order, and defaults; what only one of the two has is listed above."""
    declared = dict(parameters_of(getattr(tmdeploy, verb), verb))
    python = inspect.signature(getattr(tmdeploy, verb)).parameters
    ours = {name for name, one in python.items() if one.kind is not inspect.Parameter.VAR_KEYWORD}
    assert ours - set(declared) == {name for name in ours if {name, f"{verb}.{name}"} & PYTHON_ONLY}
    command = get_command(build_app()).commands[verb]  # type: ignore[attr-defined]
    typed = {parameter.name: parameter for parameter in command.params if parameter.name != "help"}
    assert {name for name in set(typed) - set(declared) if not {name, f"{verb}.{name}"} & CLI_ONLY} == set()
    assert set(declared) <= set(typed)
    for name, default in declared.items():
        shown, option = typed[name].default, OPTIONS.get(f"{verb}.{name}") or OPTIONS[name]
        if default is inspect.Parameter.empty:
            assert typed[name].param_type_name == "argument"
        elif default in (None, (), ""):
            assert shown is None, name
        else:
            read = option.read or (lambda value: value)
            assert read(shown) == (Path(default) if isinstance(shown, Path) else default), name


@pytest.mark.parametrize("group", [("arch", "num_heads", "assume", "image_size", "ema", "ignore_extra"), ("json",)])
def test_options_for_every_model_are_the_same_in_every_command(group: tuple[str, ...]):
    app = get_command(build_app())
    readers = ("export", "build", "validate", "bench", "infer", "inspect", "visualize")
    for name in group:
        commands = readers if name != "json" else COMMANDS
        found = [next(one for one in app.commands[command].params if one.name == name) for command in commands]  # type: ignore[attr-defined]
        assert len({(tuple(one.opts), one.help, one.metavar, one.default) for one in found}) == 1, name


@pytest.mark.parametrize(
    ("verb", "requests", "renamed"),
    [
        (
            "export",
            (FileForm, ExportRequest),
            {"runtime_schedule": "runtime_r", "outputs": "extra_output", "verify_images": "verify_data"},
        ),
        ("quantize", (QuantizeRequest,), {}),
        ("build", (BuildRequest, Options), {"workspace_mib": "workspace"}),
    ],
)
def test_what_verbs_pass_on_has_no_other_defaults(verb: str, requests: tuple[type, ...], renamed: dict[str, str]):
    ours = {name: one.default for name, one in inspect.signature(getattr(tmdeploy, verb)).parameters.items()}
    compared = 0
    for request in requests:
        for name, one in inspect.signature(request).parameters.items():
            default = ours.get(renamed.get(name, name), inspect.Parameter.empty)
            if inspect.Parameter.empty not in (default, one.default) and not (default is None and one.default):
                assert default == one.default, name
                compared += 1
    assert compared >= 9


def test_every_option_is_used():
    app = get_command(build_app())
    typed = {(verb, one.name) for verb in VERBS for one in app.commands[verb].params}  # type: ignore[attr-defined]
    used = {f"{verb}.{name}" if f"{verb}.{name}" in OPTIONS else name for verb, name in typed}
    assert set(OPTIONS) - used == set()


def test_every_name_is_there_and_documented():
    for name in tmdeploy.__all__:
        assert getattr(tmdeploy, name)
    for verb in VERBS:
        documented = inspect.getdoc(inspect.unwrap(getattr(tmdeploy, verb))) or ""
        for parameter in inspect.signature(getattr(tmdeploy, verb)).parameters:
            assert f"\n    {parameter}: " in documented, (verb, parameter)
    assert set(tmdeploy.__all__) <= set(dir(tmdeploy))
    with pytest.raises(AttributeError, match="has no attribute 'exprot'"):
        tmdeploy.exprot  # noqa: B018


def _python(code: str) -> subprocess.CompletedProcess[str]:
    return subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, timeout=120, check=False)


def test_verbs_on_an_onnx_file_need_no_torch(digits_onnx: Path, tmp_path: Path):
    code = f"""
import tmdeploy
model, photo = {str(digits_onnx)!r}, {str(PHOTO)!r}
tmdeploy.inspect(model)
tmdeploy.infer(model, photo)
tmdeploy.visualize(model, photo, {str(tmp_path / "g.png")!r})
tmdeploy.validate(model, model, random=2, batch=2)
tmdeploy.bench(model, batch=1, duration=0.01, warm_up=0.0, rounds=3, iterations=3, memory=False)
try:
    tmdeploy.export({str(CHECKPOINT)!r}, {str(tmp_path / "m.onnx")!r})
except tmdeploy.TmdeployError as error:
    print(error)
"""
    done = _python(BLOCK_TORCH + code)
    assert done.returncode == 0, done.stderr
    assert done.stdout.startswith("exporting a checkpoint needs the Python package 'torch'.")


def test_importing_loads_next_to_nothing():
    done = _python(
        "import sys, tmdeploy; print([name for name in sys.modules if name in {'numpy', 'onnx', 'torch', 'typer'}])"
    )
    assert done.stdout == "[]\n", done.stderr


TYPED = """
from pathlib import Path
from tmdeploy import bench, build, export, infer, load_card, open_runner, quantize, validate
from tmdeploy.system.progress import Progress

def show(text: str, share: float | None = None, /) -> None: ...

progress: Progress = show
reveal_type(bench(["m.onnx"], batch=[1, 8], progress=show))
reveal_type(export("m.pt", Path("m.onnx"), method="tome", r=13, arch="deit", trust_checkpoint=True))
reveal_type(build("m.onnx", "m.plan", precision="fp16", flavor="rtx", ema=True))
reveal_type(quantize("m.onnx", scheme="int8", data=["photos"]))
reveal_type(validate("m.pt", "m.onnx", data=[Path("photos")], num_heads=3))
reveal_type(infer("m.onnx", ["a.jpg"], top_k=5).images[0].top[0].name)
reveal_type(open_runner("m.onnx"))
reveal_type(load_card("m.onnx", arch="deit"))
infer("m.onnx", "a.jpg", ema="yes")
bench("m.onnx", device=1)
"""


def test_it_is_typed(tmp_path: Path):
    script = tmp_path / "typed.py"
    script.write_text(TYPED)
    root = Path(tmdeploy.__file__).parent.parent
    command = [sys.executable, "-m", "mypy", "--strict", "--no-error-summary", "--config-file", root / "pyproject.toml"]
    done = subprocess.run([*command, script], capture_output=True, text=True, cwd=root, timeout=600, check=False)
    lines = done.stdout.splitlines()
    for number, kind in enumerate(
        (
            "BenchReport",
            "ExportResult",
            "BuildResult",
            "QuantizeReport",
            "ValidationReport",
            "str",
            "Runner",
            "ModelCard | None",
        )
    ):
        assert lines[number].rstrip('"').endswith(kind), done.stdout
    assert "ema" in lines[8]
    assert 'Argument "device"' in lines[9]
