"""The error tree. Each error says what was wrong, where, and what to do; the CLI maps it to an exit code.

TmdeployError
├── UsageError           2  an option or argument cannot be meant
├── EnvironmentMissing   3  a package, library or device is not here
├── CheckFailed          1  a check ran and did not pass
├── CheckpointError      4  a checkpoint cannot be read, or does not fit the architecture
├── ArtifactError        4  a model file is missing, truncated, foreign or inconsistent
├── DataError            4  images or labels cannot be used
├── TimeLimitReached   124  a file did not answer in time (as timeout(1) reports it)
├── UnsupportedModel     4  a module has no structure tmdeploy can patch
└── ExportError          4  the graph could not be made, or does not compute what PyTorch computes
"""

from __future__ import annotations

from pathlib import Path

_LONGEST = 2000  # longest message: it may quote names of any length from a file


class TmdeployError(Exception):
    """Base of every error that a user can cause and fix.

    Args:
        message: What was wrong, without a final full stop.
        path: The file it is about; put in front of the message.
        remedy: What to do, as an instruction without a final full stop.
    """

    exit_code = 4

    def __init__(self, message: str, *, path: str | Path | None = None, remedy: str | None = None) -> None:
        self.message = message if len(message) <= _LONGEST else f"{message[:_LONGEST]}…"
        self.path = None if path is None else Path(path)
        self.remedy = remedy
        super().__init__(self.one_line())

    def one_line(self) -> str:
        """Everything on one line: path, message, remedy."""
        where = f"{self.path}: " if self.path is not None else ""
        what = " ".join(f"{where}{self.message}".split())
        if self.remedy is None:
            return what
        return f"{what.rstrip('.')}. {' '.join(self.remedy.split()).rstrip('.')}."


class TmdeployWarning(UserWarning):
    """What was assumed, clipped or left out: the work goes on."""


class UsageError(TmdeployError):
    """An option or argument cannot be meant: an unknown method, a negative r."""

    exit_code = 2


class EnvironmentMissing(TmdeployError):  # noqa: N818 - a state of the machine, not a mistake
    """A package, shared library or device that the command needs is not on this machine."""

    exit_code = 3


class CheckFailed(TmdeployError):  # noqa: N818 - an outcome, not a mistake
    """A check ran to its end and did not pass."""

    exit_code = 1


class CheckpointError(TmdeployError):
    """A checkpoint cannot be read, is not trusted, or does not fit the architecture."""


class ArtifactError(TmdeployError):
    """A model file is missing, truncated, foreign or inconsistent with its metadata."""


class DataError(TmdeployError):
    """Images or labels cannot be used."""


class TimeLimitReached(TmdeployError):  # noqa: N818 - an outcome, not a mistake
    """Loading or running a file took longer than it was given."""

    exit_code = 124


class UnsupportedModel(TmdeployError):  # noqa: N818 - names the model, as in "unsupported model"
    """A module lacks the structure that patching needs."""


class ExportError(TmdeployError):
    """The graph could not be made, or the file does not compute what PyTorch computes."""
