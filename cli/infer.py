"""`tmdeploy infer`: classify images."""

from __future__ import annotations

from pathlib import Path

from tmdeploy.api.infer import infer as verb

from .command import Call, command
from .console import warn_skipped


@command(verb, "csv", "timeout", "native", "trust_engine")
def infer(call: Call, csv: Path | None) -> None:
    """Classify images: top-k table, CSV or JSON. Images that cannot be read are skipped, named and counted.

    tmdeploy infer deit_s.onnx photos/ --top-k 3
    """
    from tmdeploy.errors import CheckFailed
    from tmdeploy.report.tables.predictions import predictions_csv, predictions_table
    from tmdeploy.system.files import write_text

    out = call.output(reads=call.files("model", "image", "class_names"), writes={"--csv": csv})
    found = call()
    out.console.print(predictions_table(found))
    warn_skipped(((image.path, image.reason) for image in found.skipped), read=len(found.images))
    if csv is not None:
        write_text(csv, predictions_csv(found), option="--csv")
    out.emit(found)
    if failed := found.unclassified:
        raise CheckFailed(
            f"{len(failed)} of {len(found.images)} images have no class: {failed[0].problem}",
            path=failed[0].path,
            remedy=f"Check the model's weights and its precision: tmdeploy validate REFERENCE {call['model']}",
        )
