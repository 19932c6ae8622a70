"""The physics that a campaign chooses for VASP, and the tags that it may not touch."""

from __future__ import annotations

import re
from collections.abc import Iterator, Mapping
from typing import Annotated, Any, Literal, Self

from pydantic import BaseModel, ConfigDict, Field, field_validator, model_validator

from alflow.labelers._names import Element

Scalar = bool | int | float | str
Value = Scalar | tuple[Scalar, ...]

FUNCTIONALS: Mapping[str, tuple[Mapping[str, str], str]] = {
    "lda": ({"GGA": "CA"}, "CA"),
    "pbe": ({"GGA": "PE"}, "PE"),
    "pbesol": ({"GGA": "PS"}, "PE"),
    "rpbe": ({"GGA": "RP"}, "PE"),
    "scan": ({"METAGGA": "SCAN"}, "PE"),
    "r2scan": ({"METAGGA": "R2SCAN"}, "PE"),
}
"""Tags of a functional, and LEXCH of the PAW datasets that belong to it."""

_OWN_SETTING = {
    "ENCUT": "encut", "ENMAX": "encut", "EDIFF": "ediff", "ISMEAR": "ismear", "SIGMA": "sigma", "PREC": "prec",
    "LREAL": "lreal", "LASPH": "lasph", "KSPACING": "kspacing", "KGAMMA": "kspacing", "ISPIN": "spin_polarised",
    "MAGMOM": "initial_moments", "LDAU": "hubbard_u", "LDAUTYPE": "hubbard_u", "LDAUL": "hubbard_u",
    "LDAUU": "hubbard_u", "LDAUJ": "hubbard_u", "LMAXMIX": "hubbard_u",
}  # fmt: skip

_REASONS = {
    "alflow labels single points: nothing may move": (
        "NSW IBRION ISIF POTIM EDIFFG NFREE SMASS MDALGO TEBEG TEEND PSTRESS IMAGES SPRING LCLIMB ICHAIN IOPT "
        "LATTICE_CONSTRAINTS LANGEVIN_GAMMA LANGEVIN_GAMMA_L PMASS NWRITE"
    ),
    "the ladder of numerics sets it, and it changes no physics": (
        "ALGO IALGO NELM NELMIN NELMDL AMIX BMIX AMIX_MAG BMIX_MAG AMIN IMIX INIMIX MIXPRE MAXMIX WC TIME LDIAG ISYM "
        "SYMPREC NBANDS"
    ),
    "it depends on the structure: the charge comes from there": "NELECT",
    "it would fix the magnetic state of every structure": "NUPDOWN",
    "non-collinear magnetism is not handled": "LNONCOLLINEAR LSORBIT SAXIS LSPIRAL QSPIRAL I_CONSTRAINED_M M_CONSTR",
    "its values follow the species or atoms of one structure": "RWIGS ROPT VDW_R0 VDW_C6 VDW_ALPHA FERWE FERDO",
    "every label starts from nothing and must be self-consistent": "ISTART ICHARG INIWAV",
    "files that no label needs": "LWAVE LCHARG LVTOT LVHAR LELF LAECHG LORBIT SYSTEM LPARD",
    "it computes other properties, not labels": ("LEPSILON LOPTICS LCALCEPS LCALCPOL LCHIMAG LEFG LRPA NOMEGA ANTIRES"),
    "it says how the work is shared, not what is computed; write it under `parallel`": (
        "NCORE NPAR KPAR NSIM LPLANE LSCALAPACK LSCALU NCSHMEM LASYNC"
    ),
}
_REFUSED = {tag: reason for reason, tags in _REASONS.items() for tag in tags.split()}
_PARALLEL = frozenset(["NCORE", "NPAR", "KPAR", "NSIM", "LPLANE", "LSCALAPACK", "LSCALU", "NCSHMEM", "LASYNC"])
_LOGICAL = {".TRUE.": True, ".T.": True, ".FALSE.": False, ".F.": False}
_TEXT = re.compile(r"[\w.+\-/ ]+")


class VaspSettings(BaseModel):
    """Settings of the labeler `vasp`: everything that changes the numbers, and nothing that depends on the machine."""

    model_config = ConfigDict(frozen=True, extra="forbid")

    program: str = Field(
        default="vasp", description="name of an entry under `programs` in the worker's file, alflow-worker.yaml"
    )
    potcars: Mapping[Element, Annotated[str, Field(pattern=r"^[A-Z][A-Za-z0-9_.]*$")]] = Field(
        min_length=1,
        description="PAW dataset of every element, e.g. `{Si: Si, Fe: Fe_pv}`; other elements are refused. The "
        "content of the files is part of the theory",
    )
    functional: Literal["lda", "pbe", "pbesol", "rpbe", "scan", "r2scan", "incar"] = Field(
        default="pbe",
        description="exchange and correlation; the PAW datasets must be made for it (PBE ones for all but lda). "
        "`incar`: GGA or METAGGA and what belongs to them stand under `incar`",
    )
    encut: float = Field(
        default=520.0,
        gt=0,
        description="plane-wave cutoff, eV, the same for every composition; a warning where a dataset asks for more",
    )
    kspacing: float = Field(
        default=0.22,
        gt=0,
        description="largest distance of k-points, 1/Å, with reciprocal vectors that include 2π (VASP's KSPACING); "
        "the mesh contains Γ and has one point along directions that are not periodic",
    )
    ismear: Literal[-5, -1, 0, 1, 2] = Field(
        default=0,
        description="smearing: 0 Gauss, 1 and 2 Methfessel-Paxton (metals only), -1 Fermi, -5 tetrahedra (no metals: "
        "their forces would be wrong)",
    )
    sigma: float = Field(default=0.05, gt=0, description="width of the smearing, eV")
    ediff: float = Field(
        default=1e-6,
        gt=0,
        le=1e-3,
        description="the self-consistency ends when energy and eigenvalues change by less, eV per cell; it bounds the "
        "noise of the labels and is part of the theory",
    )
    prec: Literal["Normal", "Accurate"] = Field(default="Accurate", description="FFT grids")
    lreal: Literal[False, "Auto", "On"] = Field(
        default=False, description="projectors in reciprocal space (false: exact), or in real space"
    )
    lasph: bool = Field(default=True, description="non-spherical gradient corrections inside the PAW spheres")
    spin_polarised: bool = Field(
        default=False,
        description="structures without initial moments are spin-polarised, too; those with moments always are",
    )
    initial_moments: Mapping[Element, float] = Field(
        default_factory=dict,
        description="initial moment by element, µB, of spin-polarised structures that bring none, e.g. `{Fe: 5}`; "
        "1 for other elements. Moments of a structure go before",
    )
    hubbard_u: Mapping[Element, Annotated[float, Field(gt=0)]] = Field(
        default_factory=dict,
        description="U - J by element, eV (Dudarev), on d shells, on f shells of lanthanides and actinides",
    )
    incar: Mapping[str, Value] = Field(
        default_factory=dict,
        description="further tags that change the physics, e.g. `{IVDW: 12}`; tags that alflow owns are refused",
    )
    parallel: Mapping[str, bool | int] = Field(
        default_factory=dict,
        description="NCORE, KPAR, … : how the work is shared among processes; not part of the theory",
    )

    @field_validator("incar", "parallel", mode="before")
    @classmethod
    def _upper(cls, tags: Any) -> Any:
        if not isinstance(tags, Mapping):
            return tags
        return {str(tag).upper(): _LOGICAL.get(str(value).upper(), value) for tag, value in tags.items()}

    @field_validator("incar")
    @classmethod
    def _owned(cls, tags: Mapping[str, Value]) -> Mapping[str, Value]:
        problems = [problem for tag, value in tags.items() for problem in _problems(tag, value)]
        if problems:
            raise ValueError("; ".join(problems))
        return tags

    @field_validator("parallel")
    @classmethod
    def _known(cls, tags: Mapping[str, bool | int]) -> Mapping[str, bool | int]:
        other = sorted(set(tags) - _PARALLEL)
        if other:
            raise ValueError(f"{', '.join(other)}: not about sharing work; known: {', '.join(sorted(_PARALLEL))}")
        return tags

    @model_validator(mode="after")
    def _whole(self) -> Self:
        stated = {"GGA", "METAGGA"} & set(self.incar)
        if self.functional == "incar" and not stated:
            raise ValueError("functional: incar asks for GGA or METAGGA under `incar`")
        if self.functional != "incar" and stated:
            raise ValueError(
                f"incar: {', '.join(sorted(stated))} contradicts `functional: {self.functional}`: choose there, or "
                "write `functional: incar`"
            )
        return self

    @property
    def functional_tags(self) -> Mapping[str, str]:
        """GGA or METAGGA; empty where they stand under ``incar``."""
        return {} if self.functional == "incar" else FUNCTIONALS[self.functional][0]

    @property
    def exchange(self) -> str | None:
        """LEXCH that the PAW datasets must have; None where any goes as long as all agree."""
        return None if self.functional == "incar" else FUNCTIONALS[self.functional][1]

    @property
    def hybrid(self) -> bool:
        """Whether there is exact exchange."""
        return self.incar.get("LHFCALC") is True


def _problems(tag: str, value: Value) -> Iterator[str]:
    if not re.fullmatch(r"[A-Z][A-Z0-9_]*", tag):
        yield f"{tag!r} is no tag of VASP"
    if tag in _OWN_SETTING:
        yield f"{tag}: it has a setting of its own, `{_OWN_SETTING[tag]}`"
    if tag in _REFUSED:
        yield f"{tag}: {_REFUSED[tag]}"
    if tag.startswith("ML_"):
        yield f"{tag}: energies of a machine-learned force field are no labels"
    for part in value if isinstance(value, tuple) else (value,):
        if isinstance(part, str) and not _TEXT.fullmatch(part):
            yield f"{tag}: the value {part!r} has characters that would change other tags"
