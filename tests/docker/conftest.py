"""Images and a model for the container tests; what was measured is printed at the end of the run."""

from __future__ import annotations

import os
import shutil
import subprocess
import sys
import tempfile
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path

import pytest

from .podman import ROOT, CannotBuild, Podman, execute, open_podman, stand_in_base

# docker run's own words for: no network, nothing writable but what is mounted, no privileges
CONFINED = (
    *("--rm", "--no-healthcheck", "--network", "none", "--read-only", "--read-only-tmpfs=false"),
    *("--cap-drop", "ALL", "--security-opt", "no-new-privileges"),
)
_SWITCH = "TMDEPLOY_TEST_DOCKER"
_facts: list[str] = []


@dataclass(frozen=True)
class Image:
    """A built image and the podman that has it."""

    podman: Podman
    name: str

    def run(self, *arguments: str, options: tuple[str, ...] = ()) -> subprocess.CompletedProcess[str]:
        """`podman run OPTIONS IMAGE ARGUMENTS`, confined; any exit code is an answer."""
        return self.podman("run", *CONFINED, *options, self.name, *arguments, check=False)

    def python(self, code: str, *, options: tuple[str, ...] = ()) -> str:
        """What a Python program prints inside."""
        done = self.run("-c", code, options=("--entrypoint", "python", *options))
        assert done.returncode == 0, done.stderr
        return done.stdout

    def inspect(self, form: str) -> str:
        """One field of the image's description."""
        return self.podman("image", "inspect", self.name, "--format", form).stdout.strip()

    @property
    def megabytes(self) -> float:
        """Size of all layers, 10^6 bytes."""
        return int(self.inspect("{{.Size}}")) / 1e6


@pytest.fixture(scope="session")
def podman() -> Iterator[Podman]:
    """Podman, or a skip that says why there is none; a failure with TMDEPLOY_TEST_DOCKER=require."""
    switch = os.environ.get(_SWITCH, "")
    if not switch:
        pytest.skip(f"images are built and tested by scripts/test_docker.sh ({_SWITCH} is not set)")
    try:
        found = open_podman(Path(os.environ.get("TMDEPLOY_DOCKER_CACHE", "/var/cache/tmdeploy-docker")))
        stand_in_base(found)
    except CannotBuild as reason:
        _facts.append(f"NOT RUN: {reason}")
        if switch == "require":
            pytest.fail(f"images cannot be built here: {reason}")
        pytest.skip(str(reason))
    yield found
    found("image", "prune", "--force", "--filter", "until=48h", check=False)  # what nobody's cache needs any more


@pytest.fixture(scope="session")
def base(podman: Podman) -> Image:
    """The stand-in for python:3.12-slim."""
    return Image(podman, stand_in_base(podman))


@pytest.fixture(scope="session")
def cpu(podman: Podman, base: Image) -> Image:
    """docker/Dockerfile.cpu, built."""
    podman.build("Dockerfile.cpu", "localhost/tmdeploy:latest", base=base.name)
    return Image(podman, "localhost/tmdeploy:latest")


@pytest.fixture(scope="session")
def data() -> Iterator[Path]:
    """A folder as a user would mount it: the bundled checkpoint's ONNX, digits/, and files that are broken."""
    with tempfile.TemporaryDirectory(prefix="tmdeploy-docker-") as name:
        folder = Path(name)
        folder.chmod(0o755)
        shutil.copytree(ROOT / "examples" / "digits", folder / "digits")
        outside("export", str(ROOT / "examples" / "digits_tome.pt"), "-o", "digits.onnx", "--no-verify", cwd=folder)
        model = (folder / "digits.onnx").read_bytes()
        (folder / "truncated.onnx").write_bytes(model[: len(model) // 2])
        (folder / "broken.png").write_bytes((folder / "digits" / "3_0.png").read_bytes()[:60])
        yield folder


@pytest.fixture(scope="session")
def fact() -> Callable[[str], None]:
    """Keep a line for the end of the run."""
    return _facts.append


def outside(*arguments: str, cwd: Path, check: bool = True) -> subprocess.CompletedProcess[str]:
    """`tmdeploy ARGUMENTS` on this machine."""
    return execute((str(Path(sys.executable).parent / "tmdeploy"), *arguments), cwd=cwd, check=check)


def pytest_terminal_summary(terminalreporter: pytest.TerminalReporter) -> None:
    """Print what was measured."""
    if _facts:
        terminalreporter.section("containers")
        for line in _facts:
            terminalreporter.write_line(line)
