"""Writing labelled structures to files that other codes read, with their labels and where they came from."""

from __future__ import annotations

import tempfile
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from enum import StrEnum
from pathlib import Path
from typing import TYPE_CHECKING, Any

from alflow.errors import UserError
from alflow.structures import LabelledStructure

if TYPE_CHECKING:
    from ase import Atoms

    from alflow.ledger import CandidateRow, LabelRow, TheoryRow
    from alflow.structures import Structure


class Format(StrEnum):
    """File formats of ``alflow export``."""

    EXTXYZ = "extxyz"
    CIF = "cif"
    JSON = "json"
    DB = "db"


_BY_SUFFIX = {
    ".extxyz": Format.EXTXYZ,
    ".xyz": Format.EXTXYZ,
    ".cif": Format.CIF,
    ".json": Format.JSON,
    ".db": Format.DB,
}


@dataclass(frozen=True, kw_only=True)
class Exported:
    """One candidate on its way into a file; ``label`` and ``theory`` are None where it has none.

    ``equated`` is the label's own theory where it only counts for ``theory`` by a person's word.
    """

    candidate: CandidateRow
    structure: Structure
    label: LabelRow | None
    theory: TheoryRow | None
    equated: TheoryRow | None = None


def format_of(path: Path, wanted: Format | None) -> Format:
    """Return the format asked for, else the one that the suffix stands for; UserError where neither says."""
    if wanted is not None:
        return wanted
    try:
        return _BY_SUFFIX[path.suffix.lower()]
    except KeyError:
        raise UserError(
            f"{path}: no format goes by the suffix {path.suffix!r}; use {', '.join(_BY_SUFFIX)} or --format"
        ) from None


def write_structures(path: Path, items: Sequence[Exported], file_format: Format) -> None:
    """Write candidates to a file that appears whole or not at all.

    extxyz carries labels as ``REF_*`` and provenance as ``alflow_*``; an ASE database (``json``, ``db``) carries labels
    as results of a single-point calculator; CIF carries geometry only.
    """
    with tempfile.TemporaryDirectory(dir=path.parent, prefix=f".{path.name}.") as directory:
        draft = Path(directory) / f"draft.{file_format}"
        if file_format is Format.EXTXYZ:
            _write_ase(draft, (_with_info(item) for item in items), "extxyz")
        elif file_format is Format.CIF:
            _write_ase(draft, (item.structure.to_atoms() for item in items), "cif")
        else:
            _write_database(draft, items)
        draft.replace(path)


def provenance(item: Exported) -> dict[str, Any]:
    """Where a structure and its label came from, as flat values."""
    row = item.candidate
    content: dict[str, Any] = {
        "alflow_id": row.id,
        "alflow_state": row.state.value,
        "alflow_source": row.source,
        "alflow_stream": row.stream.value,
        "alflow_hash": row.content_hash,
    }
    if row.round_index is not None:
        content["alflow_round"] = row.round_index
    if item.label is not None and item.theory is not None:
        content["alflow_label"] = item.label.id
        content["alflow_label_kind"] = item.label.kind.value
        content["alflow_theory"] = item.theory.name or item.theory.labeler
        content["alflow_theory_fingerprint"] = item.theory.fingerprint
        if item.equated is not None:
            content["alflow_equated_fingerprint"] = item.equated.fingerprint
    return content


def _with_info(item: Exported) -> Atoms:
    atoms = _labelled_atoms(item)
    if "REF_stress" in atoms.info:
        # nine numbers, which every reader of extxyz knows; ASE writes a matrix as JSON
        atoms.info["REF_stress"] = atoms.info["REF_stress"].reshape(9)
    atoms.info.update(provenance(item))
    return atoms


def _labelled_atoms(item: Exported) -> Atoms:
    if item.label is None:
        return item.structure.to_atoms()
    return LabelledStructure(structure=item.structure, properties=item.label.properties).to_atoms()


def _write_ase(path: Path, images: Iterable[Atoms], file_format: str) -> None:
    from ase.io import write

    write(path, list(images), format=file_format)


def _write_database(path: Path, items: Sequence[Exported]) -> None:
    from ase.calculators.singlepoint import SinglePointCalculator
    from ase.db import connect
    from ase.stress import full_3x3_to_voigt_6_stress

    database = connect(path)
    with database:
        for item in items:
            atoms = item.structure.to_atoms()
            if item.label is not None:
                properties = item.label.properties
                results: dict[str, Any] = {"energy": properties.hull_energy, "free_energy": properties.energy}
                if properties.forces is not None:
                    results["forces"] = properties.forces
                if properties.stress is not None:
                    results["stress"] = full_3x3_to_voigt_6_stress(properties.stress)
                atoms.calc = SinglePointCalculator(atoms, **results)
            content = provenance(item)
            numbers = {key: value for key, value in content.items() if isinstance(value, int)}
            # strings go into data: ASE refuses a text that looks like a number as a key-value pair
            database.write(atoms, key_value_pairs=numbers, data=content | {"charge": item.structure.charge})
