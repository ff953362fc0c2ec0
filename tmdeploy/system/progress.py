"""How work that takes a while says what it is doing."""

from __future__ import annotations

from typing import Protocol


class Progress(Protocol):
    """Called when a stage begins, and, where the work knows how far it is, as the stage goes on.

    `share` is how much of the whole is done, 0 to 1; None where nobody knows. It may be called from another thread.
    """

    def __call__(self, text: str, share: float | None = None, /) -> None:
        """Show `text`, such as "tracing the model"."""
        ...


def silent(_text: str, _share: float | None = None, /) -> None:
    """Shows nothing."""
