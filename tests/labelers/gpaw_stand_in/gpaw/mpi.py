"""One process."""

from types import SimpleNamespace

world = SimpleNamespace(rank=0, size=1)
