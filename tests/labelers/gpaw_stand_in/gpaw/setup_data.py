"""Finds the PAW datasets of a folder."""

from __future__ import annotations

import os
from pathlib import Path


class SetupData:
    def __init__(self, symbol: str, functional: str, *, name: str, readxml: bool) -> None:
        assert not readxml
        self.stdfilename = f"{symbol}.{functional}" if name == "paw" else f"{symbol}.{name}.{functional}"


def search_for_file(name: str) -> tuple[str, bytes]:
    folder = Path(os.environ["GPAW_SETUP_PATH"])
    for path in (folder / name, folder / f"{name}.gz"):
        if path.is_file():
            return str(path), path.read_bytes()
    raise FileNotFoundError(f'Could not find required PAW dataset file "{name}".')
