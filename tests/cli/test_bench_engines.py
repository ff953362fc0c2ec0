"""`tmdeploy bench --engine`, whole, on stand-ins with a simulated clock."""

from __future__ import annotations

import contextlib
import functools
import io
import json
import re
import subprocess
import time
from collections.abc import Callable
from pathlib import Path
from types import SimpleNamespace

import onnx
import pytest

from tests.cli.running import run
from tests.conftest import EXAMPLES
from tests.tensorrt.engines import full_bytes, rtx_bytes
from tests.tensorrt.fake_engine import fake_engine, use_fakes
from tests.tensorrt.fakes import Costs, FakeCuda, FakeNvml
from tmdeploy.backends.facts import RunnerFacts
from tmdeploy.bench import memory
from tmdeploy.bench import run as bench_run
from tmdeploy.bench.timing import measure
from tmdeploy.card.metadata import METADATA_KEY, parse
from tmdeploy.card.recipe import Recipe
from tmdeploy.tensorrt.record.sidecar import Tensor

CHECKPOINT = EXAMPLES / "digits_tome.pt"
FAST = ("--duration", "0.01s", "--warm-up", "0s", "--rounds", 3, "--iterations", 6, "--batch", 2)
COSTS = Costs(h2d=0.5e-3, compute=(2e-3,), d2h=0.25e-3, enqueue=0.4e-3, graph=0.01e-3)
MODES = ("graph", "no graph")
Engine = Callable[..., Path]


@pytest.fixture
def gpu(monkeypatch: pytest.MonkeyPatch) -> Callable[..., FakeCuda]:
    """`gpu(costs)`: a simulated one, by whose clock all is timed; `real=True` adds the time that really passes."""

    def install(
        costs: Costs = COSTS,
        *,
        nvml: FakeNvml | None = None,
        watched: bool = True,
        real: bool = False,
        steps: int = 0,
    ) -> FakeCuda:
        cuda = FakeCuda(costs=costs)
        use_fakes(monkeypatch, cuda, steps=steps, nvml=(nvml or FakeNvml()) if watched else None)

        def clock() -> float:
            return cuda.now + (time.perf_counter() if real else 0.0)

        monkeypatch.setattr(bench_run, "measure", functools.partial(measure, clock=clock))
        return cuda

    return install


@pytest.fixture
def engine(digits_onnx: Path, tmp_path: Path) -> Engine:
    """`engine("merged.plan")`: a file whose sidecar says it was built from the example, or from it without merging."""
    properties = {prop.key: prop.value for prop in onnx.load(digits_onnx, load_external_data=False).metadata_props}
    model = parse(properties[METADATA_KEY], path=str(digits_onnx))

    def make(name: str, *, unmerged: bool = False, more_inputs: tuple[Tensor, ...] = (), **changes: object) -> Path:
        bare = {"card": model.card.replace(recipe=Recipe(method="none")), "schedule_input": None, "steps": ()}
        metadata = model.model_copy(update=bare if unmerged else {})
        images = Tensor(name="images", type="float", shape=(-1, 3, *model.card.preprocessing.image_size))
        fields = {"inputs": (images, *more_inputs), "model": metadata, "precision": "fp32", **changes}
        return fake_engine(tmp_path, name, **fields)

    return make


def _report(capsys: pytest.CaptureFixture[str], *arguments: object) -> dict:
    done = run(capsys, "bench", *arguments, *FAST, "--no-memory", "--json", "-")
    assert done.code == 0, done.err
    return json.loads(done.out)


def test_every_mode_is_an_arm_with_the_times_that_were_simulated(
    gpu: Callable[..., FakeCuda], engine: Engine, capsys: pytest.CaptureFixture[str]
):
    cuda = gpu()
    report = _report(capsys, "--engine", engine("m.plan"))
    assert report["schema"] == "tmdeploy.bench/1"
    arms = {arm["name"].removeprefix("m.plan, "): arm for arm in report["arms"]}
    assert list(arms) == ["graph", "no graph", "graph, no transfers", "no graph, no transfers"]
    for name, arm in arms.items():
        gpu_times, transfers = arm["gpu"], "no transfers" not in name
        assert (gpu_times["cuda_graph"], gpu_times["transfers"]) == (not name.startswith("no"), transfers)
        queued, single = gpu_times["queued"], gpu_times["single"]
        assert queued["enqueue"]["median_ms"] == pytest.approx(0.01 if gpu_times["cuda_graph"] else 0.4)
        assert queued["compute"]["percentiles_ms"] == pytest.approx({"50": 2.0, "90": 2.0, "99": 2.0})
        assert queued["compute"]["calls"] >= 6 * 19
        assert queued["compute"]["calls"] % 19 == 0
        assert ("h2d" in queued) == ("d2h" in queued) == transfers
        call = 2.75 if transfers else 2.0
        # an idle GPU waits for the launch of the graph; copying the images hides that, and so does a queued call
        waits = 0.01 if not transfers and gpu_times["cuda_graph"] else 0.0
        assert single["latency"]["mean_ms"] == pytest.approx(call + waits)
        assert single["host"]["median_ms"] == pytest.approx(call + waits)
        assert gpu_times["single_images_per_s"] == pytest.approx(2e3 / single["host"]["mean_ms"])
        assert gpu_times["queued_images_per_s"] == pytest.approx(2e3 / call, rel=0.01)
        assert (arm["boundary"] is None) == transfers
        assert gpu_times["clocks"] == {"sm_mhz_low": 1980, "sm_mhz_high": 1980, "readings": 12, "throttled": []}
        assert arm["backend"]["device"] == "cuda:0"
        assert arm["backend"]["cuda_graph"] == ("on" if gpu_times["cuda_graph"] else "off")
    assert [text for text in report["warnings"] if "m.plan," in text] == []
    assert cuda.events == {}, "all events were given back"


@pytest.mark.parametrize(
    ("options", "names"),
    [
        (["--cuda-graph"], ["graph", "graph, no transfers"]),
        (["--no-cuda-graph", "--transfers"], ["no graph"]),
        (["--no-transfers", "--cuda-graph"], ["graph, no transfers"]),
    ],
)
def test_modes_can_be_chosen(
    options: list[str],
    names: list[str],
    gpu: Callable[..., FakeCuda],
    engine: Engine,
    capsys: pytest.CaptureFixture[str],
):
    gpu(watched=False)
    report = _report(capsys, "--engine", engine("m.plan"), *options)
    assert "the GPU's clocks were not watched: this cuda-bindings has no NVML" in report["warnings"]
    assert all(arm["gpu"]["clocks"] is None for arm in report["arms"])
    assert [arm["name"] for arm in report["arms"]] == [f"m.plan, {name}" for name in names]


def test_what_bounds_throughput_is_said(
    gpu: Callable[..., FakeCuda], engine: Engine, capsys: pytest.CaptureFixture[str]
):
    gpu(
        Costs(h2d=3e-3, compute=(1e-3, 1.2e-3), d2h=2e-3, enqueue=1.1e-3, graph=0.01e-3), nvml=FakeNvml((1980, 1500), 4)
    )
    report = _report(capsys, "--engine", engine("m.plan"), "--transfers")
    said = {name: [text for text in report["warnings"] if text.startswith(f"m.plan, {name} at")] for name in MODES}
    for name, texts in said.items():
        text = "\n".join(texts)
        assert ("throughput may be bound by the host; a CUDA graph may help" in text) == (name == "no graph")
        assert "copying the images takes 3 ms, compute 1.2 ms" in text
        assert "copying the outputs back takes 2 ms" in text
        assert "compute times vary by 9.1% (limit 2.5%); lock the clocks" in text
    assert "the GPU's clock moved between 1500 and 1980 MHz; lock the clocks" in "\n".join(report["warnings"])
    assert "the GPU was throttled (power cap)" in report["warnings"]


def test_an_unmerged_engine_beside_is_the_twin(
    gpu: Callable[..., FakeCuda], engine: Engine, capsys: pytest.CaptureFixture[str]
):
    gpu()
    merged, bare = engine("m.plan"), engine("none.plan", unmerged=True)
    report = _report(capsys, "--engine", merged, "--engine", bare, "--transfers")
    arms = {arm["name"]: arm for arm in report["arms"]}
    for mode in MODES:
        ratio = arms[f"m.plan, {mode}"]["ratio"]
        assert ratio["baseline"] == f"none.plan, {mode}"
        assert ratio["median"] == pytest.approx(1.0)  # the stand-in is not any faster for merging
        assert arms[f"m.plan, {mode}"]["realised"] == pytest.approx(0.0, abs=1e-6)
        assert arms[f"m.plan, {mode}"]["mac_ratio"] < 1.0
        assert arms[f"none.plan, {mode}"]["ratio"] is None
    assert not any("no unmerged engine" in text for text in report["warnings"])


def test_schedules_of_an_engine_are_arms_with_the_same_twin(
    gpu: Callable[..., FakeCuda], engine: Engine, capsys: pytest.CaptureFixture[str]
):
    gpu(steps=6)
    ends = {"min": (0,) * 6, "opt": (8,) * 6, "max": (8,) * 6, "fewest_tokens": (9,) * 6, "most_tokens": (65,) * 6}
    amounts = Tensor(name="r", type="int64", shape=(6,), shape_input=True)
    path = engine("m.plan", schedule={"kind": "r", **ends}, more_inputs=(amounts,))
    bare = engine("none.plan", unmerged=True)
    options = ("--transfers", "--cuda-graph", "--schedule", 0, "--schedule", 8)
    report = _report(capsys, "--engine", path, "--engine", bare, *options)
    arms = {arm["name"]: arm for arm in report["arms"]}
    assert list(arms) == ["m.plan, 0, graph", "m.plan, 8, graph", "none.plan, graph"]
    assert [arm["schedule"] for arm in arms.values()] == [[0] * 6, [8] * 6, None]
    assert arms["m.plan, 0, graph"]["gmacs"] == arms["none.plan, graph"]["gmacs"] > arms["m.plan, 8, graph"]["gmacs"]
    assert arms["m.plan, 8, graph"]["ratio"]["baseline"] == "none.plan, graph"


@pytest.mark.parametrize(
    ("other", "message"),
    [
        (None, "m.plan: no unmerged engine (none was given); build one with --method none"),
        ({"precision": "fp16"}, "m.plan: no unmerged engine (none.plan is none: precision fp16, not fp32)"),
        ({"profiles": [{"min": 1, "opt": 2, "max": 2}]}, "none.plan is none: batch 1:2:2, not 1:1:2 4:8:16"),
    ],
)
def test_engines_that_are_no_twins(
    other: dict | None,
    message: str,
    gpu: Callable[..., FakeCuda],
    engine: Engine,
    capsys: pytest.CaptureFixture[str],
):
    gpu()
    engines = [engine("m.plan")] + ([] if other is None else [engine("none.plan", unmerged=True, **other)])
    arguments = [part for path in engines for part in ("--engine", path)]
    report = _report(capsys, *arguments, "--transfers", "--free-merge")
    assert any(message in text for text in report["warnings"]), report["warnings"]
    assert "m.plan: no free-merge twin can be made from an engine" in report["warnings"]
    assert all(arm["ratio"] is None for arm in report["arms"])


def test_beside_pytorch_on_another_device_there_is_a_note_and_no_ratio(
    gpu: Callable[..., FakeCuda], engine: Engine, capsys: pytest.CaptureFixture[str]
):
    gpu(real=True)
    report = _report(capsys, "--engine", engine("m.plan", precision="fp16"), CHECKPOINT, "--transfers", "--threads", 1)
    arms = {arm["name"]: arm for arm in report["arms"]}
    assert arms["digits_tome.pt"]["backend"]["device"] == "cpu"  # torch sees no GPU here
    assert arms["m.plan, graph"]["pytorch"] is None
    text = "\n".join(report["warnings"])
    assert "the arms run on different devices (digits_tome.pt on cpu; m.plan on cuda:0)" in text
    assert "m.plan computes in fp16, digits_tome.pt in fp32: part of the difference is precision" in text


def test_beside_pytorch_on_the_same_device_the_ratio_is_in_the_table(
    gpu: Callable[..., FakeCuda], engine: Engine, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
):
    gpu(real=True)
    monkeypatch.setattr(
        "tmdeploy.backends.tensorrt.RunnerFacts", lambda **said: RunnerFacts(**{**said, "device": "cpu"})
    )
    done = run(
        capsys, "bench", "--engine", engine("m.plan"), CHECKPOINT, *FAST, "--no-memory", "--threads", 1, "--cuda-graph"
    )
    assert done.code == 0, done.err
    assert "PyTorch" in done.out[: done.out.index("graph")], "its column"
    said = " ".join(done.out.split())
    assert re.search(r": ([\d.]+x \w+ than|no difference to) \d in PyTorch", said), said
    assert "different devices" not in done.out


def test_the_table_shows_every_part(gpu: Callable[..., FakeCuda], engine: Engine, capsys: pytest.CaptureFixture[str]):
    gpu()
    done = run(capsys, "bench", "--engine", engine("m.plan"), *FAST, "--no-memory")
    assert done.code == 0, done.err
    lines = done.out.splitlines()
    start = next(number for number, line in enumerate(lines) if "on the GPU, milliseconds a batch" in line)
    parts = [line for line in lines[start:] if "compute" in line and "2.000" in line]
    assert len(parts) == 4
    assert any("images in" in line and "0.500" in line for line in lines)
    assert any("logits out" in line and "0.250" in line for line in lines)
    assert any("enqueue" in line and "0.400" in line for line in lines)
    assert any("img/s queued" in line and "727" in line for line in lines)
    assert lines[start + 4].startswith(" 1  m r=8 graph  ")
    assert lines[start + 5].split()[0] == "merged"
    assert max(map(len, lines)) <= 80


@pytest.mark.parametrize(("content", "package"), [(rtx_bytes(), "tensorrt_rtx"), (full_bytes(), "tensorrt")])
def test_memory_of_an_engine_is_counted_in_a_process_of_its_own(
    content: bytes,
    package: str,
    gpu: Callable[..., FakeCuda],
    engine: Engine,
    capsys: pytest.CaptureFixture[str],
    monkeypatch: pytest.MonkeyPatch,
):
    """The process is this one here: the stand-ins would not be in another."""
    gpu()
    baseline: list[str] = []

    def in_this_process(command: list[str], **_: object) -> subprocess.CompletedProcess[str]:
        with contextlib.redirect_stdout(io.StringIO()) as answer:
            memory.main(command[-1])
        return subprocess.CompletedProcess(command, 0, answer.getvalue(), "")

    monkeypatch.setattr("tmdeploy.backends.tensorrt.importlib", SimpleNamespace(import_module=baseline.append))
    monkeypatch.setattr(memory.subprocess, "run", in_this_process)
    path = engine("m.plan", content=content)
    done = run(capsys, "bench", "--engine", path, *FAST, "--cuda-graph", "--transfers")
    assert done.code == 0, done.err
    assert baseline == [package], "what the backend imports is no part of the model's memory"
    cells = done.out[done.out.index("GPU memory of engines, MiB") :].splitlines()[4].split()
    buffers = 16 * (3 * 32 * 32 + 2) * 4 / 2**20  # images and logits of the largest batch
    assert cells[:5] == ["m", "1.0", "0.0", "0.0", f"{buffers:.1f}"]
    assert cells[5:] == [f"{1 + buffers:.1f}"] * 2


@pytest.mark.parametrize(
    ("device", "code", "message"),
    [("tpu", 2, "no device 'tpu'"), ("cpu:1", 2, "no device 'cpu:1'"), ("cuda:3", 3, "torch sees no cuda:3 here")],
)
def test_devices_that_are_not_there(device: str, code: int, message: str, capsys: pytest.CaptureFixture[str]):
    done = run(capsys, "bench", CHECKPOINT, *FAST, "--no-memory", "--device", device)
    assert (done.code, done.err.count("\n")) == (code, 1)
    assert message in done.err


@pytest.mark.parametrize(
    ("profiles", "batches"),
    [
        ([(1, 8, 32)], [1, 8]),
        ([(2, 4, 8)], [8]),
        ([(4, 4, 4), (16, 16, 16)], [4, 16]),
    ],
)
def test_an_engine_is_timed_at_sizes_that_it_holds(
    profiles: list[tuple[int, int, int]],
    batches: list[int],
    gpu: Callable[..., FakeCuda],
    engine: Engine,
    capsys: pytest.CaptureFixture[str],
):
    gpu()
    ranges = [dict(zip(("min", "opt", "max"), profile, strict=True)) for profile in profiles]
    path = engine("m.plan", profiles=ranges)
    done = run(
        capsys, "bench", "--engine", path, *FAST[:-2], "--no-memory", "--cuda-graph", "--transfers", "--json", "-"
    )
    assert [arm["batch"] for arm in json.loads(done.out)["arms"]] == batches


def test_engines_without_a_common_size(
    gpu: Callable[..., FakeCuda], engine: Engine, capsys: pytest.CaptureFixture[str]
):
    gpu()
    paths = [engine(f"{size}.plan", profiles=[{"min": size, "opt": size, "max": size}]) for size in (2, 4)]
    done = run(capsys, "bench", "--engine", paths[0], "--engine", paths[1], *FAST[:-2], "--no-memory")
    assert (done.code, done.err.count("\n")) == (2, 1)
    assert "no batch size suits all of these models" in done.err
