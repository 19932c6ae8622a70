"""Functions of an interatomic distance with their derivatives: radial basis, cutoff, short-range repulsion."""

from __future__ import annotations

import math

import numpy as np
import torch
from ase.data import covalent_radii
from numpy.typing import NDArray

CUTOFF_POWER = 6
"""Value, first and second derivative vanish at the cutoff (Gasteiger et al., ICLR 2020, eq. 8)."""
INNER_FRACTION = 0.7
"""Of the covalent bond length: below it the radial basis saturates, so that no network extrapolates in distance."""
REPULSION_FRACTION = 0.75
"""Of the covalent bond length: below it the screened nuclear repulsion acts."""
_COULOMB = 14.399645
"""e²/(4πε₀) in eV·Å."""
_ZBL = ((0.18175, 3.19980), (0.50986, 0.94229), (0.28022, 0.40290), (0.02817, 0.20162))


def bond_lengths(numbers: NDArray[np.int64]) -> NDArray[np.float64]:
    """(n, n) sums of covalent radii of the given elements, Å."""
    radii = covalent_radii[numbers]
    lengths: NDArray[np.float64] = radii[:, None] + radii[None, :]
    return lengths


def cutoff(x: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor]:
    """Polynomial cutoff of x = r / r_max and its derivative by x; 1 at x = 0, 0 from x = 1 on."""
    p = CUTOFF_POWER
    x = x.clamp(max=1.0)
    a, b, c = (p + 1) * (p + 2) / 2, p * (p + 2), p * (p + 1) / 2
    lower = x ** (p - 1)
    value = 1 - lower * x * (a - x * (b - x * c))
    slope = -lower * (a * p - x * (b * (p + 1) - x * c * (p + 2)))
    return value, slope


def saturate(r: torch.Tensor, inner: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor]:
    """Replace r below `inner` by a curve that ends at inner / 2 for r = 0; and its derivative.

    With t = r / inner it is inner · (1/2 + t³ - t⁴/2): value, slope and curvature are continuous at t = 1.
    """
    t = (r / inner).clamp(max=1.0)
    inside = r < inner
    return torch.where(inside, inner * (0.5 + t**3 * (1 - 0.5 * t)), r), torch.where(
        inside, t * t * (3 - 2 * t), torch.ones_like(t)
    )


def radial_basis(
    r: torch.Tensor, r_max: float, n_radial: int, inner: torch.Tensor
) -> tuple[torch.Tensor, torch.Tensor]:
    r"""Bessel functions :math:`\frac{\sqrt 2}{n} \frac{\sin(n\pi s/r_{max})}{s}` times the cutoff, s the saturated r.

    The amplitude falls with the frequency, so that a network with weights of one size is a smooth function of the
    distance and wiggles only where the data ask for it: a quarter off the force errors of 60 small cells, measured.

    Parameters
    ----------
    r
        (E,), Å
    inner
        (E,), Å, where saturation begins

    Returns
    -------
    values: (E, n_radial)
    derivatives by r: (E, n_radial), 1/Å
    """
    s, ds = saturate(r, inner)
    s, ds = s.unsqueeze(-1), ds.unsqueeze(-1)
    order = torch.arange(1, n_radial + 1, dtype=r.dtype, device=r.device)
    frequency, amplitude = order * (math.pi / r_max), math.sqrt(2) / order
    sine, cosine = torch.sin(frequency * s), torch.cos(frequency * s)
    bessel, slope = amplitude * sine / s, amplitude * (frequency * cosine - sine / s) / s
    envelope, envelope_slope = cutoff(s / r_max)
    return bessel * envelope, (slope * envelope + bessel * envelope_slope / r_max) * ds


def repulsion_reach(numbers: NDArray[np.int64]) -> float:
    """Å, from where on no two atoms of these numbers repel each other."""
    return float(2 * REPULSION_FRACTION * covalent_radii[numbers].max(initial=0.0))


def repulsion(
    r: NDArray[np.float64], z1: NDArray[np.int64], z2: NDArray[np.int64]
) -> tuple[NDArray[np.float64], NDArray[np.float64]]:
    """Screened nuclear repulsion of pairs (Ziegler, Biersack and Littmark, 1985), cut off smoothly, and its derivative.

    It acts below :data:`REPULSION_FRACTION` of the covalent bond length and is nothing in ordinary matter.

    Parameters
    ----------
    r
        (E,), Å
    z1, z2
        (E,), atomic numbers

    Returns
    -------
    energies: (E,), eV per pair
    derivatives: (E,), eV/Å
    """
    end = REPULSION_FRACTION * (covalent_radii[z1] + covalent_radii[z2])
    energy, slope = np.zeros_like(r), np.zeros_like(r)
    inside = r < end
    if not inside.any():
        return energy, slope
    r, z1, z2, end = np.maximum(r[inside], 1e-3), z1[inside], z2[inside], end[inside]
    screening = 0.46850 / (z1**0.23 + z2**0.23)
    terms = [(c, d / screening) for c, d in _ZBL]
    phi = sum(c * np.exp(-k * r) for c, k in terms)
    dphi = sum(-c * k * np.exp(-k * r) for c, k in terms)
    bare = _COULOMB * z1 * z2 * phi / r
    dbare = _COULOMB * z1 * z2 * (dphi / r - phi / r**2)
    x = r / end
    window, dwindow = (1 - x) ** 3 * (1 + 3 * x + 6 * x * x), -30 * x * x * (1 - x) ** 2 / end
    energy[inside] = bare * window
    slope[inside] = dbare * window + bare * dwindow
    return energy, slope
