"""Imports of optional packages, with the command that installs a missing one."""

from __future__ import annotations

import importlib
import shlex
import sys
from pathlib import Path
from types import ModuleType
from typing import Any

from tmdeploy.errors import EnvironmentMissing

# `tmdeploy` on the package index is another project: only the import and the command are called that.
DISTRIBUTION = "tmdeploy-vit"
_EXTRA = {
    "torch": "export",
    "onnxscript": "export",
    "safetensors": "export",
    "openvino": "openvino",
    "tensorrt": "tensorrt",
    "tensorrt_rtx": "rtx",
    "cuda": "rtx",
    "sklearn": "dev",
}


def require(name: str, *, purpose: str) -> ModuleType:
    """Import an optional package.

    Args:
        name: Module to import, such as `torch` or `safetensors.torch`.
        purpose: What it is needed for, such as "exporting a checkpoint".

    Raises:
        EnvironmentMissing: The package is not installed; the message names the extra that installs it.
    """
    try:
        return importlib.import_module(name)
    except ModuleNotFoundError as error:
        top = name.partition(".")[0]
        if error.name is not None and error.name.partition(".")[0] != top:
            raise
        install = install_command(_EXTRA[top]) if top in _EXTRA else f"pip install {top}"
        raise EnvironmentMissing(
            f"{purpose} needs the Python package '{top}'", remedy=f"Install it with: {install}"
        ) from None


class _Verb(ModuleType):
    """A package with the name of a verb, `tmdeploy.bench`: calling it calls the verb, `tmdeploy.api.bench.bench`."""

    def __call__(self, *args: Any, **kwargs: Any) -> Any:
        return self.__wrapped__(*args, **kwargs)

    @property
    def __wrapped__(self) -> Any:  # where inspect.signature looks
        name = self.__name__.rpartition(".")[2]
        return getattr(importlib.import_module(f"tmdeploy.api.{name}"), name)


def called_as_verb(package: str) -> None:
    """Let a package be called: importing any of its modules makes `tmdeploy.bench` the package, not the verb.

    Args:
        package: Its `__name__`.
    """
    sys.modules[package].__class__ = _Verb


def install_command(extra: str) -> str:
    """The command that adds an extra to this installation.

    In a checkout the command names its path. An installed wheel names the distribution: pip finds it installed, does
    not ask an index for it, and adds what the extra needs.

    Args:
        extra: Name of the extra in pyproject.toml, such as `export`.
    """
    checkout = Path(__file__).resolve().parents[1]
    if not (checkout / "pyproject.toml").is_file():
        return f"pip install '{DISTRIBUTION}[{extra}]'"
    folder = "." if checkout == Path.cwd() else checkout
    return f"pip install -e {shlex.quote(f'{folder}[{extra}]')}"
