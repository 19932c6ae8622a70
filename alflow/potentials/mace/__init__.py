"""Committees of MACE models, trained by the same loop, loss and rules as the native one; mace-torch is an extra.

A MACE model is used as a function from edges to energies, so that neighbour lists, forces, stresses, training and
checkpoints are those of the rest of this folder.
"""

from __future__ import annotations

from importlib import import_module
from typing import TYPE_CHECKING, Any

from alflow.potentials.mace._spec import MaceSpec

if TYPE_CHECKING:
    from alflow.potentials.mace._checkpoint import load_mace_committee
    from alflow.potentials.mace._committee import MaceCommittee
    from alflow.potentials.mace._train import foundation_committee, train_mace_committee

_LAZY = {
    "MaceCommittee": "_committee",
    "foundation_committee": "_train",
    "load_mace_committee": "_checkpoint",
    "train_mace_committee": "_train",
}

__all__ = ["MaceCommittee", "MaceSpec", "foundation_committee", "load_mace_committee", "train_mace_committee"]


def __getattr__(name: str) -> Any:
    if name in _LAZY:
        return getattr(import_module(f"{__name__}.{_LAZY[name]}"), name)
    raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
