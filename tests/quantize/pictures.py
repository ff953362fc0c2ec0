"""Files quantised for tests."""

from __future__ import annotations

from pathlib import Path

from PIL import Image

from tmdeploy.card.preprocessing import Preprocessing
from tmdeploy.data.images import random_images
from tmdeploy.quantize import QuantizeReport, QuantizeRequest, quantize


def write_pictures(folder: Path, count: int, size: int = 64) -> Path:
    """Smooth random pictures, without labels."""
    folder.mkdir(parents=True, exist_ok=True)
    pixels = random_images(count, Preprocessing(image_size=(size, size)), in_graph=True, seed=3)
    for number, rows in enumerate(pixels):
        Image.fromarray(rows).save(folder / f"picture{number}.png")
    return folder


def quantized(model: Path, folder: Path, **changes: object) -> tuple[Path, QuantizeReport]:
    """Quantise with few pictures."""
    data = folder / "pictures"
    if not data.exists():
        write_pictures(data, 12)
    request: dict[str, object] = {
        "model": model,
        "output": folder / f"{model.stem}.{changes.get('scheme', 'int8')}.onnx",
        "scheme": "int8",
        "data": [data],
        "images": 6,
        "batch": 3,
        "threads": 1,
    }
    request.update(changes)
    report = quantize(QuantizeRequest(**request))  # type: ignore[arg-type]
    return Path(report.output), report
