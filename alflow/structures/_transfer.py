"""Labels of one structure carried to an identical one through the isometry."""

from __future__ import annotations

from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from alflow.structures._isometry import Isometry
    from alflow.structures._properties import Properties
    from alflow.structures._structure import Structure


def transfer_properties(
    properties: Properties, isometry: Isometry, source: Structure, target: Structure, *, tolerance: float = 2e-3
) -> Properties:
    """Properties of ``target`` from those of an identical ``source``."""
    raise NotImplementedError
