"""What a person does to a campaign between or during runs: add, import, approve."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from enum import StrEnum

from alflow.errors import StructureError, UserError
from alflow.explore import Proposal
from alflow.ledger import (
    CampaignState,
    CandidateState,
    LabelKind,
    LabelRow,
    NewCandidate,
    RoundState,
    Stream,
    TheoryRow,
    theory_name,
)
from alflow.loop._context import CampaignContext, equate_command
from alflow.loop._duplicates import CampaignDuplicates, FoundDuplicate, renew_fingerprints
from alflow.loop._ingest import IngestReport, ingest
from alflow.potentials import why_unusable
from alflow.structures import Fingerprint, LabelledStructure, Structure, fingerprint

PERSON = "person"


class ImportOutcome(StrEnum):
    """What became of one label that a user brought."""

    TAKEN = "taken"
    KNOWN = "known already"
    DUPLICATE = "duplicate"
    REFUSED = "refused"


@dataclass(frozen=True, kw_only=True)
class ImportedLabel:
    """One label that a user brought.

    Parameters
    ----------
    origin
        file and frame
    outcome
        what became of it
    reason
        why it was not taken, in words that many labels share
    detail
        the same for this label
    candidate
        the candidate that carries it, or is the duplicate; None where it was refused
    difference
        of a copy, eV/atom: its energy less that of the label that the campaign has; None for others
    """

    origin: str
    outcome: ImportOutcome
    reason: str = ""
    detail: str = ""
    candidate: int | None = None
    difference: float | None = None


@dataclass(frozen=True, kw_only=True)
class ImportReport:
    """What became of labels that a user brought; ``labels`` has one entry for each, in their order."""

    labels: tuple[ImportedLabel, ...]

    @property
    def taken(self) -> int:
        """How many became labels of the campaign."""
        return self._count(ImportOutcome.TAKEN)

    @property
    def already_known(self) -> int:
        """Of how many the campaign had a label."""
        return self._count(ImportOutcome.KNOWN)

    @property
    def duplicates(self) -> int:
        """How many are other presentations of labelled structures."""
        return self._count(ImportOutcome.DUPLICATE)

    @property
    def refused(self) -> tuple[str, ...]:
        """Why the others were not taken, each with its file and frame."""
        return tuple(f"{x.origin}: {x.detail}" for x in self.labels if x.outcome is ImportOutcome.REFUSED)

    def _count(self, outcome: ImportOutcome) -> int:
        return sum(label.outcome is outcome for label in self.labels)


def add_structures(
    ctx: CampaignContext, structures: Iterable[tuple[Structure, str]], *, deliberate: bool = False
) -> IngestReport:
    """Propose structures that a person gives; they are taken up by the next round.

    Parameters
    ----------
    ctx
        the campaign; need not be stopped or running
    structures
        pairs of a structure and where it comes from (file and frame)
    deliberate
        they differ by little on purpose: only an identical structure makes them duplicates
    """
    proposals = [
        Proposal(structure=s, source="added", parameters={"from": origin}, parent=None, deliberate=deliberate)
        for s, origin in structures
    ]
    return ingest(ctx, proposals, round_id=None, stream=Stream.ACTIVE, actor=PERSON)


def import_labels(
    ctx: CampaignContext, examples: Iterable[tuple[LabelledStructure, str]], theory: TheoryRow
) -> ImportReport:
    """Take over labels that a user already has, under a theory that the user declares.

    The theory is the user's word: energies of another code or other settings would poison the committee, so labels go
    into this campaign only under the campaign's own theory, or one that was declared to count for it. Labels that say
    themselves of which theory they are, as those that alflow exported do, are taken only if that is one of these.

    Raises
    ------
    UserError
        if labels of the declared theory do not count for the campaign's
    """
    if theory.id not in ctx.ledger.equations.counting_for(ctx.theory.id):
        raise UserError(
            f"theory {theory.name!r} ({theory.fingerprint[:12]}) is not the theory of campaign {ctx.name!r}, which is "
            f"{ctx.theory.name!r} ({ctx.theory.fingerprint[:12]}); labels of two theories never mix. Where both give "
            f"the same numbers, say so: {equate_command(theory, ctx.theory)}"
        )
    counting = {ctx.ledger.theories.get(i).fingerprint for i in ctx.ledger.equations.counting_for(ctx.theory.id)}
    found: dict[int, ImportedLabel] = {}
    usable: list[tuple[int, LabelledStructure, str, Fingerprint]] = []
    for number, (example, origin) in enumerate(examples):
        missing = sorted(set(example.structure.elements) - set(ctx.config.elements))
        if missing:
            detail = f"holds {', '.join(missing)}, which the campaign does not"
            found[number] = _refused(origin, "elements outside the campaign", detail)
            continue
        if example.theory is not None and example.theory not in counting:
            detail = f"says that its theory is {example.theory[:12]}, the campaign's is {ctx.theory.fingerprint[:12]}"
            found[number] = _refused(origin, "of another theory, by its own word", detail)
            continue
        reason = why_unusable(example)
        if reason is not None:  # in the ledger it would stop every training
            found[number] = _refused(origin, "no label to learn from", reason)
            continue
        try:
            usable.append((number, example, origin, fingerprint(example.structure)))
        except StructureError as error:
            found[number] = _refused(origin, "not a usable structure", str(error))
    renew_fingerprints(ctx)
    labelled = CampaignDuplicates(ctx, states=(CandidateState.LABELLED,))
    for done, (number, example, origin, mark) in enumerate(usable, 1):
        with ctx.write(adding=True):
            found[number] = _import(ctx, example, origin, mark, theory, labelled)
        ctx.report.progress("import", done, len(usable))
    return ImportReport(labels=tuple(found[number] for number in sorted(found)))


def _refused(origin: str, reason: str, detail: str) -> ImportedLabel:
    return ImportedLabel(origin=origin, outcome=ImportOutcome.REFUSED, reason=reason, detail=detail)


def _import(
    ctx: CampaignContext,
    example: LabelledStructure,
    origin: str,
    mark: Fingerprint,
    theory: TheoryRow,
    labelled: CampaignDuplicates,
) -> ImportedLabel:
    """Store one label, within a transaction."""
    structure = example.structure
    row = ctx.ledger.pool.find(ctx.campaign_id, structure.content_hash)
    if row is None:
        twin = labelled.find(structure, mark, deliberate=True)
        if twin is not None:
            candidate = _add(ctx, structure, mark, origin, CandidateState.DUPLICATE, twin.reason, twin)
            label = ctx.ledger.labels.get(ctx.ledger.pool.get(twin.candidate_id).structure_id, ctx.theory.id)
            return ImportedLabel(
                origin=origin,
                outcome=ImportOutcome.DUPLICATE,
                reason="duplicate of a labelled structure",
                detail=twin.reason,
                candidate=candidate,
                difference=_difference(example, label),
            )
        candidate = _add(ctx, structure, mark, origin, CandidateState.POOLED, f"imported from {origin}", None)
        row = ctx.ledger.pool.get(candidate)
    known = ctx.ledger.labels.get(row.structure_id, ctx.theory.id)
    if known is not None:
        return ImportedLabel(
            origin=origin,
            outcome=ImportOutcome.KNOWN,
            reason="this structure has a label",
            detail=f"candidate {row.id} has a label",
            candidate=row.id,
            difference=_difference(example, known),
        )
    label = ctx.ledger.labels.store(
        row.structure_id,
        theory.id,
        example.properties,
        kind=LabelKind.IMPORTED,
        evidence={"imported_from": origin, "declared_theory": theory_name(theory)},
    )
    ctx.ledger.pool.transition(
        [row.id],
        CandidateState.LABELLED,
        f"label {label.id} imported from {origin}, declared as theory {theory_name(theory)}",
        stream=Stream.IMPORTED,
        actor=PERSON,
    )
    return ImportedLabel(origin=origin, outcome=ImportOutcome.TAKEN, candidate=row.id)


def _difference(example: LabelledStructure, label: LabelRow | None) -> float | None:
    """Energy of a copy less that of a label, eV/atom."""
    if label is None:
        return None
    mine, theirs = example.properties.energy, label.properties.energy
    return mine / example.structure.n_atoms - theirs / label.structure.n_atoms


def _add(
    ctx: CampaignContext,
    structure: Structure,
    mark: Fingerprint,
    origin: str,
    state: CandidateState,
    reason: str,
    found: FoundDuplicate | None,
) -> int:
    return ctx.ledger.pool.add(
        ctx.campaign_id,
        None,
        [
            NewCandidate(
                structure=structure,
                source="imported",
                parameters={"from": origin},
                stream=Stream.IMPORTED,
                state=state,
                reason=reason,
                duplicate_of=None if found is None else found.candidate_id,
                relation=None if found is None else found.relation,
                fingerprint=mark if found is None else None,
            )
        ],
        actor=PERSON,
    )[0]


def approve(ctx: CampaignContext, ids: Sequence[int] | None = None) -> tuple[int, int]:
    """Let the chosen batch be labelled; with ids only those, the others go back to the pool.

    Returns
    -------
    approved, returned
        numbers of candidates

    Raises
    ------
    UserError
        if nothing waits for approval, or an id is not part of the batch
    """
    with ctx.ledger.write():
        selected = ctx.ledger.pool.ids(ctx.campaign_id, [CandidateState.SELECTED])
        round_row = ctx.ledger.rounds.current(ctx.campaign_id)
        if not selected or round_row is None or round_row.state is RoundState.CLOSED:
            raise UserError(
                f"nothing of campaign {ctx.name!r} waits for approval; `alflow status` shows where it stands"
            )
        wrong = sorted(set(ids or ()) - set(selected))
        if wrong:
            raise UserError(f"candidates {wrong} are not part of the batch; `alflow plan` lists it")
        returned = [] if ids is None else sorted(set(selected) - set(ids))
        if returned:
            ctx.ledger.pool.transition(returned, CandidateState.POOLED, "not approved by a person", actor=PERSON)
        ctx.ledger.rounds.update_summary(round_row.id, {"approved": True})
        if ctx.ledger.campaigns.get(ctx.campaign_id).state is CampaignState.WAITING:
            ctx.ledger.campaigns.set_state(ctx.campaign_id, CampaignState.ACTIVE, "the batch was approved")
    return len(selected) - len(returned), len(returned)
