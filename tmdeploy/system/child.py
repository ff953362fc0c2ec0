"""Python started in another process: to survive a crash of a library, or to count one model's memory alone.

`python -c` and `python -m` look for modules in the current directory before anywhere else, so that a `numpy.py` beside
somebody's model would run. Every Python process of ours is started here, where that directory is left out.
"""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

_SAFE = sys.version_info >= (3, 11)
# Last: a tmdeploy that was not installed, but found by whoever started us, is found by the child too.
_HOME = f"import sys; sys.path.append({str(Path(__file__).resolve().parents[1])!r})\n"


def python_command(code: str, *arguments: str) -> list[str]:
    """The command that runs `code` without the current directory on its module path.

    PYTHONPATH, the user's site-packages and editable installs hold as they do here.

    Args:
        code: Of a module; `sys.argv[1:]` are the arguments.
        arguments: For it.
    """
    return [sys.executable, *(["-P"] if _SAFE else []), "-c", _clean(_SAFE) + _HOME + code, *arguments]


def run_python(code: str, *arguments: str, timeout: float | None = None) -> subprocess.CompletedProcess[str]:
    """Run `code` in a process of its own; what it printed is in the result.

    Args:
        code: As for `python_command`.
        arguments: For it.
        timeout: Seconds.

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
    """Option -P came with Python 3.11. Before it, `-c` puts '' first after site has run, and sys is built in."""
    return "" if safe else "import sys; sys.path[:1] == [''] and sys.path.pop(0)\n"
