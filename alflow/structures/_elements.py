"""Chemical symbols as people write them."""

from __future__ import annotations

from ase.data import chemical_symbols

from alflow.errors import StructureError
from alflow.settings import nearest
from alflow.structures._structure import atomic_number


def known_element(symbol: str) -> str:
    """Return the symbol as it is; raises ValueError naming the nearest element where there is none of that name."""
    try:
        atomic_number(symbol)
    except StructureError as error:
        symbols = chemical_symbols[1:]  # X stands for none
        close = symbol.capitalize() if symbol.capitalize() in symbols else nearest(symbol, symbols)
        meant = f"did you mean {close!r}?" if close else "write symbols such as Ni or Pt"
        raise ValueError(f"there is no element {symbol!r}; {meant}") from error
    return symbol
