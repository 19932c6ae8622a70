"""The defining identities of the Clebsch-Gordan coefficients and the Wigner matrices."""

from __future__ import annotations

import itertools

import numpy as np
import pytest
import torch
from numpy.typing import NDArray
from scipy.spatial.transform import Rotation

from alflow.equivariant import clebsch_gordan, degree_slice, spherical_harmonics, wigner_matrix

TRIPLES = [
    (l1, l2, l3) for l1, l2 in itertools.product(range(4), repeat=2) for l3 in range(abs(l1 - l2), min(l1 + l2, 4) + 1)
]


def rotation(seed: int) -> NDArray[np.float64]:
    matrix: NDArray[np.float64] = Rotation.random(random_state=seed).as_matrix()
    return matrix


@pytest.mark.parametrize(("l1", "l2", "l3"), TRIPLES)
def test_columns_are_orthonormal(l1: int, l2: int, l3: int) -> None:
    c = clebsch_gordan(l1, l2, l3)
    np.testing.assert_allclose(np.einsum("abc,abd->cd", c, c), np.eye(2 * l3 + 1), atol=1e-13)


@pytest.mark.parametrize(("l1", "l2", "l3"), TRIPLES)
def test_coupling_commutes_with_rotations(l1: int, l2: int, l3: int) -> None:
    c = clebsch_gordan(l1, l2, l3)
    d1, d2, d3 = (wigner_matrix(degree, rotation(5)) for degree in (l1, l2, l3))
    np.testing.assert_allclose(np.einsum("abc,ax,by->xyc", c, d1, d2), np.einsum("xyd,cd->xyc", c, d3), atol=1e-12)


def test_complete_for_a_pair_of_degrees() -> None:
    joined = np.concatenate([clebsch_gordan(2, 3, l3).reshape(35, -1) for l3 in range(1, 6)], axis=1)
    np.testing.assert_allclose(joined @ joined.T, np.eye(35), atol=1e-13)


def test_product_of_harmonics_is_a_harmonic() -> None:
    v = torch.randn(7, 3, generator=torch.Generator().manual_seed(0), dtype=torch.float64)
    y = spherical_harmonics(v, 4).numpy()
    coupled = np.einsum("pa,pb,abc->pc", y[:, degree_slice(2)], y[:, degree_slice(3)], clebsch_gordan(2, 3, 3))
    ratio = coupled / y[:, degree_slice(3)]
    # Odd l1 + l2 + l3 of one and the same direction vanishes; even ones are proportional to the harmonic.
    even = np.einsum("pa,pb,abc->pc", y[:, degree_slice(2)], y[:, degree_slice(2)], clebsch_gordan(2, 2, 4))
    factor = even / y[:, degree_slice(4)]
    np.testing.assert_allclose(factor, factor.flat[0], rtol=1e-9)
    assert np.isfinite(ratio).all()
    odd = np.einsum("pa,pb,abc->pc", y[:, degree_slice(2)], y[:, degree_slice(2)], clebsch_gordan(2, 2, 3))
    np.testing.assert_allclose(odd, 0.0, atol=1e-12)


def test_first_degrees_are_dot_and_cross_product() -> None:
    a, b = np.array([0.3, -1.2, 0.5]), np.array([1.1, 0.4, -0.7])
    x, y = a[[1, 2, 0]], b[[1, 2, 0]]  # components of degree 1 are (y, z, x)
    dot = np.einsum("a,b,abc->c", x, y, clebsch_gordan(1, 1, 0))
    np.testing.assert_allclose(np.abs(dot), abs(a @ b) / np.sqrt(3), atol=1e-14)
    cross = np.einsum("a,b,abc->c", x, y, clebsch_gordan(1, 1, 1))
    expected = np.cross(a, b)[[1, 2, 0]] / np.sqrt(2)
    np.testing.assert_allclose(np.abs(cross), np.abs(expected), atol=1e-14)


def test_triangle_rule() -> None:
    with pytest.raises(ValueError, match="couple"):
        clebsch_gordan(1, 1, 3)


@pytest.mark.parametrize("degree", range(5))
@pytest.mark.parametrize("sign", [1, -1])
def test_wigner_matrices_turn_harmonics(degree: int, sign: int) -> None:
    r = sign * rotation(2)
    d = wigner_matrix(degree, r)
    v = np.random.default_rng(1).normal(size=(6, 3))
    part = degree_slice(degree)
    turned = spherical_harmonics(torch.from_numpy(v @ r.T), degree)[:, part].numpy()
    np.testing.assert_allclose(
        turned, spherical_harmonics(torch.from_numpy(v), degree)[:, part].numpy() @ d.T, atol=1e-12
    )
    np.testing.assert_allclose(d @ d.T, np.eye(2 * degree + 1), atol=1e-12)


def test_wigner_matrices_multiply_like_rotations() -> None:
    r, s = rotation(3), -rotation(4)
    np.testing.assert_allclose(wigner_matrix(3, r @ s), wigner_matrix(3, r) @ wigner_matrix(3, s), atol=1e-12)
