import signal
import threading
import time
from types import SimpleNamespace

import pytest

from tmdeploy.tensorrt.build.progress import Cancel, PhaseTree, make_monitor, run_cancellable


def test_nested_phases_fill_one_step_of_their_parent():
    tree = PhaseTree()
    tree.start("build", None, 4)
    assert tree.share == 0.0
    tree.step("build", 0)
    assert tree.share == pytest.approx(1 / 4)
    tree.start("optimise", "build", 2)
    tree.step("optimise", 0)
    assert tree.share == pytest.approx(1 / 4 + 1 / 8)
    tree.start("time", "optimise", 10)
    tree.step("time", 4)
    assert tree.share == pytest.approx(1 / 4 + 1 / 8 + 1 / 16)
    tree.finish("time")
    tree.finish("optimise")
    assert tree.share == pytest.approx(1 / 4 + 1 / 8 + 1 / 16)  # never back
    tree.step("build", 99)  # TensorRT takes more steps than it announced
    assert tree.share == 1.0
    tree.finish("build")
    assert tree.share == 1.0


class _ProgressMonitor:
    def __init__(self) -> None:
        pass


def test_the_monitor_reports_and_cancels():
    told: list[tuple[str, float]] = []
    cancel = Cancel()
    monitor = make_monitor(
        SimpleNamespace(IProgressMonitor=_ProgressMonitor), lambda text, share: told.append((text, share)), cancel
    )
    monitor.phase_start("build", None, 2)
    assert monitor.step_complete("build", 0) is True
    cancel.set()
    assert monitor.step_complete("build", 1) is False
    monitor.phase_finish("build")
    assert told == [("build", 0.0), ("build", 0.5), ("build", 1.0), ("build", 1.0)]


def test_results_and_errors_come_back():
    assert run_cancellable(lambda: 7, Cancel()) == 7

    def fail() -> None:
        raise ValueError("why")

    with pytest.raises(ValueError, match="why"):
        run_cancellable(fail, Cancel())


def test_ctrl_c_cancels_and_waits_for_the_work_to_stop():
    cancel, stopped = Cancel(), threading.Event()

    def work() -> None:
        while not cancel:
            time.sleep(0.01)
        time.sleep(0.2)  # the step that was under way
        stopped.set()

    before = signal.signal(signal.SIGINT, signal.default_int_handler)
    threading.Timer(0.2, lambda: signal.raise_signal(signal.SIGINT)).start()
    try:
        with pytest.raises(KeyboardInterrupt):
            run_cancellable(work, cancel)
        assert stopped.is_set()
    finally:
        signal.signal(signal.SIGINT, before)
