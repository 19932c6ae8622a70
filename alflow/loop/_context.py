"""Everything a step of one campaign needs: configuration, ledger, theory, labeler and somebody to tell."""

from __future__ import annotations

import json
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager, suppress
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Any

from alflow.config import CampaignConfig, LoadedCampaign, load_campaign
from alflow.errors import ConfigError, NotFoundError, TheoryError
from alflow.labelers import Labeler, WorkerConfig, below_noise, get_labeler, load_worker_config
from alflow.ledger import (
    OPEN_JOBS,
    CampaignRow,
    CampaignState,
    Ledger,
    RoundRow,
    TheoryRow,
    open_ledger,
    theory_name,
)
from alflow.loop._limits import Allowance
from alflow.loop._reporter import Reporter, SilentReporter
from alflow.loop._seeds import derive_rng, derive_seed
from alflow.potentials import Kind

if TYPE_CHECKING:
    import numpy as np


LONGEST_SHOWN = 60
"""Characters of a setting in a sentence on what was changed."""


@dataclass(kw_only=True)
class CampaignContext:
    """One opened campaign.

    ``fence`` is None outside a run; inside one it is the number of the campaign's lease, and every transaction of a
    step checks it, so that a run whose lease was taken over cannot write. ``work_here`` says whether the run computes
    labels itself or waits for label workers, ``allowance`` what its limits leave it.
    """

    ledger: Ledger
    config: CampaignConfig
    campaign_id: int
    directory: Path
    theory: TheoryRow
    labeler: Labeler
    worker: WorkerConfig
    report: Reporter = field(default_factory=SilentReporter)
    fence: int | None = None
    work_here: bool = True
    allowance: Allowance | None = None

    @property
    def name(self) -> str:
        """The campaign's name."""
        return self.config.name

    @property
    def campaign(self) -> CampaignRow:
        """The campaign's row as it stands now."""
        return self.ledger.campaigns.get(self.campaign_id)

    @contextmanager
    def write(self, *, adding: bool = False) -> Iterator[None]:
        """One transaction, refused with LeaseLostError if this run no longer holds the campaign's lease.

        ``adding``: nobody else adds candidates until it ends, so that what is compared with the ledger here stays true.
        """
        with self.ledger.write():
            if adding:
                self.ledger.pool.add_alone()
            if self.fence is not None:
                self.ledger.campaigns.check_fence(self.campaign_id, self.fence)
            yield

    def seed(self, round_index: int, step: str) -> int:
        """Seed of one step."""
        return derive_seed(self.name, self.config.seed, round_index, step)

    def rng(self, round_index: int, step: str) -> np.random.Generator:
        """Generator of one step."""
        return derive_rng(self.name, self.config.seed, round_index, step)

    def finish(self, round_row: RoundRow, step: str, summary: dict[str, Any]) -> None:
        """Mark a step as finished; called inside the transaction that holds the step's results."""
        self.ledger.rounds.finish_step(round_row.id, step, summary)


def open_campaign(
    path: Path | str,
    *,
    ledger_url: str | None = None,
    worker: WorkerConfig | None = None,
    report: Reporter | None = None,
    create: bool = True,
) -> CampaignContext:
    """Open the campaign that a file describes; the first time, create it and its ledger.

    Parameters
    ----------
    path
        the campaign file
    ledger_url
        instead of the file's ``ledger``
    worker
        local configuration of labelers; default: the one found beside the campaign file or in the user's configuration
    create
        False: raise NotFoundError where the ledger does not hold the campaign yet

    Raises
    ------
    ConfigError
        if the file cannot be used
    TheoryError
        if the file describes other physics than the labels that the campaign already holds, and nobody declared that
        these count for it
    LedgerVersionError
        if the ledger needs ``alflow db upgrade``
    """
    loaded = load_campaign(Path(path))
    config = loaded.config
    worker = load_worker_config(None, directory=loaded.directory) if worker is None else worker
    labeler = _labeler(loaded, worker)
    loaded.require_labeler(labeler)
    ledger = open_ledger(ledger_url or loaded.ledger_url, create=create)
    theory = register_theory(ledger, labeler, name=config.theory.name)
    row = _campaign_row(ledger, loaded, theory, report or SilentReporter(), create=create)
    return CampaignContext(
        ledger=ledger,
        config=config,
        campaign_id=row.id,
        directory=loaded.directory,
        theory=theory,
        labeler=labeler,
        worker=worker,
        report=report or SilentReporter(),
    )


def register_theory(ledger: Ledger, labeler: Labeler, *, name: str | None = None) -> TheoryRow:
    """Return the ledger's row for what a labeler computes, made where there is none."""
    spec = labeler.theory()
    return ledger.theories.register(
        name,
        labeler=spec.labeler,
        settings=spec.settings,
        code=spec.code,
        files=spec.files,
        fingerprint=spec.fingerprint,
    )


def target_warnings(ctx: CampaignContext) -> tuple[str, ...]:
    """Return sentences about targets in what may be another unit, or below twice the measured noise of the theory."""
    targets = {kind.value: ctx.config.targets.of(kind) for kind in Kind}
    return (*ctx.config.targets.doubts(), *below_noise(ctx.theory.noise, targets))


def campaign_changes(stored: Mapping[str, Any], config: CampaignConfig) -> list[str]:
    """Say setting by setting how a campaign file differs from what the ledger keeps (``CampaignRow.config``)."""

    def leaves(value: Any, name: str) -> Iterator[tuple[str, Any]]:
        if isinstance(value, Mapping) and value:
            for key, inner in value.items():
                yield from leaves(inner, f"{name}.{key}" if name else key)
        else:
            yield name, value

    def shown(value: Any) -> str:
        text = json.dumps(value, ensure_ascii=False)
        return text if len(text) <= LONGEST_SHOWN else f"{text[:LONGEST_SHOWN]}..."

    before = dict(leaves(stored.get("campaign") or {}, ""))
    after = dict(leaves(config.to_json(), ""))
    names = [name for name in {**before, **after} if before.get(name) != after.get(name) and name != "ledger"]
    return [f"{name} {shown(before.get(name))} -> {shown(after.get(name))}" for name in names]


def require_elements(row: CampaignRow, elements: Sequence[str]) -> None:
    """Refuse a file that no longer names all elements of the campaign: it is that of another one of the same name.

    Raises
    ------
    ConfigError
        naming both and what to do
    """
    earlier = (row.config.get("campaign") or {}).get("elements") or []
    gone = [element for element in earlier if element not in elements]
    if gone:
        raise ConfigError(
            f"the ledger holds a campaign {row.name!r} of {'-'.join(earlier)}, but this file, of the same name, is of "
            f"{'-'.join(elements)}: give the file a `name` of its own, or a `ledger` of its own; labels of the same "
            "theory are found again in one ledger"
        )


def _labeler(loaded: LoadedCampaign, worker: WorkerConfig) -> Labeler:
    theory = loaded.config.theory
    try:
        return get_labeler(theory.labeler, dict(theory.settings), worker=worker, directory=loaded.directory)
    except ConfigError as error:
        raise ConfigError(f"{loaded.path}: theory: {error}") from error


def _campaign_row(
    ledger: Ledger, loaded: LoadedCampaign, theory: TheoryRow, report: Reporter, *, create: bool
) -> CampaignRow:
    config = loaded.config
    stored = {
        "campaign": config.to_json(),
        "theory": theory.fingerprint,
        "directory": str(loaded.directory),
    }
    with suppress(NotFoundError), ledger.read():
        row = ledger.campaigns.get(config.name)
        if row.config == stored:  # nothing to write, and who only looks may not be allowed to
            _refuse_other_theories(ledger, row, theory)
            return row
    with ledger.write():
        try:
            row = ledger.campaigns.get(config.name)
        except NotFoundError:
            if not create:
                raise
            return ledger.campaigns.create(config.name, config.goal, stored, config.version)
        require_elements(row, config.elements)
        _refuse_other_theories(ledger, row, theory)
        if row.config != stored:
            changed = _described(row.config) != _described(stored)
            reason = "the campaign file was moved"
            if changed:
                what = "; ".join(campaign_changes(row.config, config)) or "its theory is another"
                reason = f"the campaign file was changed: {what}"
                report.note(reason)
            row = ledger.campaigns.update_config(row.id, stored, reason)
            if changed and row.state is CampaignState.STOPPED:
                ledger.campaigns.set_state(row.id, CampaignState.ACTIVE, "the campaign file was changed after the stop")
                row = ledger.campaigns.get(row.id)
        return row


def equate_command(theory: TheoryRow, counts_as: TheoryRow) -> str:
    """Write the command by which a person declares that labels of one theory count for another."""
    return f"`alflow theory equate {theory_name(theory)} {theory_name(counts_as)} --reason '...'`"


def _refuse_other_theories(ledger: Ledger, row: CampaignRow, theory: TheoryRow) -> None:
    """Refuse a campaign whose labels, or whose calculations under way, are not of its theory.

    Asked every time and not only when the file changes: a declaration that made the labels count may be withdrawn.
    """
    described = f"the file describes {theory_name(theory)!r} ({theory.labeler}, {theory.fingerprint[:12]})"
    others = ledger.labels.of_other_theories(row.id, theory.id)
    if others:
        other, held = max(others.items(), key=lambda item: item[1])
        old = ledger.theories.get(other)
        raise TheoryError(
            f"campaign {row.name!r} holds {held} labels of theory {theory_name(old)!r} ({old.labeler}, "
            f"{old.fingerprint[:12]}), but {described}; labels of two theories never mix. `alflow theory show "
            f"{theory_name(old)} {theory_name(theory)}` lists what differs: restore it, or rename the campaign; "
            f"where both give the same numbers, say so: {equate_command(old, theory)}"
        )
    if row.config.get("theory") == theory.fingerprint:
        return
    jobs = [job.id for job in ledger.queue.list(row.id, OPEN_JOBS) if job.theory_id != theory.id]
    if jobs:
        some = " ".join(map(str, jobs[:3])) + (" ..." if len(jobs) > 3 else "")
        raise TheoryError(
            f"campaign {row.name!r} waits for {len(jobs)} labels of another theory, but {described}; labels of two "
            f"theories never mix: restore the settings and let them finish, or withdraw them (`alflow queue cancel "
            f"{some}`)"
        )


def _described(stored: Mapping[str, Any]) -> dict[str, Any]:
    """What decides how a campaign goes on: where its file and its ledger lie does not."""
    campaign = {key: value for key, value in (stored.get("campaign") or {}).items() if key != "ledger"}
    return {"campaign": campaign, "theory": stored.get("theory")}
