"""Channelwise products: against the plain formula, under rotations, and their first and second derivatives."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from scipy.spatial.transform import Rotation

from alflow.equivariant import (
    ChannelwiseProduct,
    clebsch_gordan,
    degree_slice,
    mix_degrees,
    n_components,
    split_degrees,
    squared_norms,
    wigner_matrix,
)

MEMBERS, CHANNELS, ATOMS = 2, 3, 4
PRODUCTS = [
    ChannelwiseProduct(3, 3, 2, symmetric=True),
    ChannelwiseProduct(2, 3, 1),
    ChannelwiseProduct(1, 2, 3),
    ChannelwiseProduct(2, 2, 0),
]


def features(l_max: int, seed: int) -> torch.Tensor:
    generator = torch.Generator().manual_seed(seed)
    return torch.randn(MEMBERS, n_components(l_max), CHANNELS, ATOMS, generator=generator, dtype=torch.float64)


def factors(product: ChannelwiseProduct) -> tuple[torch.Tensor, torch.Tensor]:
    left = features(product.l_left, 0)
    return left, left if product.symmetric else features(product.l_right, 1)


def rotate(x: torch.Tensor, l_max: int, matrix: np.ndarray) -> torch.Tensor:
    parts = [
        torch.einsum("ab,kbcn->kacn", torch.from_numpy(wigner_matrix(degree, matrix)), part)
        for degree, part in enumerate(split_degrees(x, l_max))
    ]
    return torch.cat(parts, dim=1)


@pytest.mark.parametrize("product", PRODUCTS)
def test_is_the_sum_over_clebsch_gordan_coefficients(product: ChannelwiseProduct) -> None:
    left, right = factors(product)
    out = product(left, right)
    for degree in range(product.l_out + 1):
        paths = [(l1, l2) for l1, l2, l3 in product.paths if l3 == degree]
        assert product.n_paths[degree] == len(paths)
        assert out[degree].shape == (MEMBERS, 2 * degree + 1, len(paths) * CHANNELS, ATOMS)
        for number, (l1, l2) in enumerate(paths):
            expected = torch.einsum(
                "kacn,kbcn,abm->kmcn",
                left[:, degree_slice(l1)],
                right[:, degree_slice(l2)],
                torch.tensor(clebsch_gordan(l1, l2, degree)),
            )
            found = out[degree][:, :, number * CHANNELS : (number + 1) * CHANNELS]
            torch.testing.assert_close(found, expected)


@pytest.mark.parametrize("product", PRODUCTS)
@pytest.mark.parametrize("sign", [1, -1])
def test_is_equivariant_also_under_reflections(product: ChannelwiseProduct, sign: int) -> None:
    left, right = factors(product)
    matrix = sign * Rotation.random(random_state=3).as_matrix()
    turned = product(rotate(left, product.l_left, matrix), rotate(right, product.l_right, matrix))
    for degree, (found, plain) in enumerate(zip(turned, product(left, right), strict=True)):
        d = torch.from_numpy(wigner_matrix(degree, matrix))
        torch.testing.assert_close(found, torch.einsum("ab,kbcn->kacn", d, plain))


@pytest.mark.parametrize("product", PRODUCTS)
def test_first_and_second_derivatives(product: ChannelwiseProduct) -> None:
    left, right = (x[:1, :, :1, :2].clone().requires_grad_() for x in factors(product))

    def function(x: torch.Tensor, y: torch.Tensor) -> torch.Tensor:
        return torch.cat([part.flatten() for part in product(x, x if product.symmetric else y)])

    assert torch.autograd.gradcheck(function, (left, right))
    assert torch.autograd.gradgradcheck(function, (left, right))


def test_no_path_to_a_degree_gives_no_channels() -> None:
    out = ChannelwiseProduct(0, 1, 2)(features(0, 0), features(1, 1))
    assert [part.shape[2] for part in out] == [CHANNELS, CHANNELS, 0]


def test_symmetric_needs_one_factor() -> None:
    with pytest.raises(ValueError, match="symmetric"):
        ChannelwiseProduct(1, 2, 1, symmetric=True)


def test_squared_norms_are_invariant() -> None:
    x = features(2, 5)
    turned = rotate(x, 2, Rotation.random(random_state=1).as_matrix())
    assert squared_norms(x, 2).shape == (MEMBERS, 3 * CHANNELS, ATOMS)
    torch.testing.assert_close(squared_norms(turned, 2), squared_norms(x, 2))
    with pytest.raises(ValueError, match="components"):
        squared_norms(x, 3)


def test_mixing_channels_commutes_with_rotations() -> None:
    x = features(3, 6)
    weights = torch.randn(MEMBERS, 4, 5, CHANNELS, dtype=torch.float64)
    matrix = Rotation.random(random_state=2).as_matrix()
    torch.testing.assert_close(
        mix_degrees(rotate(x, 3, matrix), weights, 3), rotate(mix_degrees(x, weights, 3), 3, matrix)
    )
