"""Real spherical harmonics and their gradient, as polynomials of the unit vector."""

from __future__ import annotations

import math
from functools import cache

import numpy as np
import torch
from numpy.typing import NDArray

L_MAX = 8
"""Highest degree for which the recursion is tested."""

_Monomial = tuple[int, int, int]
_Polynomial = dict[_Monomial, float]


def n_components(l_max: int) -> int:
    """Return the number of components of all degrees up to `l_max`: (l_max + 1)²."""
    return (l_max + 1) ** 2


def degree_slice(degree: int) -> slice:
    """Where the 2l+1 components of one degree stand among all components."""
    return slice(degree * degree, (degree + 1) ** 2)


def degree_of_component(l_max: int) -> list[int]:
    """Degree l of every component, e.g. [0, 1, 1, 1] for l_max = 1."""
    return [degree for degree in range(l_max + 1) for _ in range(2 * degree + 1)]


def spherical_harmonics(vectors: torch.Tensor, l_max: int) -> torch.Tensor:
    r"""Evaluate real spherical harmonics Y_lm of the directions of `vectors`.

    Component normalisation: :math:`\frac{1}{4\pi}\int Y_{lm} Y_{l'm'} d\Omega = \delta\delta`, so that
    :math:`\sum_m Y_{lm}^2 = 2l+1` everywhere. Components run from m = -l to l within each degree, without the
    Condon-Shortley phase: :math:`Y_1 = \sqrt 3 (y, z, x)`.

    Parameters
    ----------
    vectors
        (..., 3), not zero, of any length

    Returns
    -------
    torch.Tensor
        (..., (l_max + 1)²)
    """
    unit = vectors / vectors.norm(dim=-1, keepdim=True)
    table, _ = _tables(l_max, vectors.dtype, vectors.device)
    return _monomials(unit, l_max) @ table


def spherical_harmonics_with_gradient(vectors: torch.Tensor, l_max: int) -> tuple[torch.Tensor, torch.Tensor]:
    """Evaluate Y_lm of the directions of `vectors` and dY_lm/dv for the vectors themselves.

    Returns
    -------
    values: (..., (l_max + 1)²)
    gradient: (..., 3, (l_max + 1)²), 1 / unit of length; orthogonal to the vector, whose length Y does not know
    """
    length = vectors.norm(dim=-1, keepdim=True)
    unit = vectors / length
    table, derivative = _tables(l_max, vectors.dtype, vectors.device)
    monomials = _monomials(unit, l_max)
    size = n_components(l_max)
    slope = (monomials @ derivative).view(*unit.shape[:-1], 3, size)
    radial = (unit.unsqueeze(-2) @ slope) * unit.unsqueeze(-1)
    return monomials @ table, (slope - radial) / length.unsqueeze(-1)


def _monomials(unit: torch.Tensor, l_max: int) -> torch.Tensor:
    """All monomials x^a y^b z^c with a + b + c ≤ l_max in the order of :func:`_monomial_order`, (..., n)."""
    blocks = [torch.ones_like(unit[..., :1])]
    for parents, factors in _recipes(l_max, unit.device):
        blocks.append(blocks[-1][..., parents] * unit[..., factors])
    return torch.cat(blocks, dim=-1)


@cache
def _monomial_order(degree: int) -> list[_Monomial]:
    return [(a, b, degree - a - b) for a in range(degree, -1, -1) for b in range(degree - a, -1, -1)]


@cache
def _recipes(l_max: int, device: torch.device) -> list[tuple[torch.Tensor, torch.Tensor]]:
    """For every degree ≥ 1: which monomial of the degree below, times which of x, y, z."""
    recipes = []
    for degree in range(1, l_max + 1):
        below = {monomial: i for i, monomial in enumerate(_monomial_order(degree - 1))}
        parents, factors = [], []
        for a, b, c in _monomial_order(degree):
            factor = 0 if a else (1 if b else 2)
            parent = (a - (factor == 0), b - (factor == 1), c - (factor == 2))
            parents.append(below[parent])
            factors.append(factor)
        recipes.append((torch.tensor(parents, device=device), torch.tensor(factors, device=device)))
    return recipes


@cache
def _tables(l_max: int, dtype: torch.dtype, device: torch.device) -> tuple[torch.Tensor, torch.Tensor]:
    """Coefficients of the harmonics and of their partial derivatives over the monomials, (n, S) and (n, 3 S)."""
    values, derivatives = _coefficients(l_max)
    table, derivative = torch.from_numpy(values), torch.from_numpy(derivatives.reshape(len(derivatives), -1))
    return table.to(device, dtype), derivative.to(device, dtype)


@cache
def _coefficients(l_max: int) -> tuple[NDArray[np.float64], NDArray[np.float64]]:
    if not 0 <= l_max <= L_MAX:
        raise ValueError(f"l_max must lie between 0 and {L_MAX}, not {l_max}")
    rows = {m: i for i, m in enumerate(m for degree in range(l_max + 1) for m in _monomial_order(degree))}
    table = np.zeros((len(rows), n_components(l_max)))
    derivative = np.zeros((len(rows), 3, n_components(l_max)))
    for degree in range(l_max + 1):
        for m in range(-degree, degree + 1):
            column = degree * degree + degree + m
            for monomial, value in harmonic_polynomial(degree, m).items():
                table[rows[monomial], column] += value
                for axis in range(3):
                    power = monomial[axis]
                    if power:
                        a, b, c = (p - (i == axis) for i, p in enumerate(monomial))
                        derivative[rows[a, b, c], axis, column] += value * power
    return table, derivative


@cache
def harmonic_polynomial(degree: int, m: int) -> dict[tuple[int, int, int], float]:
    r"""Y_lm as a polynomial on the unit sphere: {(a, b, c): coefficient of x^a y^b z^c}.

    :math:`Y_{lm} = N_{lm} \frac{d^{|m|} P_l}{dz^{|m|}}(z)\, \mathrm{Re\ or\ Im}(x + iy)^{|m|}`, Re for m ≥ 0,
    with :math:`N_{lm}^2 = (2l+1)(2-\delta_{m0})\frac{(l-|m|)!}{(l+|m|)!}` (Varshalovich, chapter 5).
    """
    order = abs(m)
    norm = math.sqrt(
        (2 * degree + 1) * (1 if m == 0 else 2) * math.factorial(degree - order) / math.factorial(degree + order)
    )
    legendre = np.polynomial.legendre.leg2poly([0.0] * degree + [1.0])
    in_z = np.polynomial.polynomial.polyder(legendre, order)
    azimuthal: _Polynomial = {}
    for k in range(order + 1):  # (x + iy)^order = sum of binom i^k x^(order-k) y^k
        if (k % 2 == 0) == (m >= 0):
            azimuthal[(order - k, k, 0)] = math.comb(order, k) * (-1.0) ** (k // 2)
    result: _Polynomial = {}
    for power, factor in enumerate(in_z):
        if factor:
            for (a, b, _), value in azimuthal.items():
                result[(a, b, power)] = norm * float(factor) * value
    return result
