"""Tables that other distributions extend by Python entry points: methods, backends, checkpoint formats, graph passes.

Nothing is looked for before it is wanted: what tmdeploy brings itself is found without asking what else is installed.
"""

from __future__ import annotations

import warnings
from collections.abc import Callable, Iterable, Iterator
from typing import TYPE_CHECKING, Generic, Protocol, TypeVar

from tmdeploy.errors import TmdeployWarning, UsageError

if TYPE_CHECKING:
    from importlib.metadata import EntryPoint


class Entry(Protocol):
    """What a table holds: frozen data with a name."""

    @property
    def name(self) -> str:
        """What the user calls it."""
        ...


EntryT = TypeVar("EntryT", bound=Entry)


class ExtensionWarning(TmdeployWarning):
    """An extension was left out; one line names its distribution and says why."""


class Table(Generic[EntryT]):
    """Entries by name: tmdeploy's own, then those of installed distributions.

    A distribution adds one with an entry point whose value is the entry:

        [project.entry-points."tmdeploy.methods"]
        coarse = "my_package.coarse:coarse"

    An extension that cannot be imported, is something else or takes a name that is taken is left out with an
    `ExtensionWarning`: what does not use it goes on.

    Args:
        group: Group of entry points.
        kind: Type of the entries.
        built_in: Lists tmdeploy's own.
    """

    def __init__(self, group: str, kind: type[EntryT], built_in: Callable[[], Iterable[EntryT]]) -> None:
        self.group, self._kind, self._built_in = group, kind, built_in
        self._own: dict[str, EntryT] | None = None
        self._added: dict[str, EntryT] = {}
        self._installed: dict[str, EntryT] | None = None

    def __iter__(self) -> Iterator[EntryT]:
        """All entries: tmdeploy's own, those added in this process, those of installed distributions."""
        yield from self._here().values()
        yield from self._from_distributions().values()

    def find(self, fits: Callable[[EntryT], bool]) -> EntryT | None:
        """The first entry that fits; other distributions are asked only if none of tmdeploy's own does."""
        return next(filter(fits, self), None)

    def get(self, name: str) -> EntryT | None:
        """The entry of this name."""
        return self.find(lambda entry: entry.name == name)

    def add(self, entry: EntryT) -> None:
        """Add an entry for this process, without a distribution.

        Raises:
            UsageError: Its name is taken.
        """
        if self.get(entry.name) is not None:
            raise UsageError(f"{self.group} has '{entry.name}' already", remedy="Give it another name")
        self._added[entry.name] = entry

    def forget(self) -> None:
        """Look for installed distributions again; drop what was added."""
        self._installed = None
        self._added = {}

    def _here(self) -> dict[str, EntryT]:
        if self._own is None:
            self._own = {entry.name: entry for entry in self._built_in()}
        return {**self._own, **self._added}

    def _from_distributions(self) -> dict[str, EntryT]:
        if self._installed is None:
            from importlib.metadata import entry_points  # a tenth of a second, for those who want it

            found: dict[str, EntryT] = {}
            for point in entry_points(group=self.group):
                try:
                    entry = point.load()
                    problem = self._problem(entry, found)
                except (Exception, SystemExit) as error:  # whatever the code of others does when it is imported
                    problem = " ".join(f"{type(error).__name__}: {error}".split())
                if problem is None:
                    found[entry.name] = entry
                else:
                    told = f"'{point.name}' of {_owner(point)} is left out of {self.group}: {problem}"
                    warnings.warn(told, ExtensionWarning, stacklevel=4)
            self._installed = found
        return self._installed

    def installed(self) -> tuple[EntryT, ...]:
        """The entries of installed distributions alone."""
        return tuple(self._from_distributions().values())

    def _problem(self, entry: object, found: dict[str, EntryT]) -> str | None:
        if not isinstance(entry, self._kind):
            return f"it is a {type(entry).__name__}, not a {self._kind.__name__}"
        if entry.name in self._here() or entry.name in found:
            return f"the name '{entry.name}' is taken"
        return None


def _owner(point: EntryPoint) -> str:
    """The distribution that an entry point is of; the module it names where that cannot be read."""
    try:
        return str(point.dist.name) if point.dist is not None else point.module
    except (KeyError, AttributeError, OSError):
        return point.module
