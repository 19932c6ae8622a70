"""Which of the known structures a random source starts from."""

from __future__ import annotations

from collections.abc import Iterator, Sequence

import numpy as np

from alflow.structures import Structure


def draw_starts(rng: np.random.Generator, starts: Sequence[Structure], n: int) -> Iterator[Structure]:
    """Yield ``n`` starts in random order, every one before any comes again; none where there is none."""
    order: list[int] = []
    for _ in range(n if starts else 0):
        if not order:
            order = [int(i) for i in rng.permutation(len(starts))]
        yield starts[order.pop()]
