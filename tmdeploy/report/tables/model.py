"""What a model computes with, and what of that its weights do not show: rows of `export` and `inspect`."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping

from tmdeploy.card.metadata import Assumption, Preprocessing

# Fields of `VitConfig` that decide what is computed and that no weight shows, as rows call them.
_COMPUTE = {
    "heads": "{} heads",
    "act": "activation {}",
    "norm_placement": "norm {}",
    "norm_eps": "epsilon {}",
    "pool": "pool {}",
}


def model_rows(
    architecture: Mapping[str, object], preprocessing: Preprocessing | None, assumptions: Iterable[Assumption]
) -> Iterator[tuple[str, str]]:
    """Name and text of each row.

    Args:
        architecture: `VitConfig` as a dict; files of older versions lack some of its fields.
        preprocessing: How images become the input.
        assumptions: What was assumed about the checkpoint.
    """
    yield (
        "computes with",
        ", ".join(text.format(architecture[key]) for key, text in _COMPUTE.items() if key in architecture),
    )
    if preprocessing is not None:
        mean, std = (",".join(map(str, values)) for values in (preprocessing.mean, preprocessing.std))
        crop = f"{preprocessing.interpolation}, crop {preprocessing.crop_pct:g} {preprocessing.crop_mode}"
        yield "images", f"mean {mean}, std {std}, {crop}"
    by_reason: dict[str, list[str]] = {}
    for one in assumptions:
        by_reason.setdefault(one.why, []).append(one.key)
    if by_reason:
        text = "; ".join(f"{', '.join(keys)} ({why})" for why, keys in by_reason.items())
        yield "not in the weights", text
