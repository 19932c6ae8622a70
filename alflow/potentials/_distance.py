r"""How far the atoms of a structure lie from those that a committee was trained on, in the features of its members.

Members share data and architecture: far from the data they may agree on the same wrong answer, and their spread says
nothing. Their features tell: of every member k the distance of atom i is

.. math:: D_{ki}^2 = (f_{ki} - \mu_{kz})^T \Sigma_{kz}^{-1} (f_{ki} - \mu_{kz}) / d

with mean :math:`\mu` and covariance :math:`\Sigma` of its element z over the training atoms (Lee, Lee, Lee and Shin,
NeurIPS 2018, have one covariance for all classes; elements with few atoms lean on that one here). Squares are averaged
over the members; the distance of a structure is that of its furthest atom, in units of the distance that 95 % of the
training structures stay below.
"""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, Protocol

import numpy as np
import torch

from alflow.potentials._uncertainty import WITHIN

if TYPE_CHECKING:
    from numpy.typing import NDArray

    from alflow.potentials._geometry import EdgeList
    from alflow.potentials._network import NetworkOutput

LEAST_VARIANCE, LEAST_UNIT = 1e-6, 0.1
"""Of the mean square of the features, and in standard deviations: of atoms that are all alike nothing can be learned
about how far is far.
"""
RIDGE = 1e-3
"""Of the mean variance, added in every direction: what hardly varies among the training atoms does not make others far.
To it comes the mean variance of as many made-up atoms as there are features, for a few atoms do not show a covariance.
"""
PRIOR_ATOMS = 1.0
"""Atoms that the mean over all elements counts for in the mean of an element; in its covariance the one of all elements
counts for as many atoms as there are features."""


class Evaluates(Protocol):
    """What is asked of an engine here."""

    def batch(self, edges: EdgeList) -> Any:
        """Structures made ready for one evaluation."""
        ...

    def evaluate(self, matrix: torch.Tensor, batch: Any, *, derivatives: bool) -> NetworkOutput:
        """Energies and features (K, N, d)."""
        ...


@dataclass(frozen=True, kw_only=True, eq=False)
class FeatureDistance:
    """The training atoms of a committee, as far as distances need them.

    Parameters
    ----------
    means
        (K, n_elements, d)
    whitening
        (K, n_elements, d, d): the distance of a feature x from its mean is the length of x W
    unit
        distance that 95 % of the training structures stay below
    """

    means: torch.Tensor
    whitening: torch.Tensor
    unit: float

    @classmethod
    def fit(
        cls, features: torch.Tensor, species: torch.Tensor, counts: NDArray[np.int64], n_elements: int
    ) -> FeatureDistance:
        """Learn the training atoms.

        Parameters
        ----------
        features
            (K, N, d) of all training atoms
        species
            (N,) index of each atom's element
        counts
            (n,) atoms of each training structure, in order
        n_elements
            number of elements
        """
        x = features.double()
        members, n_atoms, width = x.shape
        overall = x.mean(1, keepdim=True)
        number = torch.bincount(species, minlength=n_elements).double()[:, None]
        sums = x.new_zeros(members, n_elements, width).index_add_(1, species, x)
        means = (sums + PRIOR_ATOMS * overall) / (number + PRIOR_ATOMS)
        away = x - means.index_select(1, species)
        covariance = away.mT @ away / n_atoms
        variance = covariance.diagonal(dim1=1, dim2=2).mean(1)
        variance = torch.maximum(variance, LEAST_VARIANCE * x.square().mean((1, 2))).clamp(min=1e-12)
        ridge = (RIDGE + width / n_atoms) * variance
        covariance = covariance + ridge[:, None, None] * torch.eye(width, dtype=x.dtype)
        own = x.new_zeros(members, n_elements, width, width)
        for z in torch.unique(species).tolist():
            mine = away[:, species == z]
            own[:, z] = mine.mT @ mine
        covariance = (own + width * covariance.unsqueeze(1)) / (number + width).unsqueeze(2)
        values, vectors = torch.linalg.eigh(covariance)
        whitening = vectors / (values * width).sqrt().unsqueeze(2)
        raw = cls(means=means, whitening=whitening, unit=1.0)
        largest = raw.of_structures(x, species, counts)
        unit = float(np.quantile(largest, WITHIN))
        dtype = features.dtype
        return cls(means=means.to(dtype), whitening=whitening.to(dtype).contiguous(), unit=max(unit, LEAST_UNIT))

    @classmethod
    def learn(
        cls, engine: Evaluates, weights: torch.Tensor, parts: Iterable[EdgeList], n_elements: int
    ) -> FeatureDistance:
        """Learn the atoms of training structures, given by their edges in parts that are evaluated together."""
        features, species, counts = [], [], []
        for edges in parts:
            features.append(engine.evaluate(weights, engine.batch(edges), derivatives=False).features)
            species.append(edges.atoms.species)
            counts.append(edges.atoms.counts)
        atoms = torch.tensor(np.concatenate(species))
        return cls.fit(torch.cat(features, dim=1), atoms, np.concatenate(counts), n_elements)

    def of_atoms(self, features: torch.Tensor, species: torch.Tensor) -> torch.Tensor:
        """Distances (N,) of atoms with features (K, N, d)."""
        found = features.new_zeros(len(species))
        for z in torch.unique(species).tolist():
            mine = torch.nonzero(species == z)[:, 0]
            away = torch.bmm(features.index_select(1, mine) - self.means[:, z : z + 1], self.whitening[:, z])
            found[mine] = away.square().sum(2).mean(0).sqrt() / self.unit
        return found

    def of_structures(
        self, features: torch.Tensor, species: torch.Tensor, counts: NDArray[np.int64]
    ) -> NDArray[np.float64]:
        """Distances (n,) of structures with `counts` atoms each, in order: that of the furthest atom."""
        owner = torch.repeat_interleave(torch.as_tensor(counts))
        atoms = self.of_atoms(features, species)
        largest = atoms.new_zeros(len(counts)).scatter_reduce(0, owner, atoms, "amax", include_self=True)
        result: NDArray[np.float64] = largest.double().numpy()
        return result

    def to(self, dtype: torch.dtype) -> FeatureDistance:
        """Return the same in another precision."""
        return FeatureDistance(means=self.means.to(dtype), whitening=self.whitening.to(dtype), unit=self.unit)

    def to_dict(self) -> dict[str, Any]:
        """Tensors and plain values for a file."""
        return {"means": self.means.contiguous(), "whitening": self.whitening.contiguous(), "unit": self.unit}

    @classmethod
    def from_dict(cls, content: dict[str, Any], n_members: int, n_elements: int) -> FeatureDistance:
        """Inverse of :meth:`to_dict`.

        Raises
        ------
        ValueError
            if the parts do not fit together, or are no distances of so many members and elements
        """
        found = cls(means=content["means"], whitening=content["whitening"], unit=float(content["unit"]))
        width = found.means.shape[-1]
        shapes = (n_members, n_elements, width), (n_members, n_elements, width, width)
        if (tuple(found.means.shape), tuple(found.whitening.shape)) != shapes or not found.unit > 0:
            raise ValueError("what is kept of the training atoms does not fit the committee")
        return found
