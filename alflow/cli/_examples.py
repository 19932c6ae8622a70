"""Labelled structures of files for ``train`` and ``eval``: where each came from, and what of them was not read."""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np

from alflow.cli._output import plural
from alflow.errors import StructureError, UserError

if TYPE_CHECKING:
    from ase import Atoms

    from alflow.potentials import LabelSummary
    from alflow.structures import LabelledStructure, Properties

LIKE_A_LABEL = re.compile(r"energ|force|stress|virial", re.IGNORECASE)
READ = {"REF_energy", "REF_energy_extrapolated", "REF_forces", "REF_stress", "REF_virial", "REF_virials"}
NAMED = ("energy", "forces", "stress", "virial")
SAME_ENERGY, SAME_COMPONENT = 1e-5, 1e-5
"""eV of a structure, and eV/Å and eV/Å³: copies of one label differ by rounding only."""


@dataclass(frozen=True, kw_only=True, eq=False)
class Examples:
    """Labelled structures, file and frame of each, and names of entries like labels that were not read."""

    labelled: list[LabelledStructure]
    origins: list[str]
    not_read: set[str]


def parse_keys(given: Sequence[str]) -> dict[str, str]:
    """Read ``energy=dft_energy`` and the like.

    Raises
    ------
    UserError
        if one is none of these
    """
    keys = {}
    for text in given:
        label, equals, name = text.partition("=")
        if label not in NAMED or not equals or not name:
            raise UserError(f"--key {text}: write one of {', '.join(NAMED)}, =, and its name in the file")
        keys[label] = name
    return keys


def read_examples(paths: Sequence[Path], keys: Mapping[str, str]) -> Examples:
    """Read every labelled structure of some files; `keys` are the names of labels that are called otherwise there.

    Raises
    ------
    StructureError
        naming file and frame, if a structure carries no labels, or there are none at all of a kind that `keys` names
    """
    from alflow.cli._data import read_frames
    from alflow.structures import LabelledStructure

    found = Examples(labelled=[], origins=[], not_read=set())
    unseen = dict(keys)
    for atoms, origin in read_frames([str(path) for path in paths]):
        for label in _rename(atoms, keys):
            unseen.pop(label, None)
        others = [name for name in _like_labels(atoms) if name not in keys.values()]
        try:
            found.labelled.append(LabelledStructure.from_atoms(atoms))
        except StructureError as error:
            there = f" (there are {', '.join(others)}; --key energy={others[0]} reads one)" if others else ""
            raise StructureError(f"{origin}: {error}{there}") from error
        found.origins.append(origin)
        found.not_read.update(others)
    if not found.labelled:
        raise StructureError(f"no structures in {', '.join(map(str, paths))}")
    if unseen:
        raise StructureError(f"no structure has {', '.join(unseen.values())}, which --key names")
    return found


def without_copies(examples: Examples) -> tuple[Examples, int]:
    """Leave out exact copies with the same label; returns what stays, and how many copies there were.

    Raises
    ------
    StructureError
        naming both frames, where two labels of one structure differ
    """
    first: dict[str, int] = {}
    for i, example in enumerate(examples.labelled):
        other = first.setdefault(example.structure.content_hash, i)
        if other != i and not _same(examples.labelled[other].properties, example.properties):
            difference = example.properties.energy - examples.labelled[other].properties.energy
            raise StructureError(
                f"{examples.origins[other]} and {examples.origins[i]} are the same {example.structure.formula} with "
                f"labels that differ, the energies by {difference:.3g} eV: remove one of them"
            )
    kept = sorted(first.values())
    left = Examples(
        labelled=[examples.labelled[i] for i in kept],
        origins=[examples.origins[i] for i in kept],
        not_read=examples.not_read,
    )
    return left, len(examples.labelled) - len(kept)


def labels_text(summary: LabelSummary, not_read: set[str]) -> str:
    """Say what labels there are, in a line."""
    low, high = summary.energy
    parts = [f"{plural(summary.n_energy, 'energy', 'energies')} ({low:.3f} to {high:.3f} eV/atom)"]
    if summary.force_rms is not None:
        parts.append(
            f"{summary.n_forces} with forces (rms {summary.force_rms:.2g}, at most {summary.force_max:.2g} eV/Å)"
        )
    if summary.stress_max is not None:
        parts.append(f"{summary.n_stress} with stress (at most {summary.stress_max:.2g} eV/Å³)")
    if not_read:
        parts.append(f"not read: {', '.join(sorted(not_read))}")
    return ", ".join(parts)


def _rename(atoms: Atoms, keys: Mapping[str, str]) -> list[str]:
    """Give labels the names that alflow reads; returns which were there."""
    results = {} if atoms.calc is None else atoms.calc.results
    seen = []
    for label, name in keys.items():
        value = atoms.info.get(name, atoms.arrays.get(name, results.get(name)))
        if value is not None:
            (atoms.arrays if label == "forces" else atoms.info)[f"REF_{label}"] = value
            seen.append(label)
    return seen


def _like_labels(atoms: Atoms) -> list[str]:
    """Entries that are called like labels but are not read as such."""
    read = READ if "REF_energy" in atoms.info else READ | {"virial"}
    names = [*atoms.info, *atoms.arrays]
    return sorted(n for n in names if LIKE_A_LABEL.search(n) and n not in read and not n.startswith("alflow_"))


def _same(one: Properties, other: Properties) -> bool:
    if abs(one.energy - other.energy) > SAME_ENERGY:
        return False
    for x, y in ((one.forces, other.forces), (one.stress, other.stress)):
        if (x is None) != (y is None) or (x is not None and y is not None and np.abs(x - y).max() > SAME_COMPONENT):
            return False
    return True
