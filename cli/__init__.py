"""The command line: one module a command, each parses, calls the library and prints. Installed as `tmdeploy_cli`."""

from __future__ import annotations

import errno
import functools
import importlib
import os
import signal
import sys
import traceback
from collections.abc import Callable, Sequence
from typing import Annotated, Any

import typer

import tmdeploy
from tmdeploy.errors import TmdeployError

from .console import complain, settings

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
2 usage, 3 environment missing, 4 export, parse or build failed, 130 interrupted."

_TERMINATED = 143  # 128 + SIGTERM, as a shell reports it


def main(argv: Sequence[str] | None = None) -> None:
    """Entry point of the `tmdeploy` script."""
    arguments = list(sys.argv[1:] if argv is None else argv)
    # taken out here so that they work before and after the command's name alike
    settings.terminated = False
    settings.debug, settings.quiet = "--debug" in arguments, bool({"-q", "--quiet"} & set(arguments))
    arguments = [argument for argument in arguments if argument not in {"--debug", "-q", "--quiet"}]
    with _terminated_like_an_exit():
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
        module = importlib.import_module(f".{name}", __name__)
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
        except typer.Exit:
            raise
        except TmdeployError as error:
            _fail(f"error: {error}", error.exit_code)
        except KeyboardInterrupt:
            _fail("interrupted", 130)
        except BrokenPipeError:
            os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())  # so that the exit flush stays silent
            raise typer.Exit(0) from None
        except MemoryError:
            _fail("error: out of memory. Use a smaller --batch, or a machine with more memory.", 4)
        except OSError as error:
            where = f"{error.filename}: " if error.filename else ""
            full = " Free some space." if error.errno == errno.ENOSPC else ""
            _fail(f"error: {where}{error.strerror or error}.{full}", 4)
        except Exception as error:
            if settings.terminated:  # an extension module that SIGTERM met while importing makes an ImportError of it
                raise SystemExit(_TERMINATED) from None
            what = " ".join(f"{type(error).__name__}: {error}".split())
            _fail(f"internal error: {what}. Run again with --debug for the traceback, and report it.", 4)

    return run


def _fail(message: str, code: int) -> None:
    if settings.debug:
        traceback.print_exc()
    complain(message)
    raise typer.Exit(code)


def _terminate(*_: object) -> None:
    settings.terminated = True
    sys.exit(_TERMINATED)


class _terminated_like_an_exit:  # noqa: N801 - used as a context manager
    """SIGTERM ends the process by SystemExit, so that temporary files are removed."""

    def __enter__(self) -> None:
        try:
            self._before = signal.signal(signal.SIGTERM, _terminate)
        except ValueError:  # not the main thread
            self._before = None

    def __exit__(self, *_: object) -> None:
        if self._before is not None:
            signal.signal(signal.SIGTERM, self._before)
