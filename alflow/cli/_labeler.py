"""``labeler``: whether what computes labels works here, how converged it is, and how noisy."""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from alflow.cli._errors import ExitCode
from alflow.cli._options import CampaignOption, JsonOption, LedgerOption, WorkerConfigOption, complete_path
from alflow.cli._output import Column, duration, print_json, print_rows
from alflow.cli._start import Finding, complete_labeler, print_findings
from alflow.cli._target import find_target, is_file_name, ledger_url
from alflow.errors import ConfigError, UserError

if TYPE_CHECKING:
    from alflow.labelers import WorkerConfig
    from alflow.structures import Structure

StructureOption = Annotated[
    Path | None,
    typer.Option(
        "--structure",
        "-s",
        metavar="FILE",
        help="Use its first structure.",
        show_default="a small crystal of the first elements",
        autocompletion=complete_path,
    ),
]
_DIFFERENCES = (
    Column(key="energy_difference", label="Energy difference", unit="meV/atom", digits=3),
    Column(key="force_difference", label="Force difference", unit="meV/Å", digits=2),
    Column(key="stress_difference", label="Stress difference", unit="meV/Å³", digits=3),
)


@dataclass(frozen=True, kw_only=True)
class Meant:
    """The labeler that a command is about; name of the theory, ledger and targets where a campaign file says them."""

    labeler: str
    settings: Mapping[str, Any]
    elements: tuple[str, ...]
    worker: WorkerConfig
    directory: Path
    theory: str | None = None
    url: str | None = None
    targets: Mapping[str, float] | None = None


def check(
    labeler: Annotated[
        str | None,
        typer.Argument(
            metavar="CAMPAIGN|LABELER",
            help="Campaign file, name of a labeler, or of a calculator in the worker's file.",
            show_default="./campaign.yaml",
            autocompletion=complete_labeler,
        ),
    ] = None,
    elements: Annotated[
        str | None,
        typer.Option("--elements", "-e", metavar="SYMBOLS", help="Elements that it needs, joined by commas: Ni,Pt."),
    ] = None,
    structure: StructureOption = None,
    no_run: Annotated[bool, typer.Option("--no-run", help="Compute nothing.")] = False,
    config: WorkerConfigOption = None,
    as_json: JsonOption = False,
) -> None:
    """See whether a labeler works on this machine.

    Looks for its program and potentials, asks for its version, and computes one small crystal. Says how to mend what is
    missing.
    """
    from alflow.cli._console import working
    from alflow.labelers import examine_labeler

    meant = _meant(labeler, None, config)
    asked = meant.elements if elements is None else tuple(elements.replace("-", " ").replace(",", " ").split())
    with working("trying the labeler"):
        found = examine_labeler(
            meant.labeler,
            meant.settings,
            worker=meant.worker,
            directory=meant.directory,
            elements=asked,
            structure=None if structure is None else first_structure(structure),
            run=not no_run,
        )
        findings = [Finding(what=item.what, ok=item.ok, text=item.text) for item in found]
    failed = any(finding.ok is False for finding in findings)
    if as_json:
        print_json({"ok": not failed, "findings": findings})
    else:
        print_findings(findings)
    if failed:
        raise typer.Exit(ExitCode.USER_ERROR)


def converge(
    setting: Annotated[
        str,
        typer.Option(
            "--setting",
            metavar="NAME=VALUES",
            help="A numeric setting and its values, the best last: ecut=300,400,500.",
            show_default=False,
        ),
    ],
    campaign: CampaignOption = None,
    structure: StructureOption = None,
    config: WorkerConfigOption = None,
    as_json: JsonOption = False,
) -> None:
    """Show how labels change with one setting.

    Energy, forces and stress for every value, as differences to the last one. Dots lead into sections (mode.ecut); with
    the labeler ase, arguments.NAME is an argument of the calculator. Nothing is stored.
    """
    from alflow.cli._console import stderr, working
    from alflow.labelers import compare_convergence, converge_labeler

    key, values = _values(setting)
    meant = _meant(campaign, None, config)
    chosen = _crystal(meant, structure)
    series = converge_labeler(
        meant.labeler, meant.settings, key, values, chosen, worker=meant.worker, directory=meant.directory
    )
    with working(f"computing {chosen.formula} {len(values)} times"):
        results = list(series)
    points = compare_convergence(values, results)
    if as_json:
        print_json({"setting": key, "structure": chosen.formula, "points": points})
    else:
        columns = [
            Column(key="value", label=key, digits=4),
            Column(key="energy", label="Energy", unit="eV/atom", digits=6),
            *_DIFFERENCES,
            Column(key="seconds", label="Time", unit="s", digits=2),
        ]
        rows = [_milli(vars(point)) for point in points]
        print_rows(columns, rows, title=f"{chosen.formula}, differences to {key} = {values[-1]:g}")
        for point in points:
            if point.failure is not None:
                stderr().print(f"{key} = {point.value:g}: {point.failure}", markup=False, soft_wrap=True)
    if any(point.failure is not None for point in points):
        raise typer.Exit(ExitCode.USER_ERROR)


def noise(
    campaign: CampaignOption = None,
    structure: StructureOption = None,
    config: WorkerConfigOption = None,
    ledger: LedgerOption = None,
    as_json: JsonOption = False,
) -> None:
    """Measure the noise of the labels.

    Labels one crystal as it is, in another cell, turned, and doubled; what these differ by is kept with the campaign's
    theory. Targets below twice that are warned about.
    """
    from alflow.cli._console import stderr, working
    from alflow.labelers import Noise, below_noise, get_labeler, measure_noise
    from alflow.ledger import open_ledger
    from alflow.loop import register_theory

    meant = _meant(campaign, ledger, config)
    if meant.url is None:
        raise UserError("noise is kept in the ledger of a campaign: give its file with --campaign")
    chosen = _crystal(meant, structure)
    labeler = get_labeler(meant.labeler, meant.settings, worker=meant.worker, directory=meant.directory)
    store = open_ledger(meant.url)
    try:
        theory = register_theory(store, labeler, name=meant.theory)
        with working(f"computing {chosen.formula} in four forms"):
            found = Noise(structure=chosen.formula, disguises=tuple(measure_noise(labeler, chosen)))
        store.theories.set_noise(theory.id, found.to_dict())
    finally:
        store.close()
    warnings = below_noise(found.to_dict(), meant.targets or {})
    if as_json:
        print_json({"theory": theory.fingerprint, **found.to_dict(), "warnings": warnings})
        return
    columns = [
        Column(key="name", label="The same crystal"),
        Column(key="n_atoms", label="Atoms"),
        *_DIFFERENCES,
        Column(key="seconds", label="Time", unit="s", digits=2),
    ]
    rows = []
    for item in found.disguises:
        differences = {f"{kind}_difference": getattr(item, kind) for kind in ("energy", "force", "stress")}
        rows.append(_milli({**vars(item), **differences}))
    total = duration(sum(item.seconds for item in found.disguises))
    print_rows(columns, rows, title=f"{chosen.formula}, {chosen.n_atoms} atoms, differences to it as it is ({total})")
    for sentence in warnings:
        stderr().print(sentence, markup=False, soft_wrap=True)


# -- what is meant -----------------------------------------------------------------------------------------------------


def _meant(given: str | None, ledger: str | None, config: Path | None) -> Meant:
    """Resolve a campaign file, the name of a labeler, or the name of a calculator in the worker's file."""
    from alflow.config import load_campaign
    from alflow.labelers import labeler_names, load_worker_config
    from alflow.potentials import Kind

    if given is None or is_file_name(given) or Path(given).is_dir():
        file = find_target(given, None).file
        assert file is not None, "without a ledger a target is a file"
        loaded = load_campaign(file)
        theory = loaded.config.theory
        return Meant(
            labeler=theory.labeler,
            settings=dict(theory.settings),
            elements=tuple(loaded.config.elements),
            worker=load_worker_config(config, directory=loaded.directory),
            directory=loaded.directory,
            theory=theory.name,
            url=loaded.ledger_url if ledger is None else ledger_url(ledger),
            targets={kind.value: loaded.config.targets.of(kind) for kind in Kind},
        )
    worker = load_worker_config(config)
    if given not in labeler_names() and given not in worker.labelers:
        known = ", ".join([*labeler_names(), *sorted(worker.labelers)])
        raise ConfigError(
            f"{given!r} is no campaign file, no labeler and no calculator of the worker's file; known: {known}"
        )
    is_labeler = given in labeler_names()
    return Meant(
        labeler=given if is_labeler else "ase",
        settings={} if is_labeler else {"calculator": given},
        elements=(),
        worker=worker,
        directory=Path.cwd(),
    )


def _crystal(meant: Meant, file: Path | None) -> Structure:
    """Return the structure that a person named, else a small crystal of the campaign's elements."""
    from alflow.labelers import small_crystal

    if file is not None:
        return first_structure(file)
    if not meant.elements:
        raise UserError(f"{meant.labeler} is not of a campaign, which would say the elements: give a --structure")
    return small_crystal(meant.elements)


def first_structure(path: Path) -> Structure:
    """Read the first structure of a file."""
    from alflow.structures import Structure, read_structures

    for atoms in read_structures(path):
        return Structure.from_atoms(atoms)
    raise UserError(f"{path} holds no structure")


def _values(text: str) -> tuple[str, list[float]]:
    """Read ``name=1,2,3``; whole numbers stay whole."""
    key, equals, listed = text.partition("=")
    words = [word.strip() for word in listed.split(",") if word.strip()]
    try:
        values: list[float] = [int(word) if word.lstrip("+-").isdecimal() else float(word) for word in words]
    except ValueError as error:
        raise typer.BadParameter(f"{text!r}: {error}; write for example ecut=300,400,500") from None
    if not all(math.isfinite(value) for value in values):
        raise typer.BadParameter(f"{text!r}: values must be finite numbers")
    if not key.strip() or not equals or len(values) < 2:
        raise typer.BadParameter(f"{text!r} names no setting with at least two values, as in ecut=300,400,500")
    return key.strip(), values


def _milli(row: Mapping[str, Any]) -> dict[str, Any]:
    """Differences in thousandths of their units, which is how people speak of them."""
    return {
        key: 1e3 * value if key.endswith("_difference") and value is not None else value for key, value in row.items()
    }
