"""What `inspect` makes of a loaded engine's answers. On stand-ins (fake_inspection.py): no engine is loaded in CI."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from tests.tensorrt.engines import engine_file, full_bytes
from tests.tensorrt.fake_inspection import NODES, FakeInspection, detailed_json
from tests.tensorrt.fakes import FakeCuda
from tmdeploy.errors import ArtifactError, EnvironmentMissing, UsageError
from tmdeploy.report.console import PlainConsole
from tmdeploy.report.tables.layers import print_layers, print_times
from tmdeploy.tensorrt.cuda import device
from tmdeploy.tensorrt.cuda.gpu import Gpu
from tmdeploy.tensorrt.explain import document
from tmdeploy.tensorrt.explain.document import EngineInspection, TimesRequest, inspect_engine
from tmdeploy.tensorrt.explain.loaded import read_inspector
from tmdeploy.tensorrt.record.layers import LayerFile, Listing, Operand, write_layers
from tmdeploy.tensorrt.record.profiles import BatchRange, ScheduleRange
from tmdeploy.tensorrt.record.sidecar import EngineRecord, Options, PluginLayer, PtxRecord, Tensor, Vehicle
from tmdeploy.tensorrt.run import compatibility
from tmdeploy.tensorrt.run.compatibility import Fit, read_engine
from tmdeploy.tensorrt.run.trust import TRUST_VARIABLE, trust_engines
from tmdeploy.tensorrt.sdk.flavor import Flavor, Toolkit

GPU = Gpu(0, "NVIDIA L4", (8, 9), 24 << 30)
PROFILES = (BatchRange(min=1, opt=2, max=3), BatchRange(min=4, opt=8, max=16))
RANGE = ScheduleRange(kind="r", min=(0, 0), opt=(4, 4), max=(8, 8), fewest_tokens=(9, 9), most_tokens=(65, 65))
IMAGES = Tensor(name="images", type="float", shape=(-1, 3, 4, 4))
R = Tensor(name="r", type="int64", shape=(2,), shape_input=True)


def _engine(folder: Path, *, ranged: bool = False, **changes: object) -> Path:
    return engine_file(
        folder,
        full_bytes(),
        profiles=PROFILES,
        inputs=(IMAGES, R) if ranged else (IMAGES,),
        outputs=(Tensor(name="logits", type="float", shape=(-1, 2)),),
        schedule=RANGE if ranged else None,
        **changes,
    )


def _fits(monkeypatch: pytest.MonkeyPatch, module: FakeInspection) -> None:
    """As if this machine had the GPU and the TensorRT."""

    def fit(path: Path) -> Fit:
        return Fit(read_engine(path), Toolkit(Flavor.TENSORRT, module, "11.4.0.106"), GPU, None)

    monkeypatch.setattr(document, "check_fit", fit)
    monkeypatch.setattr(device, "cuda_runtime", lambda _: module.cuda)


def _stored(engine: Path, roles: dict[str, str]) -> LayerFile:
    layers = read_inspector(json.dumps({"Layers": ["from the log"]}), engine)
    content = LayerFile(
        engine_sha256=read_engine(engine).sha256, listings=(Listing(source="build log", layers=layers),), roles=roles
    )
    write_layers(engine, content)
    return content


def _shown(found: EngineInspection, *, full: bool = False) -> str:
    console = PlainConsole(width=150)
    with console.capture() as capture:
        print_layers(found, console, full=full)
        if found.times is not None:
            print_times(found.times, console, full=full)
    return capture.get()


@pytest.mark.parametrize("ranged", [False, True])
def test_a_loaded_engine_is_asked_for_every_profile(ranged: bool, tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    path = _engine(tmp_path, ranged=ranged)
    _stored(path, {"node_MatMul_1": "attention", "node_MatMul_2": "mlp", "node_conv2d": "embedding"})
    _fits(monkeypatch, FakeInspection(steps=2 if ranged else 0))
    found = inspect_engine(path)
    assert (found.runs_here, found.listings_note) == (True, "")
    assert [(listing.source, listing.profile) for listing in found.listings] == [
        ("engine inspector", 0),
        ("engine inspector", 1),
    ]
    layers = found.listings[1].layers
    assert [layer.nodes for layer in layers] == list(NODES.values())
    assert [layer.kind for layer in layers] == ["embedding", "attention", "step", "mlp", "step"]
    assert layers[3].parts == ("reduce",)
    assert layers[0].outputs == (Operand(type="half", shape=(3, 4)),)
    assert [layer.tactic for layer in layers[:2]] == ["0x7", "fast_1"]
    assert found.loaded is not None
    memory = found.loaded.memory
    assert (memory.activation_bytes, memory.weights_bytes) == ((1 << 20, 2 << 20), 5 << 20)
    assert (found.loaded.aux_streams, found.loaded.profiling_verbosity) == (1, "layer-names-only")
    assert found.loaded.listings == ()  # they are above
    assert found.io[0].ranges[1] == ((2, 3, 4, 4), (3, 3, 4, 4), (4, 3, 4, 4))
    assert found.io[1].ranges == ()
    text = _shown(found)
    for expected in ("from the engine inspector, profile 0 at batch 2", "2.0 MiB (profile 1), by TensorRT", "block 0"):
        assert expected in text
    assert "profile 1 at batch 8" in _shown(found, full=True)
    assert EngineInspection.model_validate_json(found.model_dump_json(by_alias=True)) == found


def test_an_older_tensorrt_does_not_count_weights(tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    _fits(monkeypatch, FakeInspection(old=True))
    found = inspect_engine(_engine(tmp_path))
    assert found.loaded is not None
    assert found.loaded.memory.weights_bytes is None
    assert found.listings[0].layers[1].kind == "linear"  # no listing beside it, so the names alone tell


def test_names_only_and_nothing_are_explained(tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    path = _engine(tmp_path, options=Options(profiling_verbosity="layer-names-only"))
    _fits(monkeypatch, FakeInspection(answer='{"Layers": ["block0/TokenMatch", "a + b"], "Bindings": []}'))
    found = inspect_engine(path)
    assert [layer.nodes for layer in found.listings[0].layers] == [("block0/TokenMatch",), ("a", "b")]
    assert [layer.kind for layer in found.listings[0].layers] == ["step", "other"]
    assert "names only: it was built with --profiling-verbosity layer-names-only" in _shown(found)
    _fits(monkeypatch, FakeInspection(answer='{"Layers": [], "Bindings": []}'))
    found = inspect_engine(_engine(tmp_path, options=Options(profiling_verbosity="none")))
    assert found.listings == ()
    assert "with --profiling-verbosity detailed to have kernels" in _shown(found)


def test_names_from_the_engine_do_not_replace_the_build_log(tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    path = _engine(tmp_path)
    stored = _stored(path, {})
    _fits(monkeypatch, FakeInspection(answer='{"Layers": ["a"]}'))
    assert inspect_engine(path).listings == stored.listings


@pytest.mark.parametrize("answer", ["{", "[]", '{"Layers": [7]}', '{"Layers": [{"LayerType": "kgen"}]}'])
def test_an_answer_that_cannot_be_read_leaves_the_build_log(
    answer: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
):
    path = _engine(tmp_path)
    stored = _stored(path, {})
    _fits(monkeypatch, FakeInspection(answer=answer))
    found = inspect_engine(path)
    assert found.listings == stored.listings
    assert "engine inspector gave an answer that this version cannot read" in found.listings_note


def test_an_engine_that_does_not_load_still_shows_its_sidecar(tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    _fits(monkeypatch, FakeInspection(loads=False))
    found = inspect_engine(_engine(tmp_path))
    assert found.loaded is None
    assert "does not load it (Serialization failed)" in found.listings_note


def test_engines_that_bring_code_need_to_be_trusted(tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    """A version-compatible engine brings its lean runtime; without leave TensorRT refuses it."""
    module = FakeInspection()
    _fits(monkeypatch, module)
    monkeypatch.setenv(TRUST_VARIABLE, "0")  # so that it is put back
    bringing = _engine(tmp_path, options=Options(version_compatible=True))
    found = inspect_engine(bringing)
    assert found.loaded is None
    assert "carries a lean runtime, code that would run as you. If you trust" in found.listings_note
    assert "pass --trust-engine" in found.listings_note
    trust_engines()
    assert inspect_engine(bringing).loaded is not None
    inspect_engine(_engine(tmp_path))
    assert module.trusted == [True, False]


def test_without_a_listing_it_says_where_one_is(tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    def missing(path: Path) -> Fit:
        raise EnvironmentMissing("no GPU")

    monkeypatch.setattr(document, "check_fit", missing)
    path = _engine(tmp_path, kernels={"total": 3, "types": {"kgen": 3}})
    assert "tiny.plan.layers.json is not beside the engine" in inspect_engine(path).listings_note
    assert "the build log did not list them" in inspect_engine(_engine(tmp_path)).listings_note
    with pytest.raises(EnvironmentMissing, match="no GPU"):
        inspect_engine(path, TimesRequest())


def test_a_listing_of_another_engine_is_not_shown(tmp_path: Path):
    path = _engine(tmp_path)
    stored = _stored(path, {})
    write_layers(path, stored.model_copy(update={"engine_sha256": "0" * 64}))
    found = inspect_engine(path)
    assert found.listings == ()
    assert "lists the layers of another engine than tiny.plan. Copy the one" in _shown(found)


def test_plugins_are_listed(tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    node = PluginLayer(node="block0/TokenMatch", creator="TokenMatchAot", version="1", namespace="tmdeploy_aot")
    ptx = PtxRecord(file="match.compute_75.ptx", sha256="ab" * 32, architecture="compute_75")
    path = _engine(
        tmp_path, vehicle=Vehicle.AOT, lowering="plugin", plugin_layers=(node, node.model_copy()), ptx=(ptx,)
    )
    _fits(monkeypatch, FakeInspection())
    text = _shown(inspect_engine(path))
    for expected in ("TokenMatchAot", "tmdeploy_aot", "match.compute_75.ptx, sha256 abababab"):
        assert expected in text


def test_layer_times(tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    """The third of five runs is the median of times that grow by 0.1 ms a run."""
    path = _engine(tmp_path, ranged=True)
    module = FakeInspection(FakeCuda(), steps=2)
    _fits(monkeypatch, module)
    found = inspect_engine(path, TimesRequest(batch=8, schedule=(3,), iterations=5, warm_up=2))
    times = found.times
    assert times is not None
    assert [layer.name for layer in times.layers] == list(NODES)
    assert [layer.median_ms for layer in times.layers] == pytest.approx([1.3, 2.3, 3.3, 4.3, 5.3])
    assert (times.batch, times.schedule, times.iterations, times.warm_up) == (8, (3, 3), 5, 2)
    assert times.total_ms == pytest.approx(16.5)
    assert times.kinds["step"] == pytest.approx(8.6) == times.steps_ms
    assert times.steps_share == pytest.approx(8.6 / 16.5)
    assert [(step.block, step.alone_ms, step.shared_ms) for step in times.steps] == [
        (0, pytest.approx(3.3), pytest.approx(4.3)),
        (1, pytest.approx(5.3), 0.0),
    ]
    assert sum(layer.share for layer in times.layers) == pytest.approx(1)
    assert times.unknown_layers == 0
    assert "captured" not in module.cuda.log
    assert module.cuda.memory == {}
    text = _shown(found)
    assert "at batch 8, schedule 3: medians of 5 runs" in text
    assert "the sum exceeds the latency" in text


def test_times_of_layers_that_no_listing_has(tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    module = FakeInspection(answer='{"Layers": []}')
    _fits(monkeypatch, module)
    found = inspect_engine(_engine(tmp_path), TimesRequest(iterations=2))
    assert found.times is not None
    assert found.times.unknown_layers == len(NODES)
    assert list(found.times.kinds) == ["unknown"]
    assert f"{len(NODES)} layers are in no listing" in _shown(found)


def test_times_that_cannot_be_had(tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    module = FakeInspection()
    _fits(monkeypatch, module)
    path = _engine(tmp_path)
    with pytest.raises(UsageError, match=r"takes batch 1:2:3, 4:8:16, not 17\. Profile sizes it holds"):
        inspect_engine(path, TimesRequest(batch=17))
    with pytest.raises(UsageError, match="built with a fixed schedule"):
        inspect_engine(path, TimesRequest(schedule=(3,)))
    module.times = []
    with pytest.raises(ArtifactError, match="did not report the times of its layers"):
        inspect_engine(path, TimesRequest())
    assert module.cuda.memory == {}


def test_a_stripped_engine_is_refused_before_anything_is_loaded(tmp_path: Path):
    path = _engine(tmp_path, options=Options(strip_weights=True))
    with pytest.raises(
        ArtifactError, match=r"--strip-weights and has none\. Give them to it: tmdeploy refit .*tiny\.plan tiny\.onnx"
    ):
        compatibility.check_fit(path)
    assert "tmdeploy refit" in inspect_engine(path).reason
    assert EngineRecord.model_validate_json(Path(f"{path}.json").read_text()).stripped


def test_the_stand_in_answers_as_json():
    assert len(json.loads(detailed_json())["Layers"]) == len(NODES)
