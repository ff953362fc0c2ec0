"""Python in another process: to survive the crash of a library, or to measure the memory of one model.

`python -c` and `python -m` look for modules in the current directory before anywhere else, so that a `numpy.py` beside
somebody's model would run. Every Python process of ours is started here, where that directory is left out.
"""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

_SAFE = sys.version_info >= (3, 11)
# Last, so that the child finds a tmdeploy that is not installed but was found by this process.
_HOME = f"import sys; sys.path.append({str(Path(__file__).resolve().parents[1])!r})\n"


def python_command(code: str, *arguments: str) -> list[str]:
    """The command that runs `code` without the current directory on its module path.

    PYTHONPATH, the user's site-packages and editable installs hold as they do here.

    Args:
        code: Source of a module; `sys.argv[1:]` holds the arguments.
        arguments: Its command-line arguments.
    """
    return [sys.executable, *(["-P"] if _SAFE else []), "-c", _clean(_SAFE) + _HOME + code, *arguments]


def run_python(code: str, *arguments: str, timeout: float | None = None) -> subprocess.CompletedProcess[str]:
    """Run `code` in a process of its own and capture what it prints.

    Args:
        code: See `python_command`.
        arguments: Its command-line arguments.
        timeout: In seconds.

    Raises:
        subprocess.TimeoutExpired: It took longer.
    """
    return subprocess.run(  # noqa: S603 - our own code
        python_command(code, *arguments), capture_output=True, text=True, timeout=timeout, check=False
    )


def last_words(done: subprocess.CompletedProcess[str]) -> str:
    """The last line that a failed process wrote to stderr, or how it ended."""
    return (done.stderr.strip().splitlines() or [f"exit code {done.returncode}"])[-1]


def _clean(safe: bool) -> str:
    """Remove the current directory from the module path: option -P exists from Python 3.11 on only."""
    return "" if safe else "import sys; sys.path[:1] == [''] and sys.path.pop(0)\n"
