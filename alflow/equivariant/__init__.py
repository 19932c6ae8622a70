"""Equivariant building blocks: spherical harmonics, Clebsch-Gordan coefficients, products, constrained linear layers.

Knows torch, not atoms. Conventions: real harmonics, component m from -l to l, "component" normalisation (mean square 1
over the sphere), matrices act on column vectors.
"""

from alflow.equivariant._clebsch_gordan import clebsch_gordan, wigner_matrix
from alflow.equivariant._harmonics import (
    degree_of_component,
    degree_slice,
    harmonic_polynomial,
    n_components,
    spherical_harmonics,
    spherical_harmonics_with_gradient,
)
from alflow.equivariant._linear import join_degrees, mix_channels, mix_degrees, per_component, split_degrees
from alflow.equivariant._product import ChannelwiseProduct, squared_norms

__all__ = [
    "ChannelwiseProduct",
    "clebsch_gordan",
    "degree_of_component",
    "degree_slice",
    "harmonic_polynomial",
    "join_degrees",
    "mix_channels",
    "mix_degrees",
    "n_components",
    "per_component",
    "spherical_harmonics",
    "spherical_harmonics_with_gradient",
    "split_degrees",
    "squared_norms",
    "wigner_matrix",
]
