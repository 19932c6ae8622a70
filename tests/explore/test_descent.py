from __future__ import annotations

from collections.abc import Callable

import numpy as np
from numpy.typing import NDArray

from alflow.explore._descent import Descent

Problem = Callable[[NDArray[np.float64]], tuple[NDArray[np.float64], NDArray[np.float64]]]


def everything(chosen: NDArray[np.int64], step: NDArray[np.float64]) -> NDArray[np.float64]:
    return np.ones(len(chosen))


def minimise(descent: Descent, problem: Problem, chosen: NDArray[np.int64], steps: int) -> NDArray[np.float64]:
    gradient = np.zeros(0)
    for _ in range(steps):
        energy, gradient = problem(descent.x[chosen])
        descent.observe(chosen, energy, gradient)
        descent.move(chosen, everything)
    return gradient


def rosenbrock(x: NDArray[np.float64]) -> tuple[NDArray[np.float64], NDArray[np.float64]]:
    a, b = x.T
    energy = (1 - a) ** 2 + 100 * (b - a**2) ** 2
    gradient = np.stack([-2 * (1 - a) - 400 * a * (b - a**2), 200 * (b - a**2)], axis=1)
    return energy, gradient


def test_quadratics_of_different_stiffness_are_solved_together() -> None:
    rng = np.random.default_rng(0)
    n, dimensions = 20, 6
    basis = np.linalg.qr(rng.normal(size=(n, dimensions, dimensions)))[0]
    curvature = np.exp(rng.uniform(0, 5, size=(n, dimensions)))
    matrices = np.einsum("nij,nj,nkj->nik", basis, curvature, basis)
    target = rng.normal(size=(n, dimensions))

    def problem(x: NDArray[np.float64]) -> tuple[NDArray[np.float64], NDArray[np.float64]]:
        force = np.einsum("nij,nj->ni", matrices, x - target)
        return 0.5 * ((x - target) * force).sum(axis=1), force

    descent = Descent(n, dimensions, stiffness=10.0, noise=np.zeros(n))
    minimise(descent, problem, np.arange(n), 60)
    assert np.allclose(descent.accepted_x, target, atol=1e-4)
    assert not descent.stalled.any()


def test_the_banana_valley_is_followed_to_its_end() -> None:
    descent = Descent(1, 2, stiffness=100.0, noise=np.zeros(1))
    minimise(descent, rosenbrock, np.array([0]), 100)
    assert np.allclose(descent.accepted_x, 1.0, atol=1e-3)


def test_a_problem_does_not_depend_on_its_neighbours() -> None:
    alone = Descent(1, 2, stiffness=100.0, noise=np.zeros(1))
    minimise(alone, rosenbrock, np.array([0]), 20)
    together = Descent(3, 2, stiffness=100.0, noise=np.zeros(3))
    together.x[1] = [5.0, -3.0]
    for _ in range(20):
        chosen = np.array([0, 1, 2])
        energy, gradient = rosenbrock(together.x[chosen])
        energy[2] = np.nan
        together.observe(chosen, energy, gradient)
        together.move(chosen, everything)
    assert np.array_equal(alone.accepted_x[0], together.accepted_x[0])
    assert together.stalled.tolist() == [False, False, True]


def test_a_rise_is_taken_back_and_the_step_shortened() -> None:
    descent = Descent(1, 1, stiffness=0.01, noise=np.zeros(1))  # far too long a first step
    chosen = np.array([0])

    def quartic(x: NDArray[np.float64]) -> tuple[NDArray[np.float64], NDArray[np.float64]]:
        return ((x - 1) ** 4).sum(axis=1), 4 * (x - 1) ** 3

    energy, gradient = quartic(descent.x)
    assert descent.observe(chosen, energy, gradient).all()
    descent.move(chosen, everything)
    first = descent.x[0, 0]
    assert not descent.observe(chosen, *quartic(descent.x)).any()
    descent.move(chosen, everything)
    assert 0 < descent.x[0, 0] < first
    assert descent.accepted_x[0, 0] == 0.0


def test_nothing_lower_is_noticed() -> None:
    descent = Descent(1, 1, stiffness=1.0, noise=np.zeros(1))
    chosen, energy = np.array([0]), 0.0
    for _ in range(30):  # a gradient that lies: the energy rises along it
        descent.observe(chosen, np.array([energy]), np.array([[1.0]]))
        if descent.stalled[0]:
            break
        descent.move(chosen, everything)
        energy = 1.0
    assert descent.stalled[0]
    assert descent.accepted_x[0, 0] == 0.0
