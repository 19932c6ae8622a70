"""Numbers as people read them."""

from __future__ import annotations

import math


def milli(value: float | None, digits: int = 1) -> str:
    """Number in thousandths, with a true minus; a dash where there is none."""
    if value is None or not math.isfinite(value):
        return "–"
    text = f"{1e3 * value:.{digits}f}"
    return (text[1:] if float(text) == 0 and text.startswith("-") else text).replace("-", "−")


def amount(value: float) -> str:
    """Count without decimals, anything else with three figures."""
    return f"{value:.0f}" if float(value).is_integer() else f"{value:.3g}"


def spent(value: float, unit: str) -> str:
    """Something spent with its unit; hours in the unit a person would choose."""
    if unit != "h":
        return f"{amount(value)} {unit}".strip()
    seconds = 3600 * value
    for size, name in ((3600.0, "h"), (60.0, "min")):
        if seconds >= 2 * size:
            return f"{seconds / size:.3g} {name}"
    return f"{seconds:.3g} s"
