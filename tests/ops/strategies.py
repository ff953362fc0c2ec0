"""Random inputs for the ops, with many ties and the odd NaN: that is where implementations part ways."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import onnxruntime
import torch
from hypothesis import strategies as st

_RUNTIME = tuple(map(int, onnxruntime.__version__.split(".")[:2]))
# Counting bodies are for engines; before 1.26 ONNX Runtime makes something of theirs that it has no kernel for.
COUNTING = st.booleans() if _RUNTIME >= (1, 26) else st.just(False)
OPSETS = st.sampled_from([18, 20, 23] if _RUNTIME >= (1, 23) else [18, 20, 21])
DTYPES = (torch.float32, torch.float16, torch.bfloat16)


@dataclass(frozen=True)
class Case:
    batch: int
    tokens: int
    prefix: int
    width: int
    dtype: torch.dtype
    seed: int
    ties: bool
    nan: bool

    def generator(self) -> np.random.Generator:
        return np.random.default_rng(self.seed)

    def metric(self) -> torch.Tensor:
        """[B, N, C]: small integers tie often, and exactly, in every dtype."""
        rng = self.generator()
        shape = (self.batch, self.tokens, self.width)
        values = rng.integers(-2, 3, shape).astype(np.float32) if self.ties else rng.standard_normal(shape)
        if self.nan:
            values[0, rng.integers(self.tokens)] = np.nan
        return torch.tensor(values, dtype=torch.float32).to(self.dtype)

    def score(self) -> torch.Tensor:
        """[B, N]"""
        rng = self.generator()
        shape = (self.batch, self.tokens)
        values = rng.integers(0, 5, shape).astype(np.float32) if self.ties else rng.random(shape).astype(np.float32)
        if self.nan:
            values[0, rng.integers(self.tokens)] = np.nan
        return torch.tensor(values)


@st.composite
def cases(draw: st.DrawFn, dtypes: tuple[torch.dtype, ...] = DTYPES) -> Case:
    prefix = draw(st.integers(0, 5))
    return Case(
        batch=draw(st.integers(1, 3)),
        tokens=prefix + draw(st.integers(1, 40)),
        prefix=prefix,
        width=draw(st.integers(1, 9)),
        dtype=draw(st.sampled_from(dtypes)),
        seed=draw(st.integers(0, 2**20)),
        ties=draw(st.booleans()),
        nan=draw(st.booleans()),
    )
