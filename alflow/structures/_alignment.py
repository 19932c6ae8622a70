"""Search for the isometry between two structures."""

from __future__ import annotations

from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from alflow.structures._isometry import Isometry
    from alflow.structures._policy import DuplicatePolicy
    from alflow.structures._structure import Structure


def find_isometry(a: Structure, b: Structure, policy: DuplicatePolicy) -> Isometry | None:
    """Map a onto b within the tolerances of a policy; None where there is no such map."""
    raise NotImplementedError
