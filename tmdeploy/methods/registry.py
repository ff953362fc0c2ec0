"""The table of methods: every module of this package that has one, and installed distributions, add to it."""

from __future__ import annotations

import dataclasses
import difflib
import importlib
import pkgutil
import typing
from collections.abc import Callable, Iterator, Mapping
from typing import Any

from tmdeploy.errors import UsageError
from tmdeploy.extensions import Table
from tmdeploy.methods.spec import MethodSpec


@dataclasses.dataclass(frozen=True)
class MethodInfo:
    """A method.

    Attributes:
        name: Name for `--method`.
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


def method(
    name: str, *, summary: str, source: str, options: type[Any]
) -> Callable[[Callable[[Any], MethodSpec]], MethodInfo]:
    """Decorate the function that turns a method's options into its spec; it becomes the method's entry in the table."""
    return lambda build: MethodInfo(name, summary, source, options, build)


def _built_in() -> Iterator[MethodInfo]:
    import tmdeploy.methods as package

    for found in pkgutil.iter_modules(package.__path__):
        module = importlib.import_module(f"{package.__name__}.{found.name}")
        yield from (value for value in vars(module).values() if isinstance(value, MethodInfo))


# Ours: every module of this package that has one. Others add theirs by entry points of this group.
METHODS = Table("tmdeploy.methods", MethodInfo, _built_in)


def methods() -> tuple[MethodInfo, ...]:
    """All methods, by name."""
    return tuple(sorted(METHODS, key=lambda info: info.name))


def method_info(name: str) -> MethodInfo:
    """Look a method up.

    Raises:
        UsageError: Unknown; the message names the closest known one.
    """
    found = METHODS.get(name)
    if found is not None:
        return found
    names = [info.name for info in methods()]
    known = ", ".join(names)
    close = difflib.get_close_matches(name, names, n=1)
    hint = f"Did you mean '{close[0]}'? Known: {known}" if close else f"Known: {known}"
    raise UsageError(f"unknown method '{name}'", remedy=hint)


def build_method(name: str, options: Mapping[str, str | int | float | bool] | None = None) -> MethodSpec:
    """Make a method's spec from its named options.

    Args:
        name: Name for `--method`.
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
