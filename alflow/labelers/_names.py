"""Sentences for names that nobody knows."""

from __future__ import annotations

import difflib
from collections.abc import Iterable
from typing import Annotated

from pydantic import AfterValidator

from alflow.structures import known_element


def unknown_name(what: str, name: str, known: Iterable[str], *, otherwise: str) -> str:
    """Say that a name is unknown, which one was probably meant, and what there is."""
    names = sorted(known)
    close = difflib.get_close_matches(name, names, n=1, cutoff=0.6)
    listed = f"known: {', '.join(names)}" if names else "none is known"
    if not close:
        return f"there is no {what} {name!r} ({listed}; {otherwise})"
    return f"there is no {what} {name!r}: did you mean {close[0]!r}? ({listed}; {otherwise})"


Element = Annotated[str, AfterValidator(known_element)]
"""A chemical symbol in a setting."""
