"""Channelwise tensor products of equivariant features."""

from __future__ import annotations

from functools import cached_property

import torch

from alflow.equivariant._clebsch_gordan import clebsch_gordan
from alflow.equivariant._harmonics import degree_slice, n_components


class ChannelwiseProduct:
    r"""All products of two features, channel by channel, up to a degree.

    For features :math:`x_{l_1 m_1 c}`, :math:`y_{l_2 m_2 c}` it forms
    :math:`z^{(l_1 l_2)}_{l_3 m_3 c} = \sum_{m_1 m_2} C_{m_1 m_2 m_3} x_{l_1 m_1 c} y_{l_2 m_2 c}` for every path
    (l1, l2, l3) with even l1 + l2 + l3, so that only true tensors arise (no pseudo-scalars).

    Features have shape (K, (l_max + 1)², C, N): members, components, channels, atoms. With the atoms innermost every
    linear layer that follows is a batched matrix product without a copy.

    Parameters
    ----------
    l_left, l_right
        highest degrees of the factors
    l_out
        highest degree of the products
    symmetric
        both factors are the same feature: each pair of degrees once
    """

    def __init__(self, l_left: int, l_right: int, l_out: int, *, symmetric: bool = False) -> None:
        if symmetric and l_left != l_right:
            raise ValueError(f"a symmetric product has one factor, not degrees {l_left} and {l_right}")
        self.l_left, self.l_right, self.l_out, self.symmetric = l_left, l_right, l_out, symmetric
        self._tables: dict[torch.dtype, list[torch.Tensor]] = {}

    @cached_property
    def blocks(self) -> list[tuple[int, int, list[int]]]:
        """Pairs of degrees with the degrees they couple to."""
        found = []
        for l1 in range(self.l_left + 1):
            for l2 in range(l1 if self.symmetric else 0, self.l_right + 1):
                outs = [l3 for l3 in range(abs(l1 - l2), min(l1 + l2, self.l_out) + 1) if (l1 + l2 + l3) % 2 == 0]
                if outs:
                    found.append((l1, l2, outs))
        return found

    @cached_property
    def n_paths(self) -> tuple[int, ...]:
        """Number of paths for each degree of the output."""
        return tuple(sum(l3 in outs for _, _, outs in self.blocks) for l3 in range(self.l_out + 1))

    def __call__(self, left: torch.Tensor, right: torch.Tensor) -> list[torch.Tensor]:
        """Multiply.

        Parameters
        ----------
        left, right
            (K, (l_left + 1)², C, N) and (K, (l_right + 1)², C, N)

        Returns
        -------
        list of torch.Tensor
            per degree l3 (K, 2 l3 + 1, n_paths[l3] · C, N), paths side by side in the order of :attr:`blocks`
        """
        members, _, channels, atoms = left.shape
        parts: list[list[torch.Tensor]] = [[] for _ in range(self.l_out + 1)]
        for (l1, l2, outs), table in zip(self.blocks, self._table(left.dtype), strict=True):
            x, y = left[:, degree_slice(l1)], right[:, degree_slice(l2)]
            outer = (x.unsqueeze(2) * y.unsqueeze(1)).view(members, -1, channels * atoms)
            coupled = torch.bmm(table.expand(members, -1, -1), outer)
            first = 0
            for l3 in outs:
                parts[l3].append(coupled[:, first : first + 2 * l3 + 1].unsqueeze(2))
                first += 2 * l3 + 1
        return [
            torch.cat(part, dim=2).view(members, 2 * l3 + 1, len(part) * channels, atoms) for l3, part in enumerate(parts)
        ]

    def _table(self, dtype: torch.dtype) -> list[torch.Tensor]:
        """For every block the coupling matrix (sum of 2 l3 + 1, (2 l1 + 1)(2 l2 + 1))."""
        if dtype not in self._tables:
            self._tables[dtype] = [
                torch.cat(
                    [torch.tensor(clebsch_gordan(l1, l2, l3), dtype=dtype).flatten(0, 1).T for l3 in outs]
                ).contiguous()
                for l1, l2, outs in self.blocks
            ]
        return self._tables[dtype]


def squared_norms(features: torch.Tensor, l_max: int) -> torch.Tensor:
    """Invariants Σ_m x_lm² / (2l + 1) of every degree side by side, (K, (l_max + 1)², C, N) → (K, (l_max + 1) · C, N)."""
    if features.shape[1] != n_components(l_max):
        raise ValueError(f"{features.shape[1]} components, but degrees up to {l_max} have {n_components(l_max)}")
    squares = features * features
    return torch.cat([squares[:, degree_slice(degree)].mean(dim=1) for degree in range(l_max + 1)], dim=1)
