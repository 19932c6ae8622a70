"""Random numbers that depend on what is done, not on when: (campaign, round, step)."""

from __future__ import annotations

import hashlib

import numpy as np


def derive_seed(campaign: str, seed: int, round_index: int, step: str) -> int:
    """Seed in [0, 2⁶³) of one step of one round; a repeated step draws the same numbers."""
    text = f"{campaign}\n{seed}\n{round_index}\n{step}"
    return int.from_bytes(hashlib.sha256(text.encode()).digest()[:8], "big") >> 1


def derive_rng(campaign: str, seed: int, round_index: int, step: str) -> np.random.Generator:
    """Generator seeded by :func:`derive_seed`."""
    return np.random.default_rng(derive_seed(campaign, seed, round_index, step))
