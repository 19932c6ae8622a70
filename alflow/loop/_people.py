"""What a person does to a campaign between or during runs: add, import, approve."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass

from alflow.errors import StructureError, UserError
from alflow.explore import Proposal
from alflow.ledger import (
    CampaignState,
    CandidateState,
    LabelKind,
    NewCandidate,
    RoundState,
    Stream,
    TheoryRow,
    theory_name,
)
from alflow.loop._context import CampaignContext, equate_command
from alflow.loop._duplicates import CampaignDuplicates, FoundDuplicate, renew_fingerprints
from alflow.loop._ingest import IngestReport, ingest
from alflow.structures import Fingerprint, LabelledStructure, Structure, fingerprint

PERSON = "person"


@dataclass(frozen=True, kw_only=True)
class ImportReport:
    """What became of labels that a user brought."""

    taken: int
    already_known: int
    duplicates: int
    refused: tuple[str, ...]


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
    into this campaign only under the campaign's own theory, or one that was declared to count for it.

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
    taken = known = duplicates = 0
    usable: list[tuple[LabelledStructure, str, Fingerprint]] = []
    refused: list[str] = []
    for example, origin in examples:
        structure = example.structure
        missing = sorted(set(structure.elements) - set(ctx.config.elements))
        if missing:
            refused.append(f"{origin}: holds {', '.join(missing)}, which the campaign does not")
            continue
        try:
            mark = fingerprint(structure)
        except StructureError as error:
            refused.append(f"{origin}: {error}")
            continue
        usable.append((example, origin, mark))
    renew_fingerprints(ctx)
    labelled = CampaignDuplicates(ctx, states=(CandidateState.LABELLED,))
    for example, origin, mark in usable:
        structure = example.structure
        with ctx.write(adding=True):
            row = ctx.ledger.pool.find(ctx.campaign_id, structure.content_hash)
            if row is None:
                found = labelled.find(structure, mark, deliberate=True)
                if found is not None:
                    duplicates += 1
                    _add(ctx, structure, mark, origin, CandidateState.DUPLICATE, found.reason, found)
                    continue
                candidate = _add(ctx, structure, mark, origin, CandidateState.POOLED, f"imported from {origin}", None)
                row = ctx.ledger.pool.get(candidate)
            if ctx.ledger.labels.get(row.structure_id, ctx.theory.id) is not None:
                known += 1
                continue
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
            taken += 1
    return ImportReport(taken=taken, already_known=known, duplicates=duplicates, refused=tuple(refused))


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
