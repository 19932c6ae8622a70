"""What VASP says when something goes wrong, in words that say what to do."""

from __future__ import annotations

import re
from dataclasses import dataclass

from alflow.errors import FailureKind, LabelFailure

_NEXT = FailureKind.NOT_CONVERGED  # the next rung of the ladder has other numerics
_SYMMETRY = "VASP lost itself in the symmetry of the structure; the next rung of the ladder does not use it"
_SOLVER = "the diagonaliser failed; the next rung of the ladder takes another one"


@dataclass(frozen=True, kw_only=True)
class Trouble:
    """A line of VASP, what kind of failure it is, and what it means."""

    pattern: str
    kind: FailureKind
    meaning: str


TROUBLES = (
    Trouble(pattern=r"highest band is occupied", kind=_NEXT, meaning="too few bands; the next rung has more"),
    Trouble(pattern=r"TOO FEW BANDS", kind=_NEXT, meaning="too few bands; the next rung has more"),
    Trouble(
        pattern=r"internal error in subroutine (PRICELV?|SGRCON|INVGRP|RHOSYG|IBZKPT|ROTMAT)|POSMAP internal error|"
        r"inverse of (the )?rotation matrix|non-integer element in rotation matrix|group operation missing|"
        r"symmetry equivalent atom not found",
        kind=_NEXT,
        meaning=_SYMMETRY,
    ),
    Trouble(pattern=r"EDDDAV|EDDRMM|ZHEGV|ZPOTRF|Sub-?Space-?Matrix", kind=_NEXT, meaning=_SOLVER),
    Trouble(pattern=r"EDWAV", kind=_NEXT, meaning=_SOLVER),
    Trouble(
        pattern=r"BRMIX: very serious problems",
        kind=_NEXT,
        meaning="charge got lost while mixing; the next rung mixes less. On every rung: is the charge what you mean?",
    ),
    Trouble(
        pattern=r"FEXC[FP]|exchange-correlation table is too small",
        kind=FailureKind.IMPLAUSIBLE,
        meaning="the density is far too high: atoms on top of each other; raise the shortest distance that the "
        "campaign explores",
    ),
    Trouble(
        pattern=r"REAL_OPT(LAY)?",
        kind=FailureKind.CRASHED,
        meaning="projectors in real space cannot be optimised here: `lreal: false` in the theory",
    ),
    Trouble(
        pattern=r"METAGGA.*(POTCAR|kinetic energy density)",
        kind=FailureKind.CRASHED,
        meaning="the PAW dataset lacks what a meta-GGA needs: take datasets of release 52 or newer (`potentials`)",
    ),
    Trouble(
        pattern=r"POTCAR.*incompatible with (the )?number of species|number of potentials on File POTCAR",
        kind=FailureKind.INCONSISTENT,
        meaning="POTCAR and POSCAR disagree: was the folder changed by hand?",
    ),
    Trouble(
        pattern=r"[Tt]etrahedron method (fails|does not)|DENTET",
        kind=FailureKind.REFUSED,
        meaning="too few k-points for tetrahedra: another `ismear`, or a smaller `kspacing`",
    ),
    Trouble(
        pattern=r"ZBRENT|BRIONS problems",
        kind=FailureKind.INCONSISTENT,
        meaning="a relaxation ran although a single point was asked for: does the command of the worker's file change "
        "the INCAR?",
    ),
    Trouble(
        pattern=r"insufficient (virtual )?memory|allocat(e|ion) .*fail|failed to allocate",
        kind=FailureKind.MEMORY,
        meaning="not enough memory: more processes, or KPAR and NCORE under `parallel`",
    ),
    Trouble(
        pattern=r"SIGSEGV|forrtl: severe \(174\)|[Ss]egmentation fault",
        kind=FailureKind.CRASHED,
        meaning="a segmentation fault, with VASP mostly a stack that is too small: `ulimit -s unlimited` in a script "
        "that starts it, and OMP_STACKSIZE under `environment` of the worker's file",
    ),
    Trouble(
        pattern=r"VERY BAD NEWS|internal error in subroutine",
        kind=FailureKind.CRASHED,
        meaning="an internal error of VASP; its own words above are all there is",
    ),
)
"""In order of precedence: a specific line says more than a general one."""

_WARNINGS = (
    ("distance between some ions is very small", "VASP warns: the distance between some ions is very small"),
    ("Sub-Space-Matrix is not hermitian", "VASP warned of a subspace matrix that is not hermitian before it converged"),
    ("BRMIX: very serious problems", "VASP warned of charge that got lost while mixing before it converged"),
)
_GIVEN_UP = re.compile(r"I REFUSE TO CONTINUE|refuse to continue")
_BOXED = re.compile(r"^\s*\|\s+(.*?)\s*\|\s*$")


def trouble_in(text: str) -> LabelFailure | None:
    """The typed cause in what VASP printed; None where nothing is known about it."""
    for trouble in TROUBLES:
        for line in text.splitlines():
            if re.search(trouble.pattern, line):
                said = line.strip(" |").strip()
                return LabelFailure(trouble.kind, f"VASP says {said[:160]!r}: {trouble.meaning}")
    words = _boxed_words(text)
    return LabelFailure(FailureKind.CRASHED, f"VASP gave up: {words[:400]}") if words else None


def warnings_in(text: str) -> tuple[str, ...]:
    """What a person should know although a run converged."""
    return tuple(meaning for sign, meaning in _WARNINGS if sign in text)


def _boxed_words(text: str) -> str:
    """The sentences of the box in which VASP 6 says why it does not go on; its letters of characters left out."""
    if not _GIVEN_UP.search(text):
        return ""
    rows = [found.group(1) for found in map(_BOXED.match, text.splitlines()) if found]
    spoken = [row for row in rows if re.search(r"[a-z]{2}", row) and not re.search(r"(\b\w\b\s+){4}", row)]
    return " ".join(" ".join(spoken).split())
