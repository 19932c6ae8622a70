"""What the command-line tests share: a way to run commands in this process, and campaigns to run them on.

Tests of campaigns run on SQLite, and as integration tests on PostgreSQL.
"""

from __future__ import annotations

import shutil
from collections.abc import Callable
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import pytest
from typer.testing import CliRunner

from tests.databases import Databases, PostgresqlServer

TINY = """\
name: tiny
elements: [Cu, Au]
ledger: {ledger}
theory: {{labeler: emt}}
round0: {{prototypes: [fcc], n_spread: 4, max_atoms: 4}}
sources:
  - {{kind: perturb, n: 6}}
committee: {{n_members: 2, channels: 4, l_max: 1, l_product: 1, n_layers: 1, n_radial: 4, hidden: 8}}
training: {{max_epochs: {epochs}}}
selection: {{batch: 3}}
budget: {{labels: {labels}}}
approval: {approval}
"""


@dataclass(frozen=True, kw_only=True)
class Outcome:
    """What a command did."""

    code: int
    stdout: str
    stderr: str

    def json(self) -> Any:
        import json

        return json.loads(self.stdout)


Run = Callable[..., Outcome]


@pytest.fixture
def alflow(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> Run:
    """Run a command in an empty directory of its own, as a shell would without any ALFLOW_ variable."""
    for name in ("ALFLOW_LEDGER", "ALFLOW_LEDGER_FILES", "ALFLOW_CAMPAIGN", "ALFLOW_DEBUG"):
        monkeypatch.delenv(name, raising=False)
    monkeypatch.setenv("COLUMNS", "120")
    monkeypatch.chdir(tmp_path)

    def run(*arguments: object, code: int | None = 0) -> Outcome:
        from alflow.cli._app import app

        result = CliRunner().invoke(app, [str(argument) for argument in arguments], prog_name="alflow")
        if result.exception is not None and not isinstance(result.exception, SystemExit):
            raise result.exception
        outcome = Outcome(code=result.exit_code, stdout=result.stdout, stderr=result.stderr)
        if code is not None:
            assert outcome.code == code, f"exit code {outcome.code}\n{outcome.stdout}\n{outcome.stderr}"
        return outcome

    return run


WriteTiny = Callable[..., Path]


@pytest.fixture
def write_tiny(alflow: Run, backend: str, databases: Databases) -> WriteTiny:
    """Write the file of a campaign that is small enough to be run; the ledger stays when it is written anew."""
    ledger = "sqlite:///tiny.db" if backend == "sqlite" else databases.ledger(backend)

    def write(*, labels: int = 9, approval: str = "auto", epochs: int = 2, ledger: str = ledger) -> Path:
        path = Path("campaign.yaml")
        path.write_text(TINY.format(ledger=ledger, labels=labels, approval=approval, epochs=epochs))
        return path

    return write


@dataclass(frozen=True, kw_only=True)
class Campaign:
    """A campaign in a ledger, made without running the loop.

    ``ids`` are its candidates: 0 and 1 labelled, 2 pooled and uncertain, 3 pooled and known well, 4 a duplicate of 0,
    5 rejected, 6 failed with its job.
    """

    file: Path
    url: str
    name: str
    ids: tuple[int, ...]
    job: int


@pytest.fixture
def campaign(
    alflow: Run, tmp_path: Path, request: pytest.FixtureRequest, backend: str, databases: Databases
) -> Campaign:
    """A campaign of its own for one test, in the working directory."""
    made: Campaign = request.getfixturevalue("made_campaign" if backend == "sqlite" else "made_postgresql_campaign")
    for path in made.file.parent.iterdir():
        shutil.copy2(path, tmp_path)
    file = tmp_path / made.file.name
    if backend == "sqlite":
        return replace(made, file=file, url=made.url.replace(str(made.file.parent), str(tmp_path)))
    url = databases.copy(made.url)
    file.write_text(file.read_text().replace(made.url, url))
    return replace(made, file=file, url=url)


@pytest.fixture(scope="session")
def made_campaign(tmp_path_factory: pytest.TempPathFactory) -> Campaign:
    """The campaign that tests copy, on SQLite."""
    return make(tmp_path_factory.mktemp("campaign") / "campaign.yaml", None)


@pytest.fixture(scope="session")
def made_postgresql_campaign(tmp_path_factory: pytest.TempPathFactory, postgresql_server: PostgresqlServer) -> Campaign:
    """The same on PostgreSQL."""
    postgresql_server.administer("CREATE DATABASE made_campaign")
    folder = tmp_path_factory.mktemp("campaign")
    return make(folder / "campaign.yaml", f"{postgresql_server.url}/made_campaign")


def make(file: Path, url: str | None) -> Campaign:
    """Write a campaign file and fill its ledger with candidates in every state that people ask about."""
    import numpy as np
    from ase.build import bulk

    from alflow.config import init_template, load_campaign
    from alflow.errors import FailureKind
    from alflow.labelers import get_labeler
    from alflow.ledger import CandidateState, LabelKind, NewCandidate, Stream, WorkerIdentity, open_ledger
    from alflow.structures import Structure

    content = init_template("ni-pt", ["Ni", "Pt"], "emt")
    file.write_text(content if url is None else content.replace("sqlite:///ni-pt.db", url))
    loaded = load_campaign(file)
    config, labeler = loaded.config, get_labeler("emt")
    ledger = open_ledger(loaded.ledger_url)
    spec = labeler.theory()
    theory = ledger.theories.register(
        "emt", spec.labeler, dict(spec.settings), spec.code, dict(spec.files), spec.fingerprint
    )
    stored = {"campaign": config.to_json(), "theory": spec.fingerprint}
    campaign_id = ledger.campaigns.create(config.name, config.goal, stored, config.version).id

    def alloy(a: float, *numbers: int) -> Structure:
        atoms = bulk("Cu", "fcc", a=a, cubic=True)
        atoms.numbers[:] = numbers
        return Structure.from_atoms(atoms)

    structures = [
        alloy(3.52, 28, 28, 28, 28),
        alloy(3.65, 28, 28, 28, 78),
        alloy(3.72, 28, 28, 78, 78),
        alloy(3.80, 28, 78, 78, 78),
        alloy(3.521, 28, 28, 28, 28),
        alloy(1.90, 78, 78, 78, 78),
        alloy(3.92, 78, 78, 78, 78),
    ]
    states = [CandidateState.POOLED] * 4 + [CandidateState.DUPLICATE, CandidateState.REJECTED, CandidateState.POOLED]
    reasons = [""] * 4 + ["redundant: 0.0004 Å from candidate 1", "too close: Pt-Pt 1.34 Å", ""]
    ids: list[int] = []
    round_row = ledger.rounds.open(campaign_id, 0)
    for structure, state, reason in zip(structures, states, reasons, strict=True):
        item = NewCandidate(
            structure=structure,
            source="enumerate",
            parameters={"parent": "fcc"},
            state=state,
            reason=reason,
            duplicate_of=ids[0] if state is CandidateState.DUPLICATE else None,
        )
        ids += ledger.pool.add(campaign_id, round_row.id, [item])
    labels = []
    for i in (0, 1):
        row = ledger.pool.get(ids[i])
        properties = labeler.label(structures[i]).properties
        labels.append(
            ledger.labels.store(
                row.structure_id, theory.id, properties, kind=LabelKind.COMPUTED, evidence={"converged": True}
            )
        )
        ledger.pool.transition([row.id], CandidateState.LABELLED, f"label {labels[-1].id}", stream=Stream.DESIGN)
    committee = ledger.committees.add(
        round_row.id,
        spec={"n_members": 4},
        training={},
        artifact_id=None,
        metrics={},
        calibration=None,
        seed=0,
        labels=[(label.id, False, [1.0] * 4) for label in labels],
    )
    ledger.pool.set_scores(
        committee.id,
        ids[2:4],
        u=np.array([3.5, 0.4]),
        energy=np.array([-22.1, -23.0]),
        energy_error=np.array([0.0175, 0.002]),
        force_error=np.array([0.1, 0.01]),
        stress_error=np.array([0.002, 0.001]),
        e_hull=np.array([0.012, 0.08]),
        e_hull_error=np.array([0.01, 0.002]),
    )
    failed = ledger.pool.get(ids[6])
    ledger.pool.transition([failed.id], CandidateState.SELECTED, "drawn at random", stream=Stream.RANDOM, rank=0)
    job = ledger.queue.enqueue(failed.structure_id, theory.id, failed.id)
    claimed = ledger.queue.claim(WorkerIdentity.current("test"), limit=1, theories=None, lease_seconds=60.0)[0]
    ledger.queue.fail(claimed.job_id, claimed.fence, FailureKind.REFUSED, "the cell is too small", max_retries=0)
    url = ledger.url
    ledger.close()
    return Campaign(file=file, url=url, name=config.name, ids=tuple(ids), job=job.id)
