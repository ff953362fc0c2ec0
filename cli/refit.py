"""`tmdeploy refit`: weights into an engine."""

from __future__ import annotations

import os

from tmdeploy.api.build import refit as verb
from tmdeploy.api.build import refitted_path

from .command import Call, command


@command(verb, "timeout", "trust_engine")
def refit(call: Call) -> None:
    """Put weights into an engine that was built without them, on the GPU that it is for.

    tmdeploy refit deit_s.plan deit_s.onnx -o deit_s.full.plan
    """
    from tmdeploy.report.tables.engine import engine_table
    from tmdeploy.tensorrt.record.sidecar import engine_files

    output = refitted_path(call["engine"], call["output"])
    in_place = os.path.realpath(output) == os.path.realpath(call["engine"])
    reads = call.files("model") if in_place else call.files("model", "engine")
    out = call.output(reads=reads, writes=engine_files(output))
    result = call()
    out.console.print(engine_table(result.path, result.record, title=f"Refitted {result.path}"))
    out.emit(result)
