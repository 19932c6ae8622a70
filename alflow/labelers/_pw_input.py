"""Inputs of pw.x: species by element and starting moment, namelists and cards, rungs of numerics."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

from ase.data import atomic_masses, atomic_numbers, chemical_symbols

from alflow.structures import Structure

OUT, PREFIX = "out", "pwscf"
MAX_SPECIES = 10
"""``ntypx`` of pw.x as it is distributed."""
MOMENT_GRID = 0.1
"""µB: starting moments are rounded to it, since each value of an element is a species of its own."""

Value = bool | int | float | str
Namelists = dict[str, dict[str, Value]]

RUNGS: tuple[dict[str, dict[str, Value]], ...] = (
    {"electrons": {"mixing_beta": 0.4, "electron_maxstep": 100}},
    {"electrons": {"mixing_beta": 0.2, "mixing_mode": "local-TF", "electron_maxstep": 200}},
    {
        "system": {"nosym": True},
        "electrons": {
            "mixing_beta": 0.1,
            "mixing_mode": "local-TF",
            "mixing_ndim": 12,
            "diagonalization": "cg",
            "electron_maxstep": 400,
        },
    },
)
"""Numerics of each rung, none of which changes the physics: mixing, number of steps, diagonaliser, use of symmetry."""


@dataclass(frozen=True, kw_only=True)
class Species:
    """Atoms of one element that start with one magnetic moment.

    Parameters
    ----------
    label
        the element, with a digit behind it from the second species of an element on: ``Fe``, ``Fe1``
    element
        its symbol
    moment
        µB, on the grid of :data:`MOMENT_GRID`
    """

    label: str
    element: str
    moment: float


@dataclass(frozen=True, kw_only=True)
class Assignment:
    """The species of a structure and, for each atom, which one it is."""

    species: tuple[Species, ...]
    of_atom: tuple[int, ...]

    @property
    def magnetic(self) -> bool:
        """Whether any atom starts with a moment; without one the density stays unpolarised."""
        return any(kind.moment for kind in self.species)


def assign_species(structure: Structure, moments: Sequence[float]) -> Assignment:
    """Group the atoms by element and rounded moment, in the order in which they appear.

    Parameters
    ----------
    structure
        its atoms
    moments
        (n_atoms,), µB
    """
    species: dict[tuple[str, float], int] = {}
    of_atom = []
    for number, moment in zip(structure.numbers, moments, strict=True):
        # ``+ 0.0``: no -0.0 beside 0.0
        key = (chemical_symbols[number], round(round(moment / MOMENT_GRID) * MOMENT_GRID, 6) + 0.0)
        of_atom.append(species.setdefault(key, len(species)))
    seen: dict[str, int] = {}
    found = []
    for element, moment in species:
        earlier = seen.get(element, 0)
        seen[element] = earlier + 1
        found.append(Species(label=f"{element}{earlier or ''}", element=element, moment=moment))
    return Assignment(species=tuple(found), of_atom=tuple(of_atom))


def merged(*parts: Mapping[str, Mapping[str, Value]]) -> Namelists:
    """Namelists of several sources; the last one that names a variable decides."""
    together: Namelists = {"control": {}, "system": {}, "electrons": {}}
    for part in parts:
        for name, variables in part.items():
            together[name].update(variables)
    return together


def input_text(
    namelists: Namelists,
    structure: Structure,
    assignment: Assignment,
    files: Mapping[str, str],
    mesh: tuple[int, int, int],
) -> str:
    """The input file: namelists, then species, k-points, cell and positions in Å with 12 digits.

    Parameters
    ----------
    namelists
        variables of ``&control``, ``&system`` and ``&electrons``
    structure
        with three cell vectors
    assignment
        its species
    files
        name of the pseudopotential file of each element
    mesh
        divisions along the reciprocal vectors; a single point is Γ, where wavefunctions are real
    """
    lines = []
    for name, variables in namelists.items():
        lines += [f"&{name}", *(f"  {key} = {_fortran(value)}" for key, value in variables.items()), "/"]
    lines.append("ATOMIC_SPECIES")
    lines += [
        f"{s.label} {atomic_masses[atomic_numbers[s.element]]:.4f} {files[s.element]}" for s in assignment.species
    ]
    lines += ["K_POINTS gamma"] if mesh == (1, 1, 1) else ["K_POINTS automatic", "{} {} {} 0 0 0".format(*mesh)]
    lines.append("CELL_PARAMETERS angstrom")
    lines += [_row(vector) for vector in structure.cell]
    lines.append("ATOMIC_POSITIONS angstrom")
    labels = [assignment.species[index].label for index in assignment.of_atom]
    lines += [f"{label} {_row(place)}" for label, place in zip(labels, structure.positions, strict=True)]
    return "\n".join(lines) + "\n"


def _row(vector: Sequence[float]) -> str:
    return " ".join(f"{x:.12f}" for x in vector)


def _fortran(value: Value) -> str:
    if isinstance(value, bool):
        return ".true." if value else ".false."
    if isinstance(value, str):
        return "'" + value.replace("'", "''") + "'"
    return f"{value}" if isinstance(value, int) else f"{value:.12g}".replace("e", "d")
