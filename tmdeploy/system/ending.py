"""Ending the process from another thread, after removing temporary files.

A call into a library cannot be interrupted from Python, so what stops one is a thread that ends the process, and no
`finally` runs. Whatever must be cleaned up is therefore registered here.
"""

from __future__ import annotations

import contextlib
import os
import shutil
import sys
import tempfile
from collections.abc import Iterator
from pathlib import Path
from typing import NoReturn

_temporaries: set[Path] = set()
_SHOW_CURSOR = "\x1b[?25h"  # a progress display may have hidden the cursor


@contextlib.contextmanager
def removed_at_the_end(path: Path) -> Iterator[None]:
    """Have a temporary file or folder removed if the process is ended inside the block; the block does it otherwise."""
    _temporaries.add(path)
    try:
        yield
    finally:
        _temporaries.discard(path)


@contextlib.contextmanager
def temporary_folder(prefix: str, parent: Path | None = None) -> Iterator[Path]:
    """A folder that is gone after the block, however the process ends (short of SIGKILL)."""
    with tempfile.TemporaryDirectory(prefix=prefix, dir=parent) as name, removed_at_the_end(Path(name)):
        yield Path(name)


def end_process(message: str, exit_code: int) -> NoReturn:
    """Remove temporary files, say why on stderr, and end the process at once, from any thread."""
    for path in list(_temporaries):
        with contextlib.suppress(OSError):
            if path.is_dir():
                shutil.rmtree(path, ignore_errors=True)
            else:
                path.unlink(missing_ok=True)
    with contextlib.suppress(OSError, ValueError):
        cursor = _SHOW_CURSOR if sys.stderr.isatty() else ""
        os.write(2, f"{cursor}{message}\n".encode("utf-8", "backslashreplace"))
    os._exit(exit_code)
