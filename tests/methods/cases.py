"""Every method there is, those of the guide's package included, with every value of its options."""

from __future__ import annotations

import atexit
import itertools
import shutil
import sys
import tempfile
import typing
from dataclasses import dataclass, fields
from pathlib import Path

from torch import nn

import tmdeploy
from tests.distributions import write_guide
from tests.vits import tiny_vit
from tmdeploy.methods import METHODS, MethodInfo, MethodSpec, build_method
from tmdeploy.methods.spec import CustomSignal
from tmdeploy.models.vit import VisionTransformer

LAYERS = (0, 1)
SIDE = 48  # 36 patches
PREFIXES: tuple[dict[str, object], ...] = (
    {},
    {"class_token": False, "pool": "avg", "fc_norm": True},
    {"distilled": True},
    {"registers": 4, "pool": "avg"},
)


def _guide() -> tuple[MethodInfo, ...]:
    """The methods of the guide's package, which stays importable: its specs name functions by their paths."""
    folder = tempfile.mkdtemp()
    atexit.register(shutil.rmtree, folder, ignore_errors=True)
    sys.path.append(str(write_guide(Path(folder) / "guide")))
    METHODS.forget()
    found = METHODS.installed()
    sys.path.pop()
    METHODS.forget()
    return found


GUIDE = _guide()
INFOS = (*METHODS, *GUIDE)


@dataclass(frozen=True)
class Case:
    """A method with its options chosen."""

    method: str
    options: tuple[tuple[str, object], ...]

    def __str__(self) -> str:
        return "-".join([self.method, *(f"{name}={value}" for name, value in self.options)])

    @property
    def spec(self) -> MethodSpec:
        return build_method(self.method, dict(self.options))

    @property
    def prefixes(self) -> list[dict[str, object]]:
        """Kinds of models that it can reduce."""
        return [changes for changes in PREFIXES if changes.get("class_token", True) or not needs_class_token(self.spec)]

    def amount(self, value: int) -> dict[str, list[int]]:
        """r or keep of every step, as arguments of `patch`; nothing for what reduces nothing."""
        kind = self.spec.schedule_kind
        return {} if kind is None else {kind: [value] * len(LAYERS), "layers": LAYERS}

    def patched(self, changes: dict[str, object] | None = None, *, amount: int = 7) -> VisionTransformer:
        """A tiny model of two blocks with a step each."""
        model = tiny_vit(depth=2, image_size=(SIDE, SIDE), **(changes or {}))
        patched = tmdeploy.patch(model, self.method, options=dict(self.options), **self.amount(amount))
        with_noise(patched)
        return patched

    def nothing(self, tokens: int) -> list[int]:
        """The amounts that remove nothing."""
        return [0 if self.spec.schedule_kind == "r" else tokens] * len(LAYERS)


def with_noise(model: nn.Module) -> None:
    """Weights of a method's own parts as large as those of the tiny model, so that they have something to say."""
    import torch

    from tmdeploy.patching import reduction_of

    generator = torch.Generator().manual_seed(5)
    for part in reduction_of(model).parts.values():
        for weight in part.parameters():
            weight.data += torch.randn(weight.shape, generator=generator) * 0.3


def needs_class_token(spec: MethodSpec) -> bool:
    """Whether it reads the class token's attention."""
    score = getattr(spec.planner, "score", None)
    asked = (score, getattr(spec.planner, "metric", None))
    return any(getattr(signal, "needs_class_token", False) for signal in asked if signal is not None)


def values_of(info: MethodInfo) -> dict[str, tuple[object, ...]]:
    """The values of every option: all of a choice, both of a switch, the default of a number and its half."""
    kinds = typing.get_type_hints(info.options)
    found: dict[str, tuple[object, ...]] = {}
    for option in fields(info.options):
        kind = kinds[option.name]
        if kind is bool:
            found[option.name] = (False, True)
        elif kind in {int, float}:
            found[option.name] = (option.default, kind(option.default / 2))
        else:
            found[option.name] = typing.get_args(kind) or (option.default,)
    return found


def _cases() -> list[Case]:
    """Every value of every option, in as few cases as hold every weight with and without the log-size bias."""
    found: list[Case] = []
    for info in INFOS:
        values = values_of(info)
        pairs = list(itertools.product(values.get("weight", ()), values.get("prop_attn", ())))
        for number in range(max([1, len(pairs), *map(len, values.values())])):
            slowly = number // 2 if len(pairs) > 2 else number  # so that pairs of two meet in all four ways
            row = {
                name: choices[(number if len(choices) > 2 else slowly) % len(choices)]
                for name, choices in values.items()
            }
            if pairs:
                row["weight"], row["prop_attn"] = pairs[number % len(pairs)]
            found.append(Case(info.name, tuple(row.items())))
    return found


CASES = _cases()
DEFAULTS = [Case(info.name, ()) for info in INFOS]
LEARNED = [
    Case(info.name, ())
    for info in GUIDE
    if any(isinstance(one, CustomSignal) and one.weights for one in info.build(info.options()).custom_signals)
]
