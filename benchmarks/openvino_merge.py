"""OpenVINO in float32 and bfloat16: what merging gains there, and what the merge itself costs.

DeiT-S with ToMe r=13, four arms for each precision: the ops as an extension, the ops as inlined function bodies, the
same graph unmerged, and the same graph with a merge that costs nothing (a slice). All are compiled in one process and
called in turn; times are medians, ratios are medians of the ratios within a round.

    python benchmarks/openvino_merge.py --json openvino_merge.json
"""

from __future__ import annotations

import argparse
import json
import os
import statistics
import tempfile
import time
from contextlib import ExitStack
from pathlib import Path
from typing import Any

import numpy as np
import onnx
from native_ops import export_deit_small, images_of

from tmdeploy.backends.openvino import PRECISIONS, OpenvinoRunner
from tmdeploy.card.metadata import METADATA_KEY, parse
from tmdeploy.graph.twins import MakeTwin
from tmdeploy.native.openvino import BUILD_COMMAND, openvino_library
from tmdeploy.system.machine import cpu_name, package_version, usable_cores

WARM_UP = 3


def main() -> None:
    """Parse the arguments, measure, print and write."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--model", type=Path, help="an exported file, custom lowering; default: DeiT-S ToMe r=13")
    parser.add_argument("--batch", default="1,8")
    parser.add_argument("--precision", default=",".join(PRECISIONS))
    parser.add_argument("--threads", type=int, default=None)
    parser.add_argument("--rounds", type=int, default=20)
    parser.add_argument("--json", type=Path)
    arguments = parser.parse_args()
    library = openvino_library()
    if library is None:
        raise SystemExit(f"no extension library: build it with {BUILD_COMMAND}")
    precisions = arguments.precision.split(",")
    results = []
    load = os.getloadavg()[0]
    with tempfile.TemporaryDirectory() as folder:
        path = arguments.model or export_deit_small(Path(folder))
        with ExitStack() as opened:
            runners = open_arms(path, precisions, arguments.threads, opened)
            metadata = runners[precisions[0], "extension"].metadata
            assert metadata is not None
            for batch in (int(text) for text in arguments.batch.split(",")):
                times = measure(runners, images_of(metadata, batch), arguments.rounds)
                for precision in precisions:
                    results.append({"batch": batch, "precision": precision, **summary(times, precision)})
                    show(results[-1])
    if arguments.json is not None:
        document = {
            "schema": "tmdeploy.openvino_merge/1",
            "cpu": cpu_name(),
            "cores": usable_cores(),
            "threads": arguments.threads,
            "rounds": arguments.rounds,
            "load_before": load,
            "load_after": os.getloadavg()[0],
            "openvino": package_version("openvino"),
            "results": results,
        }
        arguments.json.write_text(json.dumps(document, indent=1) + "\n")


def open_arms(
    path: Path, precisions: list[str], threads: int | None, opened: ExitStack
) -> dict[tuple[str, str], OpenvinoRunner]:
    """Every arm of every precision, compiled; `opened` closes them."""
    model = onnx.load(str(path))
    metadata = parse(next(p.value for p in model.metadata_props if p.key == METADATA_KEY), path=str(path))
    twins = {kind: MakeTwin(kind, metadata)(model)[0].SerializeToString() for kind in ("unmerged", "free-merge")}
    runners = {}
    for precision in precisions:
        kinds: dict[str, dict[str, Any]] = {"extension": {}, "bodies": {"native": False}}
        for kind, options in (kinds | {kind: {"model": twin} for kind, twin in twins.items()}).items():
            runner = OpenvinoRunner(path, threads=threads, precision=precision, **options)
            runners[precision, kind] = opened.enter_context(runner)
    return runners


def measure(
    runners: dict[tuple[str, str], OpenvinoRunner], images: np.ndarray, rounds: int
) -> dict[tuple[str, str], list[float]]:
    """Milliseconds a call, one of each arm a round."""
    times: dict[tuple[str, str], list[float]] = {key: [] for key in runners}
    for turn in range(rounds + WARM_UP):
        order = list(runners.items())
        for key, runner in order if turn % 2 else reversed(order):  # none always runs in another's wake
            start = time.perf_counter()
            runner.infer(images)
            if turn >= WARM_UP:
                times[key].append((time.perf_counter() - start) * 1e3)
    return times


def summary(times: dict[tuple[str, str], list[float]], precision: str) -> dict[str, float]:
    """Medians of one precision's arms, and what the merged ones are of the others."""
    mine = {arm: values for (one, arm), values in times.items() if one == precision}
    result = {f"{arm}_ms": statistics.median(values) for arm, values in mine.items()}
    for arm in ("extension", "bodies"):
        for other in ("unmerged", "free-merge"):
            ratios = [a / b for a, b in zip(mine[arm], mine[other], strict=True)]
            result[f"{arm}_over_{other}"] = statistics.median(ratios)
    return result


def show(result: dict[str, Any]) -> None:
    """Print one precision at one batch size."""
    print(f"batch {result['batch']}, {result['precision']}")
    for name, value in result.items():
        if name not in {"batch", "precision"}:
            print(f"  {name:28} {value:8.3f}")


if __name__ == "__main__":
    main()
