"""TensorRT's two flavors, `tensorrt` and `tensorrt_rtx`: one Python interface, two builders and runtimes."""

from __future__ import annotations

import importlib
import importlib.util
import re
from dataclasses import dataclass
from enum import Enum
from typing import Any

from tmdeploy.errors import EnvironmentMissing, UsageError
from tmdeploy.lazy import install_command

OLDEST, NEWEST_MAJOR = (10, 13), 11  # versions of full TensorRT that the code was checked against


class Flavor(str, Enum):
    """Which TensorRT."""

    TENSORRT = "tensorrt"
    RTX = "rtx"

    @property
    def package(self) -> str:
        """The module to import."""
        return "tensorrt" if self is Flavor.TENSORRT else "tensorrt_rtx"

    @property
    def label(self) -> str:
        """Its name in messages."""
        return "TensorRT" if self is Flavor.TENSORRT else "TensorRT-RTX"

    @property
    def install(self) -> str:
        """The command that installs it."""
        return install_command(self.value)

    @property
    def reinstall(self) -> str:
        """The command that reinstalls it."""
        return f"pip install --force-reinstall {self.distribution}"

    @property
    def distribution(self) -> str:
        """Its name on the package index."""
        return "tensorrt" if self is Flavor.TENSORRT else "tensorrt-rtx-cu13"


@dataclass(frozen=True)
class Toolkit:
    """An imported TensorRT.

    Attributes:
        flavor: Which one.
        module: Its Python package.
        version: Its version, such as `11.4.0.106`.
    """

    flavor: Flavor
    module: Any
    version: str

    @property
    def title(self) -> str:
        """Name and version."""
        return f"{self.flavor.label} {self.version}"


class Log:
    """TensorRT's messages; none is printed on its own.

    Attributes:
        errors: Messages of severity error and above.
        warnings: Messages of severity warning.
        details: Verbose messages, if they are kept.
        logger: The `ILogger` to hand to TensorRT.
    """

    def __init__(self, module: Any, *, keep_details: bool = False) -> None:
        self.errors: list[str] = []
        self.warnings: list[str] = []
        self.details: list[str] = []
        kinds = module.ILogger.Severity
        log = self

        class _Logger(module.ILogger):  # type: ignore[misc]  # a class of a package without types
            def __init__(self) -> None:
                module.ILogger.__init__(self)

            def log(self, severity: Any, message: str) -> None:
                if severity in {kinds.INTERNAL_ERROR, kinds.ERROR}:
                    log.errors.append(message)
                elif severity == kinds.WARNING:
                    log.warnings.append(message)
                elif keep_details:
                    log.details.append(message)

        self.logger = _Logger()

    def reason(self) -> str:
        """The first error, without file names and brackets, or a sentence that there was none."""
        return _plain(self.errors[0]) if self.errors else "it gave no reason"


def open_toolkit(choice: str, *, purpose: str) -> Toolkit:
    """Import a flavor; `auto` takes TensorRT if it is installed, else TensorRT-RTX.

    Args:
        choice: `auto`, `tensorrt` or `rtx`.
        purpose: What it is needed for, such as "building an engine".

    Raises:
        UsageError: No such flavor.
        EnvironmentMissing: It is not installed, its libraries cannot be loaded, or its version is not supported.
    """
    if choice == "auto":
        installed = [flavor for flavor in Flavor if importlib.util.find_spec(flavor.package) is not None]
        if not installed:
            raise EnvironmentMissing(
                f"{purpose} needs TensorRT or TensorRT-RTX, and neither is installed",
                remedy=f"{Flavor.RTX.install} (builds without a GPU), or {Flavor.TENSORRT.install}",
            )
        return _open(installed[0], purpose)
    if choice not in {flavor.value for flavor in Flavor}:
        raise UsageError(f"--flavor {choice}: no such flavor", remedy="Choose auto, tensorrt or rtx")
    return _open(Flavor(choice), purpose)


def _open(flavor: Flavor, purpose: str) -> Toolkit:
    try:
        module = importlib.import_module(flavor.package)
    except ModuleNotFoundError as error:
        if error.name != flavor.package:
            raise EnvironmentMissing(
                f"'{flavor.package}' is installed, but lacks '{error.name}'", remedy=flavor.reinstall
            ) from None
        raise EnvironmentMissing(
            f"{purpose} needs the Python package '{flavor.package}'", remedy=flavor.install
        ) from None
    except (ImportError, OSError) as error:  # a wheel whose libnvinfer is missing or of another CUDA
        first = (str(error).strip().splitlines() or [type(error).__name__])[0]
        raise EnvironmentMissing(
            f"'{flavor.package}' is installed, but cannot be loaded ({first})", remedy=flavor.reinstall
        ) from None
    version = str(module.__version__)
    if flavor is Flavor.TENSORRT:
        numbers = version_numbers(version)
        if numbers[:2] < OLDEST or numbers[0] > NEWEST_MAJOR:
            raise EnvironmentMissing(
                f"TensorRT {version} is not supported, only {'.'.join(map(str, OLDEST))} to {NEWEST_MAJOR}.x",
                remedy=f"{flavor.install}",
            )
    return Toolkit(flavor, module, version)


def version_numbers(version: str) -> tuple[int, ...]:
    """`10.13.3.9.post1` to (10, 13, 3, 9)."""
    numbers = []
    for part in version.split("."):
        if not part.isdigit():
            break
        numbers.append(int(part))
    return tuple(numbers) or (0,)


def _plain(message: str) -> str:
    """A message without NVIDIA's source positions and function names."""
    text = " ".join(message.split()).partition("Internal Error: ")[0]
    text = re.sub(r"\[[\w.]+:\d+: ?\w*\] ?", "", text)
    text = re.sub(r"^\w+::\w+: Error Code \d+: ", "", text)
    for cut in (" In ", " (In "):
        text = text.partition(cut)[0]
    opened = text.count("(") > text.count(")")
    return text.rstrip(" :.") + (")" if opened else "")
