"""Shared fixtures; hypothesis runs the same examples everywhere."""

import os
from pathlib import Path
from types import ModuleType

import pytest
from hypothesis import HealthCheck, settings

EXAMPLES = Path(__file__).parent.parent / "examples"

settings.register_profile(
    "tmdeploy", deadline=None, derandomize=True, max_examples=60, suppress_health_check=[HealthCheck.too_slow]
)
settings.load_profile("tmdeploy")


@pytest.fixture(scope="session")
def timm() -> ModuleType:
    """The library whose names and numbers tmdeploy's models follow. Required: no test skips without it."""
    from tests.timm_shim import import_timm

    return import_timm()


@pytest.fixture(autouse=True)
def _function_bodies(request: pytest.FixtureRequest, monkeypatch: pytest.MonkeyPatch) -> None:
    """A native library that happens to be installed must not hide what the file itself does."""
    if "plugins" not in request.path.parts:
        monkeypatch.setenv("TMDEPLOY_NATIVE", "0")


def pytest_terminal_summary(terminalreporter: pytest.TerminalReporter) -> None:
    """Name every skip's reason; a skipped check is not a passed one."""
    for report in terminalreporter.getreports("skipped"):
        reason = report.longrepr[2] if isinstance(report.longrepr, tuple) else report.longrepr
        terminalreporter.write_line(f"SKIPPED {report.nodeid}: {reason}")


def pytest_sessionfinish(session: pytest.Session) -> None:
    """CI has all that the tests need, so a skip there is a failure (TMDEPLOY_NO_SKIPS)."""
    reporter = session.config.pluginmanager.get_plugin("terminalreporter")
    skipped = reporter.stats.get("skipped", []) if reporter is not None else []
    # images are built by scripts/test_docker.sh, which says itself what a machine cannot do
    if os.environ.get("TMDEPLOY_NO_SKIPS") and any("tests/docker/" not in report.nodeid for report in skipped):
        session.exitstatus = pytest.ExitCode.TESTS_FAILED


@pytest.fixture(scope="session")
def digits_onnx(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The example checkpoint, exported once a worker."""
    from tmdeploy.export import ExportRequest, export_checkpoint

    output = tmp_path_factory.mktemp("digits") / "digits.onnx"
    export_checkpoint(ExportRequest(checkpoint=EXAMPLES / "digits_tome.pt", output=output, verify=False))
    return output
