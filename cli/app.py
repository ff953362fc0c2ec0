"""The Typer application: one module a command, and every failure of one in one line."""

from __future__ import annotations

import errno
import functools
import importlib
import inspect
import logging
import os
import re
import sys
import traceback
import typing
import warnings
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Annotated, Any

import typer
import typer.core
import typer.models

import tmdeploy
from tmdeploy.errors import TmdeployError, TmdeployWarning
from tmdeploy.report.text import never_fail_to_print, printable
from tmdeploy.system.boundary import set_time_limit

from .console import complain, settings, warn
from .signals import received

# One row a command; the module's function of the same name is the command.
COMMANDS = (
    "export",
    "quantize",
    "build",
    "refit",
    "validate",
    "bench",
    "infer",
    "inspect",
    "visualize",
    "methods",
    "doctor",
    "plugins",
    "demo",
)
_WIDEST_HELP = 140
_SHOW_WARNING = warnings.showwarning
_TYPE_OF_ARGUMENT = re.compile(r" <(path|str|list\[(Path|str)\])>")
_VALUES = {int: "N", float: "X", Path: "PATH", str: "TEXT"}
_NEED_ARGUMENTS = {"export", "quantize", "build", "refit", "validate", "bench", "infer", "inspect", "visualize"}
_EPILOG = (
    "Every command takes --debug (show tracebacks, and what graph passes change) and --quiet. Exit codes: 0 done or \
passed, 1 a check failed, 2 usage, 3 environment missing, 4 export, parse or build failed, 124 --timeout, \
130 interrupted, 143 terminated."
)
_LOG = logging.getLogger("tmdeploy")


class _Details(logging.Handler):
    """What the library logs, on stderr."""

    def emit(self, record: logging.LogRecord) -> None:
        complain(self.format(record))


def run(argv: Sequence[str] | None = None) -> None:
    """Run a command, and leave by SystemExit; None takes the process's arguments."""
    never_fail_to_print()
    arguments = list(sys.argv[1:] if argv is None else argv)
    # taken out here so that they work before and after the command's name alike
    settings.debug, settings.quiet = "--debug" in arguments, bool({"-q", "--quiet"} & set(arguments))
    arguments = [argument for argument in arguments if argument not in {"--debug", "-q", "--quiet"}]
    _LOG.handlers = [_Details()] if settings.debug else []
    _LOG.setLevel(logging.DEBUG if settings.debug else logging.NOTSET)
    set_time_limit(None)
    warnings.showwarning = _show_warning
    build_app()(arguments, prog_name="tmdeploy")


def _show_warning(message: Warning | str, category: type[Warning], *where: Any, **more: Any) -> None:
    """What the library warns of, in one line; every other warning as Python shows it."""
    if issubclass(category, TmdeployWarning):
        warn(str(message))
    else:
        _SHOW_WARNING(message, category, *where, **more)


class _Command(typer.core.TyperCommand):
    """A command whose help does not name the Python types of arguments: `MODEL`, not `MODEL <list[Path]>`."""

    def get_help(self, ctx: Any) -> str:
        return _TYPE_OF_ARGUMENT.sub(lambda found: " " * len(found[0]), super().get_help(ctx))


def build_app() -> typer.Typer:
    """The Typer application with all commands."""
    app = typer.Typer(
        name="tmdeploy",
        help="Token-merged Vision Transformers, from PyTorch to a validated ONNX file.",
        epilog=_EPILOG,
        no_args_is_help=True,
        pretty_exceptions_enable=False,
        rich_markup_mode=None,  # plain help: Rich's cuts names of options, eats [brackets] and needs longer
        context_settings={"max_content_width": _WIDEST_HELP},
    )
    app.callback()(_root)
    for name in COMMANDS:
        module = importlib.import_module(f".{name}", __package__)
        command = getattr(module, name)
        summary = " ".join(inspect.cleandoc(command.__doc__).split("\n\n")[0].split())  # whole: else it is cut short
        app.command(name, cls=_Command, short_help=summary, no_args_is_help=name in _NEED_ARGUMENTS)(_guarded(command))
    return app


def _with_named_values(command: Callable[..., None]) -> inspect.Signature:
    """The command's parameters, with values called N and PATH in help, not `<int range>` and `<list[Path]>`."""
    signature = inspect.signature(command, eval_str=True)
    for parameter in signature.parameters.values():
        annotated, info = parameter.annotation, parameter.annotation.__metadata__[0]
        names = [_VALUES[kind] for kind in _leaves(typing.get_args(annotated)[0]) if kind in _VALUES]
        if info.metavar is None and names:
            is_argument = isinstance(info, typer.models.ArgumentInfo)
            info.metavar = parameter.name.upper() if is_argument else names[0]
    return signature


def _leaves(kind: Any) -> list[Any]:
    """`list[Path] | None` to Path and None."""
    inside = typing.get_args(kind)
    return [leaf for part in inside for leaf in _leaves(part)] if inside else [kind]


def _print_version(wanted: bool) -> None:
    if wanted:
        print(f"tmdeploy {tmdeploy.__version__}")
        raise typer.Exit


def _root(
    version: Annotated[
        bool, typer.Option("--version", callback=_print_version, is_eager=True, help="Version.")
    ] = False,
) -> None:
    """Token-merged Vision Transformers, from PyTorch to a validated ONNX file."""


def _guarded(command: Callable[..., None]) -> Callable[..., None]:
    """Turn every failure into one line and its exit code; `--debug` adds the traceback."""

    @functools.wraps(command)
    def run(*args: Any, **kwargs: Any) -> None:
        try:
            command(*args, **kwargs)
            sys.stdout.flush()
        except (typer.Exit, SystemExit):
            raise
        except BaseException as error:
            if received():  # whatever libraries made of it; `signals.heard` says what happened
                raise SystemExit from None
            if isinstance(error, BrokenPipeError):
                os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())  # so that the exit flush stays silent
                raise typer.Exit(0) from None
            _fail(*_told(error))

    run.__signature__ = _with_named_values(command)  # type: ignore[attr-defined]  # where inspect looks first
    return run


def _told(error: BaseException) -> tuple[str, int]:
    """One line, and the exit code."""
    if isinstance(error, TmdeployError):
        return f"error: {error}", error.exit_code
    if isinstance(error, KeyboardInterrupt):
        return "interrupted", 130
    if isinstance(error, MemoryError):
        return "error: out of memory. Use a smaller --batch, or a machine with more memory.", 4
    if isinstance(error, OSError):
        where = f"{error.filename}: " if error.filename else ""
        full = " Free some space." if error.errno == errno.ENOSPC else ""
        return f"error: {where}{error.strerror or error}.{full}", 4
    what = " ".join(f"{type(error).__name__}: {error}".split())
    return f"internal error: {what}. Run again with --debug for the traceback, and report it.", 4


def _fail(message: str, code: int) -> None:
    if settings.debug:
        print(printable(traceback.format_exc()), end="", file=sys.stderr)
    complain(message)
    raise typer.Exit(code)
