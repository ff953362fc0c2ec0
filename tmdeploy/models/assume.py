"""What the names and shapes of weights leave open, and the user's answers (`--assume KEY=VALUE`). No torch."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from typing import Annotated, Any, Literal

from pydantic import BaseModel, BeforeValidator, ConfigDict, Field, ValidationError

from tmdeploy.card.arch import Activation, VitConfig
from tmdeploy.card.card import Assumption
from tmdeploy.card.fields import Finite, Positive, first_problem
from tmdeploy.card.preprocessing import Preprocessing
from tmdeploy.errors import UsageError

# Fields of VitConfig, and of Preprocessing, that a state_dict leaves open.
COMPUTE_KEYS = ("heads", "act", "norm_placement", "pool", "norm_eps")
PREPROCESSING_KEYS = ("mean", "std", "crop_pct", "crop_mode", "interpolation")


def _words(value: object) -> object:
    """`res-post` is `res_post`."""
    return value.strip().replace("-", "_") if isinstance(value, str) else value


def _triple(value: object) -> object:
    """`0.5` and `0.5,0.5,0.5` are three numbers."""
    if isinstance(value, (int, float)):
        value = str(value)
    if not isinstance(value, str):
        return value
    parts = value.split(",")
    return parts * 3 if len(parts) == 1 else parts


def _grid(value: object) -> object:
    """`16x8` is two counts."""
    return value.lower().split("x") if isinstance(value, str) else value


class Assumed(BaseModel):
    """What the user says about a checkpoint; None leaves a key to the architecture that the weights resemble.

    Attributes:
        heads: Attention heads.
        act: The MLP's activation.
        norm_placement: Where blocks normalise.
        pool: What feeds the head.
        norm_eps: LayerNorm's epsilon.
        grid: Patches down and across that the position embedding was trained for.
        resample: How a multi-scale stem resamples a coarser scale to the patch grid.
        pos_embed_resize: How position embeddings are interpolated: `bicubic_antialias` is timm's way,
            `bicubic` that of the official DeiT and EViT.
        mean: Mean of the input: one number, or one per channel.
        std: Standard deviation, likewise.
        crop_pct: Share of the resized side that is cropped.
        crop_mode: Whether the shorter side is resized, or both (`squash`).
        interpolation: Interpolation of the resize.
    """

    model_config = ConfigDict(frozen=True, extra="forbid")

    heads: Annotated[int, Field(ge=1)] | None = None
    act: Annotated[Activation | None, BeforeValidator(_words)] = None
    norm_placement: Annotated[Literal["pre", "res_post"] | None, BeforeValidator(_words)] = None
    pool: Literal["token", "avg"] | None = None
    norm_eps: Annotated[float, Field(gt=0.0, lt=1.0)] | None = None
    grid: Annotated[tuple[Annotated[int, Field(ge=1)], Annotated[int, Field(ge=1)]] | None, BeforeValidator(_grid)] = (
        None
    )
    resample: Literal["nearest", "bilinear"] | None = None
    pos_embed_resize: Annotated[Literal["bicubic_antialias", "bicubic"] | None, BeforeValidator(_words)] = None
    mean: Annotated[tuple[Finite, Finite, Finite] | None, BeforeValidator(_triple)] = None
    std: Annotated[tuple[Positive, Positive, Positive] | None, BeforeValidator(_triple)] = None
    crop_pct: Annotated[float, Field(ge=0.1, le=1.0)] | None = None
    crop_mode: Literal["center", "squash"] | None = None
    interpolation: Literal["nearest", "bilinear", "bicubic", "lanczos"] | None = None

    @classmethod
    def parse(cls, given: Mapping[str, object] | Iterable[str], *, num_heads: int | None = None) -> Assumed:
        """Parse `{"act": "quick_gelu"}`, or `["act=quick_gelu"]` from the command line.

        Args:
            given: Keys and values; values may be strings.
            num_heads: Value of `--num-heads`, a synonym of `heads=`.

        Raises:
            UsageError: A key is unknown or given twice, or a value is impossible.
        """
        values = dict(given) if isinstance(given, Mapping) else _pairs(given)
        unknown = next((key for key in values if key not in cls.model_fields), None)
        if unknown is not None:
            raise UsageError(f"--assume: no key '{unknown}'", remedy=f"Use one of: {', '.join(cls.model_fields)}")
        try:
            parsed = cls.model_validate(values)
            both = parsed if num_heads is None else cls.model_validate({**values, "heads": num_heads})
        except ValidationError as error:
            raise UsageError(f"--assume {first_problem(error)}", remedy="See docs/checkpoints.md") from None
        if parsed.heads not in {None, both.heads}:
            raise UsageError(f"--num-heads {num_heads} and --assume heads={parsed.heads} contradict each other")
        return both

    def given(self, keys: Iterable[str]) -> dict[str, Any]:
        """The keys that the user gave, with their values."""
        return {key: value for key in keys if (value := getattr(self, key)) is not None}

    def check_agrees(self, config: VitConfig, preprocessing: Preprocessing) -> None:
        """Refuse assumptions that contradict what the file says about itself.

        Raises:
            UsageError: One does.
        """
        stated = {**config.model_dump(), "grid": config.grid, **preprocessing.model_dump()}
        for key, value in self.given(key for key in Assumed.model_fields if key != "pos_embed_resize").items():
            if value != stated[key]:
                raise UsageError(
                    f"the checkpoint says that {key} is {text(stated[key])}, not {text(value)}", remedy="Leave it out"
                )


def text(value: object) -> str:
    """A value in the syntax of `--assume`."""
    if isinstance(value, tuple):
        return ",".join(map(text, value))
    return str(value)


def assumption(key: str, value: object, why: str, others: Mapping[str, object]) -> Assumption:
    """Make the record of one assumption.

    Args:
        key: As in `--assume`.
        value: The assumed value.
        why: Why it was assumed.
        others: Values of other architectures with these shapes, by name; those that differ are recorded.
    """
    shown = "x".join(map(str, value)) if key == "grid" and isinstance(value, tuple) else text(value)
    differing = {name: text(other) for name, other in others.items() if other != value}
    return Assumption(key=key, value=shown, why=why, alternatives=differing)


def assumption_notes(assumptions: Iterable[Assumption], *, proven: bool = False) -> tuple[str, ...]:
    """Sentences about assumptions: what nobody stated, and which known architectures would differ.

    Args:
        assumptions: What was assumed.
        proven: The model was compared with the owner's, which settles all but the preprocessing.
    """
    unstated = [one for one in assumptions if not one.why.startswith("--")]
    if proven:
        unstated = [one for one in unstated if one.key in PREPROCESSING_KEYS]
    if not unstated:
        return ()
    how = "No comparison of models proves it" if proven else "Prove it with export --against"
    by_reason: dict[str, list[Assumption]] = {}
    for one in unstated:
        by_reason.setdefault(one.why, []).append(one)
    listed = "; ".join(
        f"{', '.join(f'{one.key} {one.value}' for one in some)} ({why})" for why, some in by_reason.items()
    )
    notes = [f"assumed, since the weights do not show it: {listed}. {how}, change it with --assume"]
    rivals: dict[str, list[str]] = {}
    for one in unstated:
        for name, value in one.alternatives.items():
            rivals.setdefault(name, []).append(f"{one.key} {value}")
    if rivals:
        different = "; ".join(f"{name} ({', '.join(values)})" for name, values in rivals.items())
        notes.append(f"known models of the same shapes that differ: {different}. If it is one, pass --arch NAME")
    return tuple(notes)


def _pairs(texts: Iterable[str]) -> dict[str, object]:
    found: dict[str, object] = {}
    for pair in texts:
        key, equals, value = pair.partition("=")
        key = _normal(key)
        if not equals or not key or not value:
            raise UsageError(f"--assume {pair}: not of the form KEY=VALUE", remedy="Such as --assume act=quick_gelu")
        if key in found:
            raise UsageError(f"--assume: '{key}' is given twice")
        found[key] = value
    return found


def _normal(key: str) -> str:
    return key.strip().replace("-", "_")
