"""Common crystals of one element, and how large they are for every element."""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import dataclass
from functools import cache
from typing import TYPE_CHECKING, Any, get_args

import numpy as np
from ase.data import covalent_radii, reference_states

from alflow.errors import ConfigError
from alflow.explore._settings import PrototypeName
from alflow.structures import atomic_number

if TYPE_CHECKING:
    from numpy.typing import NDArray

PROTOTYPES: tuple[str, ...] = get_args(PrototypeName)

# Å³/atom, from the measured cells of elements whose reference state in ASE has no simple cell (or a misleading one),
# and, for the molecular elements, the mean volumes in crystals of Hofmann, Acta Cryst. B 58, 489 (2002).
_VOLUMES: Mapping[str, float] = {
    "H": 5.08, "He": 32.2, "N": 11.8, "O": 11.39, "F": 11.17, "Cl": 25.8, "Br": 32.7, "I": 42.7, "B": 7.3, "P": 19.0,
    "S": 25.8, "Mn": 12.2, "Ga": 19.6, "As": 21.5, "Se": 27.3, "In": 26.2, "Sn": 27.0, "Sb": 30.2, "Te": 33.9,
    "Hg": 23.4, "Bi": 35.4, "Sm": 33.2, "Po": 38.1, "Pa": 24.9, "U": 20.7, "Np": 19.2, "Pu": 20.0,
}  # fmt: skip


@dataclass(frozen=True, kw_only=True, eq=False)
class Lattice:
    """A crystal without species.

    Parameters
    ----------
    cell
        (3, 3), Å, row vectors
    fractional
        (n_sites, 3), fractional positions
    """

    cell: NDArray[np.float64]
    fractional: NDArray[np.float64]

    @property
    def n_sites(self) -> int:
        """Number of sites in the cell."""
        return len(self.fractional)

    @property
    def volume_per_site(self) -> float:
        """Å³."""
        return abs(float(np.linalg.det(self.cell))) / self.n_sites

    def scaled(self, volume_per_site: float) -> Lattice:
        """Return the same crystal with another volume per site, Å³."""
        factor = (volume_per_site / self.volume_per_site) ** (1 / 3)
        return Lattice(cell=self.cell * factor, fractional=self.fractional)


@cache
def prototype(name: str) -> Lattice:
    """Primitive cell of a prototype at 1 Å³ per site; ideal c/a where the crystal has one.

    Raises
    ------
    ConfigError
        for a name that is not in :data:`PROTOTYPES`
    """
    half, third = 0.5, 1 / 3
    hexagonal = np.array([[1.0, 0.0, 0.0], [-0.5, math.sqrt(3) / 2, 0.0], [0.0, 0.0, 1.0]])
    face_centred = [[0.0, half, half], [half, 0.0, half], [half, half, 0.0]]
    body_centred = [[-half, half, half], [half, -half, half], [half, half, -half]]
    ideal = math.sqrt(8 / 3)
    cells: dict[str, tuple[Any, list[list[float]]]] = {
        "fcc": (face_centred, [[0, 0, 0]]),
        "bcc": (body_centred, [[0, 0, 0]]),
        "hcp": (hexagonal * [[1], [1], [ideal]], [[third, 2 * third, 0.25], [2 * third, third, 0.75]]),
        "dhcp": (
            hexagonal * [[1], [1], [2 * ideal]],
            [[0, 0, 0], [third, 2 * third, 0.25], [0, 0, 0.5], [2 * third, third, 0.75]],
        ),
        "sc": (np.eye(3), [[0, 0, 0]]),
        "diamond": (face_centred, [[0, 0, 0], [0.25, 0.25, 0.25]]),
        # White tin: a body-centred tetragonal lattice with two atoms, c/a = 0.546.
        "beta_tin": (np.array(body_centred) * [1, 1, 0.546], [[0.875, 0.625, 0.25], [0.125, 0.375, 0.75]]),
        "simple_hexagonal": (hexagonal * [[1], [1], [0.94]], [[0, 0, 0]]),
    }
    if name not in cells:
        raise ConfigError(f"unknown prototype {name!r}; known are {', '.join(PROTOTYPES)}")
    cell, fractional = cells[name]
    return Lattice(cell=np.array(cell, dtype=float), fractional=np.array(fractional, dtype=float)).scaled(1.0)


@cache
def nearest_distance(name: str) -> float:
    """Distance of nearest neighbours in a prototype at 1 Å³ per site, Å."""
    lattice = prototype(name)
    images = np.stack(np.meshgrid(*[np.arange(-2, 3)] * 3, indexing="ij"), axis=-1).reshape(-1, 3)
    pairs = lattice.fractional[None, :, None] - lattice.fractional[:, None, None] + images
    distances = np.linalg.norm(pairs @ lattice.cell, axis=-1)
    return float(distances[distances > 1e-6].min())


def _tabulated(element: str) -> tuple[float, float]:
    """Volume, Å³/atom, and the nearest-neighbour distance of its crystal at 1 Å³ per atom."""
    state: Mapping[str, Any] = reference_states[atomic_number(element)] or {}
    symmetry, a = state.get("symmetry"), float(state.get("a", 0.0))
    close_packed = nearest_distance("fcc")
    if element in _VOLUMES:
        return _VOLUMES[element], close_packed
    if symmetry in {"fcc", "bcc", "sc", "diamond"}:
        sites = {"fcc": 4, "bcc": 2, "sc": 1, "diamond": 8}[symmetry]
        return a**3 / sites, nearest_distance(symmetry)
    if symmetry == "hcp":
        return math.sqrt(3) / 4 * a**3 * float(state["c/a"]), close_packed
    # What is left are elements nobody has measured a crystal of: touching spheres of the covalent radius, close-packed.
    return (2 * float(covalent_radii[atomic_number(element)])) ** 3 / math.sqrt(2), close_packed


def elemental_volume(element: str, crystal: str, table: Mapping[str, float] | None = None) -> float:
    """Volume of an element in a prototype, Å³/atom.

    From the volume V₀ of the element's own crystal: V = V₀ (d₀/d)^(3/2), where d is the nearest-neighbour distance of a
    crystal at unit volume. That is the geometric mean of keeping the volume and keeping the bond length: fewer
    neighbours sit closer, but not so close that the volume stays (simple cubic 1.19, diamond 1.47 times fcc).

    Parameters
    ----------
    element
        symbol
    crystal
        name of the prototype
    table
        volumes of the elements' own crystals, Å³/atom, that go before the measured ones

    Raises
    ------
    StructureError
        for an unknown element
    ConfigError
        for an unknown prototype
    """
    measured, own = _tabulated(element)
    volume = measured if table is None else table.get(element, measured)
    return float(volume * (own / nearest_distance(crystal)) ** 1.5)


def reference_volume(element: str, table: Mapping[str, float] | None = None) -> float:
    """Volume of the element's own crystal, Å³/atom: from the table, else measured."""
    return _tabulated(element)[0] if table is None or element not in table else table[element]
