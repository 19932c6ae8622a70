"""What a network may say where no label has been: beyond some energy per atom it grows as a logarithm only."""

from __future__ import annotations

from dataclasses import dataclass

import torch


@dataclass(frozen=True, kw_only=True)
class EnergyLimits:
    r"""A function of the network's energy of an atom, e: e itself in :math:`[-low, high]`, of slow growth outside.

    The products of two layers are a polynomial of a degree near twenty in the density, which a random structure leaves
    far behind: without limits its energy is -10⁹ eV per atom as well as 10⁹. Beyond a limit a the function goes on as
    :math:`a + w\,\mathrm{asinh}((e - a)/w)`, which has value, slope and curvature of e at a. Members that disagree out
    there still disagree, so that nothing is lost of the warning.

    Parameters
    ----------
    low, high
        eV per atom, both positive
    """

    low: float
    high: float

    @classmethod
    def of(cls, scale: float) -> EnergyLimits:
        """Limits of a network of this scale (root mean square of the training forces, in eV).

        Atoms of training structures were seen between -0.6 and 2 scales in metals and silicon, between -3.3 and 3.5 in
        250 structures of some 80 elements, whose errors are the same with and without limits. Below there is little
        room, for a hole there is one that dynamics falls into.
        """
        return cls(low=max(2.0 * scale, 1.0), high=max(12.0 * scale, 10.0))

    @property
    def width(self) -> float:
        """Of the growth below, w in eV; above it is `high`."""
        return 0.25 * self.low

    def value(self, energy: torch.Tensor) -> torch.Tensor:
        """The function, of any shape."""
        over, under = torch.relu(energy - self.high), torch.relu(-self.low - energy)
        inside = energy.clamp(-self.low, self.high)
        return inside + self.high * torch.asinh(over / self.high) - self.width * torch.asinh(under / self.width)

    def slope(self, energy: torch.Tensor) -> torch.Tensor:
        """Its derivative by the energy."""
        over, under = torch.relu(energy - self.high) / self.high, torch.relu(-self.low - energy) / self.width
        return torch.rsqrt(1.0 + over * over) * torch.rsqrt(1.0 + under * under)
