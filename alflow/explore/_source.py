"""What a source of candidates is: settings in, proposals out."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Any, ClassVar, Protocol, runtime_checkable

import numpy as np

if TYPE_CHECKING:
    from alflow.explore._settings import SourceSettings
    from alflow.potentials import Committee
    from alflow.structures import Structure

Progress = Callable[[str, int, int | None], None]
"""Called with (what is being done, how much of it is done, of how much or None)."""


@dataclass(frozen=True, kw_only=True, eq=False)
class Proposal:
    """A structure that a source proposes, with where it comes from.

    Parameters
    ----------
    structure
        the geometry
    source
        kind of the source, e.g. ``enumerate``
    parameters
        how the source made it: JSON values only, so that the ledger can keep and show them
    parent
        content hash of the structure that it was made from
    deliberate
        differs by little on purpose and must not be dropped as redundant
    rejected
        why the source itself advises against it; None where it does not
    """

    structure: Structure
    source: str
    parameters: Mapping[str, Any] = field(default_factory=dict)
    parent: str | None = None
    deliberate: bool = False
    rejected: str | None = None


@dataclass(frozen=True, kw_only=True, eq=False)
class ExploreContext:
    """What a source may use.

    Parameters
    ----------
    rng
        the only randomness: the same generator state gives the same proposals
    elements
        element symbols of the campaign
    committee
        the potential of this round; None before there is one
    starts
        structures to start from
    round_index
        which round this is
    directory
        folder that relative paths start from
    progress
        called during anything slow, with (what, done, of how many or None)
    """

    rng: np.random.Generator
    elements: tuple[str, ...]
    committee: Committee | None = None
    starts: Sequence[Structure] = ()
    round_index: int = 0
    directory: Path = field(default_factory=Path.cwd)
    progress: Progress | None = None

    def report(self, what: str, done: int, total: int | None = None) -> None:
        """Tell whoever listens how far a slow piece of work has come."""
        if self.progress is not None:
            self.progress(what, done, total)


@runtime_checkable
class Source(Protocol):
    """Proposes candidates. Check an own one with :func:`alflow.explore.check_source`.

    Register the class as an entry point of the group ``alflow.sources``, under the ``kind`` of its settings.

    Attributes
    ----------
    settings_type
        the pydantic model of its settings
    once
        True where the proposals depend on the settings alone, so that one round of proposing is enough
    needs_committee
        True where it cannot propose anything before a potential is trained
    """

    # Any, because a class attribute of a protocol must match exactly, and every source has a model of its own.
    settings_type: ClassVar[type[Any]]
    once: ClassVar[bool]
    needs_committee: ClassVar[bool]

    @property
    def settings(self) -> SourceSettings:
        """The settings that it was made with."""
        ...

    def propose(self, context: ExploreContext) -> Iterator[Proposal]:
        """Yield candidates, in an order that depends on the context alone."""
        ...
