"""Clebsch-Gordan coefficients for real spherical harmonics, and their Wigner matrices."""

from __future__ import annotations

import math
from fractions import Fraction
from functools import cache

import numpy as np
import torch
from numpy.typing import NDArray

from alflow.equivariant._harmonics import degree_slice, spherical_harmonics


@cache
def clebsch_gordan(l1: int, l2: int, l3: int) -> NDArray[np.float64]:
    r"""Coefficients that couple two real tensors of degrees l1 and l2 to one of degree l3.

    :math:`z_{m_3} = \sum_{m_1 m_2} C_{m_1 m_2 m_3} x_{m_1} y_{m_2}` rotates like degree l3 when x and y rotate like l1
    and l2: :math:`C\,(D_1 x \otimes D_2 y) = D_3\, C\,(x \otimes y)`. The columns are orthonormal,
    :math:`\sum_{m_1 m_2} C_{m_1 m_2 m_3} C_{m_1 m_2 m_3'} = \delta_{m_3 m_3'}`.
    Under inversion z gains :math:`(-1)^{l_1+l_2}`: a true tensor of degree l3 only for even l1 + l2 + l3.

    Returns
    -------
    (2 l1 + 1, 2 l2 + 1, 2 l3 + 1), read-only

    Raises
    ------
    ValueError
        if the degrees violate the triangle rule
    """
    if not abs(l1 - l2) <= l3 <= l1 + l2:
        raise ValueError(f"degrees {l1}, {l2} do not couple to {l3}: |l1 - l2| ≤ l3 ≤ l1 + l2 is required")
    complex_cg = np.zeros((2 * l1 + 1, 2 * l2 + 1, 2 * l3 + 1))
    for m1 in range(-l1, l1 + 1):
        for m2 in range(-l2, l2 + 1):
            if abs(m1 + m2) <= l3:
                complex_cg[m1 + l1, m2 + l2, m1 + m2 + l3] = _racah(l1, m1, l2, m2, l3, m1 + m2)
    real = np.einsum(
        "am,bn,co,mno->abc",
        _real_from_complex(l1).conj(),
        _real_from_complex(l2).conj(),
        _real_from_complex(l3),
        complex_cg,
    )
    # The result is real for even l1 + l2 + l3 and imaginary otherwise; a common phase is free.
    result = np.ascontiguousarray(real.real if (l1 + l2 + l3) % 2 == 0 else real.imag)
    result[np.abs(result) < 1e-14] = 0.0
    result.setflags(write=False)
    return result


def _racah(l1: int, m1: int, l2: int, m2: int, l3: int, m3: int) -> float:
    """⟨l1 m1 l2 m2 | l3 m3⟩ by Racah's formula in exact arithmetic (Varshalovich, eq. 8.2.1 (5))."""
    f = math.factorial
    square = Fraction(
        (2 * l3 + 1) * f(l1 + l2 - l3) * f(l1 - l2 + l3) * f(-l1 + l2 + l3),
        f(l1 + l2 + l3 + 1),
    ) * (f(l1 + m1) * f(l1 - m1) * f(l2 + m2) * f(l2 - m2) * f(l3 + m3) * f(l3 - m3))
    total = Fraction(0)
    for k in range(l1 + l2 - l3 + 1):
        terms = (k, l1 + l2 - l3 - k, l1 - m1 - k, l2 + m2 - k, l3 - l2 + m1 + k, l3 - l1 - m2 + k)
        if min(terms) >= 0:
            total += Fraction((-1) ** k, math.prod(f(t) for t in terms))
    return math.copysign(math.sqrt(square * total * total), total)


@cache
def _real_from_complex(degree: int) -> NDArray[np.complex128]:
    """Unitary U with Y_real = U Y_complex; complex harmonics with, real ones without the Condon-Shortley phase."""
    u = np.zeros((2 * degree + 1, 2 * degree + 1), dtype=np.complex128)
    u[degree, degree] = 1.0
    for m in range(1, degree + 1):
        sign = (-1.0) ** m
        u[degree + m, degree - m] = 1 / math.sqrt(2)
        u[degree + m, degree + m] = sign / math.sqrt(2)
        u[degree - m, degree - m] = 1j / math.sqrt(2)
        u[degree - m, degree + m] = -1j * sign / math.sqrt(2)
    return u


def wigner_matrix(degree: int, rotation: NDArray[np.float64]) -> NDArray[np.float64]:
    """Orthogonal D with Y(R v) = D Y(v) for a proper or improper rotation R, (2l + 1, 2l + 1).

    Found by solving that very identity on a sample of directions, so that it cannot disagree with the harmonics.
    """
    n = 4 * (2 * degree + 1)
    k = np.arange(n) + 0.5
    z, angle = 1 - 2 * k / n, math.pi * (1 + math.sqrt(5)) * k
    directions = np.stack([np.cos(angle) * np.sqrt(1 - z * z), np.sin(angle) * np.sqrt(1 - z * z), z], axis=1)
    part = degree_slice(degree)

    def evaluate(vectors: NDArray[np.float64]) -> NDArray[np.float64]:
        values: NDArray[np.float64] = spherical_harmonics(torch.from_numpy(vectors), degree)[:, part].numpy()
        return values

    solution = np.linalg.lstsq(evaluate(directions), evaluate(directions @ rotation.T), rcond=None)[0]
    transposed: NDArray[np.float64] = np.asarray(solution.T, dtype=np.float64)
    return transposed
