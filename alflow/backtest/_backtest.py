"""Replay a pool of known labels under several strategies."""

from __future__ import annotations

import hashlib
import json
import time
from collections.abc import Callable, Iterable, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from alflow.backtest._pool import ReplayPool, first_rows, prepare_pool
from alflow.backtest._record import Record
from alflow.backtest._result import BacktestResult, Curve, Point
from alflow.backtest._strategies import Picked, Strategy, pick
from alflow.errors import UserError
from alflow.potentials import (
    Calibration,
    Committee,
    CommitteeSpec,
    Errors,
    Kind,
    Prediction,
    Spreads,
    Targets,
    TrainingSpec,
    actual_errors,
    coverage,
    fit_calibration,
)
from alflow.select import SelectionSettings

if TYPE_CHECKING:
    from ase import Atoms

    from alflow.structures import DuplicatePolicy, LabelledStructure

RECENT_STEPS = 3
"""Steps whose prospective errors calibrate the next committee, as in the loop."""
STEPS_AHEAD = 10_000
"""Distance between the seeds of two curves."""


@dataclass(frozen=True, kw_only=True)
class BacktestProgress:
    """One finished step of a replay."""

    strategy: str
    seed: int
    point: Point
    curve: int
    n_curves: int


def backtest(
    structures: Sequence[Atoms | LabelledStructure] | ReplayPool,
    strategies: Sequence[str] = ("default", "random"),
    *,
    n_initial: int = 10,
    batch: int = 5,
    budget: int = 120,
    seeds: Iterable[int] = range(5),
    test: Sequence[Atoms | LabelledStructure] | None = None,
    test_fraction: float = 0.2,
    max_pool: int | None = None,
    max_test: int | None = None,
    committee: CommitteeSpec | None = None,
    training: TrainingSpec | None = None,
    targets: Targets | None = None,
    selection: SelectionSettings | None = None,
    duplicates: DuplicatePolicy | None = None,
    result_file: Path | str | None = None,
    progress: Callable[[BacktestProgress], None] | None = None,
    train: Callable[..., Committee] | None = None,
) -> BacktestResult:
    """Replay known labels: train, choose, "label", train again, and test after every step.

    All strategies begin from the same structures per seed, train in the same way from scratch, and are tested on the
    same structures; redundant structures are dropped for all but ``random_with_duplicates``.

    Parameters
    ----------
    structures
        with labels, or a pool made by :func:`prepare_pool`, for which the arguments about test and size are ignored
    strategies
        see :class:`Strategy`
    n_initial, batch, budget
        labels to begin from (more where elements would be missing), per step, and in the end
    seeds
        one curve per strategy and seed
    test, test_fraction, max_pool, max_test, duplicates
        see :func:`prepare_pool`
    committee, training, targets, selection
        settings of the campaign that is imitated; ``selection.batch`` is replaced by `batch`
    result_file
        finished steps are kept here; the same call continues a killed replay and gives the same result
    progress
        called after every step
    train
        trains a committee as :func:`alflow.potentials.train_committee` does, which is the default

    Raises
    ------
    UserError
        if a strategy is unknown, n_initial does not fit the budget, or the result file is another replay's
    """
    chosen = [_strategy(name) for name in dict.fromkeys(strategies)]
    pool = (
        structures
        if isinstance(structures, ReplayPool)
        else prepare_pool(
            structures,
            test=test,
            test_fraction=test_fraction,
            max_pool=max_pool,
            max_test=max_test,
            duplicates=duplicates,
        )
    )
    replay = _Replay(
        pool=pool,
        n_initial=n_initial,
        batch=batch,
        budget=min(budget, len(pool.leaders)),
        committee=committee or CommitteeSpec(),
        training=training or TrainingSpec(),
        targets=targets or Targets(),
        selection=(selection or SelectionSettings()).model_copy(update={"batch": batch}),
        train=train,
    )
    if not 0 < n_initial <= replay.budget:
        raise UserError(f"n_initial = {n_initial} must lie between 1 and the budget of {replay.budget} labels")
    settings = replay.settings()
    record = Record(None if result_file is None else Path(result_file), settings)
    order = [(strategy, int(seed)) for seed in seeds for strategy in chosen]
    curves = []
    for number, (strategy, seed) in enumerate(order):

        def tell(point: Point, strategy: Strategy = strategy, seed: int = seed, number: int = number) -> None:
            if progress is not None:
                progress(BacktestProgress(strategy=strategy, seed=seed, point=point, curve=number, n_curves=len(order)))

        curves.append(replay.curve(strategy, seed, record, tell))
    sizes = {"pool": len(pool.pool), "leaders": len(pool.leaders), "test": len(pool.test)}
    return BacktestResult(curves=tuple(curves), settings=settings, pool=sizes)


def _strategy(name: str) -> Strategy:
    try:
        return Strategy(name)
    except ValueError as error:
        raise UserError(f"unknown strategy {name!r}; choose from {', '.join(Strategy)}") from error


@dataclass(frozen=True, kw_only=True, eq=False)
class _Replay:
    pool: ReplayPool
    n_initial: int
    batch: int
    budget: int
    committee: CommitteeSpec
    training: TrainingSpec
    targets: Targets
    selection: SelectionSettings
    train: Callable[..., Committee] | None

    def settings(self) -> dict[str, Any]:
        digest = hashlib.sha256()
        for row in (*self.pool.pool, *self.pool.test):
            digest.update(row.structure.content_hash.encode())
            digest.update(row.properties.to_bytes())
        plain = {
            "format": 2,  # steps remember distances
            "data": digest.hexdigest(),
            "leaders": hashlib.sha256(repr(self.pool.leaders).encode()).hexdigest(),
            "n_initial": self.n_initial,
            "batch": self.batch,
            "budget": self.budget,
            "committee": self.committee.model_dump(mode="json"),
            "training": self.training.model_dump(mode="json"),
            "targets": self.targets.model_dump(mode="json"),
            "selection": self.selection.model_dump(mode="json"),
        }
        settings: dict[str, Any] = json.loads(json.dumps(plain))
        return settings

    def curve(self, strategy: Strategy, seed: int, record: Record, tell: Callable[[Point], None]) -> Curve:
        """Walk one curve to its end, from wherever the record stands."""
        whole = strategy is Strategy.RANDOM_WITH_DUPLICATES
        rows = list(range(len(self.pool.pool))) if whole else list(self.pool.leaders)
        # every strategy begins from the same structures, whether or not it drops duplicates afterwards
        labelled = first_rows(self.pool, self.pool.leaders, self.n_initial, seed)
        done = record.steps(strategy, seed)
        for step in done:
            labelled += step["picked"]
        steps = list(done)
        while not steps or (steps[-1]["stopped"] is None and steps[-1]["picked"]):
            step = self._step(strategy, seed, rows, labelled, steps)
            record.add(step)
            steps.append(step)
            labelled = labelled + step["picked"]
            tell(Point(**step["point"]))
        points = tuple(Point(**step["point"]) for step in steps)
        return Curve(strategy=strategy, seed=seed, points=points, stopped=steps[-1]["stopped"])

    def _step(
        self, strategy: Strategy, seed: int, rows: list[int], labelled: list[int], before: list[dict[str, Any]]
    ) -> dict[str, Any]:
        """Train on what is labelled, test, and choose what is labelled next."""
        started = time.process_time()
        number = len(before)
        own = STEPS_AHEAD * seed + number
        examples = [self.pool.pool[row] for row in labelled]
        committee = self._trained(examples, own)
        committee = committee.with_calibration(self._calibrate(committee, examples, before))
        test = [row.structure for row in self.pool.test]
        stress = Kind.STRESS in self.pool.kinds
        judged = committee.predict(test, stress=stress)
        room = min(self.batch, self.budget - len(labelled))
        taken = set(labelled)
        left = [row for row in rows if row not in taken]
        picked, memory = Picked(rows=(), random=()), None
        if room > 0 and left:
            rng = np.random.default_rng([seed, number, 3, list(Strategy).index(strategy)])
            picked, memory = self._pick(strategy, committee, left, examples, room, stress, rng)
        point = Point(
            n_labels=len(labelled),
            cpu_seconds=time.process_time() - started,
            energy_mae=_energy_error(judged, self.pool.test),
            force_mae=_force_error(judged, self.pool.test),
            coverage=_coverage(committee.calibration, judged, self.pool.test),
        )
        return {
            "strategy": strategy.value,
            "seed": seed,
            "picked": list(picked.rows),
            "stopped": picked.stopped,
            "memory": memory,
            "point": asdict(point),
        }

    def _trained(self, examples: list[LabelledStructure], seed: int) -> Committee:
        if self.train is not None:
            return self.train(examples, self.committee, self.training, targets=self.targets, seed=seed)
        from alflow.potentials import train_committee

        return train_committee(examples, self.committee, self.training, targets=self.targets, seed=seed)

    def _pick(
        self,
        strategy: Strategy,
        committee: Committee,
        left: list[int],
        examples: list[LabelledStructure],
        room: int,
        stress: bool,
        rng: np.random.Generator,
    ) -> tuple[Picked, dict[str, Any] | None]:
        prediction = centres = None
        if strategy.needs_prediction:
            structures = [self.pool.pool[row].structure for row in left]
            prediction = committee.predict(structures, stress=stress, features=strategy.needs_features)
        if strategy.needs_features:
            known = committee.predict([row.structure for row in examples], stress=False, features=True)
            centres = known.features
        picked = pick(
            strategy,
            rows=left,
            n=room,
            prediction=prediction,
            centres=centres,
            u_max=self.targets.u_max,
            settings=self.selection,
            rng=rng,
        )
        if not picked.rows:
            return picked, None
        chosen = [self.pool.pool[row] for row in picked.rows]
        ahead = committee.predict([row.structure for row in chosen], stress=stress)
        error = actual_errors(ahead.means, [row.properties for row in chosen], ahead.spreads)
        memory = {
            "spread": ahead.spreads.rows(),
            "error": error.rows(),
            "random": list(picked.random),
        }
        return picked, memory

    def _calibrate(
        self, committee: Committee, examples: list[LabelledStructure], before: list[dict[str, Any]]
    ) -> Calibration:
        """As the loop does: held-out structures, and what the last committees said before structures were labelled."""
        spreads, errors, stream = [], [], []
        report = getattr(committee, "report", None)
        if report is not None and report.held_out_prediction is not None and report.held_out:
            found = report.held_out_prediction
            spreads.append(found.spreads)
            errors.append(actual_errors(found.means, [examples[i].properties for i in report.held_out], found.spreads))
            stream += [False] * len(report.held_out)
        for step in before[-RECENT_STEPS:]:
            if step["memory"] is not None:
                spreads.append(Spreads.from_rows(step["memory"]["spread"]))
                errors.append(Errors.from_rows(step["memory"]["error"]))
                stream += step["memory"]["random"]
        return fit_calibration(
            Spreads.join(spreads),
            Errors.join(errors),
            stream=stream,
            kinds=self.pool.kinds,
        )


def _energy_error(prediction: Prediction, test: Sequence[LabelledStructure]) -> float:
    energies = np.array([row.properties.energy for row in test])
    return float(np.mean(np.abs(prediction.energy_mean - energies) / prediction.n_atoms))


def _force_error(prediction: Prediction, test: Sequence[LabelledStructure]) -> float | None:
    differences = [
        np.abs(predicted - row.properties.forces).ravel()
        for predicted, row in zip(prediction.force_mean, test, strict=True)
        if row.properties.forces is not None
    ]
    return float(np.mean(np.concatenate(differences))) if differences else None


def _coverage(
    calibration: Calibration | None, prediction: Prediction, test: Sequence[LabelledStructure]
) -> dict[str, dict[str, Any]]:
    if calibration is None:
        return {}
    error = actual_errors(prediction.means, [row.properties for row in test], prediction.spreads)
    return {kind.value: found.to_dict() for kind, found in coverage(calibration, prediction.spreads, error).items()}
