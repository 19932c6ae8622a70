"""The map that carries one structure onto another."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import numpy as np

from alflow.errors import StructureError

if TYPE_CHECKING:
    from numpy.typing import NDArray


@dataclass(frozen=True, kw_only=True, eq=False)
class Isometry:
    """Carries structure a onto structure b, ``x_b = rotation @ (1 + strain) @ x_a + translation``.

    The identity holds for every atom up to a lattice vector of b and up to ``max_displacement``. Both directions of the
    site correspondence are kept, because a and b may hold different numbers of copies of the same primitive cell.

    Parameters
    ----------
    rotation
        (3, 3), orthogonal, determinant +1 or -1, acts on column vectors
    translation
        (3,), Å
    strain
        (3, 3), symmetric, in the frame of a: right stretch minus one; zero along non-periodic directions
    site_map
        (n_a,), atom i of a lands on atom ``site_map[i]`` of b
    inverse_site_map
        (n_b,), atom j of b comes from atom ``inverse_site_map[j]`` of a
    max_displacement
        largest remaining displacement, Å
    rms_displacement
        root mean square of the remaining displacements, Å
    max_strain
        largest absolute principal logarithmic strain; without its isotropic part where the policy allows any volume
    moment_sign
        -1 where collinear moments agree only after all of them are flipped
    """

    rotation: NDArray[np.float64]
    translation: NDArray[np.float64]
    strain: NDArray[np.float64]
    site_map: NDArray[np.int64]
    inverse_site_map: NDArray[np.int64]
    max_displacement: float
    rms_displacement: float
    max_strain: float
    moment_sign: int = 1

    def __post_init__(self) -> None:
        for name, shape in (("rotation", (3, 3)), ("translation", (3,)), ("strain", (3, 3))):
            array = np.array(getattr(self, name), dtype=np.float64).reshape(shape)
            array.setflags(write=False)
            object.__setattr__(self, name, array)
        for name in ("site_map", "inverse_site_map"):
            indices = np.array(getattr(self, name), dtype=np.int64).reshape(-1)
            indices.setflags(write=False)
            object.__setattr__(self, name, indices)

    @property
    def det(self) -> int:
        """+1 for a proper rotation, -1 where a mirror is involved."""
        return 1 if float(np.linalg.det(self.rotation)) > 0 else -1

    @property
    def n_copies(self) -> float:
        """Atoms of b per atom of a: 4.0 where b is a fourfold supercell of a."""
        return len(self.inverse_site_map) / len(self.site_map)

    def apply(self, positions: NDArray[np.float64]) -> NDArray[np.float64]:
        """Carry points (n, 3), Å, from the frame of a to that of b."""
        deformation = (np.eye(3) + self.strain) @ self.rotation.T
        carried: NDArray[np.float64] = np.asarray(positions, dtype=np.float64) @ deformation + self.translation
        return carried

    def inverse(self) -> Isometry:
        """The map from b onto a."""
        stretch = self.rotation @ np.linalg.inv(np.eye(3) + self.strain) @ self.rotation.T
        return Isometry(
            rotation=self.rotation.T,
            translation=-self.rotation.T @ stretch @ self.translation,
            strain=stretch - np.eye(3),
            site_map=self.inverse_site_map,
            inverse_site_map=self.site_map,
            max_displacement=self.max_displacement,
            rms_displacement=self.rms_displacement,
            max_strain=self.max_strain,
            moment_sign=self.moment_sign,
        )

    def to_dict(self) -> dict[str, Any]:
        """Plain JSON; inverse of :meth:`from_dict`."""
        return {
            "rotation": self.rotation.tolist(),
            "translation": self.translation.tolist(),
            "strain": self.strain.tolist(),
            "site_map": self.site_map.tolist(),
            "inverse_site_map": self.inverse_site_map.tolist(),
            "max_displacement": self.max_displacement,
            "rms_displacement": self.rms_displacement,
            "max_strain": self.max_strain,
            "moment_sign": self.moment_sign,
        }

    @classmethod
    def from_dict(cls, content: Mapping[str, Any]) -> Isometry:
        """Read what :meth:`to_dict` wrote; raises StructureError where a part is missing or has the wrong shape."""
        try:
            return cls(**dict(content))
        except (TypeError, ValueError) as error:
            raise StructureError(f"not an isometry: {error}") from error
