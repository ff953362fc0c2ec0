"""Everything is in pyproject.toml but one thing: a wheel that carries native code is for one platform.

`scripts/build_wheel.sh` builds the library into tmdeploy/native/lib first; without it the wheel is pure Python.
"""

from pathlib import Path

from setuptools import setup
from setuptools.command.bdist_wheel import bdist_wheel

NATIVE = Path(__file__).parent / "tmdeploy" / "native" / "lib"


class Wheel(bdist_wheel):
    """Tags the wheel by what is in it: the library needs a platform, but no Python version (it is loaded by ORT)."""

    def finalize_options(self) -> None:
        """Pure Python unless the library is there."""
        super().finalize_options()
        self.root_is_pure = not any(NATIVE.glob("lib*"))

    def get_tag(self) -> tuple[str, str, str]:
        """Any Python 3 of this platform."""
        python, abi, platform = super().get_tag()
        return (python, abi, platform) if self.root_is_pure else ("py3", "none", platform)


setup(cmdclass={"bdist_wheel": Wheel})
