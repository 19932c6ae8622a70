"""Settings of the labeler `command`: what a campaign says, and what the worker's file says."""

from __future__ import annotations

import re
from pathlib import Path
from typing import Annotated, Literal, Self

from pydantic import AfterValidator, BaseModel, ConfigDict, Field, StringConstraints, model_validator

from alflow.labelers._theory import Moments

StructureFormat = Literal["extxyz", "vasp", "gen", "json"]
ResultFormat = Literal["extxyz", "vasp-xml", "vasp-out", "espresso-out", "json"]
#: a file below the folder of a calculation: no way out of it, and nothing that a program takes for an option
FileName = Annotated[
    str, StringConstraints(pattern=r"^[A-Za-z0-9_+][A-Za-z0-9._+-]*(/[A-Za-z0-9_+][A-Za-z0-9._+-]*)*$")
]


def _is_pattern(text: str) -> str:
    try:
        re.compile(text)
    except re.error as error:
        raise ValueError(f"{text!r} is no regular expression: {error}") from error
    return text


Pattern = Annotated[str, AfterValidator(_is_pattern)]


class CommandSettings(BaseModel):
    """Settings of the labeler `command`. A campaign names a program; what that is stands in the worker's file."""

    model_config = ConfigDict(frozen=True, extra="forbid")

    program: str = Field(description="name of an entry under `programs` and under `templates` in the worker's file")
    arguments: tuple[str, ...] | None = Field(
        default=None, description="as recorded with the theory; they must agree with the worker's file"
    )


class StructureFile(BaseModel):
    """The file in which a structure is given to the program."""

    model_config = ConfigDict(frozen=True, extra="forbid")

    file: FileName = Field(description="its name; `{{ structure }}` in templates and arguments")
    format: StructureFormat = Field(description="how it is written; the order of the atoms is kept")


class ResultFile(BaseModel):
    """The file in which a program leaves energy, forces, stress and the geometry that it computed."""

    model_config = ConfigDict(frozen=True, extra="forbid")

    file: FileName = Field(description="its name; `{{ result }}` in templates and arguments")
    format: ResultFormat = Field(
        description="how it is read: by ASE, of several frames the last; `json`: see the page on labelers"
    )


class PrintedVersion(BaseModel):
    """Where a program prints its version."""

    model_config = ConfigDict(frozen=True, extra="forbid")

    file: FileName = Field(description="e.g. `stdout.txt`")
    pattern: Pattern = Field(description="regular expression for a line; its first group is the version")

    @model_validator(mode="after")
    def _has_group(self) -> Self:
        if re.compile(self.pattern).groups < 1:
            raise ValueError(f"pattern: {self.pattern!r} has no group ( ) around the version")
        return self


class Convergence(BaseModel):
    """The evidence that a calculation converged: lines of a file that it writes."""

    model_config = ConfigDict(frozen=True, extra="forbid")

    file: FileName = Field(description="file that is searched, e.g. `stdout.txt`")
    must: Pattern = Field(description="regular expression that some line must match")
    must_not: Pattern | None = Field(default=None, description="regular expression that no line may match")


class TemplateSettings(BaseModel):
    """How the labeler `command` speaks to a program: what it is given, and where its answer stands."""

    model_config = ConfigDict(frozen=True, extra="forbid")

    code: str = Field(min_length=1, description="name of the code, e.g. `siesta`; part of the theory")
    folder: Path = Field(
        description="folder whose files are all put beside the structure: inputs, pseudopotentials; relative to this "
        "file; their content is part of the theory. `{{ structure }}` and `{{ result }}` in texts become file names, "
        "nothing else does"
    )
    arguments: tuple[str, ...] = Field(
        default=(), description="behind the command of `programs`; part of the theory, unlike that command"
    )
    stdin: FileName | None = Field(default=None, description="file that the program reads as its standard input")
    structure: StructureFile = Field(description="the file with the structure")
    result: ResultFile = Field(description="the file with the result")
    converged: Convergence = Field(description="the evidence of convergence")
    version: PrintedVersion | None = Field(
        default=None, description="where the program prints its version, which is compared with that of `programs`"
    )
    elements: tuple[str, ...] | None = Field(default=None, description="element symbols it handles; default: any")
    periodic_directions: tuple[Annotated[int, Field(ge=0, le=3)], ...] = Field(
        default=(3,), description="numbers of periodic directions it handles"
    )
    stress: bool = Field(default=True, description="it gives the stress of crystals")
    charge: bool = Field(default=False, description="it takes the charge from the structure file, which is `json`")
    moments: Moments = Field(
        default=Moments.NONE, description="initial moments that it takes from the structure file, which is `json`"
    )
    net_force_limit: float | None = Field(
        default=0.01, gt=0, description="largest accepted net force per atom, eV/Å; null where it need not vanish"
    )

    @model_validator(mode="after")
    def _consistent(self) -> Self:
        carried = self.charge or self.moments not in {Moments.NONE, Moments.INDEPENDENT}
        if carried and self.structure.format != "json":
            raise ValueError(f"charge and moments need structure: format: json; {self.structure.format} has no place")
        if self.structure.file == self.result.file:
            raise ValueError(f"structure and result are both {self.result.file}: the result must be another file")
        return self
