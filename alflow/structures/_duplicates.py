"""Groups of duplicates, for a batch and incrementally.

A group has a leader. A structure belongs to the first leader it is confirmed against, in a canonical order that does
not depend on the order of the input; nothing chains, so frames 0.01 Å apart along a path never merge end to end.
"""

from __future__ import annotations

from collections import OrderedDict, defaultdict
from collections.abc import Callable, Hashable, Iterator, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import numpy as np

from alflow.errors import StructureError
from alflow.structures._alignment import align, worth_aligning
from alflow.structures._fingerprint import FINGERPRINT_VERSION, Fingerprint, bucket, possible_duplicates
from alflow.structures._fingerprint import fingerprint as make_fingerprint
from alflow.structures._motif import Motif, motif
from alflow.structures._structure import Structure

if TYPE_CHECKING:
    from ase import Atoms
    from numpy.typing import NDArray

    from alflow.structures._isometry import Isometry
    from alflow.structures._policy import DuplicatePolicy


_FEW = 8
_TOGETHER = 64
_PREPARED = 16_384


@dataclass(frozen=True, kw_only=True, eq=False)
class Match:
    """A stored structure that a new one duplicates.

    Parameters
    ----------
    key
        under which the stored structure was added
    isometry
        carries the stored structure onto the new one; ``isometry.inverse()`` goes back
    """

    key: Hashable
    isometry: Isometry


class _Shelf:
    """Fingerprints of one bucket, in the order of addition."""

    def __init__(self, width: int) -> None:
        self.size = 0
        self.leading = np.zeros((4, 4))  # a column for every fingerprint
        self.vectors = np.zeros((4, width), dtype=np.float32)
        self.entries: list[int] = []

    def add(self, entry: int, fingerprint: Fingerprint) -> None:
        if len(fingerprint.vector) != self.vectors.shape[1]:
            raise StructureError(f"two fingerprints of bucket {fingerprint.bucket} differ in length")
        if self.size == len(self.vectors):
            self.leading = np.concatenate([self.leading, np.zeros_like(self.leading)], axis=1)
            self.vectors = np.concatenate([self.vectors, np.zeros_like(self.vectors)])
        self.leading[:, self.size] = fingerprint.leading
        self.vectors[self.size] = fingerprint.vector
        self.entries.append(entry)
        self.size += 1

    def candidates(self, fingerprint: Fingerprint, policy: DuplicatePolicy) -> list[int]:
        """Entries whose fingerprints may belong to duplicates, in the order of addition."""
        rows = possible_duplicates(fingerprint, self.leading[:, : self.size], self.vectors[: self.size], policy)
        return [self.entries[row] for row in rows.tolist()]


class DuplicateIndex:
    """Stored structures, searchable for duplicates of a new one; in memory, grows by :meth:`add`.

    Parameters
    ----------
    policy
        which relation counts
    cache
        how many prepared structures are kept at hand; others are loaded and prepared again when they are compared

    Examples
    --------
    >>> from ase.build import bulk
    >>> from alflow.structures import DuplicateIndex, DuplicatePolicy, Structure
    >>> index = DuplicateIndex(DuplicatePolicy.identical())
    >>> index.add("copper", Structure.from_atoms(bulk("Cu", "fcc", a=3.6)))
    >>> index.find(Structure.from_atoms(bulk("Cu", "fcc", a=3.6, cubic=True))).key
    'copper'
    """

    def __init__(self, policy: DuplicatePolicy, *, cache: int = 2048) -> None:
        self.policy = policy
        self._cache_size = cache
        self._cache: OrderedDict[int, Motif] = OrderedDict()
        self._keys: list[Hashable] = []
        self._sources: list[Structure | Callable[[], Structure]] = []
        self._shelves: dict[str, _Shelf] = {}

    def __len__(self) -> int:
        return len(self._keys)

    def add(
        self, key: Hashable, structure: Structure | Callable[[], Structure], fingerprint: Fingerprint | None = None
    ) -> None:
        """Keep a structure under a key.

        Parameters
        ----------
        key
            handed back in a :class:`Match`; it is not checked for uniqueness
        structure
            or a function that loads it, called only when a comparison needs it
        fingerprint
            as stored; made from the structure where absent
        """
        if fingerprint is None:
            structure = structure() if callable(structure) else structure
            fingerprint = make_fingerprint(structure)
        _check_version(fingerprint)
        shelf = self._shelves.get(fingerprint.bucket)
        if shelf is None:
            shelf = self._shelves[fingerprint.bucket] = _Shelf(len(fingerprint.vector))
        shelf.add(len(self._keys), fingerprint)
        self._keys.append(key)
        self._sources.append(structure)

    def find(self, structure: Structure, fingerprint: Fingerprint | None = None) -> Match | None:
        """First stored structure, in the order of addition, that this one duplicates."""
        return next(self.matches(structure, fingerprint), None)

    def matches(self, structure: Structure, fingerprint: Fingerprint | None = None) -> Iterator[Match]:
        """Stored structures, in the order of addition, that this one duplicates; each compared when it is asked for."""
        fingerprint = make_fingerprint(structure) if fingerprint is None else fingerprint
        _check_version(fingerprint)
        shelf = self._shelves.get(fingerprint.bucket)
        candidates = shelf.candidates(fingerprint, self.policy) if shelf is not None else []
        if not candidates:
            return
        prepared = motif(structure, self.policy)
        # a few are looked at one after the other, for the first may be it; many are sorted out together
        step = len(candidates) if len(candidates) <= _FEW else _TOGETHER
        for start in range(0, len(candidates), step):
            chunk = candidates[start : start + step]
            if len(candidates) > _FEW:
                worth = worth_aligning(prepared, [self._motif(entry) for entry in chunk], self.policy)
                chunk = [entry for entry, keep in zip(chunk, worth, strict=True) if keep]
            for entry in chunk:
                isometry = align(self._motif(entry), prepared, self.policy)
                if isometry is not None:
                    yield Match(key=self._keys[entry], isometry=isometry)

    def _motif(self, entry: int) -> Motif:
        """Prepared structure of an entry, from the cache or loaded."""
        found = self._cache.get(entry)
        if found is not None:
            if len(self._cache) == self._cache_size:  # before that nothing is thrown out, whatever its turn
                self._cache.move_to_end(entry)
            return found
        source = self._sources[entry]
        prepared = motif(source() if callable(source) else source, self.policy)
        self._cache[entry] = prepared
        if len(self._cache) > self._cache_size:
            self._cache.popitem(last=False)
        return prepared


def _check_version(fingerprint: Fingerprint) -> None:
    if fingerprint.version != FINGERPRINT_VERSION:
        raise StructureError(
            f"fingerprint of version {fingerprint.version}, this alflow compares version {FINGERPRINT_VERSION}: "
            "make it again from the structure"
        )


def find_duplicates(structures: Sequence[Structure | Atoms | Any], policy: DuplicatePolicy) -> NDArray[np.int64]:
    """Group structures by a relation.

    Parameters
    ----------
    structures
        :class:`Structure` or :class:`ase.Atoms`
    policy
        ``DuplicatePolicy.identical()``, ``.redundant()`` or ``.same_phase()``

    Returns
    -------
    (n,) labels: equal label, same group; numbered by first appearance. The partition is the same for any input order.
    Beyond the structures, memory holds the fingerprints of one composition and at most 16,384 prepared structures.
    """
    items = [s if isinstance(s, Structure) else Structure.from_atoms(s) for s in structures]
    buckets: defaultdict[str, list[int]] = defaultdict(list)
    for i, item in enumerate(items):
        buckets[bucket(item)].append(i)
    leader = np.arange(len(items))
    for members in buckets.values():
        # small cells lead; the content hash breaks ties without regard to the order of the input
        members.sort(key=lambda i: (items[i].n_atoms, items[i].content_hash))
        index, previous = DuplicateIndex(policy, cache=_PREPARED), -1
        for i in members if len(members) > 1 else ():
            if previous >= 0 and items[i].content_hash == items[previous].content_hash:
                leader[i] = leader[previous]
                continue
            previous = i
            fingerprint = make_fingerprint(items[i])
            match = index.find(items[i], fingerprint)
            if match is None:
                index.add(i, items[i], fingerprint)
            else:
                leader[i] = match.key  # type: ignore[call-overload]
    _, first, labels = np.unique(leader, return_index=True, return_inverse=True)
    rank = np.empty(len(first), dtype=np.int64)
    rank[np.argsort(first)] = np.arange(len(first))
    return np.asarray(rank[labels])
