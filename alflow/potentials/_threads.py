"""How many threads torch may use."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager

import torch


@contextmanager
def compute_threads(n: int | None) -> Iterator[None]:
    """Give torch `n` threads for the length of the block; None leaves it alone.

    One thread is the right number for small structures: the products are too short to share, threads that wait for
    each other burn the processor time of everybody else on the machine, and only one thread repeats bit by bit.
    """
    if n is None:
        yield
        return
    before = torch.get_num_threads()
    torch.set_num_threads(n)
    try:
        yield
    finally:
        torch.set_num_threads(before)
