"""The kernels' list of attributes says what the op set's spec says, and the wrappers take theirs from it."""

from __future__ import annotations

import re
from pathlib import Path

import pytest

from tmdeploy.ops.spec import DOMAIN, OPS, VERSION, Value
from tmdeploy.tensorrt.plugin.launch import DTYPES

PLUGINS = Path(__file__).parents[2] / "plugins"
HEADER_FOLDER = PLUGINS / "kernels" / "common"
HEADER = (HEADER_FOLDER / "op_attributes.h").read_text()
WRAPPERS = [
    *(path for folder in ("onnxruntime", "openvino") for path in (PLUGINS / folder).iterdir()),
    *(PLUGINS / "tensorrt").glob("*.h"),
    *(PLUGINS / "kernels").glob("*/c_api.*"),
    *(PLUGINS / "kernels" / "cuda" / "aot").iterdir(),
]

_LIST = re.compile(r"#define TM_(\w+)_ATTRIBUTES\(ATTRIBUTE\)((?:.*\\\n)*.*)")
_ITEM = re.compile(r"ATTRIBUTE\(([\w:]+), (\w+), ([^()]+)\)")
_ENUM = re.compile(r"enum class (\w+) : std::int32_t \{([^}]*)\};")
_SPELLING = re.compile(r"struct Spelling<(\w+)> \{\s*static constexpr const char\* kAll\[\] = \{([^}]*)\};")
_TYPES = {"std::int64_t": int, "float": float, "bool": bool}

Stated = dict[str, dict[str, tuple[type, Value, tuple[str, ...]]]]


def in_cpp(header: str) -> Stated:
    """Type, default and choices of every attribute, by op, in the order of the lists.

    Raises:
        ValueError: The texts of an enumeration are not those of its enumerators, in their order.
    """
    enums = {name: [e.strip() for e in body.split(",")] for name, body in _ENUM.findall(header)}
    spelled = {name: tuple(re.findall(r'"(\w+)"', body)) for name, body in _SPELLING.findall(header)}
    assert set(enums) == set(spelled)
    for name, enumerators in enums.items():
        if enumerators != ["k" + text.title().replace("_", "") for text in spelled[name]]:
            raise ValueError(f"{name} is spelled {spelled[name]}, but counts {enumerators}")

    def value(kind: str, default: str) -> tuple[type, Value, tuple[str, ...]]:
        if kind in enums:
            return str, spelled[kind][enums[kind].index(default.removeprefix(f"{kind}::"))], spelled[kind]
        if kind == "bool":
            return bool, {"true": True, "false": False}[default], ()
        return _TYPES[kind], _TYPES[kind](default.removesuffix("F")), ()

    return {
        f"Token{op.title()}": {name: value(kind, default) for kind, name, default in _ITEM.findall(body)}
        for op, body in _LIST.findall(header)
    }


def in_python() -> Stated:
    return {
        op: {name: (type(a.default), a.default, a.choices) for name, a in spec.attributes.declared().items()}
        for op, spec in OPS.items()
    }


def _in_order(stated: Stated) -> list[tuple[str, list[object]]]:
    return [(op, list(attributes.items())) for op, attributes in stated.items()]


def test_both_state_the_same_attributes_in_the_same_order():
    assert _in_order(in_cpp(HEADER)) == _in_order(in_python())


@pytest.mark.parametrize(
    ("old", "new"),
    [
        ("ATTRIBUTE(float, metric_eps, 0.0F)", "ATTRIBUTE(float, metric_eps, 1.0F)"),
        ("ATTRIBUTE(bool, deterministic, true)", "ATTRIBUTE(bool, deterministic, false)"),
        ("num_prefix, 1)", "num_prefix, 0)"),
        ("ATTRIBUTE(std::int64_t, num_prefix", "ATTRIBUTE(float, num_prefix"),
        ("order, SelectOrder::kScore", "order, SelectOrder::kIndex"),
        ("(Leftover, leftover,", "(Leftover, leftovers,"),
        ("  ATTRIBUTE(float, metric_eps, 0.0F)                 \\\n", ""),
        ("kMean, kMax,", "kMax, kMean,"),
        ('"mean", "max",', '"max", "mean",'),
        ('"fuse"', '"merge"'),
    ],
)
def test_a_difference_is_seen(old: str, new: str):
    assert old in HEADER
    changed = HEADER.replace(old, new, 1)
    if old.startswith(("k", '"')):
        with pytest.raises(ValueError, match=r"^(Leftover|ReduceMode) is spelled"):
            in_cpp(changed)
    else:
        assert _in_order(in_cpp(changed)) != _in_order(in_python())


def test_domain_version_and_types_are_the_same():
    assert f'kDomain = "{DOMAIN}"' in HEADER
    assert f"#define TM_OP_SET_VERSION {VERSION}\n" in HEADER
    dtypes = re.search(r"enum class Dtype : std::int32_t \{([^}]*)\}", (HEADER_FOLDER / "op_params.h").read_text())
    assert dtypes is not None
    assert dtypes[1].split(", ") == [" kFloat32", "kFloat16", "kBFloat16 "]
    assert DTYPES == ("f32", "f16", "bf16")


@pytest.mark.parametrize("path", WRAPPERS, ids=lambda path: str(path.relative_to(PLUGINS)))
def test_no_wrapper_names_an_attribute_itself(path: Path):
    """Else the attribute would have a second place, which the comparison above does not see."""
    names = {name for spec in OPS.values() for name in spec.attributes.declared()}
    texts = {text for spec in OPS.values() for a in spec.attributes.declared().values() for text in a.choices}
    # `metric` and others are inputs too; "score" and "index" are
    quoted = set(re.findall(r'"(\w+)"', path.read_text()))
    assert quoted & names == set()
    assert quoted & texts <= {tensor.name for spec in OPS.values() for tensor in (*spec.inputs, *spec.outputs)}
    assert f'"{DOMAIN}"' not in path.read_text()
