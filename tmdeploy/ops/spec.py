"""The interface of the op set, stated once: inputs, outputs and attributes of TokenMatch, TokenSelect and TokenReduce.

Made from here: the ONNX schemas (`schemas`), PyTorch's registration with its fake kernels (`reference.registration`),
both translations to ONNX (`translations`, `export.translate`), what function bodies are written for (`bodies`), the
ahead-of-time plugins for TensorRT (`tensorrt.plugin.operators`) and the tables of docs/ops.md
(`scripts/make_op_tables.py`). The kernels and plugins of plugins/ take theirs from
plugins/kernels/common/op_attributes.h, which tests/plugins/test_attributes.py compares with this.

An attribute is one line of a dataclass. Its type and default are its type and default everywhere; a `bool` is an int in
ONNX. The values of a text are numbered, for kernels, in the order of `choices`. Imports neither torch nor onnx.
"""

from __future__ import annotations

import inspect
import re
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field, fields
from functools import cached_property
from typing import TYPE_CHECKING, Any, ClassVar, Generic, TypeVar

if TYPE_CHECKING:
    from typing_extensions import Self

DOMAIN = "tmdeploy"
VERSION = 1
MAX_PREFIX = 1024  # more is no model's, and would be written out in a body

Value = int | float | str
FunctionT = TypeVar("FunctionT", bound=Callable[..., Any])


@dataclass(frozen=True)
class Tensor:
    """An input or output.

    Attributes:
        name: As in docs/ops.md.
        type: `int32`, `int64`, `float32`; `T` or `T1` is any floating type, the same wherever it stands.
        dims: Symbols of its dimensions: B images, N tokens before and M after the step, K kept, C channels, F features.
        description: For the schema and docs/ops.md.
        optional: An input that a node may lack.
        needed_by: Attribute and value that an optional input is for.
    """

    name: str
    type: str
    dims: tuple[str, ...]
    description: str = ""
    optional: bool = False
    needed_by: tuple[str, str] | None = None

    @property
    def shape(self) -> str:
        """As docs/ops.md writes it: [B, N]."""
        return f"[{', '.join(self.dims)}]"


@dataclass(frozen=True)
class Attribute:
    """What an attribute is, beside its name.

    Attributes:
        default: Its type is the attribute's.
        description: For the schema and docs/ops.md.
        choices: Values of a text, in the order of their numbers in op_attributes.h.
        bounds: Least and largest value of an int.
    """

    default: Value
    description: str
    choices: tuple[str, ...] = ()
    bounds: tuple[int, int] | None = None

    def read(self, value: Any) -> Value:
        """A node's value as one of the attribute's type. Raises ValueError where it is none."""
        if isinstance(self.default, bool):
            return bool(int(value))
        return type(self.default)(value)

    def code(self, value: Value) -> int | float:
        """A value as kernels take it: texts by number."""
        if self.choices:
            return self.choices.index(str(value))
        return value if isinstance(value, float) else int(value)


def _attribute(default: Any, description: str, **more: Any) -> Any:
    return field(default=default, metadata={"attribute": Attribute(default, description, **more)})


@dataclass(frozen=True)
class Attributes:
    """Values of an op's attributes, in the order of its PyTorch signature; what is not given has its default.

    Raises:
        ValueError: A value that the op does not have.
    """

    op: ClassVar[str]

    @classmethod
    def declared(cls) -> dict[str, Attribute]:
        """The attributes by name."""
        return {entry.name: entry.metadata["attribute"] for entry in fields(cls)}

    @classmethod
    def choices(cls, name: str) -> tuple[str, ...]:
        """The values of a text, in the order of their numbers."""
        return cls.declared()[name].choices

    def __post_init__(self) -> None:
        for name, attribute in self.declared().items():
            value = getattr(self, name)
            if attribute.choices and value not in attribute.choices:
                raise ValueError(f"{self.op}: unknown {name} '{value}'")
            if attribute.bounds is not None and not attribute.bounds[0] <= value <= attribute.bounds[1]:
                raise ValueError(f"{self.op}: {name} is {value}")

    @classmethod
    def read(cls, values: Mapping[str, Any]) -> Self:
        """From a node's; names that the op does not have are left out."""
        known = cls.declared()
        return cls(**{name: known[name].read(value) for name, value in values.items() if name in known})

    def values(self) -> dict[str, Value]:
        """As an ONNX node carries them: a bool is 0 or 1."""
        given = {name: getattr(self, name) for name in self.declared()}
        return {name: int(value) if isinstance(value, bool) else value for name, value in given.items()}

    def codes(self) -> dict[str, int | float]:
        """As kernels take them: texts by number."""
        return {name: attribute.code(getattr(self, name)) for name, attribute in self.declared().items()}


_PREFIX = "`P`: prefix tokens, never merged, always first"
_EPS = "vectors with a norm up to this have similarity 0"
_WIDE = "accumulate similarities in float64: rule 1"


@dataclass(frozen=True)
class MatchAttributes(Attributes):
    """Of TokenMatch."""

    op = "TokenMatch"
    num_prefix: int = _attribute(1, _PREFIX, bounds=(0, MAX_PREFIX))
    order: str = _attribute("tome", "slots after the prefix, below", choices=("tome", "tome_unsorted"))
    metric_eps: float = _attribute(0.0, _EPS)
    deterministic: bool = _attribute(True, _WIDE)


@dataclass(frozen=True)
class SelectAttributes(Attributes):
    """Of TokenSelect."""

    op = "TokenSelect"
    num_prefix: int = _attribute(1, _PREFIX, bounds=(0, MAX_PREFIX))
    leftover: str = _attribute("drop", "what becomes of the rest, below", choices=("drop", "fuse", "nearest"))
    order: str = _attribute("score", "kept tokens by descending `score`, or by `index`", choices=("score", "index"))
    metric_eps: float = _attribute(0.0, _EPS)
    deterministic: bool = _attribute(True, _WIDE)


@dataclass(frozen=True)
class ReduceAttributes(Attributes):
    """Of TokenReduce."""

    op = "TokenReduce"
    mode: str = _attribute("wmean", "below", choices=("wmean", "sum", "anchor", "mean", "max", "mlerp", "mlerp_anchor"))


AttributesT = TypeVar("AttributesT", bound=Attributes)


@dataclass(frozen=True)
class OpSpec(Generic[AttributesT]):
    """One op of the set.

    Attributes:
        attributes: Its attributes, with the op's name.
        description: What it does, in a line.
        inputs: In order; required ones first.
        outputs: In order.
    """

    attributes: type[AttributesT]
    description: str
    inputs: tuple[Tensor, ...]
    outputs: tuple[Tensor, ...]

    @property
    def name(self) -> str:
        """In ONNX: TokenMatch."""
        return self.attributes.op

    @property
    def torch_name(self) -> str:
        """In PyTorch: token_match."""
        return re.sub("(?<=[a-z])(?=[A-Z])", "_", self.name).lower()

    @property
    def input_names(self) -> tuple[str, ...]:
        """Of all inputs, in order."""
        return tuple(tensor.name for tensor in self.inputs)

    @property
    def output_names(self) -> tuple[str, ...]:
        """Of all outputs, in order."""
        return tuple(tensor.name for tensor in self.outputs)

    def inputs_for(self, given: Mapping[str, Value]) -> tuple[Tensor, ...]:
        """The inputs without those that are for other values of an attribute than the given ones."""
        return tuple(t for t in self.inputs if t.needed_by is None or given[t.needed_by[0]] == t.needed_by[1])

    @cached_property
    def signature(self) -> inspect.Signature:
        """Of a call: the inputs, then the attributes."""
        kind = inspect.Parameter.POSITIONAL_OR_KEYWORD
        no_default = inspect.Parameter.empty
        return inspect.Signature(
            [
                *(inspect.Parameter(t.name, kind, default=None if t.optional else no_default) for t in self.inputs),
                *(inspect.Parameter(n, kind, default=a.default) for n, a in self.attributes.declared().items()),
            ]
        )

    def bind(self, args: Sequence[Any], kwargs: Mapping[str, Any]) -> tuple[dict[str, Any], dict[str, Any]]:
        """The arguments of a call: inputs by name, None where one is not given; attributes by name, all of them.

        Raises:
            TypeError: An argument that the op does not have, or an input that is missing.
        """
        bound = self.signature.bind(*args, **kwargs)
        bound.apply_defaults()
        inputs = {name: bound.arguments.pop(name) for name in self.input_names}
        return inputs, bound.arguments

    def sign(self, function: FunctionT, annotate: Callable[[Tensor], Any], returns: Any) -> FunctionT:
        """Give a function of `*args, **kwargs` the op's name and signature, for who reads those.

        Args:
            function: Changed, and returned.
            annotate: The annotation of an input.
            returns: The annotation of the result.
        """
        annotations = {tensor.name: annotate(tensor) for tensor in self.inputs}
        annotations |= {name: type(entry.default) for name, entry in self.attributes.declared().items()}
        parameters = [
            parameter.replace(annotation=annotations[name]) for name, parameter in self.signature.parameters.items()
        ]
        function.__name__ = self.torch_name
        function.__annotations__ = {**annotations, "return": returns}
        function.__signature__ = self.signature.replace(  # type: ignore[attr-defined]
            parameters=parameters, return_annotation=returns
        )
        return function


_SLOTS = Tensor("slots", "int64", ("M",), "Range(0, M): the count, as a dimension")
_PLAN = (
    Tensor("map", "int32", ("B", "N"), "output slot of every token; -1 = dropped"),
    Tensor("index", "int32", ("B", "M"), "the anchor token of every slot; -1 = none"),
)
_SIM = Tensor("sim", "float32", ("B", "N"), "similarity to the destination for merged tokens, 1 elsewhere")

MATCH = OpSpec(
    MatchAttributes,
    "Plan a bipartite match: the N - M most similar pairs merge",
    inputs=(Tensor("metric", "T", ("B", "N", "C"), "vectors whose similarity decides"), _SLOTS),
    outputs=(*_PLAN, _SIM),
)
SELECT = OpSpec(
    SelectAttributes,
    "Plan a selection: the highest scores stay",
    inputs=(
        Tensor("score", "T", ("B", "N"), "importance; prefix columns are ignored"),
        _SLOTS,
        Tensor("metric", "T1", ("B", "N", "C"), "vectors whose similarity decides", True, ("leftover", "nearest")),
        Tensor("kept", "int64", ("K",), "Range(0, K): the count without the fused slot", True, ("leftover", "fuse")),
    ),
    outputs=(*_PLAN, _SIM, Tensor("count", "int32", ("B",), "valid slots: M")),
)
REDUCE = OpSpec(
    ReduceAttributes,
    "Apply a plan: the tokens of every slot become one",
    inputs=(
        Tensor("x", "T", ("B", "N", "F"), "values of the tokens"),
        *_PLAN,
        Tensor("weight", "float32", ("B", "N"), "weights of the tokens; default 1", optional=True),
    ),
    outputs=(
        Tensor("y", "T", ("B", "M", "F"), "0 in slots that nothing maps to"),
        Tensor(
            "wsum",
            "float32",
            ("B", "M"),
            "sum of the weights of the slot's tokens: the new size where weight is the size",
        ),
    ),
)

OPS: dict[str, OpSpec[Any]] = {spec.name: spec for spec in (MATCH, SELECT, REDUCE)}
