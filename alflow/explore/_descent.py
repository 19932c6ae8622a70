"""Limited-memory BFGS for many independent problems at once, every operation over all of them."""

from __future__ import annotations

from collections.abc import Callable
from typing import TYPE_CHECKING

import numpy as np

if TYPE_CHECKING:
    from numpy.typing import NDArray

_MEMORY = 12
_SHORTEN = 0.35
_MAX_REJECTIONS = 10


class Descent:
    """The state of n minimisations that share nothing but their arithmetic.

    Use in turns: evaluate the problems of interest at :attr:`x`, :meth:`observe` what came out, :meth:`move` on. The
    direction is the two-loop recursion of Nocedal, Math. Comput. 35, 773 (1980).

    Parameters
    ----------
    n
        number of problems
    dimensions
        coordinates of each; unused ones must have a gradient of zero
    stiffness
        curvature assumed before any is known
    noise
        (n,) a rise of the energy up to this is accepted

    Attributes
    ----------
    x
        (n, dimensions) where to evaluate next
    accepted_x
        (n, dimensions) where the energy was last accepted
    stalled
        (n,) no shorter step lowers the energy, or the first evaluation was not finite
    """

    def __init__(self, n: int, dimensions: int, *, stiffness: float, noise: NDArray[np.float64]) -> None:
        self.x = np.zeros((n, dimensions))
        self.accepted_x = np.zeros((n, dimensions))
        self.stalled = np.zeros(n, dtype=bool)
        self._energy = np.full(n, np.inf)
        self._gradient = np.zeros((n, dimensions))
        self._step = np.zeros((n, dimensions))
        self._moves = np.zeros((_MEMORY, n, dimensions))
        self._changes = np.zeros((_MEMORY, n, dimensions))
        self._weights = np.zeros((_MEMORY, n))
        self._scale = np.full(n, 1.0 / stiffness)
        self._first_scale = 1.0 / stiffness
        self._rejections = np.zeros(n, dtype=int)
        self._noise = noise

    def observe(
        self, chosen: NDArray[np.int64], energy: NDArray[np.float64], gradient: NDArray[np.float64]
    ) -> NDArray[np.bool_]:
        """Take in energies (m,) and gradients (m, dimensions) at :attr:`x`; True where the point is accepted."""
        finite = np.isfinite(energy) & np.isfinite(gradient).all(axis=1)
        begun = np.isfinite(self._energy[chosen])
        accepted = np.asarray(finite & (~begun | (energy <= self._energy[chosen] + self._noise[chosen])))
        self._learn(chosen[accepted & begun], gradient[accepted & begun])
        good, bad = chosen[accepted], chosen[~accepted]
        self.accepted_x[good] = self.x[good]
        self._energy[good] = energy[accepted]
        self._gradient[good] = gradient[accepted]
        self._rejections[good] = 0
        self._rejections[bad] += 1
        self.stalled[bad] = ~begun[~accepted] | (self._rejections[bad] > _MAX_REJECTIONS)
        return accepted

    def move(
        self,
        chosen: NDArray[np.int64],
        allowed: Callable[[NDArray[np.int64], NDArray[np.float64]], NDArray[np.float64]],
    ) -> None:
        """Set :attr:`x` of the chosen problems to the next point.

        Parameters
        ----------
        chosen
            (m,) indices
        allowed
            called with indices and steps (m, dimensions); says how much of each step is allowed, (m,) up to 1
        """
        on = chosen[self._rejections[chosen] == 0]
        back = chosen[self._rejections[chosen] > 0]
        step = self._direction(on)
        self._step[on] = step * allowed(on, step)[:, None]
        self._step[back] *= _SHORTEN
        self.x[chosen] = self.accepted_x[chosen] + self._step[chosen]

    def _learn(self, chosen: NDArray[np.int64], gradient: NDArray[np.float64]) -> None:
        """Keep the pair (move, change of gradient) where the curvature along it is positive."""
        move = self.x[chosen] - self.accepted_x[chosen]
        change = gradient - self._gradient[chosen]
        curvature = (move * change).sum(axis=1)
        size = np.linalg.norm(move, axis=1) * np.linalg.norm(change, axis=1)
        useful = curvature > 1e-4 * size
        rows = chosen[useful]
        for store, value in ((self._moves, move), (self._changes, change)):
            store[:-1, rows] = store[1:, rows]
            store[-1, rows] = value[useful]
        self._weights[:-1, rows] = self._weights[1:, rows]
        self._weights[-1, rows] = 1.0 / curvature[useful]
        self._scale[rows] = curvature[useful] / (change[useful] ** 2).sum(axis=1)

    def _direction(self, chosen: NDArray[np.int64]) -> NDArray[np.float64]:
        moves, changes, weights = self._moves[:, chosen], self._changes[:, chosen], self._weights[:, chosen]
        gradient = self._gradient[chosen]
        direction = gradient.copy()
        alpha = np.zeros_like(weights)
        for i in range(_MEMORY - 1, -1, -1):
            alpha[i] = weights[i] * (moves[i] * direction).sum(axis=1)
            direction -= alpha[i][:, None] * changes[i]
        direction *= self._scale[chosen][:, None]
        for i in range(_MEMORY):
            beta = weights[i] * (changes[i] * direction).sum(axis=1)
            direction += (alpha[i] - beta)[:, None] * moves[i]
        uphill = (direction * gradient).sum(axis=1) <= 0
        if uphill.any():  # rounding has spoilt the memory: begin again
            lost = chosen[uphill]
            self._weights[:, lost] = 0.0
            self._scale[lost] = self._first_scale
            direction[uphill] = self._first_scale * gradient[uphill]
        return -direction
