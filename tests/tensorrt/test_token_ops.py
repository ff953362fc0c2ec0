"""Which way the token ops go into an engine of full TensorRT. On stand-ins (fake_builder.py): it cannot run in CI."""

from __future__ import annotations

import functools
import re
from collections.abc import Callable
from pathlib import Path

import onnx
import pytest

from tests.tensorrt.conftest import Exported
from tests.tensorrt.fake_builder import FakeBuilding, FakePlugins
from tmdeploy.errors import EnvironmentMissing, ExportError, UnsupportedModel, UsageError
from tmdeploy.graph import mark_aot_plugins
from tmdeploy.native.trust import write_checksum
from tmdeploy.report.console import PlainConsole
from tmdeploy.report.tables.engine import engine_table
from tmdeploy.system.files import sha256
from tmdeploy.tensorrt.build import run as building
from tmdeploy.tensorrt.build import token_ops
from tmdeploy.tensorrt.build.request import BuildRequest
from tmdeploy.tensorrt.build.run import build_engine
from tmdeploy.tensorrt.cuda.gpu import Gpu
from tmdeploy.tensorrt.plugin import PtxLibrary
from tmdeploy.tensorrt.plugin.operators import NAMESPACE, PLUGIN_OPS
from tmdeploy.tensorrt.plugin.ptx import OPS
from tmdeploy.tensorrt.record.sidecar import EngineRecord, Options, Vehicle, read_sidecar

GPU = Gpu(0, "NVIDIA L4", (8, 9), 24 << 30)
Build = Callable[..., EngineRecord]


@pytest.fixture
def ptx(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A folder with PTX, which is read only when TensorRT asks for a kernel."""
    folder = tmp_path / "ptx"
    folder.mkdir()
    for op in OPS:
        (folder / f"{op}.compute_75.ptx").write_text("")
    monkeypatch.setattr(token_ops, "PtxLibrary", functools.partial(PtxLibrary, folder))
    return folder


@pytest.fixture
def library(tmp_path: Path) -> Path:
    path = tmp_path / "libtmdeploy_trt.so"
    path.write_bytes(b"a library")
    write_checksum(path)
    return path


@pytest.fixture
def build(ptx: Path, exported: Exported, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Build:
    monkeypatch.setattr(building, "find_gpu", lambda _: GPU)

    def run(module: FakeBuilding, method: str = "tome", **options: object) -> EngineRecord:
        model = exported(method)  # before torch finds the stand-in
        monkeypatch.setitem(__import__("sys").modules, "tensorrt", module)
        monkeypatch.setitem(__import__("sys").modules, "tensorrt.plugin", module.plugins)
        folder = tmp_path / "out"
        folder.mkdir(exist_ok=True)
        request = BuildRequest(
            model, folder / "tiny.plan", flavor="tensorrt", timing_cache=tmp_path / "t.cache", **options
        )
        record = build_engine(request).record
        assert read_sidecar(request.output) == record
        return record

    return run


def _about_plugins(record: EngineRecord) -> list[str]:
    return [note for note in record.notes if "function bodies" in note]


def _shown(record: EngineRecord) -> str:
    console = PlainConsole(width=200)
    with console.capture() as capture:
        console.print(engine_table(Path("tiny.plan"), record, title="t"))
    return capture.get()


@pytest.mark.parametrize("plugins", ["auto", "aot"])
@pytest.mark.parametrize("method", ["tome", "evit", "topk", "mstm"])
def test_ahead_of_time_plugins_are_the_default(plugins: str, method: str, build: Build):
    module = FakeBuilding(FakePlugins())
    record = build(module, method, plugins=plugins)
    assert (record.vehicle, record.lowering, record.plugin) == (Vehicle.AOT, "plugin", None)
    assert _about_plugins(record) == []
    assert "ahead-of-time plugins, in the engine" in _shown(record)
    assert module.plugins is not None
    assert module.plugins.registered == {op.plugin_id: ["register", "autotune", "aot_impl"] for op in PLUGIN_OPS}
    marked = [node for node in module.parsed.graph.node if node.op_type in {op.name for op in PLUGIN_OPS}]
    assert len(marked) >= 2
    assert all(any(a.s == NAMESPACE.encode() for a in node.attribute) for node in marked)
    assert not module.parsed.functions  # nothing to fall back to


def _standard(module: FakeBuilding, record: EngineRecord) -> None:
    assert (record.vehicle, record.lowering, record.plugin) == (Vehicle.NONE, "portable", None)
    assert {node.domain for node in module.parsed.graph.node} == {""}
    assert "standard ops (portable lowering)" in _shown(record)


def _no_ptx(folder: Path, module: FakeBuilding) -> None:
    (folder / "select.compute_75.ptx").unlink()


def _new_ptx(folder: Path, module: FakeBuilding) -> None:
    for op in OPS:
        (folder / f"{op}.compute_75.ptx").rename(folder / f"{op}.compute_90.ptx")


def _old_tensorrt(folder: Path, module: FakeBuilding) -> None:
    del module.QuickPluginCreationRequest


def _changed_interface(folder: Path, module: FakeBuilding) -> None:
    assert module.plugins is not None
    module.plugins.broken = True


REASONS = [
    (_no_ptx, "the CUDA kernels' PTX is not part of this installation .* scripts/build_ptx.py"),
    (_new_ptx, "the GPU's compute capability 8.9 is older than the kernels' PTX"),
    (_old_tensorrt, "this TensorRT has no ahead-of-time Python plugins. Use TensorRT 10.9 or newer"),
    (_changed_interface, r"this TensorRT does not take the plugins \(TypeError: register\(\) takes 3 arguments\)"),
]


@pytest.mark.parametrize(("spoil", "reason"), REASONS)
def test_standard_ops_and_why(spoil: Callable[[Path, FakeBuilding], None], reason: str, build: Build, ptx: Path):
    module = FakeBuilding(FakePlugins())
    spoil(ptx, module)
    record = build(module)
    _standard(module, record)
    (note,) = _about_plugins(record)
    with pytest.raises(EnvironmentMissing, match=reason):
        build(module, plugins="aot")
    assert note.startswith("built from the function bodies (portable lowering), without plugins: ")
    assert re.search(reason, note)


def test_a_node_without_a_plugin_leaves_the_graph_as_it_was(build: Build, monkeypatch: pytest.MonkeyPatch):
    def refuse(node: onnx.NodeProto) -> None:
        if node.op_type == "TokenReduce":  # after a TokenMatch, which was marked
            raise UnsupportedModel("no TensorRT plugin for TokenPaint")
        mark(node)

    mark = mark_aot_plugins._mark
    monkeypatch.setattr(mark_aot_plugins, "_mark", refuse)
    module = FakeBuilding(FakePlugins())
    record = build(module)
    _standard(module, record)
    assert _about_plugins(record)[0].endswith("without plugins: no TensorRT plugin for TokenPaint")
    assert not any(a.name == "plugin_namespace" for node in module.parsed.graph.node for a in node.attribute)
    with pytest.raises(UnsupportedModel, match="TokenPaint"):
        build(module, plugins="aot")


def test_none_builds_standard_ops_without_a_word(build: Build):
    module = FakeBuilding(FakePlugins())
    record = build(module, plugins="none")
    _standard(module, record)
    assert _about_plugins(record) == []
    assert module.plugins is not None
    assert module.plugins.registered == {}


def test_a_model_without_token_ops_needs_no_plugins(build: Build, ptx: Path):
    module = FakeBuilding(FakePlugins())
    _no_ptx(ptx, module)
    for plugins in ("auto", "aot"):
        record = build(module, "none", plugins=plugins)
        assert (record.vehicle, _about_plugins(record)) == (Vehicle.NONE, [])


@pytest.mark.parametrize("embed", [False, True])
def test_the_library_that_is_named_comes_first(embed: bool, build: Build, library: Path):
    module = FakeBuilding(FakePlugins())
    record = build(module, plugin=library, embed_plugin=embed)
    assert (record.vehicle, record.lowering) == (Vehicle.LIBRARY, "plugin")
    assert record.plugin is not None
    assert (record.plugin.sha256, record.plugin.embedded) == (sha256(library), embed)
    assert module.libraries == [str(library)]
    assert module.embedded == ([str(library)] if embed else [])
    assert module.plugins is not None
    assert module.plugins.registered == {}
    assert [n.op_type for n in module.parsed.graph.node if n.domain] == ["TokenMatch", "TokenReduce"] * 2


@pytest.mark.parametrize(
    ("forgets", "named", "remedy"),
    [
        ("TokenMatchAot", False, "Build standard ops with --plugins none"),
        ("TokenReduce", True, "Build the plugin library against this TensorRT, or leave out --plugin"),
    ],
)
def test_a_layer_that_is_no_plugin_stops_the_build(
    forgets: str, named: bool, remedy: str, build: Build, library: Path, tmp_path: Path
):
    module = FakeBuilding(FakePlugins(), forgets=forgets)
    with pytest.raises(
        ExportError, match=r"2 of 4 token nodes did not become plugin layers, the first is block0/.*" + remedy
    ):
        build(module, plugin=library if named else None)
    assert list((tmp_path / "out").iterdir()) == []


def test_a_parser_that_does_not_find_the_plugins(build: Build, monkeypatch: pytest.MonkeyPatch):
    monkeypatch.setattr(FakeBuilding, "knows", lambda *_: False)
    with pytest.raises(ExportError, match=r"TensorRT 11\.4.* refuses the graph .*--plugins none"):
        build(FakeBuilding(FakePlugins()))


def test_the_sidecar_lists_plugin_layers_and_where_they_come_from(build: Build, library: Path, ptx: Path):
    record = build(FakeBuilding(FakePlugins()))
    creators = {"TokenMatch": "TokenMatchAot", "TokenReduce": "TokenReduceWeightedAot"}
    assert [(layer.node, layer.creator) for layer in record.plugin_layers] == [
        (f"block{block}/{op}", creator) for block in (0, 1) for op, creator in creators.items()
    ]
    assert {(layer.version, layer.namespace) for layer in record.plugin_layers} == {("1", NAMESPACE)}
    assert {file.file for file in record.ptx} == {f"{op}.compute_75.ptx" for op in OPS}
    assert {file.architecture for file in record.ptx} == {"compute_75"}
    assert record.ptx[0].sha256 == sha256(ptx / record.ptx[0].file)
    record = build(FakeBuilding(FakePlugins()), plugin=library)
    assert {(layer.creator, layer.version, layer.namespace) for layer in record.plugin_layers} == {
        ("TokenMatch", "1", "tmdeploy"),
        ("TokenReduce", "1", "tmdeploy"),
    }
    assert record.ptx == ()
    assert build(FakeBuilding(FakePlugins()), plugins="none").plugin_layers == ()


COMPATIBLE = Options(version_compatible=True)


def test_version_compatible_engines_have_no_ahead_of_time_plugins_unasked(build: Build):
    module = FakeBuilding(FakePlugins())
    record = build(module, options=COMPATIBLE)
    _standard(module, record)
    assert "VERSION_COMPATIBLE" in module.flags
    (note,) = _about_plugins(record)
    assert "NVIDIA does not say that ahead-of-time plugins run on later versions" in note
    record = build(module, options=COMPATIBLE, plugins="aot")
    assert record.vehicle is Vehicle.AOT
    assert any("--version-compatible with ahead-of-time plugins" in note for note in record.notes)


@pytest.mark.parametrize("embed", [False, True])
def test_a_version_compatible_engine_with_a_library(embed: bool, build: Build, library: Path):
    record = build(FakeBuilding(FakePlugins()), options=COMPATIBLE, plugin=library, embed_plugin=embed)
    assert record.vehicle is Vehicle.LIBRARY
    assert any("on later versions, too, the engine needs libtmdeploy_trt.so" in n for n in record.notes) is not embed


@pytest.mark.parametrize("option", ["strip_weights", "refittable"])
def test_a_lean_runtime_cannot_refit(option: str, build: Build):
    with pytest.raises(UsageError, match=f"--version-compatible and --{option.replace('_', '-')} exclude each other"):
        build(FakeBuilding(FakePlugins()), options=Options(version_compatible=True, **{option: True}))


@pytest.mark.parametrize(
    ("options", "flags"),
    [
        (Options(), set()),
        (Options(strip_weights=True), {"STRIP_PLAN"}),
        (Options(refittable=True), {"REFIT"}),
        (Options(strip_weights=True, refittable=True), {"STRIP_PLAN", "REFIT"}),
    ],
)
def test_flags_of_refitting(options: Options, flags: set[str], build: Build):
    module = FakeBuilding(FakePlugins())
    record = build(module, options=options)
    assert module.flags == flags
    assert record.stripped is options.strip_weights
    assert record.graph_sha256 is not None


def test_options_that_exclude_each_other(build: Build, library: Path):
    module = FakeBuilding(FakePlugins())
    for plugins in ("aot", "none"):
        with pytest.raises(UsageError, match=f"--plugins {plugins} and --plugin exclude each other"):
            build(module, plugins=plugins, plugin=library)
    with pytest.raises(UsageError, match="--plugins jit: choose from auto, aot, none"):
        build(module, plugins="jit")


@pytest.mark.parametrize(
    ("hardware", "capability", "wanted"), [("none", (8, 9), 89), ("ampere+", (8, 9), 80), ("ampere+", (7, 5), 75)]
)
def test_the_ptx_suits_every_gpu_of_the_engine(
    hardware: str, capability: tuple[int, int], wanted: int, build: Build, monkeypatch: pytest.MonkeyPatch
):
    chosen: list[tuple[int, int] | None] = []

    def remember(capability: tuple[int, int] | None) -> None:
        chosen.append(capability)
        raise EnvironmentMissing("stop here")

    monkeypatch.setattr(token_ops, "PtxLibrary", remember)
    monkeypatch.setattr(building, "find_gpu", lambda _: Gpu(0, "a GPU", capability, 1 << 30))
    build(FakeBuilding(FakePlugins()), options=Options(hardware_compatible=hardware))
    assert chosen == [(wanted // 10, wanted % 10)]
