from __future__ import annotations

import json
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from ase.build import bulk
from ase.calculators.emt import EMT

from alflow.backtest import BacktestProgress, BacktestResult, Strategy, backtest, prepare_pool
from alflow.errors import StructureError, UserError
from alflow.potentials import Calibration, Committee, Prediction, Targets
from alflow.structures import LabelledStructure, Properties, Structure

TARGETS = Targets(energy=0.002, force=0.05)


class LinearCommittee:
    """Bootstrap of ridge regressions on volume and composition: a committee that trains in a millisecond."""

    def __init__(self, weights: np.ndarray[Any, Any], targets: Targets, calibration: Calibration | None = None) -> None:
        self.weights, self.targets, self.calibration = weights, targets, calibration

    def with_calibration(self, calibration: Calibration | None) -> LinearCommittee:
        return LinearCommittee(self.weights, self.targets, calibration)

    def predict(self, structures: Sequence[Structure], *, stress: bool = True, features: bool = False) -> Prediction:
        x = describe(structures)
        n_atoms = np.array([s.n_atoms for s in structures])
        return Prediction(
            energy=self.weights @ x.T * n_atoms,
            forces=tuple(np.zeros((len(self.weights), n, 3)) for n in n_atoms),
            stress=None,
            n_atoms=n_atoms,
            targets=self.targets,
            features=x if features else None,
            calibration=self.calibration,
        )


def describe(structures: Sequence[Structure]) -> np.ndarray[Any, Any]:
    platinum = np.array([s.composition.get("Pt", 0) / s.n_atoms for s in structures])
    volume = np.array([s.volume / s.n_atoms for s in structures]) / 12.0 - 1.0
    return np.column_stack([np.ones(len(platinum)), platinum, volume, volume**2, platinum * volume, platinum**2])


def train_linear(
    examples: Sequence[LabelledStructure], spec: object, training: object, *, targets: Targets, seed: int
) -> Committee:
    rng = np.random.default_rng(seed)
    x = describe([e.structure for e in examples])
    y = np.array([e.properties.energy / e.structure.n_atoms for e in examples])
    weights = []
    for _ in range(4):
        rows = rng.integers(0, len(x), len(x))
        weights.append(np.linalg.solve(x[rows].T @ x[rows] + 1e-4 * np.eye(6), x[rows].T @ y[rows]))
    return LinearCommittee(np.array(weights), targets)  # type: ignore[return-value]


@pytest.fixture(scope="module")
def labelled() -> list[LabelledStructure]:
    """Ni-Pt cells of many volumes and compositions, every tenth a copy; energies of EMT only."""
    rng = np.random.default_rng(0)
    found = []
    previous = bulk("Ni", cubic=True)
    for i in range(120):
        atoms = bulk("Ni", cubic=True, a=3.3 + 0.9 * rng.random())
        atoms.numbers[: rng.integers(0, 5)] = 78
        if i % 10 == 9:
            atoms = previous.copy()
        previous = atoms.copy()
        atoms.calc = EMT()
        found.append(
            LabelledStructure(
                structure=Structure.from_atoms(atoms), properties=Properties(energy=float(atoms.get_potential_energy()))
            )
        )
    return found


def replay(labelled: list[LabelledStructure], **more: Any) -> BacktestResult:
    arguments: dict[str, Any] = {
        "n_initial": 6,
        "batch": 4,
        "budget": 22,
        "seeds": range(2),
        "targets": TARGETS,
        "train": train_linear,
    }
    return backtest(labelled, **{**arguments, **more})


def test_every_strategy_gives_a_learning_curve_on_the_same_test_set(labelled: list[LabelledStructure]) -> None:
    result = replay(labelled, strategies=list(Strategy))
    assert result.strategies == tuple(Strategy)
    assert len(result.curves) == 2 * len(Strategy)
    for curve in result.curves:
        counts = [point.n_labels for point in curve.points]
        assert counts[0] == 6
        assert counts == sorted(set(counts))
        assert counts[-1] == 22 or curve.stopped is not None
        assert all(point.force_mae is None for point in curve.points)
        assert set(curve.points[0].coverage) == {"energy"}
    first = {round(curve.points[0].energy_mae, 12) for curve in result.curves if curve.seed == 0}
    assert len(first) == 1, "all strategies begin from the same structures"
    random = result.of("random")[0]
    assert random.points[-1].energy_mae < random.points[0].energy_mae


def test_redundant_structures_are_dropped_and_never_tested_on_their_copy(labelled: list[LabelledStructure]) -> None:
    pool = prepare_pool(labelled)
    hashes = {row.structure.content_hash for row in pool.pool}
    assert not hashes & {row.structure.content_hash for row in pool.test}
    assert len(pool.leaders) < len(pool.pool)
    assert len({pool.pool[i].structure.content_hash for i in pool.leaders}) == len(pool.leaders)


def test_the_pool_can_be_thinned_and_given_its_own_test_set(labelled: list[LabelledStructure]) -> None:
    pool = prepare_pool(labelled[:80], test=labelled[80:], max_pool=30, max_test=10)
    assert (len(pool.pool), len(pool.test)) == (30, 10)
    assert prepare_pool(labelled, max_pool=30).test != ()
    with pytest.raises(StructureError, match="to test on"):
        prepare_pool(labelled, test=[])


def test_a_killed_replay_continues_to_the_same_result(labelled: list[LabelledStructure], tmp_path: Path) -> None:
    class KilledError(Exception):
        pass

    whole = replay(labelled)
    file = tmp_path / "replay.jsonl"
    steps = 0

    def kill(_: BacktestProgress) -> None:
        nonlocal steps
        steps += 1
        if steps in {2, 5, 9}:
            raise KilledError

    for _ in range(3):
        with pytest.raises(KilledError):
            replay(labelled, result_file=file, progress=kill)
        with file.open("a") as cut_off:
            cut_off.write('{"strategy": "default", "se')
    resumed = replay(labelled, result_file=file, progress=kill)
    assert curves_without_time(resumed) == curves_without_time(whole)
    again = 0

    def count(_: BacktestProgress) -> None:
        nonlocal again
        again += 1

    replay(labelled, result_file=file, progress=count)
    assert again == 0, "nothing is done twice"


def curves_without_time(result: BacktestResult) -> list[Any]:
    content = json.loads(result.to_json())["curves"]
    for curve in content:
        for point in curve["points"]:
            del point["cpu_seconds"]
    return list(content)


def test_the_file_of_another_replay_is_refused(labelled: list[LabelledStructure], tmp_path: Path) -> None:
    file = tmp_path / "replay.jsonl"
    replay(labelled, result_file=file, seeds=[0], budget=10)
    with pytest.raises(UserError, match="other batch, selection"):
        replay(labelled, result_file=file, seeds=[0], budget=10, batch=2)
    with pytest.raises(UserError, match="other data"):
        replay(labelled[::-1], result_file=file, seeds=[0], budget=10)
    older = file.read_text().replace('"format": 2, ', "", 1)
    file.write_text(older)
    with pytest.raises(UserError, match="written by another alflow"):
        replay(labelled, result_file=file, seeds=[0], budget=10)
    assert file.read_text() == older
    file.write_text("no json\n{}\n")
    with pytest.raises(UserError, match=r"replay\.jsonl:1 is not a line of a replay"):
        replay(labelled, result_file=file, seeds=[0], budget=10)


@pytest.mark.parametrize(
    ("wrong", "message"),
    [({"strategies": ["best"]}, "choose from default, random"), ({"n_initial": 50}, "n_initial = 50")],
)
def test_wrong_arguments_are_named(labelled: list[LabelledStructure], wrong: dict[str, Any], message: str) -> None:
    with pytest.raises(UserError, match=message):
        replay(labelled, **wrong)


def test_a_strategy_stops_where_nothing_is_uncertain(labelled: list[LabelledStructure]) -> None:
    result = replay(labelled, strategies=["default"], seeds=[0], targets=Targets(energy=10.0, force=10.0))
    assert result.curves[0].stopped is not None
    assert "left has u > 1" in result.curves[0].stopped
    assert "stopped before the budget was spent" in result.summary()
