"""Training a committee from labels, from scratch or from an earlier committee."""

from __future__ import annotations

import hashlib
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np
from ase.data import covalent_radii

from alflow.errors import PotentialError
from alflow.potentials._allocator import keep_freed_memory
from alflow.potentials._committee import NativeCommittee
from alflow.potentials._core import CommitteeCore
from alflow.potentials._dataset import TrainingSet, as_examples
from alflow.potentials._engine import DTYPES
from alflow.potentials._geometry import EdgeList
from alflow.potentials._network import CommitteeNetwork
from alflow.potentials._optimiser import OptimiserState
from alflow.potentials._radial import repulsion_reach
from alflow.potentials._references import derive_constants
from alflow.potentials._report import ErrorSummary, TrainingProgress, TrainingReport
from alflow.potentials._repulsion import Repulsion
from alflow.potentials._spec import CommitteeSpec, TrainingSpec
from alflow.potentials._targets import Targets
from alflow.potentials._trainer import Trainer, TrainerState
from alflow.potentials._training_checkpoint import TrainingCheckpoint, fingerprint_of
from alflow.potentials._warm_start import align_zero, extend_core
from alflow.structures import element_symbol

if TYPE_CHECKING:
    from ase import Atoms
    from numpy.typing import NDArray

    from alflow.potentials._prediction import Prediction
    from alflow.potentials._protocol import Committee
    from alflow.structures import LabelledStructure


BOOTSTRAP_SHAPE = 4.0
"""Of the gamma distribution of the members' weights; their variance is its inverse."""


def train_committee(
    train: Sequence[Atoms | LabelledStructure],
    spec: CommitteeSpec | None = None,
    training: TrainingSpec | None = None,
    *,
    targets: Targets | None = None,
    initial: NativeCommittee | None = None,
    seed: int = 0,
    checkpoint_dir: Path | None = None,
    progress: Callable[[TrainingProgress], None] | None = None,
) -> NativeCommittee:
    """Train a committee on labelled structures.

    About a tenth of the structures, and at least two, is held out for early stopping. Which ones depends on the
    structures alone: what is held out of a training set has not been learned from in a smaller one, unless that had too
    few structures to hold any out (``validation_from``).

    Parameters
    ----------
    train
        labels: energy, and where known forces and stress
    spec
        shape of the network
    training
        budget, optimiser, weights of the loss
    targets
        the user's targets: the unit of every error in the loss, and of ``u``
    initial
        an earlier committee to start from; its elements may be fewer, its spec must be the same
    seed
        same seed, same settings, same data, one thread: the same committee, bit by bit
    checkpoint_dir
        folder for checkpoints: the same call after a crash goes on where it stood, to the same result (under epoch
        budgets and one thread)
    progress
        called after every epoch, and within a long one after every ``validate_every`` steps

    Returns
    -------
    NativeCommittee
        with its :class:`TrainingReport` as ``report``

    Raises
    ------
    PotentialError
        if labels are missing, not finite or given twice, atoms lie on one place, ``r_max`` is shorter than the reach of
        the elements' repulsion, or training diverges
    StructureError
        if a structure carries no labels, or labels of a wrong shape
    TheoryError
        if labels come from different theories
    CheckpointError
        if a checkpoint is damaged
    """
    keep_freed_memory()
    spec, training, targets = spec or CommitteeSpec(), training or TrainingSpec(), targets or Targets()
    examples = as_examples(train)
    numbers = np.unique(np.concatenate([e.structure.numbers for e in examples]))
    require_reach(numbers, spec.r_max)
    edges = [EdgeList.of(e.structure, numbers, spec.r_max) for e in examples]
    repulsions = [Repulsion.of(e, active=spec.repulsion) for e in edges]
    held_out = choose_held_out(examples, np.array([len(e.centres) > 0 for e in edges]), training)
    share = member_shares(len(examples), held_out, spec.n_members, training, seed)

    learned = np.setdiff1d(np.arange(len(examples)), held_out)
    constants, references = derive_constants(
        [examples[i] for i in learned], [edges[i] for i in learned], [repulsions[i] for i in learned], numbers, spec
    )
    layout = CommitteeNetwork(spec, len(numbers), constants).layout
    core = CommitteeCore(
        spec=spec,
        numbers=numbers,
        constants=constants,
        references=references,
        weights=layout.initial(spec.n_members, seed, DTYPES[spec.dtype]),
    )
    note, is_warm = "", False
    start = core  # before its zero moves: by it a checkpoint knows its call, on any number of threads
    if initial is not None:
        warm = extend_core(initial, core)
        note, is_warm = warm.note, warm.core is not None
        if warm.core is not None:
            start = warm.core
            edges = [EdgeList.of(e.structure, start.numbers, spec.r_max) for e in examples]
            to_learn = [examples[i] for i in learned], [edges[i] for i in learned]
            core, moved = align_zero(start, initial.core.numbers, *to_learn)
            note += moved

    data = TrainingSet(core, examples, edges, repulsions)
    trainer = Trainer(core.engine, data, share, learned, held_out, training, targets, seed=seed, warm=is_warm)
    state = TrainerState(optimiser=OptimiserState.start(core.weights))
    save = None
    if checkpoint_dir is not None:
        checkpoint = TrainingCheckpoint(
            Path(checkpoint_dir), fingerprint_of(examples, spec, training, targets, seed, start)
        )
        state = checkpoint.load() or state
        save = checkpoint.save
    state = trainer.run(state, save=save, progress=progress)

    trained = CommitteeCore(
        spec=spec, numbers=core.numbers, constants=core.constants, references=core.references, weights=state.result
    )
    trained = trained.learn_familiar([edges[i] for i in learned])
    committee = NativeCommittee(core=trained, targets=targets, seed=seed)
    report = training_report(committee, core.references, examples, learned, held_out, share, state, note)
    return NativeCommittee(core=trained, targets=targets, report=report, seed=seed)


def require_reach(numbers: NDArray[np.int64], r_max: float) -> None:
    """Refuse a cutoff within which the repulsion of the elements has not ended: energies would jump there."""
    reach = repulsion_reach(numbers)
    if reach > r_max:
        largest = element_symbol(int(numbers[np.argmax(covalent_radii[numbers])]))
        raise PotentialError(
            f"r_max is {r_max:g} Å, but atoms of {largest} repel each other up to {reach:.2f} Å: give a larger r_max"
        )


def choose_held_out(
    examples: Sequence[LabelledStructure], matter: NDArray[np.bool_], training: TrainingSpec
) -> NDArray[np.int64]:
    """Indices of the structures to hold out: those whose hash falls into the first part of the unit interval.

    At least two, for fewer tell nothing: then those with the smallest hashes. Structures whose atoms do not meet (not
    `matter`) are never held out, for they alone tell the energy of an isolated atom, nor is one that alone brings an
    element into the training set.
    """
    nothing = np.zeros(0, dtype=np.int64)
    if len(examples) < training.validation_from or training.validation_fraction == 0:
        return nothing
    draws = {
        i: int.from_bytes(hashlib.sha256(f"held out {e.structure.content_hash}".encode()).digest()[:6], "big") / 2**48
        for i, e in enumerate(examples)
        if matter[i]
    }
    smallest = sorted(draws, key=lambda i: draws[i])[:2]
    chosen = {i for i, draw in draws.items() if draw < training.validation_fraction} | set(smallest)
    kept = {element for i, e in enumerate(examples) if i not in chosen for element in e.structure.elements}
    chosen = {i for i in chosen if set(examples[i].structure.elements) <= kept}
    return np.array(sorted(chosen), dtype=np.int64) if len(chosen) >= 2 else nothing


def member_shares(
    n: int, left_out: NDArray[np.int64], n_members: int, training: TrainingSpec, seed: int
) -> NDArray[np.float64]:
    """Weight (K, n) of every structure for every member, mean 1 over the training structures of a member.

    A Bayesian bootstrap (Rubin, Annals of Statistics 9, 130, 1981): positive weights instead of counts, so that no
    member loses a structure altogether. Gamma weights of variance 1/4, where Rubin's exponential ones have 1: the mean
    of the members erred less and their spread ranked errors as well, in one run of each on silicon.
    """
    share = np.ones((n_members, n))
    if n >= training.bootstrap_from and n_members > 1:
        share = np.stack(
            [np.random.default_rng([seed, member, 3]).gamma(BOOTSTRAP_SHAPE, size=n) for member in range(n_members)]
        )
    share[:, left_out] = 0.0
    normalised: NDArray[np.float64] = share * (n - len(left_out)) / share.sum(axis=1, keepdims=True)
    return normalised


def training_report(
    committee: Committee,
    references: NDArray[np.float64],
    examples: Sequence[LabelledStructure],
    learned: NDArray[np.int64],
    held_out: NDArray[np.int64],
    share: NDArray[np.float64],
    state: TrainerState,
    note: str,
) -> TrainingReport:
    """Errors of a committee fresh from training, and how it was trained."""
    prediction = committee.predict([e.structure for e in examples])
    validation = prediction[held_out] if len(held_out) else None
    return TrainingReport(
        n_train=len(examples),
        held_out=tuple(int(i) for i in held_out),
        epochs=state.begun,
        cpu_seconds=state.cpu_seconds,
        train=summarise_errors(prediction[learned], [examples[i] for i in learned]),
        validation=None if validation is None else summarise_errors(validation, [examples[i] for i in held_out]),
        member_weights=share,
        held_out_prediction=validation,
        reference_energies=dict(zip(committee.elements, (float(x) for x in references), strict=True)),
        warm_start=note,
        history=tuple(state.history),
    )


def summarise_errors(prediction: Prediction, examples: Sequence[LabelledStructure]) -> ErrorSummary:
    """Errors of the committee's mean over labelled structures."""
    labels = [e.properties for e in examples]
    energy = (prediction.energy_mean - np.array([p.energy for p in labels])) / prediction.n_atoms
    pairs = zip(prediction.force_mean, labels, strict=True)
    forces = [(mean - p.forces).ravel() for mean, p in pairs if p.forces is not None]
    stresses: list[NDArray[np.float64]] = []
    if prediction.stress_mean is not None:
        stresses = [
            (mean - p.stress).ravel()
            for mean, p in zip(prediction.stress_mean, labels, strict=True)
            if p.stress is not None and np.isfinite(mean).all()
        ]
    joined = np.concatenate(forces) if forces else None
    return ErrorSummary(
        n_structures=len(labels),
        energy_mae=float(np.abs(energy).mean()),
        energy_rmse=float(np.sqrt(np.mean(energy**2))),
        force_mae=None if joined is None else float(np.abs(joined).mean()),
        force_rmse=None if joined is None else float(np.sqrt(np.mean(joined**2))),
        stress_mae=float(np.abs(np.concatenate(stresses)).mean()) if stresses else None,
    )
