"""``lammps``: committees as files that LAMMPS reads."""

from __future__ import annotations

import sys
from pathlib import Path
from typing import Annotated

import typer

from alflow.cli._options import ForceOption, JsonOption, require_new_file
from alflow.cli._output import print_json


def lammps(
    model: Annotated[
        Path, typer.Argument(metavar="MODEL", help="A committee that `alflow train` or `alflow committee save` wrote.")
    ],
    output: Annotated[
        Path,
        typer.Option(
            "--output", "-o", metavar="FILE", help="Where to write it; not *.pt or *.pth.", show_default=False
        ),
    ],
    force: ForceOption = False,
    as_json: JsonOption = False,
) -> None:
    """Write a committee as a file for LAMMPS.

    Prints the lines for a LAMMPS input. It needs a LAMMPS with the packages ML-IAP and PYTHON.
    """
    from alflow.potentials import export_lammps, load_committee

    require_new_file(output, force=force)
    committee = load_committee(model)
    lines = export_lammps(committee, output)
    if as_json:
        print_json({"model": output, "elements": committee.elements, "input": lines.splitlines()})
    else:
        sys.stdout.write(f"{lines}\n")
