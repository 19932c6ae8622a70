"""The defining identities of the real spherical harmonics."""

from __future__ import annotations

import importlib.util
import math

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from alflow.equivariant import (
    degree_of_component,
    degree_slice,
    harmonic_polynomial,
    n_components,
    spherical_harmonics,
    spherical_harmonics_with_gradient,
)

L_MAX = 4


def vectors(n: int, seed: int) -> torch.Tensor:
    return torch.randn(n, 3, generator=torch.Generator().manual_seed(seed), dtype=torch.float64)


def test_orthonormal_over_the_sphere() -> None:
    # Gauss-Legendre in z times equidistant angles integrates products up to degree 8 exactly.
    z, weights = np.polynomial.legendre.leggauss(10)
    angles = 2 * np.pi * np.arange(20) / 20
    rho = np.sqrt(1 - z * z)
    points = np.stack(
        [np.outer(rho, np.cos(angles)), np.outer(rho, np.sin(angles)), np.repeat(z[:, None], 20, axis=1)], axis=-1
    )
    values = spherical_harmonics(torch.from_numpy(points.reshape(-1, 3)), L_MAX).numpy()
    overlap = np.einsum("p,pa,pb->ab", np.repeat(weights, 20) / 40, values, values)
    np.testing.assert_allclose(overlap, np.eye(n_components(L_MAX)), atol=1e-13)


def test_component_normalisation_holds_in_every_direction() -> None:
    values = spherical_harmonics(vectors(50, 0), L_MAX)
    for degree in range(L_MAX + 1):
        norms = values[:, degree_slice(degree)].square().sum(1)
        torch.testing.assert_close(norms, torch.full_like(norms, 2 * degree + 1))


def test_first_degree_is_y_z_x() -> None:
    v = vectors(5, 1)
    expected = math.sqrt(3) * (v / v.norm(dim=1, keepdim=True))[:, [1, 2, 0]]
    torch.testing.assert_close(spherical_harmonics(v, 1)[:, 1:], expected)
    assert harmonic_polynomial(0, 0) == {(0, 0, 0): 1.0}


def test_parity() -> None:
    v = vectors(10, 2)
    sign = torch.tensor([(-1.0) ** degree for degree in degree_of_component(L_MAX)], dtype=torch.float64)
    torch.testing.assert_close(spherical_harmonics(-v, L_MAX), sign * spherical_harmonics(v, L_MAX))


@settings(max_examples=20, deadline=None)
@given(st.integers(0, 10**6), st.floats(0.1, 20.0))
def test_length_does_not_matter(seed: int, length: float) -> None:
    v = vectors(3, seed)
    torch.testing.assert_close(spherical_harmonics(length * v, L_MAX), spherical_harmonics(v, L_MAX))


def test_gradient_is_that_of_automatic_differentiation() -> None:
    v = vectors(6, 3).requires_grad_()
    total = spherical_harmonics(v, L_MAX).sum(0)
    jacobian = torch.stack([torch.autograd.grad(t, v, retain_graph=True)[0] for t in total[1:]])
    jacobian = torch.cat([torch.zeros_like(jacobian[:1]), jacobian])
    values, gradient = spherical_harmonics_with_gradient(v.detach(), L_MAX)
    torch.testing.assert_close(values, spherical_harmonics(v.detach(), L_MAX))
    torch.testing.assert_close(gradient, jacobian.permute(1, 2, 0))


def test_degree_is_limited() -> None:
    with pytest.raises(ValueError, match="l_max"):
        spherical_harmonics(vectors(1, 0), 9)


@pytest.mark.skipif(
    importlib.util.find_spec("e3nn") is None, reason="e3nn, the second implementation, is not installed"
)
@pytest.mark.filterwarnings("ignore")  # e3nn's own deprecations
def test_agrees_with_e3nn_up_to_its_order_of_axes() -> None:
    from e3nn import o3

    v = vectors(20, 4)
    # e3nn takes y as the polar axis: its Y(x, y, z) is ours at (z, x, y).
    theirs = o3.spherical_harmonics(list(range(L_MAX + 1)), v[:, [1, 2, 0]], True, "component")
    torch.testing.assert_close(spherical_harmonics(v, L_MAX), theirs)
