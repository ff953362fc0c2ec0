"""The Typer application: one module a command, and every failure of one in one line."""

from __future__ import annotations

import errno
import functools
import importlib
import os
import sys
import traceback
from collections.abc import Callable, Sequence
from typing import Annotated, Any

import typer

import tmdeploy
from tmdeploy.boundary import set_time_limit
from tmdeploy.errors import TmdeployError
from tmdeploy.report.text import never_fail_to_print, printable

from .console import complain, settings
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
_NEED_ARGUMENTS = {"export", "quantize", "build", "refit", "validate", "bench", "infer", "inspect", "visualize"}
_EPILOG = "Every command takes --debug (show tracebacks) and --quiet. Exit codes: 0 done or passed, 1 a check failed, \
2 usage, 3 environment missing, 4 export, parse or build failed, 124 --timeout, 130 interrupted, 143 terminated."


def run(argv: Sequence[str] | None = None) -> None:
    """Run a command, and leave by SystemExit; None takes the process's arguments."""
    never_fail_to_print()
    arguments = list(sys.argv[1:] if argv is None else argv)
    # taken out here so that they work before and after the command's name alike
    settings.debug, settings.quiet = "--debug" in arguments, bool({"-q", "--quiet"} & set(arguments))
    arguments = [argument for argument in arguments if argument not in {"--debug", "-q", "--quiet"}]
    set_time_limit(None)
    build_app()(arguments, prog_name="tmdeploy")


def build_app() -> typer.Typer:
    """The Typer application with all commands."""
    app = typer.Typer(
        name="tmdeploy",
        help="Token-merged Vision Transformers, from PyTorch to a validated ONNX file.",
        epilog=_EPILOG,
        no_args_is_help=True,
        add_completion=False,
        pretty_exceptions_enable=False,
        rich_markup_mode="rich",
    )
    app.callback()(_root)
    for name in COMMANDS:
        module = importlib.import_module(f".{name}", __package__)
        app.command(name, no_args_is_help=name in _NEED_ARGUMENTS)(_guarded(getattr(module, name)))
    return app


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
