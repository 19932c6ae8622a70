import itertools
from typing import Any

import numpy as np
import pytest
from ase.geometry import minkowski_reduce

from alflow.structures._lattice import (
    heights,
    hermite_basis,
    lattice_maps,
    lattice_points,
    measure,
    principal_stretches,
    reduced_lattice,
    unit_normals,
    wrap_small,
)
from alflow.structures._superlattice import intersection
from tests.disguises import random_orthogonal, random_unimodular

FCC = np.array([[0.0, 1.0, 1.0], [1.0, 0.0, 1.0], [1.0, 1.0, 0.0]]) * 1.8


@pytest.mark.parametrize("seed", range(20))
def test_reduction_keeps_the_lattice_and_is_as_short_as_ase(seed: int) -> None:
    rng = np.random.default_rng(seed)
    lattice = random_unimodular(rng, np.ones(3, dtype=bool), steps=12) @ rng.normal(size=(3, 3)) * 3
    reduced, transform = reduced_lattice(lattice)
    assert abs(round(float(np.linalg.det(transform)))) == 1
    np.testing.assert_allclose(transform @ lattice, reduced, atol=1e-9)
    expected = np.sort(np.linalg.norm(minkowski_reduce(lattice)[0], axis=1))
    np.testing.assert_allclose(np.linalg.norm(reduced, axis=1), expected, atol=1e-8)


@pytest.mark.parametrize("d", [0, 1, 2])
def test_reduction_and_measure_of_fewer_directions(d: int) -> None:
    lattice = np.array([[3.0, 0.0, 0.0], [10.0, 4.0, 0.0]])[:d]
    reduced, _ = reduced_lattice(lattice)
    assert reduced.shape == (d, 3)
    assert measure(reduced) == pytest.approx([0.0, 3.0, 12.0][d])
    assert len(heights(reduced)) == d
    assert unit_normals(reduced).shape == (3 - d, 3)
    np.testing.assert_allclose(unit_normals(reduced) @ reduced.T, 0.0, atol=1e-12)


def test_lattice_points_are_all_within_the_radius() -> None:
    points = lattice_points(reduced_lattice(FCC)[0], 1.8 * np.sqrt(2.0) + 1e-6)
    assert len(points) == 13
    brute = np.array(list(itertools.product(range(-6, 7), repeat=3))) @ FCC
    assert len(lattice_points(reduced_lattice(FCC)[0], 8.0)) == (np.linalg.norm(brute, axis=1) <= 8.0).sum()


def test_small_differences_are_wrapped_to_the_shortest_image() -> None:
    rng = np.random.default_rng(1)
    lattice, _ = reduced_lattice(rng.normal(size=(3, 3)) * 4)
    small = rng.normal(size=(50, 3)) * 0.02
    shifted = small + rng.integers(-3, 4, size=(50, 3)) @ lattice
    np.testing.assert_allclose(wrap_small(shifted, lattice), small, atol=1e-12)


def test_hermite_basis_spans_the_same_integers() -> None:
    rows = np.array([[4, 0, 0], [0, 4, 0], [0, 0, 4], [2, 2, 0], [1, 3, 2]])
    basis = hermite_basis(rows)
    assert (np.tril(basis, -1) == 0).all()
    coordinates = rows @ np.linalg.inv(basis)
    np.testing.assert_allclose(coordinates, np.rint(coordinates), atol=1e-9)
    # 64 translations of the fourfold cell, of which the two extra ones generate a group of order 4
    assert round(abs(float(np.linalg.det(basis)))) == 16


def test_intersection_of_a_double_and_a_triple_cell_is_the_sixfold_one() -> None:
    common = intersection(np.diag([2, 1, 1]), np.diag([3, 1, 1]))
    assert abs(round(float(np.linalg.det(common)))) == 6
    for rows in (np.diag([2, 1, 1]), np.diag([3, 1, 1])):
        coordinates = common @ np.linalg.inv(rows)
        np.testing.assert_allclose(coordinates, np.rint(coordinates), atol=1e-9)


@pytest.mark.parametrize(("lattice", "order"), [(FCC, 48), (np.eye(3) * 3.0, 48), (np.diag([3.0, 3.0, 4.0]), 16)])
def test_maps_of_a_lattice_onto_itself_are_its_point_group(lattice: Any, order: Any) -> None:
    rng = np.random.default_rng(3)
    turned = lattice @ random_orthogonal(rng, mirror=True).T
    source, target = reduced_lattice(lattice)[0], reduced_lattice(turned)[0]
    images = lattice_maps(source, target, 1, 1e-5)
    assert len(images) == order
    np.testing.assert_allclose(principal_stretches(source, images), 1.0, atol=1e-9)


def test_maps_onto_a_sublattice_hit_lattice_points() -> None:
    source, _ = reduced_lattice(np.eye(3) * 3.6)
    target, _ = reduced_lattice(FCC)
    images = lattice_maps(source, target, 4, 1e-4)
    assert len(images) == 48
    coordinates = images @ np.linalg.inv(target)
    np.testing.assert_allclose(coordinates, np.rint(coordinates), atol=1e-9)


def test_maps_are_limited_by_strain() -> None:
    strained, _ = reduced_lattice(FCC @ np.diag([1.0, 1.0, 1.004]))
    assert len(lattice_maps(strained, reduced_lattice(FCC)[0], 1, 0.003)) == 0
    assert len(lattice_maps(strained, reduced_lattice(FCC)[0], 1, 0.005)) == 48
    assert len(lattice_maps(strained, reduced_lattice(FCC)[0], 2, 0.005)) == 0
