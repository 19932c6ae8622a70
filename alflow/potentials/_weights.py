"""All weights of a committee in one matrix, with named views."""

from __future__ import annotations

import math
from collections.abc import Iterator
from dataclasses import dataclass

import torch


@dataclass(frozen=True, kw_only=True)
class WeightShape:
    """Shape of one weight of one member and how it starts: mean + N(0, spread²)."""

    name: str
    shape: tuple[int, ...]
    mean: float = 0.0
    spread: float = 0.0

    @property
    def size(self) -> int:
        """Number of values."""
        return math.prod(self.shape)


class WeightLayout:
    """Where each named weight stands in the (K, P) matrix of all weights.

    One matrix makes the optimiser, the moving average, checkpoints and warm starts single operations, and members stay
    apart by rows.
    """

    def __init__(self, shapes: list[WeightShape]) -> None:
        self.shapes = shapes
        self.size = sum(s.size for s in shapes)

    def __iter__(self) -> Iterator[tuple[WeightShape, slice]]:
        start = 0
        for shape in self.shapes:
            yield shape, slice(start, start + shape.size)
            start += shape.size

    def views(self, matrix: torch.Tensor) -> dict[str, torch.Tensor]:
        """Views (K, *shape) of the columns of a (K, P) matrix; they share its memory."""
        if matrix.shape[1] != self.size:
            raise ValueError(f"the matrix has {matrix.shape[1]} weights per member, the network {self.size}")
        return {s.name: matrix[:, part].view(len(matrix), *s.shape) for s, part in self}

    def split(self, matrix: torch.Tensor) -> dict[str, torch.Tensor]:
        """The same as :meth:`views`, for a matrix that wants a gradient: it comes back in one piece."""
        parts = torch.split(matrix, [s.size for s in self.shapes], dim=1)
        return {s.name: part.view(len(matrix), *s.shape) for s, part in zip(self.shapes, parts, strict=True)}

    def initial(self, n_members: int, seed: int, dtype: torch.dtype) -> torch.Tensor:
        """Random start; member k depends on (seed, k) only, so that more members leave the first ones as they are."""
        rows = []
        for member in range(n_members):
            generator = torch.Generator().manual_seed((seed * 1_000_003 + member) % (2**63))
            # Drawn in float64, so that a float32 committee starts as the rounded float64 one.
            noise = torch.randn(self.size, generator=generator, dtype=torch.float64)
            rows.append(torch.cat([s.mean + s.spread * noise[part] for s, part in self]))
        return torch.stack(rows).to(dtype)
