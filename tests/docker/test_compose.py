"""docker/compose.yaml, read by podman-compose."""

from __future__ import annotations

import json
import os
import shutil
import sys
from pathlib import Path

import pytest

from .conftest import Image
from .podman import ROOT, execute

yaml = pytest.importorskip("yaml", reason="PyYAML is not installed (scripts/test.sh installs it)")


@pytest.fixture(scope="module")
def compose() -> tuple[str, ...]:
    program = shutil.which("podman-compose", path=str(Path(sys.executable).parent)) or shutil.which("podman-compose")
    if program is None:
        pytest.skip("podman-compose is not installed (scripts/test_docker.sh installs it)")
    return (program, "--file", str(ROOT / "docker" / "compose.yaml"))


def test_both_services_are_confined(compose: tuple[str, ...], tmp_path: Path) -> None:
    settings = {**os.environ, "TMDEPLOY_DATA": str(tmp_path), "TMDEPLOY_USER": "7:8"}
    services = yaml.safe_load(execute((*compose, "--profile", "gpu", "config"), env=settings).stdout)["services"]
    assert set(services) == {"cpu", "gpu"}
    for service in services.values():
        assert service["user"] == "7:8"
        assert service["volumes"] == [f"{tmp_path}:/data"]
        assert (service["read_only"], service["network_mode"], service["cap_drop"]) == (True, "none", ["ALL"])
    (device,) = services["gpu"]["deploy"]["resources"]["reservations"]["devices"]
    assert device == {"driver": "nvidia", "count": 1, "capabilities": ["gpu"]}
    assert "deploy" not in services["cpu"]


def test_the_cpu_service_infers(compose: tuple[str, ...], cpu: Image, data: Path) -> None:
    settings = {**cpu.podman.environment, "TMDEPLOY_DATA": str(data)}
    command = ("run", "--rm", "-T", "cpu", "infer", "digits.onnx", "digits/3_0.png", "--json", "-", "--quiet")
    done = execute((*compose, *command), env=settings)
    assert json.loads(done.stdout[done.stdout.index("{") :])["images"][0]["top"][0]["index"] == 3
