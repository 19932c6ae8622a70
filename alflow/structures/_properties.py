"""Physical properties attached to a structure, and the labelled structure."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import msgpack
import numpy as np

from alflow.errors import StructureError
from alflow.structures._structure import Structure

if TYPE_CHECKING:
    from ase import Atoms
    from numpy.typing import NDArray

_CODEC_VERSION = 1
_ARRAYS = ("forces", "stress", "dipole", "moments")
_SCALARS = ("energy", "energy_extrapolated", "total_moment")


@dataclass(frozen=True, kw_only=True, eq=False)
class Properties:
    """What a calculation says about one structure. None means: not computed.

    Parameters
    ----------
    energy
        eV per cell, force-consistent (free energy): the training target
    energy_extrapolated
        eV per cell, extrapolated to zero smearing: hull energies; None where the code has no smearing
    forces
        (n_atoms, 3), eV/Å
    stress
        (3, 3), eV/Å³, symmetric, ASE's sign: positive = the cell wants to shrink
    dipole
        (3,), e·Å
    moments
        (n_atoms,) or (n_atoms, 3), µB, computed
    total_moment
        µB per cell
    """

    energy: float
    energy_extrapolated: float | None = None
    forces: NDArray[np.float64] | None = None
    stress: NDArray[np.float64] | None = None
    dipole: NDArray[np.float64] | None = None
    moments: NDArray[np.float64] | None = None
    total_moment: float | None = None

    def __post_init__(self) -> None:
        for name in _ARRAYS:
            value = getattr(self, name)
            if value is None:
                continue
            array = np.array(value, dtype=np.float64)
            if name == "stress" and array.shape == (6,):
                xx, yy, zz, yz, xz, xy = array
                array = np.array([[xx, xy, xz], [xy, yy, yz], [xz, yz, zz]])
            array.setflags(write=False)
            object.__setattr__(self, name, array)

    @property
    def hull_energy(self) -> float:
        """The energy for phase diagrams, eV per cell: extrapolated where there is one."""
        return self.energy if self.energy_extrapolated is None else self.energy_extrapolated

    def to_bytes(self) -> bytes:
        """Compact, exact, versioned serialisation."""
        content: dict[str, Any] = {"v": _CODEC_VERSION}
        for name in _SCALARS:
            value = getattr(self, name)
            if value is not None:
                content[name] = float(value)
        for name in _ARRAYS:
            array = getattr(self, name)
            if array is not None:
                content[name] = [list(array.shape), array.astype("<f8").tobytes()]
        packed: bytes = msgpack.packb(content)
        return packed

    @classmethod
    def from_bytes(cls, blob: bytes) -> Properties:
        """Inverse of :meth:`to_bytes`; raises StructureError for a damaged or newer blob."""
        try:
            content = msgpack.unpackb(blob)
            if content.pop("v") != _CODEC_VERSION:
                raise StructureError("properties written by a newer alflow: upgrade it")
            for name in _ARRAYS:
                if name in content:
                    shape, data = content[name]
                    content[name] = np.frombuffer(data, dtype="<f8").reshape(shape)
            return cls(**content)
        except (KeyError, TypeError, ValueError, msgpack.UnpackException) as error:
            raise StructureError(f"damaged properties blob: {error!r}") from error


THEORY_KEY = "alflow_theory_fingerprint"
"""Entry of ``atoms.info`` in which exported labels say of which theory they are."""


@dataclass(frozen=True, kw_only=True, eq=False)
class LabelledStructure:
    """A structure with its computed properties: one training example.

    Parameters
    ----------
    structure, properties
        the two
    theory
        fingerprint of the theory of the labels; None where nobody said
    """

    structure: Structure
    properties: Properties
    theory: str | None = None

    @classmethod
    def from_atoms(cls, atoms: Atoms) -> LabelledStructure:
        """Read labels: ``REF_energy`` / ``REF_forces`` / ``REF_stress``, else an attached calculator's results.

        Without a stress a virial W in eV, ``REF_virial`` or, beside a calculator's results, ``virial``, gives it as
        -W/V with the volume V, the sign of GAP, MACE and NequIP.

        Labels that alflow exported say of which theory they are (``info["alflow_theory_fingerprint"]``).

        Raises
        ------
        StructureError
            if there is no energy, a label is no number, has the wrong shape or is not finite, or energy and forces are
            named in two ways, so that one of them would be left aside
        """
        structure = Structure.from_atoms(atoms)
        _require_one_naming(atoms, structure.formula)
        if "REF_energy" in atoms.info:
            energy = atoms.info["REF_energy"]
            extrapolated = atoms.info.get("REF_energy_extrapolated")
            forces = atoms.arrays.get("REF_forces")
            stress, virial = atoms.info.get("REF_stress"), atoms.info.get("REF_virial", atoms.info.get("REF_virials"))
        elif atoms.calc is not None and "energy" in getattr(atoms.calc, "results", {}):
            results = atoms.calc.results
            extrapolated = results["energy"] if "free_energy" in results else None
            energy = results.get("free_energy", results["energy"])
            forces, stress = results.get("forces"), results.get("stress")
            virial = atoms.info.get("virial")
        else:
            raise StructureError(
                f"{structure.formula} carries no labels: expected REF_energy (and REF_forces, REF_stress) "
                "or an attached single-point calculator with an energy"
            )
        formula, theory = structure.formula, atoms.info.get(THEORY_KEY)
        if stress is None and virial is not None:
            stress = _stress_of(virial, structure)
        if stress is not None:
            stress = _numbers(stress, "stress", formula)
            if stress.shape == (9,):
                stress = stress.reshape(3, 3)
            if stress.shape not in {(6,), (3, 3)}:
                raise StructureError(f"{formula}: stress has shape {stress.shape}; give (6,) or (3, 3) in eV/Å³")
        if forces is not None:
            forces = _numbers(forces, "forces", formula)
            if forces.shape != (structure.n_atoms, 3):
                raise StructureError(f"{formula}: forces have shape {forces.shape}, not ({structure.n_atoms}, 3)")
        properties = Properties(
            energy=_number(energy, "energy", formula),
            energy_extrapolated=None if extrapolated is None else _number(extrapolated, "energy", formula),
            forces=forces,
            stress=stress,
        )
        return cls(structure=structure, properties=properties, theory=None if theory is None else str(theory))

    def to_atoms(self) -> Atoms:
        """Return :class:`ase.Atoms` with the labels as ``REF_*`` entries."""
        atoms = self.structure.to_atoms()
        atoms.info["REF_energy"] = self.properties.energy
        if self.properties.energy_extrapolated is not None:
            atoms.info["REF_energy_extrapolated"] = self.properties.energy_extrapolated
        if self.properties.forces is not None:
            atoms.arrays["REF_forces"] = np.array(self.properties.forces)
        if self.properties.stress is not None:
            atoms.info["REF_stress"] = np.array(self.properties.stress)
        if self.theory is not None:
            atoms.info[THEORY_KEY] = self.theory
        return atoms


def _require_one_naming(atoms: Atoms, formula: str) -> None:
    """Refuse REF_energy beside forces of another origin, and the reverse: one would silently be left aside."""
    results = {} if atoms.calc is None else getattr(atoms.calc, "results", {})
    ours, theirs = ("REF_energy", "REF_forces"), ("energy", "forces")
    found = [name in atoms.info or name in atoms.arrays for name in ours]
    if found == [True, False] and results.get("forces") is not None:
        named, beside = ours[0], theirs[1]
    elif found == [False, True] and results.get("energy") is not None:
        named, beside = theirs[0], ours[1]
    else:
        return
    raise StructureError(
        f"{formula}: {named} and {beside} are named in two ways; write REF_energy and REF_forces, or energy and "
        "forces, or remove the one that is no label"
    )


def _stress_of(virial: Any, structure: Structure) -> NDArray[np.float64] | None:
    """Stress of a virial; None where there is no volume. Nine numbers, for the order of six is not agreed upon."""
    if structure.volume <= 0:
        return None
    found = _numbers(virial, "virial", structure.formula)
    if found.size != 9:
        raise StructureError(f"{structure.formula}: virial has shape {found.shape}; give (3, 3) or nine numbers in eV")
    stress: NDArray[np.float64] = -found.reshape(3, 3) / structure.volume
    return stress


def _numbers(value: Any, name: str, formula: str) -> NDArray[np.float64]:
    """Finite numbers, or a StructureError."""
    try:
        array = np.asarray(value, dtype=np.float64)
    except (TypeError, ValueError):
        raise StructureError(f"{formula}: {name} is {value!r:.60}, which are no numbers") from None
    if not np.isfinite(array).all():
        raise StructureError(f"{formula}: {name} holds values that are not finite")
    return array


def _number(value: Any, name: str, formula: str) -> float:
    """One finite number, or a StructureError."""
    array = _numbers(value, name, formula)
    if array.size != 1:
        raise StructureError(f"{formula}: {name} has shape {array.shape}; give one number in eV per cell")
    return float(array.reshape(()))
