"""A small campaign of four rounds, played through the ledger's own interface, with every fate a candidate can have."""

from __future__ import annotations

import uuid
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from ase import Atoms
from ase.build import bulk

from alflow.errors import FailureKind
from alflow.ledger import (
    CampaignState,
    CandidateState,
    LabelKind,
    Ledger,
    NewCandidate,
    NewScore,
    RoundRow,
    Stream,
    WorkerIdentity,
    open_ledger,
)
from alflow.potentials import Calibration, KindCalibration
from alflow.structures import Properties, Structure
from tests.databases import BACKENDS, PostgresqlServer

REFERENCES = {"Ni": -5.0, "Pt": -6.0}
DEPTHS: dict[tuple[str, ...], float] = {
    ("Ni", "Ni", "Ni", "Pt"): -0.118,
    ("Ni", "Ni", "Pt", "Pt"): -0.139,
    ("Ni", "Pt", "Pt", "Pt"): -0.086,
}
REASON_STOPPED = "Stopped after round 3: the label budget of 60 is spent <b>not bold</b>."
CALIBRATION = Calibration(
    energy=KindCalibration(a=1.5, c=0.001, shape=0.5, q90=1.7, n_fit=20, n_conformal=10),
    force=KindCalibration(a=1.2, c=0.01, shape=1.5, q90=1.6, n_fit=20, n_conformal=10),
    stress=KindCalibration(a=4.0, c=0.001, shape=1.5, q90=None, n_fit=20, n_conformal=0),
)
CONFIG: dict[str, Any] = {
    "elements": ["Ni", "Pt"],
    "ledger": "postgresql://me:secret@host/db",
    "targets": {"energy": 0.005, "force": 0.1, "stress": 0.01, "u_max": 10.0},
    "budget": {"labels": 60, "rounds": None},
    "discovery": {"max_force": 0.05, "max_stress": 0.005},
    "sources": [{"kind": "enumerate", "max_atoms": 4}, {"kind": "dynamics", "temperature": 600}],
}


def ordering(species: tuple[str, ...], strain: float = 0.0, rattle: float = 0.0, seed: int = 0) -> Structure:
    """A conventional fcc cell with four named atoms."""
    atoms: Atoms = bulk("Ni", "fcc", a=3.7 * (1 + strain), cubic=True)
    atoms.symbols = list(species)
    if rattle:
        atoms.rattle(rattle, seed=seed)
    return Structure.from_atoms(atoms)


def energy_of(structure: Structure, strain: float = 0.0, rattle: float = 0.0) -> float:
    """A made-up energy in eV per cell: references, a depth per composition, and what distortions cost."""
    species = tuple(sorted(e for e, n in structure.composition.items() for _ in range(n)))
    base = sum(REFERENCES[e] * n for e, n in structure.composition.items())
    cost = 8.0 * strain**2 + 4.0 * rattle**2
    return base + structure.n_atoms * (DEPTHS.get(species, 0.0) + cost)


def properties_of(structure: Structure, strain: float, rattle: float) -> Properties:
    rng = np.random.default_rng(structure.numbers.sum())
    forces = rattle * rng.normal(size=(structure.n_atoms, 3))
    return Properties(
        energy=energy_of(structure, strain, rattle),
        forces=forces - forces.mean(axis=0),
        stress=0.5 * strain * np.eye(3),
    )


@dataclass
class Player:
    """Plays the loop's part against a ledger."""

    ledger: Ledger
    campaign_id: int
    theory_id: int
    rng: np.random.Generator

    def propose(self, row: RoundRow, structures: list[Structure], source: str, **fields: Any) -> list[int]:
        fields = {"state": CandidateState.POOLED, "reason": "new and plausible", **fields}
        items = [NewCandidate(structure=s, source=source, **fields) for s in structures]
        return self.ledger.pool.add(self.campaign_id, row.id, items)

    def label(self, ids: list[int], distortion: Callable[[int], tuple[float, float]], fail: set[int]) -> None:
        for candidate in self.ledger.pool.rows(ids):
            self.ledger.queue.enqueue(candidate.structure_id, self.theory_id, candidate.id)
        worker = WorkerIdentity(name="test", host="here", pid=1)
        by_structure = {c.structure_id: c.id for c in self.ledger.pool.rows(ids)}
        for job in self.ledger.queue.claim(worker, limit=len(ids)):
            self.ledger.queue.start(job.job_id, job.fence)
            candidate_id = by_structure[job.structure_id]
            if candidate_id in fail:
                self.ledger.queue.fail(
                    job.job_id, job.fence, FailureKind.NOT_CONVERGED, "60 steps, residual 3e-3 eV", max_retries=0
                )
                continue
            strain, rattle = distortion(candidate_id)
            properties = properties_of(job.structure, strain, rattle)
            self.ledger.queue.complete(job.job_id, job.fence, properties, {"converged": True}, {"seconds": 0.5})

    def step(self, row: RoundRow, name: str, **summary: Any) -> None:
        self.ledger.rounds.begin_step(row.id, name)
        self.ledger.rounds.finish_step(row.id, name, summary)


def play(ledger: Ledger, name: str = "ni-pt") -> str:
    """Fill a ledger with a finished campaign; return its name."""
    theory = ledger.theories.register("toy", "emt", {"cutoff": 5.0}, "toy 1.0", {}, "f" * 64)
    campaign = ledger.campaigns.create(name, "Stable compounds of Ni & Pt", {"campaign": CONFIG, "theory": "f" * 64}, 1)
    player = Player(ledger=ledger, campaign_id=campaign.id, theory_id=theory.id, rng=np.random.default_rng(0))
    distortions: dict[int, tuple[float, float]] = {}

    first = ledger.rounds.open(campaign.id, 0)
    pure = [ordering((e,) * 4, s) for e in ("Ni", "Pt") for s in (0.0, 0.03, -0.03)]
    ids = player.propose(first, pure, "round0", stream=Stream.DESIGN)
    distortions |= dict(zip(ids, [(s, 0.0) for _ in "NP" for s in (0.0, 0.03, -0.03)], strict=True))
    ledger.pool.transition(ids, CandidateState.SELECTED, "part of the designed first round", stream=Stream.DESIGN)
    player.label(ids, distortions.__getitem__, set())
    player.step(first, "design", known=2)
    ledger.rounds.close(first.id, {"assessed": []})

    for index in (1, 2, 3):
        play_round(player, index, distortions)
    ledger.campaigns.set_state(campaign.id, CampaignState.STOPPED, REASON_STOPPED)
    return name


def play_round(player: Player, index: int, distortions: dict[int, tuple[float, float]]) -> None:
    """One round: a perfect ordering, distorted ones, duplicates, rejected ones, and one failure in round 2."""
    ledger, rng = player.ledger, player.rng
    row = ledger.rounds.open(player.campaign_id, index)
    player.step(row, "train")
    committee = ledger.committees.add(
        row.id,
        spec={},
        training={},
        artifact_id=None,
        metrics={},
        calibration=CALIBRATION.to_dict(),
        seed=index,
        labels=[],
    )
    species = sorted(DEPTHS)[index - 1]
    amounts = [(0.0, 0.0), *((float(rng.uniform(-0.03, 0.03)), 0.05 + 0.02 * k) for k in range(11))]
    structures = [ordering(species, s, r, seed=100 * index + k) for k, (s, r) in enumerate(amounts)]
    ids = player.propose(row, structures, "dynamics")
    distortions |= dict(zip(ids, amounts, strict=True))
    spread = 0.004 / index
    energies = np.array([energy_of(s, *a) for s, a in zip(structures, amounts, strict=True)])
    predicted = energies + 4 * spread * rng.normal(size=len(ids))
    errors = np.full(len(ids), spread)
    ledger.pool.set_scores(committee.id, ids, 300 * errors, predicted, errors, 20 * errors, 2 * errors)

    squeezed = [ordering(species, -0.3 - 0.001 * k) for k in range(4)]
    player.propose(
        row,
        squeezed,
        "dynamics",
        state=CandidateState.REJECTED,
        reason="minimum distance: Ni-Pt 1.83 Å apart, below 1.9 Å",
    )
    copies = [ordering(species, 0.0005 * (k + 1)) for k in range(5)]
    player.propose(
        row,
        copies,
        "enumerate",
        state=CandidateState.DUPLICATE,
        reason=f"redundant with candidate {ids[0]} (Ni3Pt, pooled): largest displacement 0.002 Å",
        duplicate_of=ids[0],
    )

    chosen = ids[:7]
    streams = [Stream.CONFIRM, Stream.RANDOM, Stream.RANDOM, *[Stream.ACTIVE] * 4]
    ledger.pool.transition(chosen, CandidateState.SELECTED, "uncertain and diverse", stream=streams)
    scores = [
        NewScore(
            u=2.0, energy=float(predicted[k]), energy_error=spread, force_error=20 * spread, stress_error=2 * spread
        )
        for k in range(7)
    ]
    ledger.pool.record_scores(row.id, committee.id, chosen, "selected", scores)
    player.step(row, "select", batch=[{"id": i, "stream": s.value} for i, s in zip(chosen, streams, strict=True)])
    failing = {chosen[-1]} if index == 2 else set()
    player.label(chosen, distortions.__getitem__, failing)
    if index == 3:
        reuse(player, row)
    assessed = []
    for candidate, k in zip(ledger.pool.rows(chosen), range(7), strict=True):
        failed = candidate.id in failing
        actual = {"energy": abs(float(predicted[k] - energies[k])) / 4, "force": 0.05 / index, "stress": None}
        assessed.append(
            {
                "id": candidate.id,
                "structure_id": candidate.structure_id,
                "stream": streams[k].value,
                "missed": failed,
                "error": None if failed else actual,
            }
            | ({} if failed else {"spread": {"energy": spread, "force": 20 * spread, "stress": None}})
        )
    ledger.rounds.close(row.id, {"assessed": assessed})
    play_hull(player, row)


def reuse(player: Player, row: RoundRow) -> None:
    """A candidate that is a copy of a labelled one and takes over its label."""
    ledger = player.ledger
    [candidate] = player.propose(row, [ordering(("Pt", "Ni", "Ni", "Ni"))], "files")
    [source] = [x for x in ledger.labels.accepted(player.theory_id) if x.structure.reduced_formula == "Ni3Pt"][:1]
    structure_id = ledger.pool.get(candidate).structure_id
    ledger.labels.store(
        structure_id, player.theory_id, source.properties, kind=LabelKind.REUSED, evidence={}, derived_from=source.id
    )
    ledger.pool.transition([candidate], CandidateState.LABELLED, f"identical to candidate {source.structure_id}")


def play_hull(player: Player, row: RoundRow) -> None:
    """Store the hull as a campaign does: relaxed labels are stable."""
    ledger = player.ledger
    labels = ledger.labels.accepted(player.theory_id, player.campaign_id)
    stable, entries = [], []
    for label in labels:
        forces, stress = label.properties.forces, label.properties.stress
        assert forces is not None
        assert stress is not None
        if np.abs(forces).max() > 0 or np.abs(stress).max() > 0:
            continue
        candidate_id = ledger.labels.candidates_of(label.structure_id)[0]
        entries.append({"id": candidate_id, "spread": 0.0012, "p_stable": 0.75})
        if label.kind is LabelKind.COMPUTED:
            stable.append({"id": candidate_id, "label_id": label.id})
    ledger.hulls.add(row.id, entries, stable, {"unconfirmed": []})


@pytest.fixture(scope="session", params=BACKENDS)
def ledger(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Ledger]:
    """A ledger with one finished campaign and one that has not begun."""
    folder: Path = tmp_path_factory.mktemp("ledger")
    url = f"sqlite:///{folder / 'ledger.db'}"
    if request.param == "postgresql":
        server: PostgresqlServer = request.getfixturevalue("postgresql_server")
        name = f"report_{uuid.uuid4().hex}"  # made again where tests of SQLite came between
        server.administer(f"CREATE DATABASE {name}")
        url = f"{server.url}/{name}"
    with open_ledger(url, directory=folder / "files") as opened:
        play(opened)
        opened.campaigns.create("empty", "", {"campaign": {"elements": ["Cu"]}, "theory": "f" * 64}, 1)
        yield opened
