"""Labels in DeePMD's folders of NumPy arrays, as dpdata and dpgen write them.

Units are eV, Å and eV/Å. The virial is −∂E/∂ε, eV per cell: minus the volume times the stress.
"""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from alflow.errors import StructureError
from alflow.labelers._foreign_frame import ForeignFrame
from alflow.structures import LabelledStructure, Properties, Structure, atomic_number

if TYPE_CHECKING:
    from numpy.typing import NDArray

_UNREAD = {
    "fparam.npy": "parameters of whole frames, such as an electronic temperature",
    "aparam.npy": "parameters of atoms",
    "spin.npy": "magnetic moments as coordinates",
}
_COARSE = 1e-3
"""eV/atom: energies stored with fewer digits are no labels."""

_ASYMMETRY = 1e-3
"""Of the largest component: virials of single precision are symmetric within 1e-6."""


def is_deepmd(folder: Path) -> bool:
    """Whether a folder holds DeePMD's data; False where nobody may look into it."""
    try:
        return (folder / "type.raw").is_file()
    except OSError:
        return False


def read_deepmd(folder: Path) -> Iterator[ForeignFrame]:
    """Read every frame of a folder with ``type.raw``, ``type_map.raw`` and ``set.*``.

    Parameters
    ----------
    folder
        its sets hold ``coord.npy`` (frames, 3 atoms), ``box.npy`` (frames, 9), ``energy.npy`` (frames,) and mostly
        ``force.npy`` (frames, 3 atoms) and ``virial.npy`` (frames, 9); with ``real_atom_types.npy`` (frames, atoms)
        every frame has its own species, those below zero being none. ``nopbc`` says that nothing is periodic.

    Yields
    ------
    ForeignFrame
        one for every frame, or one for a set, or for the folder, that cannot be used
    """
    try:
        types = np.loadtxt(folder / "type.raw", dtype=np.int64, ndmin=1)
        names = _type_map(folder)
    except (OSError, ValueError, StructureError) as error:
        yield _refused(str(folder), "cannot be read", error)
        return
    sets = sorted(path for path in folder.glob("set.*") if path.is_dir())
    if not sets:
        detail = "no folder set.* with NumPy arrays; dpdata writes them: LabeledSystem(…).to('deepmd/npy', …)"
        yield _refused(str(folder), "cannot be read", detail)
    for path in sets:
        try:
            arrays = _arrays(path, len(types))
        except (OSError, EOFError, ValueError, StructureError) as error:
            yield _refused(str(path), "cannot be read", error)
            continue
        for number in range(len(arrays["energy"])):
            yield _frame(f"{path}, frame {number}", {k: a[number] for k, a in arrays.items()}, types, names, folder)


def _refused(origin: str, reason: str, detail: object) -> ForeignFrame:
    return ForeignFrame(origin=origin, refused=reason, detail=str(detail) or type(detail).__name__)


def _type_map(folder: Path) -> list[int]:
    """Atomic numbers by type."""
    path = folder / "type_map.raw"
    if not path.is_file():
        raise StructureError("no type_map.raw: nobody knows which elements its types are; write their symbols into it")
    return [atomic_number(symbol) for symbol in path.read_text(encoding="utf-8").split()]


def _arrays(folder: Path, n_atoms: int) -> dict[str, NDArray[Any]]:
    """Arrays of one set, checked to be of one number of frames; ``box`` and ``energy`` always, others where given."""
    for name, what in _UNREAD.items():
        if (folder / name).is_file():
            raise StructureError(f"{name}: labels that depend on {what} are not taken over")
    widths = {"coord": 3 * n_atoms, "box": 9, "force": 3 * n_atoms, "virial": 9, "real_atom_types": n_atoms}
    found = {}
    for name in ("energy", *widths):
        path = folder / f"{name}.npy"
        if not path.is_file():
            if name in {"energy", "coord"}:
                raise StructureError(f"no {name}.npy")
            continue
        array = np.load(path, allow_pickle=False)
        if not isinstance(array, np.ndarray):
            raise StructureError(f"{name}.npy is an archive of arrays and not one array")
        if name == "energy":
            array = array.reshape(-1)
        elif array.ndim == 0 or array.size != len(array) * widths[name]:
            raise StructureError(f"{name}.npy has shape {array.shape}; expected (frames, {widths[name]})")
        if not np.issubdtype(array.dtype, np.number) or np.issubdtype(array.dtype, np.complexfloating):
            raise StructureError(f"{name}.npy holds {array.dtype}, no real numbers")
        found[name] = array
    numbers = {name: len(array) for name, array in found.items()}
    if len(set(numbers.values())) > 1:
        told = ", ".join(f"{n} in {name}.npy" for name, n in numbers.items())
        raise StructureError(f"numbers of frames differ: {told}")
    return found


def _frame(
    origin: str, arrays: dict[str, NDArray[Any]], types: NDArray[np.int64], names: list[int], folder: Path
) -> ForeignFrame:
    try:
        return ForeignFrame(origin=origin, example=_example(arrays, types, names, folder))
    except StructureError as error:
        return _refused(origin, "no usable label", error)


def _example(
    arrays: dict[str, NDArray[Any]], types: NDArray[np.int64], names: list[int], folder: Path
) -> LabelledStructure:
    own = np.asarray(arrays.get("real_atom_types", types), dtype=np.int64).reshape(-1)
    real = own >= 0
    if not real.any():
        raise StructureError("none of its types names an element: all are below zero")
    if own.max() >= len(names):
        raise StructureError(f"types reach {own.max()}, type_map.raw names {len(names)} of them, counted from 0")
    periodic = not (folder / "nopbc").exists()
    if periodic and "box" not in arrays:
        raise StructureError("no box.npy, and no file nopbc that says that nothing is periodic")
    for name, array in arrays.items():
        if not np.isfinite(array).all():
            raise StructureError(f"{name}.npy holds values that are not finite")
    structure = Structure(
        cell=arrays["box"].reshape(3, 3) if periodic else np.zeros((3, 3)),
        pbc=np.full(3, periodic),
        numbers=np.array(names)[own[real]],
        positions=arrays["coord"].reshape(-1, 3)[real],
    )
    energy = arrays["energy"]
    step = float(np.spacing(np.abs(energy))) if np.issubdtype(energy.dtype, np.floating) else 0.0
    if step > _COARSE * structure.n_atoms:
        raise StructureError(f"energy.npy is {energy.dtype}: steps of {step:.2g} eV at {float(energy):.8g} eV")
    return LabelledStructure(
        structure=structure,
        properties=Properties(
            energy=float(energy),
            forces=arrays["force"].reshape(-1, 3)[real] if "force" in arrays else None,
            stress=_stress(arrays["virial"], structure) if periodic and "virial" in arrays else None,
        ),
    )


def _stress(virial: NDArray[Any], structure: Structure) -> NDArray[np.float64]:
    stress = -virial.astype(np.float64).reshape(3, 3) / structure.volume
    if np.abs(stress - stress.T).max() > _ASYMMETRY * np.abs(stress).max() + 1e-6:
        raise StructureError("virial.npy is not symmetric: it holds no virial of the whole cell")
    return (stress + stress.T) / 2
