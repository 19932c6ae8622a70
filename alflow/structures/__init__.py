"""Structures: geometry with electronic state, conversion, neighbours, fingerprints, the three relations, symmetry.

Nothing here knows a model or a database.
"""

from alflow.structures._properties import LabelledStructure, Properties
from alflow.structures._structure import Structure, atomic_number, element_symbol

__all__ = ["LabelledStructure", "Properties", "Structure", "atomic_number", "element_symbol"]
