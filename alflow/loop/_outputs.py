"""The directories of calculations: where they are afterwards."""

from __future__ import annotations

from pathlib import Path


def find_outputs(directory: str) -> Path | None:
    """Where the outputs of an attempt are now; None where they were removed, or lie on another machine."""
    path = Path(directory)
    return path if path.is_dir() else None
