"""`tmdeploy visualize`: which patches became which token."""

from __future__ import annotations

from tmdeploy.api.visualize import drawing_paths
from tmdeploy.api.visualize import visualize as verb

from .command import Call, command
from .console import warn_skipped


@command(verb, "timeout", "native")
def visualize(call: Call) -> None:
    """Draw the merged groups of patches over each image, from the plans of the exported model.

    tmdeploy visualize deit_s.onnx photo.jpg -o groups.png
    """
    from tmdeploy.data.images import find_images
    from tmdeploy.errors import CheckFailed
    from tmdeploy.system.files import make_folder

    output = call["output"]
    targets = drawing_paths(find_images(call.files("image")), output)
    single = output in targets.values()
    if not single:
        make_folder(output)  # else the drawings could not be written
    writes = {"-o": output} if single else {f"the drawing of {path}": target for path, target in targets.items()}
    out = call.output(reads=[*call.files("model"), *targets], writes=writes)
    found = call()
    warn_skipped(((image.path, image.reason) for image in found.skipped), read=len(found.drawings))
    for drawn in found.drawings:
        out.console.print(f"wrote {drawn.drawing}")
    out.emit(found)
    wrong = [drawn.image for drawn in found.drawings if not drawn.finite]
    if wrong:
        raise CheckFailed(
            f"{len(wrong)} of {len(found.drawings)} images have logits that are NaN or infinite, so their plans mean "
            "nothing",
            path=wrong[0],
            remedy=f"Check the model's weights and its precision: tmdeploy validate REFERENCE {call['model']}",
        )
