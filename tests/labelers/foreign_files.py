"""Files with labels as other programs write them, and the labels that alflow finds in them."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
from ase import Atoms
from ase.build import bulk
from ase.calculators.emt import EMT

from alflow.labelers import (
    ForeignFrame,
    find_foreign,
    read_foreign,
)
from alflow.structures import LabelledStructure

Array = np.ndarray[Any, Any]


def frames_at(path: Path) -> list[ForeignFrame]:
    return [frame for source in find_foreign(path) for frame in read_foreign(source)]


def only(path: Path) -> ForeignFrame:
    (frame,) = frames_at(path)
    return frame


def examples_at(path: Path) -> list[LabelledStructure]:
    found = frames_at(path)
    assert [frame.refused for frame in found] == [""] * len(found)
    return [frame.example for frame in found if frame.example is not None]


def alloy(seed: int, symbols: str = "NiPt3") -> Atoms:
    """Atoms off their places in a skewed cell: no component of the stress vanishes."""
    rng = np.random.default_rng(seed)
    atoms = bulk("Cu", "fcc", a=3.8, cubic=True)
    atoms.symbols = symbols
    atoms.set_cell(atoms.cell.array @ (np.eye(3) + rng.uniform(-0.05, 0.05, (3, 3))), scale_atoms=True)
    atoms.positions += rng.normal(0, 0.08, atoms.positions.shape)
    atoms.calc = EMT()
    return atoms


def virial_of(atoms: Atoms, step: float = 1e-5) -> Array:
    """−∂E/∂ε by central differences of the energy alone, ε symmetric, eV."""
    virial = np.zeros((3, 3))
    for i in range(3):
        for j in range(3):
            energies = []
            for sign in (1, -1):
                strain = np.eye(3)
                strain[i, j] += sign * step / 2
                strain[j, i] += sign * step / 2
                strained = atoms.copy()
                strained.set_cell(atoms.cell.array @ strain, scale_atoms=True)
                strained.calc = EMT()
                energies.append(strained.get_potential_energy())
            virial[i, j] = -(energies[0] - energies[1]) / (2 * step)
    return virial


def write_deepmd(folder: Path, images: list[Atoms], *, dtype: str = "f8", sets: int = 1, virial: bool = True) -> Path:
    """What dpdata writes: all images have the species of the first, in its order."""
    folder.mkdir(parents=True)
    names = sorted(set(images[0].symbols))
    (folder / "type.raw").write_text("".join(f"{names.index(s)}\n" for s in images[0].symbols))
    (folder / "type_map.raw").write_text("".join(f"{name}\n" for name in names))
    for number, part in enumerate(np.array_split(np.arange(len(images)), sets)):
        path = folder / f"set.{number:03d}"
        path.mkdir()
        chosen = [images[i] for i in part]
        arrays = {
            "coord": [a.positions.ravel() for a in chosen],
            "box": [a.cell.array.ravel() for a in chosen],
            "energy": [a.get_potential_energy() for a in chosen],
            "force": [a.get_forces().ravel() for a in chosen],
        }
        if virial:
            arrays["virial"] = [virial_of(a).ravel() for a in chosen]
        for name, values in arrays.items():
            np.save(path / f"{name}.npy", np.array(values, dtype=dtype))
    return folder
