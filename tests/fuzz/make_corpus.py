"""What the fuzzer begins with: small files of every kind that a command reads.

`python -m tests.fuzz.make_corpus` writes them to `tests/fuzz/corpus/`, where they are kept: a case is a seed and a
corpus, so that it can be had again.
"""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import onnx
from PIL import Image

from tests.tensorrt.engines import engine_file, full_bytes
from tests.vits import tiny_vit
from tmdeploy.card.preprocessing import Preprocessing
from tmdeploy.export import ExportRequest, export_checkpoint
from tmdeploy.graph.onnx_file import read_onnx
from tmdeploy.models.checkpoint import save_checkpoint
from tmdeploy.patching import patch, reduction_of
from tmdeploy.tensorrt.record.layers import Layer, LayerFile, Listing, write_layers
from tmdeploy.tensorrt.record.sidecar import read_sidecar

CORPUS = Path(__file__).parent / "corpus"
_OLD = "evit"  # its files are as version 1 of their documents wrote them: they are kept, so that these are fuzzed, too
_NAMES = ("ant", "bee", "cat", "dog")
_SIZES = {"image_size": (16, 16), "patch_size": 4, "width": 12, "depth": 2, "heads": 2, "mlp_width": 24}


def make(folder: Path) -> None:
    """Write all files of the corpus."""
    folder.mkdir(exist_ok=True)
    for method, suffix, options in (
        ("tome", ".pt", {"r": 3}),
        ("evit", ".safetensors", {"keep": 0.7, "layers": [0, 1]}),
    ):
        if method == _OLD and (folder / f"{method}{suffix}").exists():
            continue
        model = patch(tiny_vit(num_classes=len(_NAMES), **_SIZES), method, **options)
        checkpoint = folder / f"{method}{suffix}"
        save_checkpoint(
            checkpoint,
            model,
            recipe=reduction_of(model).recipe,
            preprocessing=Preprocessing(image_size=(16, 16)),
            class_names=_NAMES,
        )
        export_checkpoint(ExportRequest(checkpoint=checkpoint, output=folder / f"{method}.onnx", verify=False))
    foreign = onnx.load(folder / "evit.onnx")
    del foreign.metadata_props[:]
    onnx.save(foreign, folder / "foreign.onnx")
    _, metadata = read_onnx(folder / "tome.onnx")
    engine = engine_file(folder, full_bytes(), model=metadata)
    listing = Listing(source="build log", layers=(Layer(name="block0/TokenMatch/a", type="gemm", nodes=("a", "b")),))
    write_layers(engine, LayerFile(engine_sha256=read_sidecar(engine).sha256, listings=(listing,)))
    pixels = np.random.default_rng(0).integers(0, 256, (20, 20, 3), dtype=np.uint8)
    for name in ("2_a.png", "3_b.jpg"):
        Image.fromarray(pixels).save(folder / name)
        pixels = pixels[::-1]
    (folder / "names.txt").write_text("\n".join(_NAMES) + "\n")
    (folder / "names.json").write_text(json.dumps({str(number): ["n0", name] for number, name in enumerate(_NAMES)}))


if __name__ == "__main__":
    make(CORPUS)
