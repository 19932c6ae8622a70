"""INCAR, KPOINTS, POSCAR and POTCAR of one structure."""

from __future__ import annotations

import json
import math
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from itertools import groupby
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from alflow.errors import FailureKind, LabelFailure
from alflow.labelers._cell import k_mesh, room_along
from alflow.labelers._vasp_potcar import Potcar
from alflow.labelers._vasp_settings import Value, VaspSettings
from alflow.structures import Structure, element_symbol

if TYPE_CHECKING:
    from numpy.typing import NDArray

LAYOUT_FILE = "layout.json"
LEAST_VACUUM = 6.0
"""Å between periodic images along directions that are not periodic: below, they bind to each other."""

_LINE = 160
"""Characters of one line of the INCAR; old versions read 255."""

_F_SHELLS = frozenset([*range(57, 72), *range(89, 104)])
_D, _F = 2, 3

_SCF: tuple[Mapping[str, Value], ...] = (
    {"ALGO": "Fast", "NELM": 100},
    {"ALGO": "Normal", "NELM": 200, "ISYM": 0},
    {"ALGO": "Normal", "NELM": 300, "ISYM": 0, "AMIX": 0.1, "BMIX": 1e-4, "AMIX_MAG": 0.4, "BMIX_MAG": 1e-4},
    {"ALGO": "All", "NELM": 500, "ISYM": 0},
)
_HYBRID: tuple[Mapping[str, Value], ...] = (
    {"ALGO": "All", "NELM": 100},
    {"ALGO": "Damped", "TIME": 0.4, "NELM": 300, "ISYM": 0},
    {"ALGO": "Normal", "NELM": 300, "ISYM": 0},
)


@dataclass(frozen=True, kw_only=True)
class Layout:
    """Where atoms and cell vectors of a structure stand in the POSCAR.

    Parameters
    ----------
    atoms
        atom ``atoms[k]`` of the structure is atom k of the POSCAR: VASP wants them grouped by species
    axes
        cell vector ``axes[i]`` of the structure is cell vector i of the POSCAR: VASP refuses left-handed cells
    """

    atoms: tuple[int, ...]
    axes: tuple[int, int, int]

    @classmethod
    def of(cls, structure: Structure) -> Layout:
        """By atomic number, otherwise in their order; two vectors of a left-handed cell change places."""
        order = np.argsort(structure.numbers, kind="stable")
        left_handed = np.linalg.det(structure.cell) < 0
        return cls(atoms=tuple(int(k) for k in order), axes=(1, 0, 2) if left_handed else (0, 1, 2))

    def write(self, folder: Path) -> None:
        """Keep it beside the inputs."""
        content = {"atoms": list(self.atoms), "axes": list(self.axes)}
        (folder / LAYOUT_FILE).write_text(json.dumps(content) + "\n", encoding="utf-8")

    @classmethod
    def read(cls, folder: Path) -> Layout:
        """Raise LabelFailure where it is missing or damaged."""
        path = folder / LAYOUT_FILE
        try:
            content = json.loads(path.read_text(encoding="utf-8"))
            first, second, third = content["axes"]
            return cls(atoms=tuple(content["atoms"]), axes=(first, second, third))
        except FileNotFoundError as error:
            raise LabelFailure(FailureKind.MISSING_FILE, f"{path} is missing: prepare the calculation anew") from error
        except (ValueError, KeyError, TypeError) as error:
            raise LabelFailure(FailureKind.TRUNCATED, f"{path} is damaged: prepare the calculation anew") from error

    def from_vasp(self, rows: NDArray[Any]) -> NDArray[Any]:
        """Rows of atoms in the order of the POSCAR → in the order of the structure."""
        mapped = np.empty_like(rows)
        mapped[list(self.atoms)] = rows
        return mapped


def ladder(settings: VaspSettings) -> tuple[Mapping[str, Value], ...]:
    """Numerics from quick to patient: another diagonaliser, more steps, slower mixing, no use of symmetry."""
    return _HYBRID if settings.hybrid else _SCF


def vacuum_problem(structure: Structure) -> str | None:
    """Say why a structure that is not periodic in all directions cannot be put into VASP's periodic cell."""
    if structure.pbc.all():
        return None
    if abs(np.linalg.det(structure.cell)) < 1e-3:
        return (
            "it is not periodic in every direction and has no complete cell; VASP is always periodic: give it a cell "
            f"with at least {LEAST_VACUUM:g} Å of vacuum"
        )
    for axis in np.flatnonzero(~structure.pbc):
        gap = room_along(structure, int(axis))
        if gap < LEAST_VACUUM:
            return (
                f"along cell vector {axis + 1}, which is not periodic, {gap:.1f} Å separate it from its next "
                f"image; VASP is always periodic: leave at least {LEAST_VACUUM:g} Å of vacuum in the cell"
            )
    return None


def initial_moments(structure: Structure, settings: VaspSettings) -> tuple[NDArray[np.float64] | None, str]:
    """MAGMOM in the order of the structure, µB, and where it comes from; None where it is not spin-polarised."""
    if structure.moments is not None:
        return structure.moments, "of the structure"
    if not settings.spin_polarised:
        return None, "none"
    by_element = settings.initial_moments
    return np.array([by_element.get(element_symbol(int(z)), 1.0) for z in structure.numbers]), "by element"


def n_electrons(structure: Structure, potcars: Mapping[str, Potcar]) -> float:
    """Electrons that are treated explicitly: those of the neutral atoms minus the charge."""
    neutral = sum(potcars[element].valence * n for element, n in structure.composition.items())
    return neutral - structure.charge


def write_inputs(
    structure: Structure, settings: VaspSettings, potcars: Mapping[str, Potcar], folder: Path, rung: int
) -> None:
    """Write INCAR, KPOINTS, POSCAR, POTCAR and the layout into an empty folder."""
    layout = Layout.of(structure)
    layout.write(folder)
    tags = incar_tags(structure, settings, potcars, layout, rung)
    (folder / "INCAR").write_text(incar_text(tags), encoding="ascii")
    (folder / "POSCAR").write_text(poscar_text(structure, layout), encoding="ascii")
    mesh = k_mesh(structure, settings.kspacing)
    points = " ".join(str(mesh[axis]) for axis in layout.axes)
    (folder / "KPOINTS").write_text(f"mesh with Gamma\n0\nGamma\n{points}\n0 0 0\n", encoding="ascii")
    with (folder / "POTCAR").open("wb") as stream:
        for element in _species(structure, layout):
            stream.write(potcars[element].content)


def incar_tags(
    structure: Structure, settings: VaspSettings, potcars: Mapping[str, Potcar], layout: Layout, rung: int
) -> dict[str, Value]:
    """All tags of a single point."""
    moments, _ = initial_moments(structure, settings)
    tags: dict[str, Value] = {
        "SYSTEM": "alflow",
        "ISTART": 0,
        "ICHARG": 2,
        "PREC": settings.prec,
        "ENCUT": settings.encut,
        "EDIFF": settings.ediff,
        "ISMEAR": settings.ismear,
        "SIGMA": settings.sigma,
        "LREAL": settings.lreal,
        "LASPH": settings.lasph,
        **settings.functional_tags,
        "ISPIN": 1 if moments is None else 2,
        "NSW": 0,
        "IBRION": -1,
        "ISIF": 2,
        "LWAVE": False,
        "LCHARG": False,
        "NELMIN": 4,
    }
    if moments is not None:
        tags["MAGMOM"] = _repeated(float(moments[k]) for k in layout.atoms)
        tags["LORBIT"] = 10  # moments of the atoms
    if structure.charge:
        tags["NELECT"] = n_electrons(structure, potcars)
    tags |= _hubbard(_species(structure, layout), settings.hubbard_u)
    tags |= {**settings.incar, **settings.parallel, **ladder(settings)[rung]}
    if rung:
        tags["NBANDS"] = _more_bands(structure, potcars, moments)
    return tags


def incar_text(tags: Mapping[str, Value]) -> str:
    """The file; a long line goes on after a backslash."""
    lines = []
    for tag, value in tags.items():
        line = f"{tag} ="
        for word in value if isinstance(value, tuple) else (value,):
            text = _word(word)
            if len(line) - line.rfind("\n") + len(text) > _LINE:
                line += " \\\n "
            line += f" {text}"
        lines.append(line)
    return "\n".join(lines) + "\n"


def poscar_text(structure: Structure, layout: Layout) -> str:
    """The file, with every digit: fractional positions, atoms grouped by species."""
    cell = structure.cell[list(layout.axes)]
    fractional = structure.positions[list(layout.atoms)] @ np.linalg.inv(cell)
    species = _species(structure, layout)
    return "\n".join(
        [
            structure.formula,
            "1.0",
            *(" ".join(f"{x:21.16f}" for x in row) for row in cell),
            " ".join(species),
            " ".join(str(structure.composition[element]) for element in species),
            "Direct",
            *(" ".join(f"{x:21.16f}" for x in row) for row in fractional),
            "",
        ]
    )


def _species(structure: Structure, layout: Layout) -> list[str]:
    numbers = structure.numbers[list(layout.atoms)]
    return [element_symbol(int(z)) for z, _ in groupby(numbers)]


def _hubbard(species: Sequence[str], hubbard_u: Mapping[str, float]) -> dict[str, Value]:
    if not any(element in hubbard_u for element in species):
        return {}
    from ase.data import atomic_numbers

    shells = [(_F if atomic_numbers[e] in _F_SHELLS else _D) if e in hubbard_u else -1 for e in species]
    return {
        "LDAU": True,
        "LDAUTYPE": 2,
        "LDAUL": tuple(shells),
        "LDAUU": tuple(hubbard_u.get(e, 0.0) for e in species),
        "LDAUJ": tuple(0.0 for _ in species),
        "LMAXMIX": 2 * max(shells),
    }


def _more_bands(structure: Structure, potcars: Mapping[str, Potcar], moments: NDArray[np.float64] | None) -> int:
    """A quarter more than VASP takes by itself: bands beyond need not be counted exactly, too few are an error."""
    n = n_electrons(structure, potcars)
    usual = max((n + 2) / 2 + max(structure.n_atoms / 2, 3), 0.6 * n)
    if moments is not None:
        usual += (float(np.abs(moments).sum()) + 1) / 2
    return math.ceil(1.25 * usual)


def _repeated(values: Iterable[float]) -> tuple[str, ...]:
    """``4*5.0`` for runs of one value."""
    runs = ((value, len(list(run))) for value, run in groupby(values))
    return tuple(f"{value:.6g}" if n == 1 else f"{n}*{value:.6g}" for value, n in runs)


def _word(value: Any) -> str:
    if isinstance(value, bool):
        return ".TRUE." if value else ".FALSE."
    return f"{value:.10g}" if isinstance(value, float) else str(value)
