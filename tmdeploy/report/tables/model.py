"""What a model computes with, and what of that its weights do not show: rows of `export` and `inspect`."""

from __future__ import annotations

from collections.abc import Iterator

from tmdeploy.card.card import ModelCard

# Fields of `VitConfig` that decide what is computed and that no weight shows, as rows call them.
_COMPUTE = {
    "heads": "{} heads",
    "act": "activation {}",
    "norm_placement": "norm {}",
    "norm_eps": "epsilon {}",
    "pool": "pool {}",
}


def model_rows(card: ModelCard) -> Iterator[tuple[str, str]]:
    """Name and text of each row."""
    config, images = card.architecture.model_dump(), card.preprocessing
    yield "computes with", ", ".join(text.format(config[key]) for key, text in _COMPUTE.items() if key in config)
    mean, std = (",".join(map(str, values)) for values in (images.mean, images.std))
    yield "images", f"mean {mean}, std {std}, {images.interpolation}, crop {images.crop_pct:g} {images.crop_mode}"
    by_reason: dict[str, list[str]] = {}
    for one in card.assumptions:
        by_reason.setdefault(one.why, []).append(one.key)
    if by_reason:
        text = "; ".join(f"{', '.join(keys)} ({why})" for why, keys in by_reason.items())
        yield "not in the weights", text
