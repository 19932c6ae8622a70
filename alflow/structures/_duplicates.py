"""Groups of duplicates, for a batch and incrementally."""

from __future__ import annotations

from collections.abc import Callable, Hashable, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    import numpy as np
    from ase import Atoms
    from numpy.typing import NDArray

    from alflow.structures._fingerprint import Fingerprint
    from alflow.structures._isometry import Isometry
    from alflow.structures._policy import DuplicatePolicy
    from alflow.structures._structure import Structure


@dataclass(frozen=True, kw_only=True, eq=False)
class Match:
    """A stored structure that a new one duplicates; the isometry carries the new one onto the stored one."""

    key: Hashable
    isometry: Isometry


class DuplicateIndex:
    """Stored structures, searchable for duplicates of a new one; in memory, grows by :meth:`add`."""

    def __init__(self, policy: DuplicatePolicy) -> None:
        self.policy = policy

    def __len__(self) -> int:
        raise NotImplementedError

    def add(
        self, key: Hashable, structure: Structure | Callable[[], Structure], fingerprint: Fingerprint | None = None
    ) -> None:
        """Keep a structure, or a way to load it, under a key."""
        raise NotImplementedError

    def find(self, structure: Structure, fingerprint: Fingerprint | None = None) -> Match | None:
        """First stored structure, in the order of addition, that this one duplicates."""
        raise NotImplementedError


def find_duplicates(structures: Sequence[Structure | Atoms], policy: DuplicatePolicy) -> NDArray[np.int64]:
    """(n,): equal label, same group."""
    raise NotImplementedError
