"""`tmdeploy bench`: how fast, side by side."""

from __future__ import annotations

from pathlib import Path

from tmdeploy.api.bench import bench as verb

from .command import Call, command


@command(verb, "engine", "timeout", "native", "trust_engine", optional=["model"])
def bench(call: Call, engine: list[Path] | None) -> None:
    """Time models side by side in interleaved rounds, each against its own unmerged twin.

    tmdeploy bench deit_s.onnx deit_small.pth --batch 1,8

    tmdeploy bench --engine deit_s.plan --engine deit_s_none.plan deit_small.pth
    """
    from tmdeploy.bench.gate import failures
    from tmdeploy.errors import CheckFailed
    from tmdeploy.report.tables.bench import print_bench

    models = [*call.files("model"), *(engine or ())]
    out = call.output(reads=[*models, *call.files("data")])
    report = call(model=models)
    print_bench(report, out.console)
    out.emit(report)
    if problem := failures(report.gate):
        raise CheckFailed(problem)
