"""Labels in pymatgen's computed structure entries, written as JSON.

pymatgen's decoder imports whatever module a file names. Here the JSON is read as numbers and text, and a class is only
compared with a list of names.
"""

from __future__ import annotations

import gzip
import json
import zlib
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np

from alflow.errors import StructureError
from alflow.labelers._foreign_frame import ForeignFrame, ForeignSettings, element_of, with_hubbard
from alflow.structures import LabelledStructure, Structure, atomic_number

_ENTRY, _STRUCTURE, _LATTICE = "ComputedStructureEntry", "Structure", "Lattice"
_MAX_BYTES = 2 * 1024**3


def read_entries(path: Path) -> Iterator[ForeignFrame]:
    """Read entries: a list of them, a mapping of them by name, or a single one.

    The energy is the uncorrected one. Forces are taken where ``data`` has ``forces`` (eV/Å); a stress never, because
    its unit and sign are nowhere settled.

    Parameters
    ----------
    path
        ``.json`` or ``.json.gz``

    Raises
    ------
    StructureError
        if the file cannot be read or holds something else
    """
    for name, entry in _entries(path):
        origin = f"{path}, entry {name}"
        try:
            yield ForeignFrame(origin=origin, example=_example(entry), settings=_settings(entry))
        except StructureError as error:
            yield ForeignFrame(origin=origin, refused="no usable label", detail=str(error))
        except (ArithmeticError, AttributeError, LookupError, TypeError, ValueError) as error:
            detail = f"damaged entry ({type(error).__name__}: {error})"
            yield ForeignFrame(origin=origin, refused="cannot be read", detail=detail)


def _entries(path: Path) -> list[tuple[str, Any]]:
    try:
        # of a compressed file the content counts, which may be a thousand times as large
        with (gzip.open if path.suffix.lower() == ".gz" else open)(path, "rb") as stream:
            raw = stream.read(_MAX_BYTES + 1)
        if len(raw) > _MAX_BYTES:
            raise StructureError(f"{path}: more than {_MAX_BYTES / 1e9:.3g} GB of JSON; split it")
        content = json.loads(raw)
    except (OSError, EOFError, ValueError, RecursionError, zlib.error) as error:
        raise StructureError(f"{path}: it cannot be read as JSON ({error})") from error
    if isinstance(content, dict) and isinstance(content.get("entries"), (list, dict)):
        content = content["entries"]
    if isinstance(content, dict) and "nextid" in content:
        raise StructureError(f"{path}: ASE's database in JSON; write it as .db: ase db {path.name} -i {path.stem}.db")
    if isinstance(content, dict) and ("energy" in content or "@class" in content):
        content = [content]
    if isinstance(content, dict):
        found = list(content.items())
    elif isinstance(content, list):
        found = [(str(i), entry) for i, entry in enumerate(content)]
    else:
        found = []
    if not any(isinstance(entry, dict) and "energy" in entry for _, entry in found):
        raise StructureError(f"{path}: it holds no {_ENTRY} of pymatgen, which is what JSON files are read for")
    return found


def _of_class(value: Any, name: str, what: str) -> dict[str, Any]:
    if not isinstance(value, dict):
        raise StructureError(f"no {what}")
    found = value.get("@class")
    if found != name:
        raise StructureError(f"its {what} is of class {found!r}, not {name}")
    return value


def _example(raw: Any) -> LabelledStructure:
    entry = _of_class(raw, _ENTRY, "entry")
    structure = _structure(_of_class(entry.get("structure"), _STRUCTURE, "structure"))
    atoms = structure.to_atoms()
    atoms.info["REF_energy"] = _number(entry["energy"])
    forces = _plain((entry.get("data") or {}).get("forces"))
    if forces is not None:
        atoms.arrays["REF_forces"] = _array(forces, "forces", (structure.n_atoms, 3))
    # the structure itself, because ASE's atoms do not carry all of it
    return LabelledStructure(structure=structure, properties=LabelledStructure.from_atoms(atoms).properties)


def _structure(raw: Mapping[str, Any]) -> Structure:
    """Numbers of a pymatgen structure: matrix, fractional coordinates, species, charge and ``magmom`` of the sites."""
    lattice = _of_class({"@class": _LATTICE, **raw["lattice"]}, _LATTICE, "lattice")
    cell = _array(lattice["matrix"], "lattice", (3, 3))
    sites = raw["sites"]
    moments = [(site.get("properties") or {}).get("magmom") for site in sites]
    if any(m is None for m in moments):
        moments = _plain((raw.get("properties") or {}).get("magmom")) or []
    return Structure(
        cell=cell,
        pbc=np.array(lattice.get("pbc", [True] * 3), dtype=bool),
        numbers=np.array([_species(site["species"]) for site in sites], dtype=np.int64),
        positions=_array([site["abc"] for site in sites], "coordinates", (len(sites), 3)) @ cell,
        charge=_charge(raw),
        moments=_array(moments, "magmom", None) if len(moments) == len(sites) and None not in moments else None,
    )


def _charge(raw: Mapping[str, Any]) -> float:
    """Charge of the cell; pymatgen writes the sum of the oxidation states where nobody set one."""
    charge = _number(raw.get("charge") or 0.0)
    states = [site["species"][0].get("oxidation_state") for site in raw["sites"]]
    guessed = [_number(state) for state in states if state is not None]
    if charge and guessed and abs(sum(guessed) - charge) < 1e-3:
        raise StructureError(
            f"its charge, {charge:g}, is the sum of oxidation states, so that nobody knows whether it was computed "
            "with it: remove_oxidation_states() before the entry is written"
        )
    return charge


def _species(species: Sequence[Mapping[str, Any]]) -> int:
    if len(species) != 1 or abs(_number(species[0]["occu"]) - 1) > 1e-3:
        raise StructureError("partially occupied sites: order them first")
    return atomic_number(str(species[0]["element"]))


def _plain(value: Any) -> Any:
    """A list, also where an array was written."""
    if isinstance(value, dict):
        if (value.get("@module"), value.get("@class")) != ("numpy", "array"):
            raise StructureError(f"numbers written as class {value.get('@class')!r}; expected a list")
        return value["data"]
    return value


def _array(value: Any, name: str, shape: tuple[int, ...] | None) -> np.ndarray[Any, np.dtype[np.float64]]:
    try:
        array = np.array(value, dtype=np.float64)
    except (TypeError, ValueError):
        raise StructureError(f"{name}: no numbers") from None
    if shape is not None and array.shape != shape:
        raise StructureError(f"{name} of shape {array.shape}; expected {shape}")
    return array


def _number(value: Any) -> float:
    if isinstance(value, bool) or not isinstance(value, (int, float)):
        raise StructureError(f"{value!r:.40} where a number should stand")
    return float(value)


def _settings(entry: Mapping[str, Any]) -> ForeignSettings:
    parameters = entry.get("parameters") or {}
    hubbards = parameters.get("hubbards") or {}
    specs = parameters.get("potcar_spec") or []
    titles = [spec.get("titel") for spec in specs if isinstance(spec, dict)] or parameters.get("potcar_symbols") or []
    datasets = {}
    for title in titles:
        datasets[element_of(str(title))] = " ".join(str(title).split())
    elements = {str(s["species"][0]["element"]) for s in entry["structure"]["sites"]}
    return ForeignSettings(
        kind="entries",
        shared=(("functional", str(parameters.get("run_type", "not told"))),),
        species=tuple(
            (element, with_hubbard(datasets.get(element, "not told"), float(hubbards.get(element) or 0.0)))
            for element in sorted(elements)
        ),
    )
