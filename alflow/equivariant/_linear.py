"""Linear layers that commute with rotations: they mix channels, one matrix per degree and member."""

from __future__ import annotations

from collections.abc import Sequence
from functools import cache

import torch

from alflow.equivariant._harmonics import degree_of_component, degree_slice


def mix_channels(features: torch.Tensor, weights: torch.Tensor) -> torch.Tensor:
    """Mix the channels of one degree.

    By Schur's lemma a linear map that commutes with rotations acts on the channels of each degree with one matrix, the
    same for every component m.

    Parameters
    ----------
    features
        (K, 2l + 1, C_in, N)
    weights
        (K, C_out, C_in)

    Returns
    -------
    torch.Tensor
        (K, 2l + 1, C_out, N)
    """
    return torch.matmul(weights.unsqueeze(1), features)


def mix_degrees(features: torch.Tensor, weights: torch.Tensor, l_max: int) -> torch.Tensor:
    """Mix the channels of all degrees at once.

    Parameters
    ----------
    features
        (K, (l_max + 1)², C_in, N)
    weights
        (K, l_max + 1, C_out, C_in)

    Returns
    -------
    torch.Tensor
        (K, (l_max + 1)², C_out, N)
    """
    return torch.matmul(per_component(weights, l_max, dim=1), features)


def per_component(values: torch.Tensor, l_max: int, dim: int) -> torch.Tensor:
    """Repeat values given per degree so that there is one for every component."""
    return values.index_select(dim, _degrees(l_max, values.device))


@cache
def _degrees(l_max: int, device: torch.device) -> torch.Tensor:
    """Degree of every component; kept, for making a tensor on a GPU waits for all that it was told before."""
    return torch.tensor(degree_of_component(l_max), device=device)


def join_degrees(parts: Sequence[torch.Tensor]) -> torch.Tensor:
    """Join per-degree features (K, 2l + 1, C, N) to (K, (l_max + 1)², C, N)."""
    for degree, part in enumerate(parts):
        if part.shape[1] != 2 * degree + 1:
            raise ValueError(f"degree {degree} has {2 * degree + 1} components, not {part.shape[1]}")
    return torch.cat(list(parts), dim=1)


def split_degrees(features: torch.Tensor, l_max: int) -> list[torch.Tensor]:
    """Views of the degrees of (K, (l_max + 1)², C, N)."""
    return [features[:, degree_slice(degree)] for degree in range(l_max + 1)]
