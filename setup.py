"""The build backend (PEP 517): setuptools', and the native library for ONNX Runtime in the wheel.

`pip install .` and `pip wheel .` compile it where there is a C++ compiler; else the wheel is pure Python, and one line
says why. TMDEPLOY_NATIVE=0 leaves it out, TMDEPLOY_NATIVE=1 insists on it. An editable install has none of its own:
`tmdeploy plugins build` makes one. Everything else is in pyproject.toml.
"""

from __future__ import annotations

import sys
import tempfile
from pathlib import Path
from typing import Any

from setuptools import build_meta, find_packages, setup
from setuptools.build_meta import *  # noqa: F403 - the hooks of a backend
from setuptools.command.bdist_wheel import bdist_wheel
from setuptools.command.build_py import build_py

from tmdeploy.native import wheel


def get_requires_for_build_wheel(config_settings: Any = None) -> list[str]:
    """CMake and ninja as well, where there is a compiler for them."""
    return [*build_meta.get_requires_for_build_wheel(config_settings), *wheel.requirements()]


class BuildPy(build_py):
    """Builds the library beside the copied Python files."""

    def run(self) -> None:
        """Copy, then compile."""
        super().run()
        if self.editable_mode:
            return
        reason = wheel.put_library(Path(self.build_lib) / "tmdeploy" / "native")
        if reason is not None:
            print(f"tmdeploy: no native library in this wheel, function bodies will run: {reason}", file=sys.stderr)
        # Code for one platform; which Python does not matter, since ONNX Runtime loads it.
        self.distribution.has_ext_modules = lambda: reason is None


class Wheel(bdist_wheel):
    """Tags the wheel by what is in it."""

    def run(self) -> None:
        """Build first: before it nobody knows whether there is a library."""
        self.run_command("build")
        self.root_is_pure = not self.distribution.has_ext_modules()
        super().run()

    def get_tag(self) -> tuple[str, str, str]:
        """Any Python 3, of any or of this platform."""
        python, abi, platform = super().get_tag()
        return (python, abi, platform) if self.root_is_pure else ("py3", "none", platform)


if __name__ == "__main__":
    # Elsewhere, and new each time: what an earlier build left in build/ would get into this wheel.
    with tempfile.TemporaryDirectory(prefix="tmdeploy-wheel-") as scratch:
        setup(
            packages=[*find_packages(include=("tmdeploy", "tmdeploy.*")), "tmdeploy_cli"],
            cmdclass={"build_py": BuildPy, "bdist_wheel": Wheel},
            options={"build": {"build_base": scratch}},
        )
