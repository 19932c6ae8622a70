"""Structures: geometry with electronic state, conversion, neighbours, fingerprints, the three relations, symmetry.

Nothing here knows a model or a database.
"""

from alflow.structures._alignment import find_isometry
from alflow.structures._duplicates import DuplicateIndex, Match, find_duplicates
from alflow.structures._elements import known_element
from alflow.structures._fingerprint import Fingerprint, fingerprint, leading_bounds
from alflow.structures._isometry import Isometry
from alflow.structures._neighbours import SAME_PLACE, Neighbours, complete_cell, neighbour_list, neighbours_of
from alflow.structures._policy import DuplicatePolicy, Relation
from alflow.structures._probes import probe_bounds, probes
from alflow.structures._properties import LabelledStructure, Properties
from alflow.structures._readers import Frame, frames_of, read_structures
from alflow.structures._structure import Structure, atomic_number, element_symbol
from alflow.structures._symmetry import space_group
from alflow.structures._transfer import transfer_properties

__all__ = [
    "SAME_PLACE",
    "DuplicateIndex",
    "DuplicatePolicy",
    "Fingerprint",
    "Frame",
    "Isometry",
    "LabelledStructure",
    "Match",
    "Neighbours",
    "Properties",
    "Relation",
    "Structure",
    "atomic_number",
    "complete_cell",
    "element_symbol",
    "find_duplicates",
    "find_isometry",
    "fingerprint",
    "frames_of",
    "known_element",
    "leading_bounds",
    "neighbour_list",
    "neighbours_of",
    "probe_bounds",
    "probes",
    "read_structures",
    "space_group",
    "transfer_properties",
]
