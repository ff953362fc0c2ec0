"""What quantisation costs and gains: accuracy and plans of a trained model; size, time and memory of DeiT-S.

    python benchmarks/quantized.py digits [--seeds 3] [--json docs/results/quantized_digits.json]
    python benchmarks/quantized.py deit [--json docs/results/quantized_deit.json]
    python benchmarks/quantized.py kernels [--json docs/results/quantized_kernels.json]

`digits` quantises examples/digits_tome.pt, calibrated on some of the 1,437 images it was trained on, and compares with
fp32 on the 360 it never saw. `deit` quantises a DeiT-S/16-shaped model with random weights, each time in a fresh
process, and times the files in interleaved rounds in ONNX Runtime. Needs the extra `export`, and `digits` scikit-learn.
"""

from __future__ import annotations

import json
import os
import platform
import re
import statistics
import subprocess
import sys
import tempfile
from pathlib import Path
from time import perf_counter
from typing import Annotated, Any

import typer

from tmdeploy.system.machine import cpu_name, package_version, usable_cores

EXAMPLES = Path(__file__).parent.parent / "examples"
KEPT, SOURCE = ("attention",), ("attention", "metric-source")
SIDE = ("attention", "patch-embed")
METHODS = ("none", "tome", "evit", "mstm", "topk")
CALIBRATIONS = (
    ("minmax", 100.0),
    ("percentile", 99.9),
    ("percentile", 99.99),
    ("percentile", 99.999),
    ("entropy", 100.0),
)
# model, method, scheme (None: not quantised), what stays float, precision of the rest, batch, GPU
ENGINES = (
    ("digits", "tome", None, KEPT, "fp32", "8", None),
    ("digits", "tome", "int8", KEPT, "fp32", "8", None),
    ("digits", "tome", None, KEPT, "fp16", "8", None),
    ("digits", "tome", "int8", KEPT, "fp16", "8", None),
    ("digits", "tome", "int8", KEPT, "bf16", "8", None),
    ("digits", "tome", "int8", (), "fp32", "8", None),
    ("digits", "tome", "int8", (), "fp16", "8", None),
    ("digits", "tome", "fp8", KEPT, "fp16", "8", "sm_89"),
    ("digits", "evit", "int8", KEPT, "fp16", "1:8:32", None),
    ("digits", "mstm", "int8", KEPT, "fp16", "8", None),
    ("digits", "topk", "int8", KEPT, "fp32", "8", None),
    ("digits", "none", "int8", KEPT, "fp16", "8", None),
    ("deit", "tome", None, KEPT, "fp16", "8", None),
    ("deit", "tome", "int8", KEPT, "fp32", "8", None),
    ("deit", "tome", "int8", KEPT, "fp16", "8", None),
    ("deit", "tome", "fp8", KEPT, "fp16", "8", "sm_89"),
)
DEIT = {"none": {}, "tome": {"r": "13"}}
IMAGES = 64  # that DeiT-S is calibrated on

app = typer.Typer(add_completion=False)
JsonOption = Annotated[Path | None, typer.Option("--json", help="Write the rows.")]


@app.command()
def digits(
    seeds: Annotated[int, typer.Option(min=1, help="Draws of 128 calibration images.")] = 3,
    json_file: JsonOption = None,
) -> None:
    """Accuracy and plan agreement of the trained example."""
    plan = [(method, scheme, keep, "percentile", 99.99) for method in METHODS for scheme in ("int8", "fp8")
            for keep in (KEPT, SOURCE)]  # fmt: skip
    plan += [("tome", "int8", keep, "percentile", 99.99) for keep in ((), SIDE, (*SIDE, "metric-source"))]
    plan += [("tome", scheme, KEPT, name, percentile) for scheme in ("int8", "fp8") for name, percentile in CALIBRATIONS
             if (name, percentile) != ("percentile", 99.99)]  # fmt: skip
    rows = []
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        _write_digits(folder)
        for method, scheme, keep, calibration, percentile in plan:
            model = _export(EXAMPLES / "digits_tome.pt", method, folder)
            found = [_one(model, folder, scheme, keep, calibration, percentile, seed) for seed in range(seeds)]
            mean = {key: round(statistics.mean(row[key] for row in found), 6) for key in found[0]}
            setting = {"method": method, "scheme": scheme, "keep_float": keep, "calibration": calibration}
            rows.append({**setting, "percentile": percentile if calibration == "percentile" else None, **mean})
            print(json.dumps(rows[-1]), flush=True)
    _write(json_file, {"schema": "tmdeploy.quantized-digits/1", "seeds": seeds, **_machine(), "rows": rows})


def _write_digits(folder: Path) -> None:
    import numpy as np
    from sklearn.datasets import load_digits
    from sklearn.model_selection import train_test_split

    sys.path.insert(0, str(EXAMPLES))
    from train_digits import enlarge

    data = load_digits()
    parts = train_test_split(np.arange(len(data.images)), test_size=0.2, random_state=0, stratify=data.target)
    for part, rows in zip(("train", "test"), parts, strict=True):
        (folder / part).mkdir()
        for row in rows:
            enlarge(data.images[row]).save(folder / part / f"{data.target[row]}_{row}.png")


def _export(checkpoint: Path, method: str, folder: Path, **options: str) -> Path:
    from tmdeploy.export import ExportRequest, export_checkpoint

    output = folder / f"{method}.onnx"
    if not output.exists():
        export_checkpoint(ExportRequest(checkpoint=checkpoint, output=output, method=method, verify=False, **options))
    return output


def _one(
    model: Path, folder: Path, scheme: str, keep: tuple[str, ...], calibration: str, percentile: float, seed: int
) -> dict[str, float]:
    from tmdeploy.quantize import QuantizeRequest, quantize

    request = QuantizeRequest(
        model=model,
        output=folder / "quantized.onnx",
        scheme=scheme,
        data=[folder / "train"],
        eval_data=[folder / "test"],
        keep_float=keep,
        calibration=calibration,
        percentile=percentile,
        batch=32,
        seed=seed,
        threads=1,
    )
    report = quantize(request)
    seen = report.comparison
    assert seen.accuracy is not None
    return {
        "quantized": report.record.quantized,
        "accuracy_fp32": seen.accuracy.reference,
        "accuracy": seen.accuracy.candidate,
        "top1_agreement": seen.model.top1.share,
        "kl_mean": seen.model.kl_mean,
        "plans_agreeing": seen.agreeing / seen.compared if report.steps else 1.0,
        "first_step_agreeing": report.steps[0].agreeing / report.steps[0].images if report.steps else 1.0,
        "divergent": seen.divergent,
        "size_ratio": report.bytes_after / report.bytes_before,
        "calibration_s": report.calibration_seconds,
    }


@app.command()
def deit(
    json_file: JsonOption = None,
    duration: Annotated[float, typer.Option(help="Measured seconds of each arm, at least.")] = 5.0,
    batch: Annotated[str, typer.Option(help="Batch sizes.")] = "1,8",
) -> None:
    """Size, calibration time, peak memory and latency of a DeiT-S-shaped model."""
    from deit_s import make_checkpoint

    from tmdeploy.bench.run import bench
    from tmdeploy.bench.timing import Protocol

    rows, times = [], []
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        checkpoint = make_checkpoint(folder / "deit_s.pth")
        _write_pictures(folder / "pictures", 2 * IMAGES)
        for method, options in DEIT.items():
            model = _export(checkpoint, method, folder, **options)
            files = {"fp32": model}
            jobs = [("int8", "minmax", KEPT), ("int8", "percentile", KEPT), ("int8", "entropy", KEPT),
                    ("int8", "percentile", ()), ("fp8", "percentile", KEPT)]  # fmt: skip
            for scheme, calibration, keep in jobs if method == "tome" else jobs[1:2]:
                output = folder / f"{method}.{scheme}.{calibration}.{len(keep)}.onnx"
                job = [str(model), str(output), str(folder / "pictures"), scheme, calibration, ",".join(keep)]
                rows.append({"method": method, **_in_a_fresh_process(job)})
                print(json.dumps(rows[-1]), flush=True)
                if scheme == "int8" and calibration == "percentile":
                    files["int8" if keep else "int8, attention too"] = output
            report = bench(
                list(files.values()),
                batch_sizes=tuple(map(int, batch.split(","))),
                protocol=Protocol(duration_s=duration, rounds=5),
                twin=False,
                memory=False,
            )
            times += _ratios(method, list(files), report.arms)
    document = {"schema": "tmdeploy.quantized-deit/1", "images": IMAGES, **_machine(), "rows": rows, "times": times}
    _write(json_file, document)


@app.command()
def kernels(json_file: JsonOption = None) -> None:
    """Kernels of TensorRT-RTX engines, built on this machine's CPU and not run."""
    from deit_s import make_checkpoint

    from tmdeploy.quantize import QuantizeRequest, quantize
    from tmdeploy.tensorrt.build.request import BuildRequest
    from tmdeploy.tensorrt.build.run import build_engine
    from tmdeploy.tensorrt.record.profiles import parse_batch

    rows = []
    with tempfile.TemporaryDirectory() as name:
        folders = {model: Path(name) / model for model in ("digits", "deit")}
        for folder in folders.values():
            folder.mkdir()
        _write_digits(folders["digits"])
        _write_pictures(folders["deit"] / "train", 32)
        checkpoints = {
            "digits": EXAMPLES / "digits_tome.pt",
            "deit": make_checkpoint(folders["deit"] / "deit_s.pth"),
        }
        for model, method, scheme, keep, precision, batch, gpu in ENGINES:
            folder = folders[model]
            source = _export(checkpoints[model], method, folder, **(DEIT[method] if model == "deit" else {}))
            if scheme is not None:
                quantized = folder / f"{method}.{scheme}.{len(keep)}.onnx"
                if not quantized.exists():
                    quantize(QuantizeRequest(source, quantized, scheme, [folder / "train"], keep, images=16))
                source = quantized
            request = BuildRequest(
                source,
                folder / "engine.plan",
                flavor="rtx",
                precision=precision,
                profiles=(parse_batch(batch),),
                target_sm=(gpu,) if gpu else (),
            )
            record = build_engine(request).record
            found = record.kernels
            assert found is not None
            row = {"model": model, "method": method, "precision": record.precision, "keep_float": keep, "batch": batch}
            counted = {"kernels": found.total, "quantized": found.quantized, "fused_attention": found.fused_attention}
            rows.append({**row, "gpu": gpu, **counted, "engine_mb": round(record.bytes / 1e6, 1)})
            print(json.dumps(rows[-1]), flush=True)
    document = {"schema": "tmdeploy.quantized-kernels/1", **_machine(), "rows": rows}
    _write(json_file, {**document, "tensorrt_rtx": package_version("tensorrt-rtx-cu13")})


def _ratios(method: str, names: list[str], arms: Any) -> list[dict[str, object]]:
    """Time of each file over that of the fp32 file, by the rounds' medians."""
    found = []
    for batch in dict.fromkeys(arm.batch for arm in arms):
        rounds = [[statistics.median(times) for times in arm.rounds_ms] for arm in arms if arm.batch == batch]
        for name, ours in zip(names[1:], rounds[1:], strict=True):
            ratios = sorted(a / b for a, b in zip(ours, rounds[0], strict=True))
            row = {"method": method, "file": name, "batch": batch, "to": "fp32"}
            found.append({**row, "ratio": statistics.median(ratios), "low": ratios[0], "high": ratios[-1]})
            print(json.dumps(found[-1]), flush=True)
    return found


def _write_pictures(folder: Path, count: int) -> None:
    from PIL import Image

    from tmdeploy.card.preprocessing import Preprocessing
    from tmdeploy.data.images import random_images

    folder.mkdir()
    for number, pixels in enumerate(random_images(count, Preprocessing(image_size=(256, 256)), in_graph=True)):
        Image.fromarray(pixels).save(folder / f"picture{number}.png")


def _in_a_fresh_process(job: list[str]) -> dict[str, Any]:
    command = [sys.executable, __file__, "one", *job]
    done = subprocess.run(command, capture_output=True, text=True, check=False)  # noqa: S603 - this file
    if done.returncode != 0:
        raise SystemExit(done.stderr.strip().splitlines()[-1])
    row: dict[str, Any] = json.loads(done.stdout.splitlines()[-1])
    return row


@app.command(hidden=True)
def one(model: Path, output: Path, data: Path, scheme: str, calibration: str, keep: str) -> None:
    """In a process of its own."""
    from tmdeploy.quantize import QuantizeRequest, quantize

    entries = tuple(filter(None, keep.split(",")))
    request = QuantizeRequest(
        model, output, scheme, [data], entries, images=IMAGES, calibration=calibration, eval_images=16
    )
    start = perf_counter()
    report = quantize(request)
    found = re.search(r"^VmHWM:\s+(\d+) kB$", Path("/proc/self/status").read_text(), re.MULTILINE)
    assert found is not None
    row = {
        "scheme": scheme,
        "calibration": calibration,
        "keep_float": entries,
        "quantized": report.record.quantized,
        "images": report.record.images,
        "mb_before": round(report.bytes_before / 1e6, 1),
        "mb_after": round(report.bytes_after / 1e6, 1),
        "calibration_s": report.calibration_seconds,
        "whole_s": round(perf_counter() - start, 1),
        "peak_mib": int(found[1]) // 1024,
    }
    print(json.dumps(row))


def _machine() -> dict[str, object]:
    return {
        "cpu": cpu_name(),
        "cores": usable_cores(),
        "load": os.getloadavg(),
        "platform": platform.platform(),
        "onnxruntime": package_version("onnxruntime"),
    }


def _write(path: Path | None, document: dict[str, object]) -> None:
    if path is not None:
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(json.dumps(document, indent=1) + "\n")


if __name__ == "__main__":
    app()
