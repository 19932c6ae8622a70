"""Channelwise tensor products of equivariant features."""

from __future__ import annotations

from dataclasses import dataclass, fields
from functools import cached_property
from typing import Any

import torch

from alflow.equivariant._clebsch_gordan import clebsch_gordan
from alflow.equivariant._harmonics import n_components


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
        self._tables: dict[tuple[torch.dtype, torch.device], list[_Table]] = {}

    @cached_property
    def paths(self) -> list[tuple[int, int, int]]:
        """Triples (l1, l2, l3) in the order in which they stand side by side, by rising l3."""
        return [
            (l1, l2, l3)
            for l3 in range(self.l_out + 1)
            for l1 in range(self.l_left + 1)
            for l2 in range(l1 if self.symmetric else 0, self.l_right + 1)
            if abs(l1 - l2) <= l3 <= l1 + l2 and (l1 + l2 + l3) % 2 == 0
        ]

    @cached_property
    def n_paths(self) -> tuple[int, ...]:
        """Number of paths for each degree of the output."""
        return tuple(sum(l3 == degree for _, _, l3 in self.paths) for degree in range(self.l_out + 1))

    def __call__(self, left: torch.Tensor, right: torch.Tensor) -> list[torch.Tensor]:
        """Multiply.

        Parameters
        ----------
        left, right
            (K, (l_left + 1)², C, N) and (K, (l_right + 1)², C, N)

        Returns
        -------
        list of torch.Tensor
            per degree l3 (K, 2 l3 + 1, n_paths[l3] · C, N)
        """
        members, _, _, atoms = left.shape
        x, y = left.flatten(2), right.flatten(2)
        found: dict[int, torch.Tensor] = {}
        for table in self._table(left.dtype, left.device):
            product = _couple(x, y, table)
            sizes = [(2 * degree + 1) * self.n_paths[degree] for degree in table.degrees]
            for degree, piece in zip(table.degrees, torch.split(product, sizes, dim=1), strict=True):
                found[degree] = piece.reshape(members, 2 * degree + 1, -1, atoms)
        return [
            found.get(degree, left.new_zeros(members, 2 * degree + 1, 0, atoms)) for degree in range(self.l_out + 1)
        ]

    def _table(self, dtype: torch.dtype, device: torch.device) -> list[_Table]:
        """One table for products of even and one for products of odd degree: they share no pair of components."""
        if (dtype, device) not in self._tables:
            tables = [self._make_table(parity, dtype) for parity in (0, 1)]
            self._tables[dtype, device] = [table.to(device) for table in tables if table is not None]
        return self._tables[dtype, device]

    def _make_table(self, parity: int, dtype: torch.dtype) -> _Table | None:
        paths = [path for path in self.paths if path[2] % 2 == parity]
        pairs: dict[tuple[int, int], int] = {}
        entries: list[tuple[int, int, float]] = []
        first = 0
        for degree in sorted({l3 for _, _, l3 in paths}):
            same = [(l1, l2) for l1, l2, l3 in paths if l3 == degree]
            for number, (l1, l2) in enumerate(same):
                coefficients = clebsch_gordan(l1, l2, degree)
                for m1, m2, m3 in zip(*coefficients.nonzero(), strict=True):
                    p, q = l1 * l1 + int(m1), l2 * l2 + int(m2)
                    if self.symmetric and p > q:  # x_p x_q = x_q x_p: one pair for both orders
                        p, q = q, p
                    pair = pairs.setdefault((p, q), len(pairs))
                    entries.append((first + int(m3) * len(same) + number, pair, float(coefficients[m1, m2, m3])))
            first += (2 * degree + 1) * len(same)
        if not entries:
            return None
        matrix = torch.zeros(first, len(pairs), dtype=torch.float64, device="cpu")
        for row, column, value in entries:
            matrix[row, column] += value
        lefts, rights = torch.tensor(list(pairs), device="cpu").T
        return _Table(
            degrees=sorted({l3 for _, _, l3 in paths}),
            left=lefts.contiguous(),
            right=rights.contiguous(),
            coupling=matrix.to(dtype).unsqueeze(0),
            scatter_left=_one_hot(lefts, n_components(self.l_left)).to(dtype).unsqueeze(0),
            scatter_right=_one_hot(rights, n_components(self.l_right)).to(dtype).unsqueeze(0),
        )


def squared_norms(features: torch.Tensor, l_max: int) -> torch.Tensor:
    """Invariants Σ_m x_lm² / (2l + 1), degrees side by side: (K, (l_max + 1)², C, N) → (K, (l_max + 1) · C, N)."""
    if features.shape[1] != n_components(l_max):
        raise ValueError(f"{features.shape[1]} components, but degrees up to {l_max} have {n_components(l_max)}")
    squares = features * features
    degrees = torch.split(squares, [2 * degree + 1 for degree in range(l_max + 1)], dim=1)
    return torch.cat([square.mean(dim=1) for square in degrees], dim=1)


# -- the trilinear form and its derivatives --------------------------------------------------------------------------
# T(g, x, y) = Σ_r Σ_P g_r M_rP x_left(P) y_right(P). Leaving one argument open gives the product and its two adjoints,
# and the derivatives of each of these are again among them. Written out, a double backward pass costs a few matrix
# products; automatic differentiation of the same expression takes ten times as many operations.


@dataclass(frozen=True, kw_only=True, eq=False)
class _Table:
    """Pairs (P,) of components, coupling matrix M (1, R, P), and one-hot matrices (1, S, P) that sum pairs."""

    degrees: list[int]
    left: torch.Tensor
    right: torch.Tensor
    coupling: torch.Tensor
    scatter_left: torch.Tensor
    scatter_right: torch.Tensor

    def to(self, device: torch.device) -> _Table:
        """Return the same table on a device."""
        tensors = {f.name: getattr(self, f.name).to(device) for f in fields(self) if f.name != "degrees"}
        return _Table(degrees=self.degrees, **tensors)


def _one_hot(index: torch.Tensor, size: int) -> torch.Tensor:
    return torch.nn.functional.one_hot(index, size).T.contiguous()


def _matrix(table: torch.Tensor, x: torch.Tensor) -> torch.Tensor:
    return torch.bmm(table.expand(x.shape[0], -1, -1), x)


def _couple(x: torch.Tensor, y: torch.Tensor, table: _Table) -> torch.Tensor:
    result: torch.Tensor = _Couple.apply(x, y, table)  # type: ignore[no-untyped-call]
    return result


def _adjoint_left(g: torch.Tensor, y: torch.Tensor, table: _Table) -> torch.Tensor:
    result: torch.Tensor = _AdjointLeft.apply(g, y, table)  # type: ignore[no-untyped-call]
    return result


def _adjoint_right(g: torch.Tensor, x: torch.Tensor, table: _Table) -> torch.Tensor:
    result: torch.Tensor = _AdjointRight.apply(g, x, table)  # type: ignore[no-untyped-call]
    return result


class _Couple(torch.autograd.Function):
    """z = T(·, x, y): (K, S, F), (K, S', F) → (K, R, F)."""

    @staticmethod
    def forward(ctx: Any, x: torch.Tensor, y: torch.Tensor, table: _Table) -> torch.Tensor:
        ctx.table = table
        ctx.save_for_backward(x, y)
        return _matrix(table.coupling, x.index_select(1, table.left) * y.index_select(1, table.right))

    @staticmethod
    def backward(ctx: Any, *grads: torch.Tensor) -> tuple[torch.Tensor | None, ...]:
        (x, y), (g,), table = ctx.saved_tensors, grads, ctx.table
        left = _adjoint_left(g, y, table) if ctx.needs_input_grad[0] else None
        right = _adjoint_right(g, x, table) if ctx.needs_input_grad[1] else None
        return left, right, None


class _AdjointLeft(torch.autograd.Function):
    """T(g, ·, y): (K, R, F), (K, S', F) → (K, S, F)."""

    @staticmethod
    def forward(ctx: Any, g: torch.Tensor, y: torch.Tensor, table: _Table) -> torch.Tensor:
        ctx.table = table
        ctx.save_for_backward(g, y)
        return _matrix(table.scatter_left, _matrix(table.coupling.mT, g) * y.index_select(1, table.right))

    @staticmethod
    def backward(ctx: Any, *grads: torch.Tensor) -> tuple[torch.Tensor | None, ...]:
        (g, y), (x,), table = ctx.saved_tensors, grads, ctx.table
        outer = _couple(x, y, table) if ctx.needs_input_grad[0] else None
        right = _adjoint_right(g, x, table) if ctx.needs_input_grad[1] else None
        return outer, right, None


class _AdjointRight(torch.autograd.Function):
    """T(g, x, ·): (K, R, F), (K, S, F) → (K, S', F)."""

    @staticmethod
    def forward(ctx: Any, g: torch.Tensor, x: torch.Tensor, table: _Table) -> torch.Tensor:
        ctx.table = table
        ctx.save_for_backward(g, x)
        return _matrix(table.scatter_right, _matrix(table.coupling.mT, g) * x.index_select(1, table.left))

    @staticmethod
    def backward(ctx: Any, *grads: torch.Tensor) -> tuple[torch.Tensor | None, ...]:
        (g, x), (y,), table = ctx.saved_tensors, grads, ctx.table
        outer = _couple(x, y, table) if ctx.needs_input_grad[0] else None
        left = _adjoint_left(g, y, table) if ctx.needs_input_grad[1] else None
        return outer, left, None
