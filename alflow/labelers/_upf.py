"""The head of a pseudopotential file in Unified Pseudopotential Format, versions 1 and 2."""

from __future__ import annotations

import hashlib
import re
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path

from alflow.errors import ConfigError

_HEADER = re.compile(r"<PP_HEADER\b(.*?)(?:/>|</PP_HEADER>)", re.DOTALL)
_ATTRIBUTE = re.compile(r"(\w+)\s*=\s*\"([^\"]*)\"")
_SHORT_NAMES = {
    "PZ": "SLA PZ NOGX NOGC",
    "LDA": "SLA PZ NOGX NOGC",
    "PW": "SLA PW NOGX NOGC",
    "PW91": "SLA PW GGX GGC",
    "PBE": "SLA PW PBX PBC",
    "PBESOL": "SLA PW PSX PSC",
    "REVPBE": "SLA PW REVX PBC",
    "BLYP": "SLA LYP B88 BLYP",
    "BP": "B88 P86 NOGX NOGC",
}
"""Quantum ESPRESSO's names for sets of exchange, correlation and their gradient corrections."""


@dataclass(frozen=True, kw_only=True)
class Pseudopotential:
    """What a pseudopotential file says about itself.

    Parameters
    ----------
    path
        the file
    element
        its element symbol
    functional
        exchange, correlation and their gradient corrections, e.g. ``SLA PW PBX PBC`` for PBE
    valence
        number of valence electrons
    norm_conserving
        False for ultrasoft potentials and PAW, which need a denser grid for the charge
    cutoff
        suggested kinetic-energy cutoff, Ry; 0 where it suggests none
    sha256, md5
        of its bytes, hexadecimal; pw.x prints the second
    """

    path: Path
    element: str
    functional: str
    valence: float
    norm_conserving: bool
    cutoff: float
    sha256: str
    md5: str


def read_pseudopotential(path: Path) -> Pseudopotential:
    """Read the head of a file.

    Raises
    ------
    ConfigError
        if there is no such file or it is not in Unified Pseudopotential Format
    """
    try:
        content = path.read_bytes()
    except OSError as error:
        raise ConfigError(f"the pseudopotential {path} cannot be read ({error.strerror}): correct its name") from error
    found = _HEADER.search(content.decode("utf-8", errors="replace"))
    if found is None:
        raise ConfigError(f"{path} is not a pseudopotential in UPF: it has no PP_HEADER; convert it with upfconv")
    try:
        said = _attributes(found[1]) if "=" in found[1] else _lines(found[1])
        return Pseudopotential(
            path=path,
            element=said["element"],
            functional=canonical_functional(said["functional"]),
            valence=_number(said["z_valence"]),
            norm_conserving=said["pseudo_type"] in {"NC", "SL", "1/r"},
            cutoff=_number(said.get("wfc_cutoff", "0")),
            sha256=hashlib.sha256(content).hexdigest(),
            md5=hashlib.md5(content, usedforsecurity=False).hexdigest(),
        )
    except (KeyError, IndexError, ValueError) as error:
        raise ConfigError(f"{path}: its PP_HEADER cannot be understood ({error}): is the file whole?") from error


def read_family(files: Mapping[str, Path]) -> dict[str, Pseudopotential]:
    """Read the file of each element, sorted by element.

    Raises
    ------
    ConfigError
        if one cannot be read, is for another element, or they are made for different functionals
    """
    found = {}
    for element, path in sorted(files.items()):
        found[element] = read_pseudopotential(path)
        if found[element].element != element:
            raise ConfigError(f"the pseudopotential {path.name} is for {found[element].element}, not for {element}")
    functionals = {p.functional: f"{p.functional} ({p.path.name})" for p in found.values()}
    if len(functionals) > 1:
        raise ConfigError(
            f"the pseudopotentials are made for different functionals, {' and '.join(functionals.values())}: "
            "take all from one family"
        )
    return found


def canonical_functional(text: str) -> str:
    """Return one spelling of a functional: ``PBE`` and ``SLA PW PBE PBE`` are ``SLA PW PBX PBC``."""
    words = text.upper().replace("-", " ").replace("+", " ").split()
    if len(words) == 1:
        return _SHORT_NAMES.get(words[0], words[0])
    return " ".join(words[:4]).replace("PBE PBE", "PBX PBC")


def _attributes(header: str) -> dict[str, str]:
    """Version 2: attributes of the element PP_HEADER."""
    return {name: value.strip() for name, value in _ATTRIBUTE.findall(header)}


def _lines(header: str) -> dict[str, str]:
    """Version 1: one fact a line, the value before its name."""
    lines = [line for line in header.partition(">")[2].splitlines() if line.strip()]
    kind = lines[2].split()[0]
    functional = lines[4].partition("Exchange-Corr")[0].split()
    return {
        "element": lines[1].split()[0],
        "pseudo_type": kind,
        "functional": " ".join(functional[:4]),
        "z_valence": lines[5].split()[0],
        "wfc_cutoff": lines[7].split()[0],
    }


def _number(text: str) -> float:
    return float(text.lower().replace("d", "e"))
