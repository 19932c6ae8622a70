"""Equivariant building blocks: spherical harmonics, Clebsch-Gordan coefficients, products, constrained linear layers.

Knows torch, not atoms. Conventions: real harmonics, component m from -l to l, "component" normalisation (mean square 1
over the sphere), matrices act on column vectors.
"""
