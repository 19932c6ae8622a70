"""How many threads torch may use."""

from __future__ import annotations

import os
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from functools import cache
from typing import TypeVar

import torch

T = TypeVar("T")
R = TypeVar("R")


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


def n_threads(n_parts: int) -> int:
    """Into how many parts work that falls into `n_parts` is cut: one per thread that torch may use."""
    return max(1, min(torch.get_num_threads(), n_parts))


def in_threads(function: Callable[[T], R], parts: Sequence[T]) -> list[R]:
    """Apply a function to every part, each in a thread of its own, in which torch uses no further threads."""
    if len(parts) == 1:
        return [function(parts[0])]
    return list(_pool(os.getpid(), len(parts)).map(function, parts))


@cache
def _pool(_process: int, n: int) -> ThreadPoolExecutor:
    # a child that was forked has none of its parent's threads: pools belong to a process
    return ThreadPoolExecutor(n, thread_name_prefix="alflow-members", initializer=torch.set_num_threads, initargs=(1,))
