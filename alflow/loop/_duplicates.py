"""The duplicate checks of a campaign against its ledger, and the reuse of labels between identical structures."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from alflow.errors import StructureError
from alflow.ledger import KEPT_CANDIDATES, CandidateState, LabelKind
from alflow.loop._context import CampaignContext
from alflow.loop._hull import is_relaxed
from alflow.structures import (
    DuplicateIndex,
    DuplicatePolicy,
    Fingerprint,
    Isometry,
    Structure,
    transfer_properties,
)

if TYPE_CHECKING:
    from alflow.structures import Match


@dataclass(frozen=True, kw_only=True)
class FoundDuplicate:
    """The kept candidate that a structure duplicates, and why: in words, and as the map for the ledger."""

    candidate_id: int
    reason: str
    relation: dict[str, Any]


class CampaignDuplicates:
    """The kept candidates of a campaign in the buckets that matter, as they are when this is made.

    Parameters
    ----------
    ctx
        the campaign
    buckets
        the fingerprint buckets (composition, periodicity) to be loaded
    states
        the states to be compared with
    """

    def __init__(
        self, ctx: CampaignContext, buckets: Iterable[str], *, states: Sequence[CandidateState] = KEPT_CANDIDATES
    ) -> None:
        self._ctx = ctx
        self._identical = DuplicateIndex(DuplicatePolicy.identical(mirror=ctx.config.duplicates.mirror))
        self._redundant = DuplicateIndex(redundant_policy(ctx))
        for bucket in sorted(buckets):
            for candidate_id, _, mark in ctx.ledger.pool.kept(ctx.campaign_id, bucket, states=states):
                load = _loader(ctx, candidate_id)
                self._identical.add(candidate_id, load, mark)
                self._redundant.add(candidate_id, load, mark)

    def keep(self, candidate_id: int, structure: Structure, mark: Fingerprint) -> None:
        """Count a new candidate among the kept ones."""
        self._identical.add(candidate_id, structure, mark)
        self._redundant.add(candidate_id, structure, mark)

    def find(
        self, structure: Structure, mark: Fingerprint, *, deliberate: bool, relaxed: bool = False
    ) -> FoundDuplicate | None:
        """Return the kept candidate that the structure duplicates, or None.

        A deliberate displacement or strain is a duplicate only of an identical structure. So is a relaxed geometry
        next to a labelled one whose label shows it unrelaxed: only a label at the relaxed geometry proves stability.
        """
        match = self._identical.find(structure, mark)
        if match is not None:
            return self._found("identical", "to", match)
        if deliberate:
            return None
        for match in self._redundant.matches(structure, mark):
            if not (relaxed and self._labelled_unrelaxed(_key(match))):
                return self._found("redundant", "with", match)
        return None

    def _labelled_unrelaxed(self, candidate_id: int) -> bool:
        row = self._ctx.ledger.pool.get(candidate_id)
        label = self._ctx.ledger.labels.get(row.structure_id, self._ctx.theory.id)
        return label is not None and not is_relaxed(self._ctx, label.properties)

    def _found(self, relation: str, word: str, match: Match) -> FoundDuplicate:
        row = self._ctx.ledger.pool.get(_key(match))
        return FoundDuplicate(
            candidate_id=row.id,
            reason=f"{relation} {word} candidate {row.id} ({row.formula}, {row.state}): {describe(match.isometry)}",
            relation={"relation": relation, "isometry": match.isometry.to_dict()},
        )


def redundant_policy(ctx: CampaignContext) -> DuplicatePolicy:
    """Return the campaign's tolerance within which a structure is not worth a calculation of its own."""
    d = ctx.config.duplicates
    return DuplicatePolicy.redundant(displacement=d.displacement, strain=d.strain, mirror=d.mirror)


def describe(isometry: Isometry) -> str:
    """Say in words how one structure maps on the other."""
    kind = "mirrored, " if isometry.det < 0 else ""
    return f"{kind}largest displacement {isometry.max_displacement:.2g} Å, strain {isometry.max_strain:.2g}"


def reuse_labels(ctx: CampaignContext, candidate_ids: Sequence[int]) -> list[int]:
    """Give candidates the labels of identical structures at the same theory, from any campaign; return those served.

    Called inside a transaction. A label is carried over through the isometry (rotated forces, permuted sites, scaled
    energy) and stored as *reused*, with the label that it derives from.
    """
    served: list[int] = []
    policy = DuplicatePolicy.identical(mirror=ctx.config.duplicates.mirror)
    rows = ctx.ledger.pool.rows(candidate_ids)
    labelled = ctx.ledger.labels.labelled_ids(ctx.theory.id, [row.structure_id for row in rows])
    marks = ctx.ledger.pool.fingerprints([row.structure_id for row in rows])
    buckets: dict[str, DuplicateIndex] = {}
    for row in rows:
        direct = ctx.ledger.labels.get(row.structure_id, ctx.theory.id) if row.structure_id in labelled else None
        if direct is not None:
            reason = f"this structure has label {direct.id} at theory {ctx.theory.name} already"
            ctx.ledger.pool.transition([row.id], CandidateState.LABELLED, reason)
            served.append(row.id)
            continue
        mark = marks[row.structure_id]
        index = buckets.get(mark.bucket)
        if index is None:
            index = buckets[mark.bucket] = DuplicateIndex(policy)
            for structure_id, other in ctx.ledger.pool.labelled(ctx.theory.id, mark.bucket):
                index.add(structure_id, _structure_loader(ctx, structure_id), other)
        if not len(index):
            continue
        structure = ctx.ledger.pool.structures([row.id])[0]
        match = index.find(structure, mark)
        if match is None:
            continue
        source = ctx.ledger.labels.get(_key(match), ctx.theory.id)
        assert source is not None, "the index holds labelled structures only"
        isometry = match.isometry
        try:
            properties = transfer_properties(source.properties, isometry, source.structure, structure)
        except StructureError as error:
            ctx.ledger.events.add(
                "label not reused",
                f"candidate {row.id} is identical to the structure of label {source.id}, whose label does not carry "
                f"over: {error}",
                campaign_id=ctx.campaign_id,
                candidate_id=row.id,
            )
            continue
        label = ctx.ledger.labels.store(
            row.structure_id,
            ctx.theory.id,
            properties,
            kind=LabelKind.REUSED,
            evidence={"reused": f"identical to the structure of label {source.id}"},
            derived_from=source.id,
            isometry=isometry.to_dict(),
        )
        ctx.ledger.pool.transition(
            [row.id],
            CandidateState.LABELLED,
            f"label {label.id} reused from label {source.id} of an identical structure: {describe(isometry)}",
        )
        index.add(row.structure_id, structure, mark)
        served.append(row.id)
    return served


class _loader:  # noqa: N801  a callable with an id; a closure in a loop would bind late
    def __init__(self, ctx: CampaignContext, candidate_id: int) -> None:
        self._ctx, self._id = ctx, candidate_id

    def __call__(self) -> Structure:
        return self._ctx.ledger.pool.structures([self._id])[0]


class _structure_loader:  # noqa: N801  see _loader
    def __init__(self, ctx: CampaignContext, structure_id: int) -> None:
        self._ctx, self._id = ctx, structure_id

    def __call__(self) -> Structure:
        return self._ctx.ledger.pool.structures_by_id([self._id])[0]


def _key(match: Match) -> int:
    assert isinstance(match.key, int)
    return match.key
