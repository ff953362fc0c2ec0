"""Finds methods: every module of this package that registers one is known to the CLI, the exporter and the tests."""

from __future__ import annotations

import dataclasses
import difflib
import functools
import importlib
import pkgutil
import typing
from collections.abc import Callable, Mapping
from typing import Any

from tmdeploy.errors import UsageError
from tmdeploy.methods.spec import MethodSpec


@dataclasses.dataclass(frozen=True)
class MethodInfo:
    """A registered method.

    Attributes:
        name: As in `--method`.
        summary: One line for tables.
        source: Paper and code it follows.
        options: Dataclass of its named options; field metadata `help` says what each does.
        build: Options to spec.
    """

    name: str
    summary: str
    source: str
    options: type[Any]
    build: Callable[[Any], MethodSpec]


_METHODS: dict[str, MethodInfo] = {}


def register(
    name: str, *, summary: str, source: str, options: type[Any]
) -> Callable[[Callable[[Any], MethodSpec]], Callable[[Any], MethodSpec]]:
    """Decorate the function that turns a method's options into its spec."""

    def decorate(build: Callable[[Any], MethodSpec]) -> Callable[[Any], MethodSpec]:
        if name in _METHODS:
            raise ValueError(f"method '{name}' is registered twice")
        _METHODS[name] = MethodInfo(name, summary, source, options, build)
        return build

    return decorate


@functools.cache
def _discover() -> None:
    import tmdeploy.methods as package

    for module in pkgutil.iter_modules(package.__path__):
        importlib.import_module(f"{package.__name__}.{module.name}")


def methods() -> tuple[MethodInfo, ...]:
    """All registered methods, by name."""
    _discover()
    return tuple(_METHODS[name] for name in sorted(_METHODS))


def method_info(name: str) -> MethodInfo:
    """Look a method up.

    Raises:
        UsageError: Unknown; the message names the closest known one.
    """
    _discover()
    if name in _METHODS:
        return _METHODS[name]
    known = ", ".join(sorted(_METHODS))
    close = difflib.get_close_matches(name, _METHODS, n=1)
    hint = f"Did you mean '{close[0]}'? Known: {known}" if close else f"Known: {known}"
    raise UsageError(f"unknown method '{name}'", remedy=hint)


def build_method(name: str, options: Mapping[str, str | int | float | bool] | None = None) -> MethodSpec:
    """Make a method's spec from its named options.

    Args:
        name: As in `--method`.
        options: Values by option name; strings are converted to the option's type.

    Raises:
        UsageError: Unknown method or option, or a value the option does not take.
    """
    info = method_info(name)
    types = typing.get_type_hints(info.options)
    values: dict[str, Any] = {}
    for key, value in (options or {}).items():
        if key not in types:
            known = ", ".join(types) or "none"
            raise UsageError(f"method '{name}' has no option '{key}'", remedy=f"Its options: {known}")
        values[key] = _convert(value, types[key], f"option '{key}' of method '{name}'")
    chosen = info.options(**values)
    return dataclasses.replace(info.build(chosen), options=dataclasses.asdict(chosen))


def _convert(value: str | int | float | bool, kind: Any, what: str) -> Any:
    if typing.get_origin(kind) is typing.Literal:
        choices = typing.get_args(kind)
        if value not in choices:
            raise UsageError(f"{what} is '{value}'", remedy=f"Choose one of: {', '.join(map(str, choices))}")
        return value
    if kind is bool:
        text = str(value).lower()
        if text not in {"true", "false", "1", "0", "yes", "no", "on", "off"}:
            raise UsageError(f"{what} is '{value}'", remedy="Choose true or false")
        return text in {"true", "1", "yes", "on"}
    try:
        return kind(value)
    except ValueError:
        raise UsageError(f"{what} is '{value}'", remedy=f"Give a {kind.__name__}") from None
