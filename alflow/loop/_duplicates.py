"""The duplicate checks of a campaign against its ledger, and the reuse of labels between identical structures.

Nothing is loaded beforehand: one range of an index says what is near a new structure, the fingerprints of these are
compared, and only structures that these cannot tell apart are loaded, one at a time. What this holds in memory is the
ids of what is near one structure (about 150 bytes each), :data:`AT_ONCE` fingerprints, and the new structures
themselves, however large the ledger is.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from alflow.errors import StructureError
from alflow.ledger import KEPT_CANDIDATES, CandidateState, LabelKind, theory_name
from alflow.loop._context import CampaignContext
from alflow.loop._hull import is_relaxed
from alflow.structures import (
    DuplicateIndex,
    DuplicatePolicy,
    Fingerprint,
    Isometry,
    Match,
    Structure,
    fingerprint,
    transfer_properties,
)

if TYPE_CHECKING:
    from alflow.ledger import CandidateRow, LabelRow, Ledger

AT_ONCE = 1000
"""How many fingerprints are compared at a time."""


@dataclass(frozen=True, kw_only=True)
class FoundDuplicate:
    """The kept candidate that a structure duplicates, and why: in words, and as the map for the ledger."""

    candidate_id: int
    reason: str
    relation: dict[str, Any]


class CampaignDuplicates:
    """The kept candidates of a campaign, as the ledger has them when a structure is compared with them.

    Parameters
    ----------
    ctx
        the campaign
    states
        the states to be compared with
    """

    def __init__(self, ctx: CampaignContext, *, states: Sequence[CandidateState] = KEPT_CANDIDATES) -> None:
        self._ctx = ctx
        self._states = states
        self.identical = identical_policy(ctx)
        self.redundant = redundant_policy(ctx)

    def find(
        self, structure: Structure, mark: Fingerprint, *, deliberate: bool, relaxed: bool = False
    ) -> FoundDuplicate | None:
        """Return the kept candidate that the structure duplicates, or None.

        A deliberate displacement or strain is a duplicate only of an identical structure. So is a relaxed geometry
        next to a labelled one whose label shows it unrelaxed: only a label at the relaxed geometry proves stability.
        """
        for policy in self.policies(deliberate=deliberate):
            match = self.first(policy, structure, mark, relaxed=relaxed)
            if match is not None:
                return self.found(policy, self._ctx.ledger.pool.get(key(match)), match.isometry)
        return None

    def policies(self, *, deliberate: bool) -> Iterator[DuplicatePolicy]:
        """What makes a structure a duplicate, in the order in which it is asked."""
        yield self.identical
        if self.redundant is not None and not deliberate:
            yield self.redundant

    def first(
        self,
        policy: DuplicatePolicy,
        structure: Structure,
        mark: Fingerprint,
        *,
        relaxed: bool = False,
        after: int = 0,
    ) -> Match | None:
        """Return the first kept candidate, by id, that the structure duplicates by one policy; the key is its id.

        Parameters
        ----------
        relaxed
            the structure is relaxed: as a redundant one it does not count beside an unrelaxed label
        after
            only candidates with larger ids are compared
        """
        pool = self._ctx.ledger.pool
        with self._ctx.ledger.read():
            near = pool.near(self._ctx.campaign_id, mark, policy, states=self._states, after=after)
            structure_ids = dict(near)
            for match in confirmed(self._ctx.ledger, policy, structure, mark, structure_ids):
                if policy is self.redundant and relaxed and self._labelled_unrelaxed(structure_ids[key(match)]):
                    continue
                return match
        return None

    def _labelled_unrelaxed(self, structure_id: int) -> bool:
        label = self._ctx.ledger.labels.get(structure_id, self._ctx.theory.id)
        return label is not None and not is_relaxed(self._ctx, label.properties)

    def found(self, policy: DuplicatePolicy, row: CandidateRow, isometry: Isometry) -> FoundDuplicate:
        """Tell of a duplicate of a candidate, with the tolerances that held."""
        word = "to" if policy is self.identical else "with"
        return FoundDuplicate(
            candidate_id=row.id,
            reason=f"{policy.relation} {word} candidate {row.id} ({row.formula}, {row.state}): {describe(isometry)}",
            relation={
                "relation": str(policy.relation),
                "isometry": isometry.to_dict(),
                "policy": policy.model_dump(mode="json", exclude={"relation"}),
            },
        )


def confirmed(
    ledger: Ledger,
    policy: DuplicatePolicy,
    structure: Structure,
    mark: Fingerprint,
    structure_ids: Mapping[int, int],
) -> Iterator[Match]:
    """Of what is near a structure, what it really duplicates; the keys and the order are those of ``structure_ids``."""
    keys = list(structure_ids)
    for start in range(0, len(keys), AT_ONCE):
        some = keys[start : start + AT_ONCE]
        marks = ledger.pool.fingerprints([structure_ids[k] for k in some])
        index = DuplicateIndex(policy)
        for k in some:
            index.add(k, _loader(ledger, structure_ids[k]), marks[structure_ids[k]])
        yield from index.matches(structure, mark)


def identical_policy(ctx: CampaignContext) -> DuplicatePolicy:
    """Return what makes two structures one for this campaign."""
    return DuplicatePolicy.identical(mirror=ctx.config.duplicates.mirror)


def redundant_policy(ctx: CampaignContext) -> DuplicatePolicy | None:
    """Return the tolerance within which a structure is not worth a calculation; None: only identical ones count."""
    d = ctx.config.duplicates
    if d.relation == "identical":
        return None
    return DuplicatePolicy.redundant(d.displacement, d.strain, moments=d.moments, mirror=d.mirror)


def renew_fingerprints(ctx: CampaignContext) -> None:
    """Make fingerprints of an older version anew, before anything is compared with them; outside a transaction."""
    ctx.ledger.pool.renew_fingerprints(ctx.report.note)


def describe(isometry: Isometry) -> str:
    """Say in words how one structure maps on the other."""
    kind = "mirrored, " if isometry.det < 0 else ""
    return f"{kind}largest displacement {isometry.max_displacement:.2g} Å, strain {isometry.max_strain:.2g}"


def find_labelled(ctx: CampaignContext, structure: Structure, mark: Fingerprint) -> Match | None:
    """Return the structure, by its id, whose label at the campaign's theory an identical one may share."""
    policy = identical_policy(ctx)
    with ctx.ledger.read():
        ids = ctx.ledger.pool.labelled_near(ctx.theory.id, mark, policy)
        return next(confirmed(ctx.ledger, policy, structure, mark, {i: i for i in ids}), None)


def reuse_labels(
    ctx: CampaignContext, candidate_ids: Sequence[int], found: Mapping[int, Match | None] | None = None
) -> list[int]:
    """Give candidates the labels of identical structures that count for the theory, of any campaign; return them.

    Called inside a transaction. A label is carried over through the isometry (rotated forces, permuted sites, scaled
    energy) and stored as *reused*, with the label that it derives from, whose theory it keeps.

    Parameters
    ----------
    ctx
        the campaign
    candidate_ids
        of the candidates to be served
    found
        per candidate what :func:`find_labelled` has found; by default it is asked here
    """
    served: list[int] = []
    rows = ctx.ledger.pool.rows(candidate_ids)
    labelled = ctx.ledger.labels.labelled_ids(ctx.theory.id, [row.structure_id for row in rows])
    for row in rows:
        direct = ctx.ledger.labels.get(row.structure_id, ctx.theory.id) if row.structure_id in labelled else None
        if direct is not None:
            reason = f"this structure has label {direct.id} at theory {_theory_name(ctx, direct)} already"
            ctx.ledger.pool.transition([row.id], CandidateState.LABELLED, reason)
            served.append(row.id)
            continue
        if found is not None and found[row.id] is None:
            continue
        structure = ctx.ledger.pool.structure(row.structure_id)
        match = found[row.id] if found is not None else find_labelled(ctx, structure, fingerprint(structure))
        if match is None:
            continue
        source = ctx.ledger.labels.get(key(match), ctx.theory.id)
        if source is None:  # withdrawn since it was found
            continue
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
            source.theory_id,
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
        served.append(row.id)
    return served


def _theory_name(ctx: CampaignContext, label: LabelRow) -> str:
    return theory_name(ctx.theory if label.theory_id == ctx.theory.id else ctx.ledger.theories.get(label.theory_id))


def _loader(ledger: Ledger, structure_id: int) -> Callable[[], Structure]:
    return lambda: ledger.pool.structure(structure_id)


def key(match: Match) -> int:
    """Return the id under which a match was found."""
    assert isinstance(match.key, int)
    return match.key
