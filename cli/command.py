"""Commands made of verbs: the parameters of `tmdeploy.api`'s functions, as options."""

from __future__ import annotations

import functools
import inspect
import warnings
from collections.abc import Callable, Iterable, Mapping, Sequence
from pathlib import Path
from typing import Annotated, Any

from tmdeploy.api.arguments import Checkpoint
from tmdeploy.errors import TmdeployWarning

from .console import Output, progress
from .options import OPTIONS, PROCESS, Option

Command = Callable[..., None]
_JSON = "json"
_PYTHON_ONLY = {"progress", "preprocessing", "name", "export.class_names", "scheme"}


class Call:
    """A verb and what was typed for it; `call()` runs it, and shows progress and warnings meanwhile."""

    def __init__(self, verb: Callable[..., Any], typed: dict[str, Any], json: str | None) -> None:
        self.verb, self.typed, self._json = verb, typed, json

    def __getitem__(self, name: str) -> Any:
        """What was typed; None where nothing was."""
        return self.typed.get(name)

    def files(self, *names: str) -> list[Any]:
        """Everything that was typed for these: files, folders, globs."""
        found: list[Any] = []
        for name in names:
            value = self.typed.get(name)
            found += value if isinstance(value, list) else [] if value is None else [value]
        return found

    def output(self, *, reads: Iterable[str | Path], writes: Mapping[str, Path | None] | None = None) -> Output:
        """Where the result goes; made before the verb runs, since it checks all that is to be written."""
        return Output(self._json, reads=reads, writes=writes)

    def __call__(self, **more: Any) -> Any:
        """Run the verb."""
        if "progress" not in inspect.signature(self.verb).parameters:
            return self.verb(**{**self.typed, **more})
        with progress() as tell:
            return self.verb(**{**self.typed, **more}, progress=tell)


def command(
    verb: Callable[..., Any], *others: str, optional: Sequence[str] = ()
) -> Callable[[Callable[..., None]], Command]:
    """Give a command all options of a verb, and others.

    The decorated function is called with a `Call` and the value of each of the others that is not of the process. Every
    command has `--json`.

    Args:
        verb: Function of `tmdeploy.api`; its defaults are the command's.
        others: Options that the verb does not have, by name: those of the process, and its own.
        optional: Arguments that the verb needs and the command does not.
    """

    def decorate(body: Callable[..., None]) -> Command:
        name = body.__name__
        defaults = {**parameters_of(verb, name), **dict.fromkeys((*others, _JSON))}
        defaults |= dict.fromkeys(optional)
        defaults |= {other: PROCESS[other][0] for other in others if other in PROCESS}
        found = {key: find(name, key) for key in defaults}
        signature = inspect.Signature(
            sorted(
                (_parameter(key, found[key], default) for key, default in defaults.items()),
                key=lambda one: one.default is not inspect.Parameter.empty,
            )
        )

        @functools.wraps(body)
        def run(*args: Any, **kwargs: Any) -> None:
            bound = signature.bind(*args, **kwargs)
            bound.apply_defaults()
            values = {key: _read(found[key], value) for key, value in bound.arguments.items()}
            for key, (_, apply) in PROCESS.items():
                if key in values:
                    apply(values.pop(key))
            own = {key: values.pop(key) for key in (*others, _JSON) if key in values}
            typed = {key: value for key, value in values.items() if value is not None}
            with warnings.catch_warnings():
                warnings.simplefilter("always", TmdeployWarning)  # shown by the application
                body(Call(verb, typed, own.pop(_JSON)), **own)

        run.__signature__ = signature  # type: ignore[attr-defined]
        return run

    return decorate


def parameters_of(verb: Callable[..., Any], name: str) -> Mapping[str, Any]:
    """Options of a verb with their defaults; no default: an argument that has to be given."""
    found: dict[str, Any] = {}
    for parameter in inspect.signature(verb).parameters.values():
        if parameter.kind is inspect.Parameter.VAR_KEYWORD:
            kinds = Checkpoint.__annotations__
            found |= {key: False if "bool" in str(kind) else None for key, kind in kinds.items()}
        elif not {parameter.name, f"{name}.{parameter.name}"} & _PYTHON_ONLY:
            found[parameter.name] = parameter.default
    return found


def find(command: str, name: str) -> Option:
    """The option of this name: the command's own, or the one that all have."""
    return OPTIONS.get(f"{command}.{name}") or OPTIONS[name]


def _parameter(name: str, option: Option, default: Any) -> inspect.Parameter:
    kind = option.kind
    if default is None or default == ():
        kind, default = kind | None, None
    elif isinstance(default, tuple):
        default = ",".join(f"{value:g}" for value in default)
    elif option.read is not None and isinstance(default, float):
        default = f"{default:g}s" if default >= 1.0 else f"{default * 1e3:g}ms"
    elif isinstance(default, str) and option.kind.__name__ == "Path":
        default = option.kind(default)
    return inspect.Parameter(
        name, inspect.Parameter.POSITIONAL_OR_KEYWORD, default=default, annotation=Annotated[kind, option.info]
    )


def _read(option: Option, value: Any) -> Any:
    """What was typed as the verb takes it; None where nothing was."""
    if value is None or value == []:
        return None
    return value if option.read is None else option.read(value)
