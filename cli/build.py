"""`tmdeploy build`: ONNX file or checkpoint to TensorRT engine."""

from __future__ import annotations

from tmdeploy.api.build import build as verb
from tmdeploy.api.build import engine_path

from .command import Call, command
from .console import own_stdout


@command(verb)
def build(call: Call) -> None:
    """Build a TensorRT or TensorRT-RTX engine, and a sidecar that says what it is and what it needs.

    A checkpoint is exported first, as tmdeploy export does it: --method and what follows are for that.

    tmdeploy build deit_s.onnx -o deit_s.plan --precision fp16 --schedule-range 0:13:16
    """
    from tmdeploy.backends import backend_for
    from tmdeploy.report.tables.engine import engine_table
    from tmdeploy.tensorrt.record.sidecar import engine_files

    engine = engine_path(call["model"], call["output"])
    exported = engine.with_suffix(".onnx") if backend_for(call["model"]).reads_checkpoints else None
    writes = {**engine_files(engine), "--timing-cache": call["timing_cache"], "the exported file": exported}
    out = call.output(reads=call.files("model", "plugin"), writes=writes)
    with own_stdout(call["against"]):
        result = call()
    out.console.print(engine_table(result.path, result.record, title=f"Built {result.path}"))
    out.emit(result)
