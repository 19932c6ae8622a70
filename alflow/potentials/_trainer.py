"""The training loop: steps, looks at held-out structures, checkpoints; killing it changes nothing but the time."""

from __future__ import annotations

import math
import time
from collections.abc import Callable
from dataclasses import dataclass, field
from typing import TYPE_CHECKING

import numpy as np
import torch

from alflow.errors import PotentialError
from alflow.potentials._loss import LossWeights, committee_loss, member_losses
from alflow.potentials._optimiser import OptimiserState, learning_rate
from alflow.potentials._report import TrainingProgress

if TYPE_CHECKING:
    from numpy.typing import NDArray

    from alflow.potentials._dataset import TrainingSet
    from alflow.potentials._engine import Engine
    from alflow.potentials._spec import TrainingSpec
    from alflow.potentials._targets import Targets

VALIDATION_BATCH = 32
PATIENCE_SHARE = 0.25
"""Of the steps so far: without improvement for less than this, noise of the held-out loss has not been ruled out."""
LEARNED_BETWEEN_LOOKS = 4
"""Structures to learn from between two looks, for each that is looked at."""
COOLING_SHARE, COOLING_STEPS = 0.15, 100
"""The cool-down takes this share of the steps so far, and at least so many steps."""


@dataclass(kw_only=True, eq=False)
class TrainerState:
    """Where a training stands; what a checkpoint holds.

    Parameters
    ----------
    optimiser
        weights and moments
    epoch, position
        epochs done, and steps of the running one
    best
        (K, P) averaged weights with the lowest held-out loss, None before the first look
    best_loss
        that loss
    looks_since_best
        for the patience
    last_look, best_look
        step of the last look, and of the best one
    cooling
        None, or first step, number of steps and first learning rate of the cool-down
    cpu_seconds
        processor time of all processes that worked on this training
    history
        (epoch, training loss, held-out loss or None)
    finished
        True when there is nothing left to do
    """

    optimiser: OptimiserState
    epoch: int = 0
    position: int = 0
    best: torch.Tensor | None = None
    best_loss: float = math.inf
    looks_since_best: int = 0
    last_look: int = 0
    best_look: int = 0
    cooling: tuple[int, int, float] | None = None
    cpu_seconds: float = 0.0
    history: list[tuple[int, float, float | None]] = field(default_factory=list)
    finished: bool = False

    @property
    def begun(self) -> int:
        """Epochs done, the running one included."""
        return self.epoch + (self.position > 0)

    @property
    def result(self) -> torch.Tensor:
        """The weights to keep."""
        return self.optimiser.average if self.best is None else self.best


class Trainer:
    """Trains the weights of a committee.

    Every random number is drawn from (seed, epoch), so that an epoch repeated after a crash repeats itself.

    Parameters
    ----------
    engine
        evaluates the function to train
    data
        all examples
    share
        (K, n) weight of every example for every member
    learned, held_out
        indices of the examples to learn from and of those to judge by
    training, targets
        settings
    seed
        of the order of examples
    warm
        True when starting from an earlier committee
    """

    def __init__(
        self,
        engine: Engine,
        data: TrainingSet,
        share: NDArray[np.float64],
        learned: NDArray[np.int64],
        held_out: NDArray[np.int64],
        training: TrainingSpec,
        targets: Targets,
        *,
        seed: int,
        warm: bool,
    ) -> None:
        self.engine, self.data, self.training, self.targets, self.seed = engine, data, training, targets, seed
        self.share = torch.from_numpy(share).to(data.dtype)
        self.rows, self.held_out = learned, held_out
        self.steps_per_epoch = math.ceil(len(self.rows) / training.batch_size)
        # many held-out structures are looked at less often, so that looks stay a small part of the work
        learned_between = LEARNED_BETWEEN_LOOKS * len(held_out)
        self.look_steps = max(training.validate_every, math.ceil(learned_between / training.batch_size))
        steps = training.warm_steps if warm else training.steps
        self.n_epochs = training.max_epochs or max(1, math.ceil(steps / self.steps_per_epoch))
        self.peak = training.warm_learning_rate if warm else training.learning_rate
        self._warm = warm
        self._started = time.process_time()

    def run(
        self,
        state: TrainerState,
        *,
        save: Callable[[TrainerState], None] | None = None,
        progress: Callable[[TrainingProgress], None] | None = None,
    ) -> TrainerState:
        """Train to the end of the budget, or until held-out structures gain nothing any more.

        What is judged is the members' mean. Where it gains nothing, the learning rate is brought down from where it
        is, starting from the best weights: the noise of a high rate hides most of what the last part of a training
        brings.

        Parameters
        ----------
        state
            where to go on from; changed in place
        save
            called at the same times, not more often than `checkpoint_seconds`, and at the end
        progress
            called after every epoch, and within a long one after every `validate_every` steps

        Raises
        ------
        PotentialError
            if the weights stop being finite
        """
        spent_before, self._started = state.cpu_seconds, time.process_time()
        saved = time.monotonic()
        while not state.finished:
            loss = self._stretch(state, spent_before)
            state.cpu_seconds = spent_before + time.process_time() - self._started
            at_end = self._fraction(state) >= 1.0 or _cooled(state)
            held_out_loss = self._look(state, loss, force=at_end)
            state.finished = at_end
            if not at_end and state.cooling is None and self._gains_nothing(state):
                self._begin_cooling(state)
            if progress is not None:
                progress(
                    TrainingProgress(
                        epoch=state.begun,
                        max_epochs=None if self.training.cpu_seconds else self.n_epochs,
                        loss=loss,
                        held_out_loss=held_out_loss,
                        cpu_seconds=state.cpu_seconds,
                        fraction=min(self._fraction(state), 1.0),
                    )
                )
            if save is not None and (state.finished or time.monotonic() - saved >= self.training.checkpoint_seconds):
                save(state)
                saved = time.monotonic()
        return state

    def _fraction(self, state: TrainerState) -> float:
        """Share of the budget that is used; of two budgets, the one that is used further."""
        of_epochs = (state.epoch + state.position / self.steps_per_epoch) / self.n_epochs
        if self.training.cpu_seconds is None:
            return of_epochs
        of_time = state.cpu_seconds / self.training.cpu_seconds
        return of_time if self.training.max_epochs is None else max(of_time, of_epochs)

    def _stretch(self, state: TrainerState, spent_before: float) -> float:
        """Steps to the end of the epoch, but no more than `validate_every`; the mean loss over members and steps.

        A budget of time ends it early.
        """
        order = np.random.default_rng([self.seed, state.epoch, 7]).permutation(self.rows)
        optimiser = state.optimiser
        leaf = optimiser.weights.detach().requires_grad_()
        losses: list[float] = []
        for k in range(state.position, min(self.steps_per_epoch, state.position + self.training.validate_every)):
            chosen = np.sort(order[k :: self.steps_per_epoch])
            if self.training.cpu_seconds is not None:
                state.cpu_seconds = spent_before + time.process_time() - self._started
            fraction = self._fraction(state)
            if losses and fraction >= 1.0:
                break
            weights = self._loss_weights(fraction if state.cooling is None else 1.0)
            batch, labels = self.data.batch(chosen)
            out = self.engine.evaluate(leaf, batch, training=True)
            of_members = member_losses(out, labels, batch.structure, weights, self.share[:, chosen])
            (gradient,) = torch.autograd.grad(of_members.sum(), leaf)
            loss = float(of_members.detach().mean())
            if not math.isfinite(loss):
                raise PotentialError(
                    f"training diverged in epoch {state.epoch + 1} (the loss is {loss}): lower learning_rate, "
                    "or look for labels that are far off"
                )
            optimiser.update(
                gradient, self._rate(state, fraction), self.training.ema_decay, self.training.gradient_clip
            )
            losses.append(loss)
            state.position = k + 1
        if state.position == self.steps_per_epoch:
            state.epoch, state.position = state.epoch + 1, 0
        return float(np.mean(losses))

    def _rate(self, state: TrainerState, fraction: float) -> float:
        """Learning rate of the next step, after `fraction` of the budget."""
        if state.cooling is not None:
            first, steps, rate = state.cooling
            return learning_rate(rate, state.optimiser.step, 0, (state.optimiser.step - first) / steps)
        return learning_rate(self.peak, state.optimiser.step, self.training.warmup_steps, fraction)

    def _gains_nothing(self, state: TrainerState) -> bool:
        """Whether held-out structures have not gained for long enough.

        Not before the training weighs energies as much as the judgement of held-out structures does, for until then
        these may lose while all goes well.
        """
        if not self._warm and self._fraction(state) < self.training.energy_ramp:
            return False
        since = state.optimiser.step - state.best_look
        return state.looks_since_best >= self.training.patience and since >= PATIENCE_SHARE * state.optimiser.step

    def _begin_cooling(self, state: TrainerState) -> None:
        assert state.best is not None, "looks are counted from the best one on"
        step = state.optimiser.step
        rate = self._rate(state, self._fraction(state))
        state.cooling = (step, max(COOLING_STEPS, round(COOLING_SHARE * step)), rate)
        state.optimiser.weights, state.optimiser.average = state.best.clone(), state.best.clone()

    def _loss_weights(self, fraction: float) -> LossWeights:
        return LossWeights.of(self.training, self.targets, 1.0 if self._warm else fraction)

    def _look(self, state: TrainerState, loss: float, *, force: bool) -> float | None:
        """Judge the averaged weights on the held-out structures when it is time."""
        due = state.optimiser.step - state.last_look >= self.look_steps
        if not (due or force):
            return None
        state.last_look = state.optimiser.step
        held_out_loss = None
        if len(self.held_out):
            held_out_loss = self.evaluate(state.optimiser.average, self.held_out)
            if held_out_loss < state.best_loss:
                state.best, state.best_loss = state.optimiser.average.clone(), held_out_loss
                state.looks_since_best, state.best_look = 0, state.optimiser.step
            else:
                state.looks_since_best += 1
        state.history.append((state.begun, loss, held_out_loss))
        return held_out_loss

    def evaluate(self, matrix: torch.Tensor, indices: NDArray[np.int64]) -> float:
        """Loss of the members' mean over structures, with full weights."""
        weights, total = self._loss_weights(1.0), 0.0
        for part in np.array_split(indices, math.ceil(len(indices) / VALIDATION_BATCH)):
            batch, labels = self.data.batch(part)
            out = self.engine.evaluate(matrix, batch)
            total += len(part) * float(committee_loss(out, labels, batch.structure, weights))
        return total / len(indices)


def _cooled(state: TrainerState) -> bool:
    if state.cooling is None:
        return False
    first, steps, _ = state.cooling
    return state.optimiser.step >= first + steps
