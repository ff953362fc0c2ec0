"""`tmdeploy export`: checkpoint to ONNX."""

from __future__ import annotations

from tmdeploy.api.export import export as verb
from tmdeploy.api.export import export_path, require_export

from .command import Call, command
from .console import own_stdout


@command(verb)
def export(call: Call) -> None:
    """Export a checkpoint to ONNX and compare the file with PyTorch before giving it its name.

    tmdeploy export deit_small.pth -o deit_s.onnx --method tome --r 13
    """
    from tmdeploy.report.tables.export import export_table

    require_export()  # what is missing is said before what is wrong with the files
    against = call["against"]
    saved = [against] if against is not None and against.endswith(".npz") else []
    reads = [*call.files("model", "verify_data"), *saved]
    out = call.output(reads=reads, writes={"-o": export_path(call["model"], call["output"])})
    with own_stdout(against):
        result = call()
    out.console.print(export_table(result))
    out.emit(result)
