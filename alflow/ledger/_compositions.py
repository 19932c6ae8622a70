"""What depends on the species alone, which many structures share: formulas and chemical systems."""

from __future__ import annotations

from collections.abc import Collection, Iterable
from dataclasses import dataclass
from functools import lru_cache
from typing import Any

import numpy as np
from sqlalchemy import ColumnElement, Connection, func, literal, select
from sqlalchemy.dialects.postgresql import ARRAY
from sqlalchemy.sql.expression import any_
from sqlalchemy.types import Text

from alflow.ledger import _tables as t
from alflow.ledger._bulk import allocate_ids, bulk_insert
from alflow.ledger._types import to_json
from alflow.structures import Structure, atomic_number


@dataclass(frozen=True, kw_only=True, slots=True)
class Composition:
    """Formula columns of a structure, and the rows of its formula."""

    formula: str
    reduced_formula: str
    anonymous_formula: str
    chemical_system: str
    n_atoms: int
    n_elements: int
    counts: tuple[tuple[str, int, int], ...]


def composition_of(structure: Structure) -> Composition:
    """The composition of a structure, in whatever order its atoms are."""
    return _composition(bytes(sorted(structure.numbers.astype(np.uint8).tobytes())))


@lru_cache(maxsize=65536)
def _composition(numbers: bytes) -> Composition:
    n_atoms = len(numbers)
    structure = Structure(
        cell=np.zeros((3, 3)),
        pbc=np.zeros(3, dtype=bool),
        numbers=np.frombuffer(numbers, dtype=np.uint8),
        positions=np.zeros((n_atoms, 3)),
    )
    counts = structure.composition
    formula = structure.formula
    return Composition(
        formula=formula,
        reduced_formula=structure.reduced_formula,
        anonymous_formula=structure.anonymous_formula,
        chemical_system=structure.chemical_system,
        n_atoms=n_atoms,
        n_elements=len(counts),
        counts=tuple((formula, atomic_number(element), count) for element, count in counts.items()),
    )


def among_texts(connection: Connection, column: Any, values: Iterable[str]) -> ColumnElement[bool]:
    """Condition that a text column is one of ``values``, as a single parameter."""
    texts = list(values)
    if connection.dialect.name == "sqlite":
        condition: ColumnElement[bool] = column.in_(
            select(func.json_each(to_json(texts)).table_valued("value").c.value)
        )
        return condition
    matches: ColumnElement[bool] = column == any_(literal(texts, type_=ARRAY(Text)))
    return matches


def ensure_chemical_systems(connection: Connection, names: Collection[str]) -> dict[str, int]:
    """The id of each chemical system; those that are new are added."""

    def stored() -> Any:
        where = among_texts(connection, t.ChemicalSystem.name, names)
        return select(t.ChemicalSystem.name, t.ChemicalSystem.id).where(where)

    ids = {name: int(i) for name, i in connection.execute(stored())}
    new = sorted(set(names) - ids.keys())
    if not new:
        return ids
    rows = list(zip(allocate_ids(connection, t.ChemicalSystem, len(new)), new, strict=True))
    if bulk_insert(connection, t.ChemicalSystem, ("id", "name"), rows) < len(rows):  # another writer was first
        return {name: int(i) for name, i in connection.execute(stored())}
    return ids | {name: int(i) for i, name in rows}


def ensure_formulas(connection: Connection, compositions: Iterable[Composition]) -> None:
    """Store the atoms of each element in formulas that are new."""
    by_formula = {c.formula: c.counts for c in compositions}
    query = select(t.Composition.formula).where(among_texts(connection, t.Composition.formula, by_formula)).distinct()
    for formula in connection.scalars(query):
        del by_formula[formula]
    rows = [row for formula in sorted(by_formula) for row in by_formula[formula]]
    bulk_insert(connection, t.Composition, ("formula", "element", "count"), rows)
