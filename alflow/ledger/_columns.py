"""The columns of a candidate that can be asked for, sorted by and shown, with label and unit."""

from __future__ import annotations

from dataclasses import dataclass
from enum import StrEnum
from types import MappingProxyType


class ColumnKind(StrEnum):
    """What a column holds, which decides how it may be compared."""

    NUMBER = "number"
    TEXT = "text"
    FLAG = "flag"
    TIME = "time"


@dataclass(frozen=True, kw_only=True)
class _About:
    label: str
    unit: str = ""
    kind: ColumnKind = ColumnKind.NUMBER


class CandidateColumn(StrEnum):
    """A column of a candidate: the same name in selections, the CLI, reports and the API."""

    ID = "id"
    FORMULA = "formula"
    REDUCED_FORMULA = "reduced_formula"
    ANONYMOUS_FORMULA = "anonymous_formula"
    CHEMICAL_SYSTEM = "chemical_system"
    N_ATOMS = "n_atoms"
    N_ELEMENTS = "n_elements"
    VOLUME = "volume"
    CHARGE = "charge"
    CAMPAIGN = "campaign"
    STATE = "state"
    REASON = "reason"
    SOURCE = "source"
    ROUND = "round"
    STREAM = "stream"
    INCLUSION_PROBABILITY = "inclusion_probability"
    RANK = "rank"
    PARENT = "parent"
    DUPLICATE_OF = "duplicate_of"
    PINNED = "pinned"
    DELIBERATE = "deliberate"
    U = "u"
    ENERGY = "energy"
    ENERGY_PER_ATOM = "energy_per_atom"
    ENERGY_ERROR = "energy_error"
    FORCE_ERROR = "force_error"
    STRESS_ERROR = "stress_error"
    DISTANCE = "distance"
    E_HULL = "e_hull"
    E_HULL_ERROR = "e_hull_error"
    CONTENT_HASH = "content_hash"
    STRUCTURE = "structure"
    CREATED = "created"

    @property
    def label(self) -> str:
        """What a person reads above the column."""
        return _ABOUT[self].label

    @property
    def unit(self) -> str:
        """Unit of the numbers, empty where there is none."""
        return _ABOUT[self].unit

    @property
    def kind(self) -> ColumnKind:
        """What the column holds."""
        return _ABOUT[self].kind

    @property
    def attribute(self) -> str:
        """Name of the attribute of :class:`~alflow.ledger.CandidateRow`, where that differs."""
        return _ATTRIBUTES.get(self, self.value)


_C = CandidateColumn
_TEXT, _FLAG = ColumnKind.TEXT, ColumnKind.FLAG
_ABOUT = MappingProxyType(
    {
        _C.ID: _About(label="ID"),
        _C.FORMULA: _About(label="Formula", kind=_TEXT),
        _C.REDUCED_FORMULA: _About(label="Reduced formula", kind=_TEXT),
        _C.ANONYMOUS_FORMULA: _About(label="Anonymous formula", kind=_TEXT),
        _C.CHEMICAL_SYSTEM: _About(label="Chemical system", kind=_TEXT),
        _C.N_ATOMS: _About(label="Atoms"),
        _C.N_ELEMENTS: _About(label="Elements"),
        _C.VOLUME: _About(label="Volume", unit="Å³"),
        _C.CHARGE: _About(label="Charge", unit="e"),
        _C.CAMPAIGN: _About(label="Campaign", kind=_TEXT),
        _C.STATE: _About(label="State", kind=_TEXT),
        _C.REASON: _About(label="Reason", kind=_TEXT),
        _C.SOURCE: _About(label="Source", kind=_TEXT),
        _C.ROUND: _About(label="Round"),
        _C.STREAM: _About(label="Stream", kind=_TEXT),
        _C.INCLUSION_PROBABILITY: _About(label="Inclusion probability"),
        _C.RANK: _About(label="Rank"),
        _C.PARENT: _About(label="Parent"),
        _C.DUPLICATE_OF: _About(label="Duplicate of"),
        _C.PINNED: _About(label="Pinned", kind=_FLAG),
        _C.DELIBERATE: _About(label="Deliberate", kind=_FLAG),
        _C.U: _About(label="u"),
        _C.ENERGY: _About(label="Predicted energy", unit="eV"),
        _C.ENERGY_PER_ATOM: _About(label="Predicted energy per atom", unit="eV/atom"),
        _C.ENERGY_ERROR: _About(label="Expected energy error", unit="eV/atom"),
        _C.FORCE_ERROR: _About(label="Expected force error", unit="eV/Å"),
        _C.STRESS_ERROR: _About(label="Expected stress error", unit="eV/Å³"),
        _C.DISTANCE: _About(label="Distance from the data"),
        _C.E_HULL: _About(label="Predicted above hull", unit="eV/atom"),
        _C.E_HULL_ERROR: _About(label="Hull error", unit="eV/atom"),
        _C.CONTENT_HASH: _About(label="Content hash", kind=_TEXT),
        _C.STRUCTURE: _About(label="Structure"),
        _C.CREATED: _About(label="Created", kind=ColumnKind.TIME),
    }
)
_ATTRIBUTES = MappingProxyType({_C.ROUND: "round_index", _C.PARENT: "parent_id", _C.STRUCTURE: "structure_id"})
