"""Shared fixtures; hypothesis runs the same examples everywhere."""

import os
import signal
from collections.abc import Callable, Iterator
from pathlib import Path
from types import ModuleType

import pytest
from hypothesis import HealthCheck, settings

EXAMPLES = Path(__file__).parent.parent / "examples"

settings.register_profile(
    "tmdeploy", deadline=None, derandomize=True, max_examples=60, suppress_health_check=[HealthCheck.too_slow]
)
settings.load_profile("tmdeploy")

# A shell that starts the tests in the background has them ignore Ctrl-C, which children inherit.
if signal.getsignal(signal.SIGINT) == signal.SIG_IGN:
    signal.signal(signal.SIGINT, signal.default_int_handler)


@pytest.fixture(scope="session")
def timm() -> ModuleType:
    """The library whose names and numbers tmdeploy's models follow. Required: no test skips without it."""
    from tests.timm_shim import import_timm

    return import_timm()


@pytest.fixture(autouse=True, scope="module")
def _function_bodies(request: pytest.FixtureRequest) -> Iterator[None]:
    """A native library that happens to be installed must not hide what the file itself does.

    For whole modules, so that their own fixtures see it too.
    """
    with pytest.MonkeyPatch.context() as patch:
        if "plugins" not in request.path.parts:
            patch.setenv("TMDEPLOY_NATIVE", "0")
        yield


def pytest_sessionfinish(session: pytest.Session) -> None:
    """CI has all that the tests need, so a skip there is a failure (TMDEPLOY_NO_SKIPS)."""
    reporter = session.config.pluginmanager.get_plugin("terminalreporter")
    skipped = reporter.stats.get("skipped", []) if reporter is not None else []
    if os.environ.get("TMDEPLOY_NO_SKIPS") and skipped:
        session.exitstatus = pytest.ExitCode.TESTS_FAILED


@pytest.fixture(scope="session")
def digits_onnx(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The example checkpoint, exported once a worker."""
    from tmdeploy.export import ExportRequest, export_checkpoint

    output = tmp_path_factory.mktemp("digits") / "digits.onnx"
    export_checkpoint(ExportRequest(checkpoint=EXAMPLES / "digits_tome.pt", output=output, verify=False))
    return output


@pytest.fixture(scope="session")
def exported(tmp_path_factory: pytest.TempPathFactory) -> Callable[..., Path]:
    """`exported("tome")`, `exported("tome", lowering="portable")`: the file, made once a worker, for reading only."""
    from tests.tensorrt.engines import export_tiny

    made: dict[tuple[object, ...], Path] = {}

    def export(method: str, **request: object) -> Path:
        key = (method, *sorted(request.items()))
        if key not in made:
            made[key] = export_tiny(method, tmp_path_factory.mktemp(method), **request)
        return made[key]

    return export
