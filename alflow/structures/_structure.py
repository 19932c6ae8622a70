"""A structure: an immutable geometry with its electronic state, addressed by its content."""

from __future__ import annotations

import hashlib
import math
from collections import Counter
from collections.abc import Mapping
from dataclasses import dataclass
from functools import cached_property, reduce
from typing import TYPE_CHECKING, Any

import msgpack
import numpy as np
from ase import Atoms
from ase.data import atomic_numbers as _number_of
from ase.data import chemical_symbols as _symbol_of

from alflow.errors import StructureError

if TYPE_CHECKING:
    from numpy.typing import NDArray

HASH_VERSION = b"alflow-structure-1"
HASH_GRID = 1e-6
_CODEC_VERSION = 1
_MAX_ATOMIC_NUMBER = len(_symbol_of) - 1


@dataclass(frozen=True, kw_only=True, eq=False)
class Structure:
    """Geometry and electronic state of a crystal, slab, wire or molecule.

    Two structures compare equal when their content hashes agree; whether they are the *same crystal* in other
    clothes is the question of :mod:`alflow.structures` relations, not of ``==``.

    Parameters
    ----------
    cell
        (3, 3), Å, row vectors; rows of non-periodic directions may be zero
    pbc
        (3,), periodic directions
    numbers
        (n_atoms,), atomic numbers
    positions
        (n_atoms, 3), Å, Cartesian; fractional = positions @ inv(cell)
    charge
        total charge in units of e
    moments
        initial magnetic moments in µB: None, (n_atoms,) collinear or (n_atoms, 3)

    Raises
    ------
    StructureError
        if a shape is wrong, a number is not finite, a species is unknown or a periodic direction has no cell vector
    """

    cell: NDArray[np.float64]
    pbc: NDArray[np.bool_]
    numbers: NDArray[np.int64]
    positions: NDArray[np.float64]
    charge: float = 0.0
    moments: NDArray[np.float64] | None = None

    def __post_init__(self) -> None:
        cell = np.array(self.cell, dtype=np.float64).reshape(3, 3)
        pbc = np.array(self.pbc, dtype=bool).reshape(-1)
        if pbc.shape == (1,):
            pbc = np.repeat(pbc, 3)
        numbers = np.array(self.numbers, dtype=np.int64).reshape(-1)
        positions = np.array(self.positions, dtype=np.float64).reshape(-1, 3)
        moments = None if self.moments is None else np.array(self.moments, dtype=np.float64)
        charge = float(self.charge)
        n_atoms = len(numbers)
        if pbc.shape != (3,):
            raise StructureError(f"pbc has shape {pbc.shape}; give three booleans, one per cell vector")
        if n_atoms == 0:
            raise StructureError("a structure needs at least one atom")
        if len(positions) != n_atoms:
            raise StructureError(f"{n_atoms} species but {len(positions)} positions; give one row per atom")
        if numbers.min() < 1 or numbers.max() > _MAX_ATOMIC_NUMBER:
            raise StructureError(f"atomic numbers must lie between 1 and {_MAX_ATOMIC_NUMBER}, found {numbers.min()}")
        if moments is not None:
            if moments.shape not in {(n_atoms,), (n_atoms, 3)}:
                raise StructureError(f"moments have shape {moments.shape}; give ({n_atoms},) or ({n_atoms}, 3)")
            if not np.any(moments):
                moments = None
        finite = np.isfinite(cell).all() and np.isfinite(positions).all() and math.isfinite(charge)
        if not finite or (moments is not None and not np.isfinite(moments).all()):
            raise StructureError("cell, positions, charge and moments must be finite numbers")
        if pbc.any():
            rows = cell[pbc]
            gram = rows @ rows.T
            lengths = np.sqrt(np.diag(gram))
            if (lengths < 1e-3).any() or np.linalg.det(gram) < 1e-12 * np.prod(lengths) ** 2:
                raise StructureError(f"the periodic cell vectors are missing or linearly dependent: {rows.tolist()}")
        for array in (cell, pbc, numbers, positions, moments):
            if array is not None:
                array.setflags(write=False)
        for name, value in (
            ("cell", cell),
            ("pbc", pbc),
            ("numbers", numbers),
            ("positions", positions),
            ("charge", charge),
            ("moments", moments),
        ):
            object.__setattr__(self, name, value)

    # -- identity ------------------------------------------------------------------------------------------------

    @cached_property
    def content_hash(self) -> str:
        """Hexadecimal SHA-256 of the content on a grid of 1e-6 Å (cell, positions) and 1e-6 (charge, moments).

        Nothing is wrapped or sorted. Rounding to the grid keeps the hash through a Cartesian → fractional → Cartesian
        round trip, which raw float bytes do not survive.
        """
        # one array for all numbers: with a call of numpy for each, the calls would cost more than the hash
        n_atoms, moments = len(self.numbers), self.moments
        grid = np.empty(10 + 3 * n_atoms + (0 if moments is None else moments.size))
        grid[:9] = self.cell.ravel()
        grid[9 : 9 + 3 * n_atoms] = self.positions.ravel()
        grid[9 + 3 * n_atoms] = self.charge
        if moments is not None:
            grid[10 + 3 * n_atoms :] = moments.ravel()
        np.divide(grid, HASH_GRID, out=grid)
        content = np.rint(grid, out=grid).astype("<i8").tobytes()
        digest = hashlib.sha256(HASH_VERSION)
        digest.update(n_atoms.to_bytes(8, "little"))
        digest.update(self.numbers.astype("<i8").tobytes())
        digest.update(self.pbc.astype("<i8").tobytes())
        if moments is None:
            digest.update(content)
        else:
            split = 8 * (10 + 3 * n_atoms)
            digest.update(content[:split])
            digest.update(moments.ndim.to_bytes(1, "little"))
            digest.update(content[split:])
        return digest.hexdigest()

    def __eq__(self, other: object) -> bool:
        return self.content_hash == other.content_hash if isinstance(other, Structure) else NotImplemented

    def __hash__(self) -> int:
        return int(self.content_hash[:15], 16)

    def __len__(self) -> int:
        return len(self.numbers)

    def __repr__(self) -> str:
        return f"Structure({self.formula}, {self.n_atoms} atoms, {self.content_hash[:12]})"

    # -- derived quantities --------------------------------------------------------------------------------------

    @property
    def n_atoms(self) -> int:
        """Number of atoms in the cell."""
        return len(self.numbers)

    @property
    def n_periodic(self) -> int:
        """Number of periodic directions."""
        return sum(self.pbc.tolist())

    @property
    def volume(self) -> float:
        """Volume of the cell, Å³; 0 where fewer than three directions are periodic."""
        if not all(self.pbc.tolist()):
            return 0.0
        (ax, ay, az), (bx, by, bz), (cx, cy, cz) = self.cell.tolist()
        return abs(float(ax * (by * cz - bz * cy) + ay * (bz * cx - bx * cz) + az * (bx * cy - by * cx)))

    @cached_property
    def composition(self) -> Mapping[str, int]:
        """Number of atoms per element symbol, in alphabetical order."""
        return dict(sorted((_symbol_of[z], n) for z, n in Counter(self.numbers.tolist()).items()))

    @property
    def elements(self) -> tuple[str, ...]:
        """Element symbols in alphabetical order."""
        return tuple(self.composition)

    @property
    def chemical_system(self) -> str:
        """Elements joined by dashes, e.g. ``Ni-Pt``."""
        return "-".join(self.composition)

    @property
    def formula(self) -> str:
        """Formula of the cell, elements in alphabetical order, e.g. ``Ni2Pt2``."""
        return "".join(f"{e}{n if n > 1 else ''}" for e, n in self.composition.items())

    @cached_property
    def n_formula_units(self) -> int:
        """Number of reduced formula units in the cell."""
        return reduce(math.gcd, self.composition.values())

    @property
    def reduced_formula(self) -> str:
        """Formula divided by the greatest common divisor, e.g. ``NiPt``."""
        units = self.n_formula_units
        return "".join(f"{e}{n // units if n > units else ''}" for e, n in self.composition.items())

    @property
    def anonymous_formula(self) -> str:
        """Reduced formula with elements replaced by A, B, … in order of amount, e.g. ``AB3``."""
        units = self.n_formula_units
        amounts = sorted(n // units for n in self.composition.values())
        letters = (chr(ord("A") + i % 26) * (1 + i // 26) for i in range(len(amounts)))
        return "".join(f"{letter}{n if n > 1 else ''}" for letter, n in zip(letters, amounts, strict=True))

    # -- conversion ----------------------------------------------------------------------------------------------

    @classmethod
    def from_atoms(cls, atoms: Atoms) -> Structure:
        """Take geometry, ``info['charge']`` and initial magnetic moments from :class:`ase.Atoms`."""
        charge = atoms.info.get("charge")
        if charge is None:
            charge = float(atoms.get_initial_charges().sum()) if atoms.has("initial_charges") else 0.0
        return cls(
            cell=atoms.cell.array,
            pbc=atoms.pbc,
            numbers=atoms.numbers,
            positions=atoms.positions,
            charge=float(charge),
            moments=atoms.get_initial_magnetic_moments() if atoms.has("initial_magmoms") else None,
        )

    def to_atoms(self) -> Atoms:
        """Return :class:`ase.Atoms` with the same geometry and electronic state."""
        atoms = Atoms(numbers=self.numbers, positions=self.positions, cell=self.cell, pbc=self.pbc)
        if self.charge:
            atoms.info["charge"] = self.charge
        if self.moments is not None:
            atoms.set_initial_magnetic_moments(self.moments)
        return atoms

    @classmethod
    def from_pymatgen(cls, structure: Any) -> Structure:
        """Take an ordered pymatgen ``Structure`` or ``Molecule``; site property ``magmom`` becomes the moments."""
        from pymatgen.io.ase import AseAtomsAdaptor

        if not structure.is_ordered:
            raise StructureError(f"{structure.formula} has partially occupied sites; order it first")
        return cls.from_atoms(AseAtomsAdaptor.get_atoms(structure))

    def to_pymatgen(self) -> Any:
        """Return a pymatgen ``Structure`` (any periodic direction) or ``Molecule`` (none)."""
        from pymatgen.io.ase import AseAtomsAdaptor

        atoms = self.to_atoms()
        return AseAtomsAdaptor.get_structure(atoms) if self.pbc.any() else AseAtomsAdaptor.get_molecule(atoms)

    def with_geometry(self, *, cell: NDArray[np.float64], positions: NDArray[np.float64]) -> Structure:
        """Return the same species and electronic state in another geometry."""
        return Structure(
            cell=cell,
            pbc=self.pbc,
            numbers=self.numbers,
            positions=positions,
            charge=self.charge,
            moments=self.moments,
        )

    # -- storage -------------------------------------------------------------------------------------------------

    def to_bytes(self) -> bytes:
        """Compact, exact, versioned serialisation (msgpack of little-endian arrays)."""
        content: dict[str, Any] = {
            "v": _CODEC_VERSION,
            "cell": np.asarray(self.cell, dtype="<f8").tobytes(),
            "pbc": self.pbc.tobytes(),
            "numbers": self.numbers.astype("<u1").tobytes(),
            "positions": np.asarray(self.positions, dtype="<f8").tobytes(),
        }
        if self.charge:
            content["charge"] = self.charge
        if self.moments is not None:
            content["moments"] = self.moments.astype("<f8").tobytes()
        packed: bytes = msgpack.packb(content)
        return packed

    @classmethod
    def from_bytes(cls, blob: bytes) -> Structure:
        """Inverse of :meth:`to_bytes`.

        Raises
        ------
        StructureError
            if the blob is damaged or was written by a newer alflow
        """
        try:
            content = msgpack.unpackb(blob)
            version = content["v"]
            if version != _CODEC_VERSION:
                raise StructureError(
                    f"structure blob of version {version}; this alflow reads {_CODEC_VERSION}: upgrade it"
                )
            numbers = np.frombuffer(content["numbers"], dtype="<u1").astype(np.int64)
            moments = content.get("moments")
            flat = None if moments is None else np.frombuffer(moments, dtype="<f8")
            return cls(
                cell=np.frombuffer(content["cell"], dtype="<f8").reshape(3, 3),
                pbc=np.frombuffer(content["pbc"], dtype=np.uint8).astype(bool),
                numbers=numbers,
                positions=np.frombuffer(content["positions"], dtype="<f8").reshape(-1, 3),
                charge=content.get("charge", 0.0),
                moments=None if flat is None else flat.reshape((len(numbers), -1) if len(flat) > len(numbers) else -1),
            )
        except (KeyError, TypeError, ValueError, msgpack.UnpackException) as error:
            raise StructureError(f"damaged structure blob: {error!r}") from error


def atomic_number(symbol: str) -> int:
    """Atomic number of an element symbol; raises StructureError for an unknown one."""
    number = _number_of.get(symbol)
    if not number:
        raise StructureError(f"unknown element {symbol!r}")
    return int(number)


def element_symbol(number: int) -> str:
    """Element symbol of an atomic number."""
    return str(_symbol_of[number])
