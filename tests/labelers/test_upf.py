"""Heads of pseudopotential files: both versions of the format, every spelling of a functional."""

from __future__ import annotations

import hashlib
from pathlib import Path

import pytest

from alflow.errors import ConfigError
from alflow.labelers._upf import canonical_functional, read_pseudopotential

VERSION_2 = """<UPF version="2.0.1">
<PP_INFO>Functional: a < b, which is not XML</PP_INFO>
<PP_HEADER element="{element}" pseudo_type="{kind}"
  functional="{functional}" z_valence="{valence}" wfc_cutoff="3.5e1"/>
</UPF>
"""
VERSION_1 = """<PP_HEADER>
   0                   Version Number
  C                    Element
   US                  Ultrasoft pseudopotential
    F                  Nonlinear Core Correction
 SLA  PW   PBE  PBE    PBE  Exchange-Correlation functional
    4.00000000000      Z valence
  -11.44308            Total energy
   27.000    108.000   Suggested cutoff for wfc and rho
    1                  Max angular momentum component
</PP_HEADER>
"""


def test_version_2_of_the_format(tmp_path: Path) -> None:
    path = tmp_path / "Si.UPF"
    path.write_text(VERSION_2.format(element=" Si", kind="NC", functional=" SLA  PZ   NOGX NOGC", valence="0.4000D+01"))
    found = read_pseudopotential(path)
    assert (found.element, found.valence, found.norm_conserving, found.cutoff) == ("Si", 4.0, True, 35.0)
    assert found.functional == "SLA PZ NOGX NOGC"
    assert found.sha256 == hashlib.sha256(path.read_bytes()).hexdigest()
    assert found.md5 == hashlib.md5(path.read_bytes()).hexdigest()


def test_version_1_of_the_format(tmp_path: Path) -> None:
    path = tmp_path / "C.UPF"
    path.write_text(VERSION_1)
    found = read_pseudopotential(path)
    assert (found.element, found.valence, found.norm_conserving, found.cutoff) == ("C", 4.0, False, 27.0)
    assert found.functional == canonical_functional("PBE")


@pytest.mark.parametrize("kind", ["US", "USPP", "PAW"])
def test_augmented_potentials_are_not_norm_conserving(tmp_path: Path, kind: str) -> None:
    path = tmp_path / "O.UPF"
    path.write_text(VERSION_2.format(element="O", kind=kind, functional="PBE", valence=6))
    assert not read_pseudopotential(path).norm_conserving


@pytest.mark.parametrize(
    ("one", "other", "same"),
    [
        ("PBE", " SLA  PW   PBE  PBE", True),
        ("pbe", "SLA PW PBX PBC", True),
        ("SLA-PW-PBX-PBC", "SLA+PW+PBX+PBC", True),
        ("PZ", "SLA PZ NOGX NOGC", True),
        ("PBESOL", "SLA PW PSX PSC", True),
        ("PBE", "PBESOL", False),
        ("PBE", "PZ", False),
        ("PBE", "REVPBE", False),
        ("SCAN", "PBE", False),
    ],
)
def test_functionals_are_compared_and_not_their_spelling(one: str, other: str, same: bool) -> None:
    assert (canonical_functional(one) == canonical_functional(other)) is same


@pytest.mark.parametrize(
    ("text", "words"),
    [
        (None, "cannot be read .No such file"),
        ("Si 4 0 0", "not a pseudopotential in UPF"),
        ('<PP_HEADER element="Si" pseudo_type="NC"/>', "cannot be understood"),
        ("<PP_HEADER>\n 0 Version\n", "not a pseudopotential in UPF"),
        ("<PP_HEADER>\n 0 Version\n</PP_HEADER>", "cannot be understood"),
    ],
)
def test_other_files_are_refused(tmp_path: Path, text: str | None, words: str) -> None:
    path = tmp_path / "X.UPF"
    if text is not None:
        path.write_text(text)
    with pytest.raises(ConfigError, match=words):
        read_pseudopotential(path)
