"""Podman without an engine, a registry or systemd: its own storage and settings, and a base of Debian packages."""

from __future__ import annotations

import hashlib
import os
import re
import resource
import shutil
import subprocess
import sys
import tempfile
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

ROOT = Path(__file__).resolve().parents[2]
CA_BUNDLE = Path("/etc/ssl/certs/ca-certificates.crt")
_TOOLS = ("podman", "runc", "mmdebstrap")

# What python:3.12-slim is to Docker: Python, pip and certificates, no compiler and no perl.
_BASE = r"""
mmdebstrap --quiet --variant=apt --hook-dir=/usr/share/mmdebstrap/hooks/merged-usr \
  --include=usr-is-merged,python3,python3-venv,ca-certificates \
  --dpkgopt='path-exclude=/usr/share/doc/*' --dpkgopt='path-exclude=/usr/share/man/*' \
  --dpkgopt='path-exclude=/usr/share/locale/*' \
  --setup-hook='for f in /usr/local/share/ca-certificates/*.crt; do [ -f "$f" ] || continue;
    mkdir -p "$1/usr/local/share/ca-certificates"; cp "$f" "$1/usr/local/share/ca-certificates/"; done' \
  --customize-hook='[ ! -f "$1/etc/apt/sources.list.d/0000debian.sources" ] ||
    mv "$1/etc/apt/sources.list.d/0000debian.sources" "$1/etc/apt/sources.list.d/debian.sources"' \
  --customize-hook='ln -s /usr/bin/python3 "$1/usr/local/bin/python"; rm -f "$1"/usr/lib/python3*/EXTERNALLY-MANAGED;
    python3 -m zipfile -e "$1"/usr/share/python-wheels/pip-*.whl "$(echo "$1"/usr/local/lib/python3.*/dist-packages)"' \
  "$SUITE" "$TARGET" "$SOURCES"
"""


class CannotBuild(Exception):
    """This machine builds no images; the message says why."""


@dataclass(frozen=True)
class Podman:
    """A private podman.

    Attributes:
        home: Folder with its settings and images.
    """

    home: Path

    def __call__(self, *arguments: str, check: bool = True, timeout: float = 300) -> subprocess.CompletedProcess[str]:
        """Run `podman ARGUMENTS`; with `check`, a failure is an AssertionError with the end of the output."""
        return execute(("podman", *arguments), env=self.environment, check=check, timeout=timeout)

    @property
    def environment(self) -> dict[str, str]:
        """Environment variables that make any podman this one. The OCI format would drop HEALTHCHECK."""
        return {
            **os.environ,
            "CONTAINERS_CONF": str(self.home / "containers.conf"),
            "CONTAINERS_STORAGE_CONF": str(self.home / "storage.conf"),
            "TMPDIR": str(self.home / "tmp"),
            "BUILDAH_FORMAT": "docker",
        }

    def build(self, dockerfile: str, tag: str, *, base: str, context: Path = ROOT, target: str | None = None) -> str:
        """Build one of docker/'s files on another base, with this machine's package settings as secrets.

        Returns:
            The build's output.
        """
        with tempfile.TemporaryDirectory(dir=self.home / "tmp") as folder:
            settings = Path(folder) / "pip.conf"
            settings.write_text(pip_settings(certificates="/run/secrets/ca_certificates"))
            secrets = ["--secret", f"id=pip_conf,src={settings}", "--secret", f"id=ca_certificates,src={CA_BUNDLE}"]
            done = self(
                *("build", "--pull=never", "--network", "host", "--build-arg", f"BASE={base}", "--tag", tag),
                *secrets,
                *(("--target", target) if target is not None else ()),
                *("--file", str(context / "docker" / dockerfile), str(context)),
                timeout=600,
            )
        return done.stdout + done.stderr


def execute(
    command: Sequence[str],
    *,
    env: dict[str, str] | None = None,
    check: bool = True,
    timeout: float = 300,
    cwd: Path = ROOT,
) -> subprocess.CompletedProcess[str]:
    """Run a command; with `check`, a failure is an AssertionError with the end of the output."""
    done = subprocess.run(command, capture_output=True, text=True, env=env, timeout=timeout, check=False, cwd=cwd)
    if check and done.returncode != 0:
        tail = "\n".join((done.stdout + done.stderr).splitlines()[-40:])
        raise AssertionError(f"{' '.join(command[:3])} ... ended with {done.returncode}:\n{tail}")
    return done


def open_podman(home: Path) -> Podman:
    """Settings that work as root in a container without systemd: runc, cgroupfs, limits that we may set.

    Raises:
        CannotBuild: Not root on Debian, or a tool is missing.
    """
    if not sys.platform.startswith("linux") or os.getuid() != 0:
        raise CannotBuild("images are built as root on Linux, in a throw-away machine such as CI's")
    missing = [tool for tool in _TOOLS if shutil.which(tool) is None]
    if missing:
        raise CannotBuild(f"not installed: {', '.join(missing)} (scripts/test_docker.sh installs them on Debian)")
    if not CA_BUNDLE.exists():
        raise CannotBuild(f"{CA_BUNDLE} is missing (package ca-certificates)")
    for name in ("tmp", "run", "storage"):
        (home / name).mkdir(parents=True, exist_ok=True)
    hard = resource.getrlimit(resource.RLIMIT_NOFILE)[1]
    (home / "containers.conf").write_text(
        f'[containers]\ndefault_ulimits = ["nofile=1024:{hard}", "nproc=4096:4096"]\nnetns = "host"\n'
        '[engine]\nruntime = "runc"\ncgroup_manager = "cgroupfs"\nevents_logger = "file"\n'
        f'tmp_dir = "{home}/tmp/libpod"\n'
    )
    (home / "storage.conf").write_text(
        f'[storage]\ndriver = "overlay"\ngraphroot = "{home}/storage"\nrunroot = "{home}/run"\n'
    )
    return Podman(home)


def stand_in_base(podman: Podman) -> str:
    """The name of the base image, made from Debian packages on first use and kept.

    Raises:
        CannotBuild: No packages, or no container can be started here.
    """
    sources = next((path for path in _sources() if path.is_file() and path.stat().st_size), None)
    suite = re.search(r"^VERSION_CODENAME=(\w+)", Path("/etc/os-release").read_text(), re.MULTILINE)
    if sources is None or suite is None:
        raise CannotBuild("no Debian package sources in /etc/apt")
    key = hashlib.sha256((_BASE + suite[1] + sources.read_text()).encode()).hexdigest()[:12]
    name = f"localhost/standin/python:{key}"
    if podman("image", "exists", name, check=False).returncode != 0:
        archive = podman.home / "tmp" / "base.tar"
        settings = {**os.environ, "SUITE": suite[1], "TARGET": str(archive), "SOURCES": str(sources)}
        try:
            execute(("sh", "-euc", _BASE), env=settings)
            podman("import", "--quiet", str(archive), name)
        except AssertionError as error:
            raise CannotBuild(f"no base image could be made: {error}") from error
        finally:
            archive.unlink(missing_ok=True)
    started = podman("run", "--rm", "--network", "none", name, "true", check=False)
    if started.returncode != 0:
        raise CannotBuild(f"no container can be started here: {' '.join(started.stderr.split())}")
    return name


def pip_settings(*, certificates: str) -> str:
    """A pip.conf for a build: this machine's index, if it has one of its own, and its certificates."""
    listed = execute((sys.executable, "-m", "pip", "config", "list")).stdout
    index = re.search(r"^(?:global|install|:env:)\.index-url='(https?://[^']*)'", listed, re.MULTILINE)
    return f"[global]\ncert = {certificates}\n" + (f"index-url = {index[1]}\n" if index else "")


def _sources() -> tuple[Path, ...]:
    return Path("/etc/apt/sources.list.d/debian.sources"), Path("/etc/apt/sources.list")
