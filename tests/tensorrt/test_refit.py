"""Refitting: which engine takes which file, and what becomes of it. On stand-ins: it needs a GPU, and CI has none."""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import onnx
import pytest
from onnx import numpy_helper

from tests.tensorrt.conftest import Exported
from tests.tensorrt.engines import engine_file, full_bytes, rtx_bytes
from tests.tensorrt.fake_inspection import FakeInspection
from tmdeploy.errors import ArtifactError, EnvironmentMissing, ExportError, UsageError
from tmdeploy.graph.fingerprint import graph_sha256
from tmdeploy.system.files import sha256
from tmdeploy.tensorrt.build import refit
from tmdeploy.tensorrt.build.refit import RefitRequest, build_request, refit_engine
from tmdeploy.tensorrt.build.request import BuildRequest
from tmdeploy.tensorrt.build.run import prepare
from tmdeploy.tensorrt.build.source import load_source
from tmdeploy.tensorrt.cuda.gpu import Gpu
from tmdeploy.tensorrt.record.layers import Layer, LayerFile, Listing, layers_path, write_layers
from tmdeploy.tensorrt.record.profiles import BatchRange, ScheduleRange
from tmdeploy.tensorrt.record.sidecar import EngineRecord, Options, PluginRecord, Vehicle, sidecar_path
from tmdeploy.tensorrt.run.compatibility import Fit, read_engine
from tmdeploy.tensorrt.sdk.flavor import Flavor, Toolkit

GPU = Gpu(0, "NVIDIA L4", (8, 9), 24 << 30)
BATCH = BatchRange(min=1, opt=2, max=4)
STRIPPED = Options(strip_weights=True)
ANY = Options(refittable=True)


def _toolkit(module: object) -> Toolkit:
    return Toolkit(Flavor.TENSORRT, module, "11.4.0.106")


def _engine(folder: Path, model: Path, options: Options, **changes: object) -> Path:
    """An engine of `model` as `build` would describe it."""
    request = BuildRequest(
        model, folder / "tiny.plan", flavor="tensorrt", precision="fp16", profiles=(BATCH,), schedule="0:4:8",
        plugins="none", options=options,
    )  # fmt: skip
    prepared = prepare(*load_source(model), request, _toolkit(None), None)
    path = engine_file(
        folder,
        full_bytes(),
        source_name=model.name,
        source_sha256=sha256(model),
        graph_sha256=graph_sha256(prepared.model),
        precision="fp16",
        keep_fp32=request.keep_fp32,
        schedule=prepared.schedule,
        profiles=(BATCH,),
        options=options,
        model=load_source(model)[1],
        **changes,
    )
    listing = Listing(source="build log", layers=(Layer(name="a", type="kgen"),))
    write_layers(path, LayerFile(engine_sha256=sha256(path), listings=(listing,)))
    return path


@pytest.fixture
def module(monkeypatch: pytest.MonkeyPatch) -> FakeInspection:
    """As if this machine had the GPU and the TensorRT."""
    fake = FakeInspection()

    def fit(path: Path, *, stripped: bool = False) -> Fit:
        assert stripped
        return Fit(read_engine(path), _toolkit(fake), GPU, None)

    monkeypatch.setattr(refit, "check_fit", fit)
    return fake


def _changed(model: Path, target: Path, *, graph: bool = False) -> Path:
    """A file with other weights, and another node if asked for."""
    proto = onnx.load(model)
    weight = next(t for t in proto.graph.initializer if t.name.endswith("head.weight"))
    weight.CopyFrom(numpy_helper.from_array(numpy_helper.to_array(weight) * np.float32(2), weight.name))
    if graph:
        last = proto.graph.node[-1]
        inner = f"{last.output[0]}_before"
        proto.graph.node.append(onnx.helper.make_node("Identity", [inner], [last.output[0]], name="added"))
        last.output[0] = inner
    onnx.save(proto, target)
    return target


def test_a_stripped_engine_gets_the_weights_of_its_source(exported: Exported, tmp_path: Path, module: FakeInspection):
    model = exported("tome")
    engine = _engine(tmp_path, model, STRIPPED)
    before = read_engine(engine)
    result = refit_engine(RefitRequest(engine, model, tmp_path / "full.plan", command="tmdeploy refit"))
    record = read_engine(result.path)
    assert record == result.record
    assert (before.stripped, record.stripped) == (True, False)
    assert record.refit is not None
    assert (record.refit.engine_sha256, record.refit.source_sha256) == (before.sha256, sha256(model))
    assert record.model_copy(update={"bytes": before.bytes, "sha256": before.sha256, "refit": None}) == before
    assert json.loads(layers_path(result.path).read_text())["engine_sha256"] == record.sha256
    assert read_engine(engine) == before
    assert module.serialised == set()  # EXCLUDE_WEIGHTS cleared; it takes no other weights, so no INCLUDE_REFIT
    assert module.refitted is not None
    types = {tensor.data_type for tensor in module.refitted.graph.initializer if tensor.name.endswith("float16")}
    assert types == {onnx.TensorProto.FLOAT16}  # converted as for the build, and named as there
    assert {node.domain for node in module.refitted.graph.node} == {""}
    assert "r" in {value.name for value in module.refitted.graph.input}


def test_an_engine_may_be_refitted_in_place(exported: Exported, tmp_path: Path, module: FakeInspection):
    model = exported("tome")
    engine = _engine(tmp_path, model, STRIPPED)
    refit_engine(RefitRequest(engine, model, engine))
    assert not read_engine(engine).stripped
    with pytest.raises(UsageError, match="has its weights already, and takes no others"):
        refit_engine(RefitRequest(engine, model, engine))


@pytest.mark.parametrize("old", [False, True])
def test_other_weights(old: bool, exported: Exported, tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    module = FakeInspection(old=old)
    monkeypatch.setattr(refit, "check_fit", lambda path, stripped: Fit(read_engine(path), _toolkit(module), GPU, None))
    model = exported("tome")
    engine = _engine(tmp_path, model, ANY)
    tuned = _changed(model, tmp_path / "tuned.onnx")
    with pytest.raises(ArtifactError, match=r"tuned\.onnx: is not the file .* or say --other-weights if you mean it"):
        refit_engine(RefitRequest(engine, tuned, tmp_path / "out.plan"))
    result = refit_engine(RefitRequest(engine, tuned, tmp_path / "out.plan", other_weights=True))
    assert result.record.refit is not None
    assert result.record.refit.source_name == "tuned.onnx"
    assert {flag.name for flag in module.serialised} == (set() if old else {"INCLUDE_REFIT"})
    with pytest.raises(ArtifactError, match="has another graph than tome.onnx, not just other weights"):
        refit_engine(
            RefitRequest(
                engine, _changed(model, tmp_path / "g.onnx", graph=True), tmp_path / "g.plan", other_weights=True
            )
        )


def test_what_is_refused(exported: Exported, tmp_path: Path, module: FakeInspection):
    model = exported("tome")
    out = tmp_path / "out"
    out.mkdir()
    complete = _engine(tmp_path, model, Options())
    with pytest.raises(UsageError, match=r"was built with its weights, for good\. Build it with --strip-weights"):
        refit_engine(RefitRequest(complete, model, out / "x.plan"))
    stripped = _engine(tmp_path, model, STRIPPED)
    with pytest.raises(UsageError, match=r"built for the weights of tome\.onnx alone\. Build it with --refittable"):
        refit_engine(RefitRequest(stripped, model, out / "x.plan", other_weights=True))
    with pytest.raises(ArtifactError, match=r"is not the file that tiny\.plan was built from\. Give tome\.onnx\.$"):
        refit_engine(RefitRequest(stripped, _changed(model, tmp_path / "tome.onnx"), out / "x.plan"))
    with pytest.raises(UsageError, match="an engine ends in .plan"):
        refit_engine(RefitRequest(stripped, model, out / "x.onnx"))
    other = _engine(tmp_path, model, STRIPPED)
    document = json.loads(sidecar_path(other).read_text())
    sidecar_path(other).write_text(json.dumps({**document, "graph_sha256": "0" * 64}))
    with pytest.raises(ArtifactError, match="gives another graph now than when tiny.plan was built"):
        refit_engine(RefitRequest(other, model, out / "x.plan"))
    assert list(out.iterdir()) == []


def test_what_tensorrt_refuses_is_said(exported: Exported, tmp_path: Path, module: FakeInspection):
    model = exported("tome")
    engine = _engine(tmp_path, model, STRIPPED)
    out = tmp_path / "out"
    out.mkdir()
    module.missing = ("w1", "w2", "w3", "w4")
    with pytest.raises(
        ExportError, match=r"could not refit the engine \(4 weights are missing, among them w1, w2, w3\)"
    ):
        refit_engine(RefitRequest(engine, model, out / "x.plan"))
    module.refuses = "no weights\nof that name"
    with pytest.raises(ExportError, match=r"does not take its weights \(no weights of that name\)\. Build again"):
        refit_engine(RefitRequest(engine, model, out / "x.plan"))
    assert list(out.iterdir()) == []


def test_the_same_request_prepares_the_same_graph(tmp_path: Path):
    """Every option that decides about the graph comes back from the sidecar."""
    schedule = ScheduleRange(kind="r", min=(0, 0), opt=(4, 3), max=(8, 8), fewest_tokens=(9, 9), most_tokens=(65, 65))
    plugin = PluginRecord(path="/gone/library.so", sha256="a" * 64, embedded=True)

    def request(**changes: object) -> BuildRequest:
        record: EngineRecord = read_engine(engine_file(tmp_path, full_bytes(), **changes))
        return build_request(record, Path("m.onnx"), Path("o.plan"))

    made = request(schedule=schedule, keep_fp32=("planner", "Gelu"), vehicle=Vehicle.AOT)
    assert (made.schedule, made.keep_fp32, made.plugins) == ("0,0:4,3:8,8", ("planner", "Gelu"), "aot")
    assert request().plugins == "none"
    library = request(vehicle=Vehicle.LIBRARY, plugin=plugin)
    assert (library.plugins, library.plugin) == ("auto", Path("/gone/library.so"))


@pytest.mark.parametrize(
    ("precision", "asked"), [("fp16", "fp16"), ("tf32", "tf32"), ("int8", None), ("int8+fp16", "fp16"), ("fp8", None)]
)
def test_a_quantised_file_is_converted_again_only_for_its_rest(precision: str, asked: str | None, tmp_path: Path):
    record = read_engine(engine_file(tmp_path, full_bytes(), precision=precision))
    assert build_request(record, Path("m.onnx"), Path("o.plan")).precision == asked


def test_without_a_gpu_it_says_so(exported: Exported, tmp_path: Path):
    engine = engine_file(
        tmp_path, rtx_bytes(), options=STRIPPED, source_sha256=sha256(exported("none")), source_name="none.onnx"
    )
    with pytest.raises(EnvironmentMissing):
        refit_engine(RefitRequest(engine, exported("none"), tmp_path / "out.plan"))
