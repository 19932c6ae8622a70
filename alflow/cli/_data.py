"""``add``, ``import`` and ``export``: structures and labels in and out of a campaign."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from alflow.cli._errors import ExitCode
from alflow.cli._options import (
    CampaignOption,
    ForceOption,
    JsonOption,
    LedgerOption,
    QuietOption,
    complete_path,
    require_folder,
)
from alflow.cli._output import Column, plural, print_json, print_rows
from alflow.cli._target import Opened, opened, opened_campaign, split_campaign
from alflow.errors import UserError

if TYPE_CHECKING:
    from ase import Atoms

    from alflow.ledger import TheoryRow
    from alflow.loop import CampaignContext

StructureFiles = Annotated[
    list[str],
    typer.Argument(
        metavar="[CAMPAIGN] FILES...",
        help="Structures: extxyz, CIF, POSCAR/CONTCAR, ASE database.",
        show_default=False,
        autocompletion=complete_path,
    ),
]

LabelFiles = Annotated[
    list[str],
    typer.Argument(
        metavar="[CAMPAIGN] FILES...",
        help="Labels: extxyz, ASE database, OUTCAR, vasprun.xml, pymatgen's entries (JSON), folders of VASP or DeePMD.",
        show_default=False,
        autocompletion=complete_path,
    ),
]


def add(
    files: StructureFiles,
    deliberate: Annotated[
        bool,
        typer.Option(
            "--deliberate", help="They differ by little on purpose (displacements, strains): keep near copies."
        ),
    ] = False,
    campaign: CampaignOption = None,
    ledger: LedgerOption = None,
    quiet: QuietOption = False,
    as_json: JsonOption = False,
) -> None:
    """Propose structures to a campaign.

    Copies of known ones, in any orientation, cell or order of atoms, are recognised and cost nothing.
    """
    from alflow.cli._reporter import ConsoleReporter
    from alflow.ledger import CampaignState
    from alflow.loop import add_structures
    from alflow.structures import Structure

    campaign, rest = split_campaign(files, campaign)
    with ConsoleReporter(quiet=quiet) as report, opened_campaign(campaign, ledger, report=report) as ctx:
        report.step("read")
        structures = [(Structure.from_atoms(atoms), origin) for atoms, origin in read_frames(rest)]
        report.step("read", plural(len(structures), "structure"))
        report.step("add")
        found = add_structures(ctx, structures, deliberate=deliberate)
        report.step("add", plural(len(found.ids), "candidate"))
        if ctx.campaign.state is CampaignState.STOPPED:
            report.note("the campaign has stopped and takes nothing up until `alflow run --resume`")
    if as_json:
        print_json(found)
        return
    rows = [
        {"what": "into the pool", "n": found.pooled},
        {"what": "known already", "n": found.known},
        {"what": "duplicates", "n": found.duplicates},
        {"what": "rejected", "n": found.rejected},
        {"what": "labels reused", "n": found.reused},
    ]
    print_rows([Column(key="what", label=""), Column(key="n", label="structures")], [r for r in rows if r["n"]])
    for reason, number in found.reasons.items():
        if reason not in {"pooled", "duplicate"}:
            report.note(f"rejected, {number}: {reason}")


def import_(
    files: LabelFiles,
    theory: Annotated[
        str,
        typer.Option(
            "--theory", metavar="THEORY", help="The theory that you declare them to be of.", show_default=False
        ),
    ],
    table: Annotated[
        Path | None,
        typer.Option(
            "--table",
            "-t",
            metavar="FILE",
            help="Write what became of every frame, and why, as CSV.",
            show_default=False,
        ),
    ] = None,
    campaign: CampaignOption = None,
    ledger: LedgerOption = None,
    quiet: QuietOption = False,
    as_json: JsonOption = False,
) -> None:
    """Take over labels that you already have.

    They become labels of the campaign's theory; that they are of this theory is your word. Folders are searched for
    runs of VASP, of which every ionic step that is whole and converged counts, and for DeePMD data, such as those in a
    working tree of dpgen.

    Where runs differ in functional, cutoff, smearing, spin or dataset, only those stay that most labels share.
    """
    from alflow.cli._import import (
        check_table,
        counts_by_reason,
        print_import,
        read_labels,
        widest_difference,
        write_table,
    )
    from alflow.cli._reporter import ConsoleReporter
    from alflow.loop import import_labels
    from alflow.potentials import summarise_labels

    campaign, rest = split_campaign(files, campaign)
    check_table(table)
    with ConsoleReporter(quiet=quiet) as report, opened_campaign(campaign, ledger, report=report) as ctx:
        declared = _declared_theory(ctx, theory)
        report.step("read")
        found = read_labels(rest, ctx.config.elements, report)
        report.step("read", plural(found.usable, "labelled structure"))
        examples = [(frame.example, frame.origin) for frame in found.frames if frame.example is not None]
        if examples:
            for doubt in summarise_labels([example for example, _ in examples]).doubts:
                report.note(doubt)
        report.step("import")
        result = import_labels(ctx, examples, declared)
        report.step("import", plural(result.taken, "label"))
    if table is not None:
        write_table(table, found, result.labels)
    refused = [f"{f.origin}: {f.detail}" for f in found.frames if f.example is None]
    if not found.usable:
        more = f" (and {len(refused) - 1} more)" if len(refused) > 1 else ""
        raise UserError(f"nothing to import: {refused[0]}{more}" if refused else "nothing to import: no frames")
    rows, widest = counts_by_reason(found, result.labels), widest_difference(result.labels)
    if as_json:
        print_json(
            {
                "taken": result.taken,
                "already_known": result.already_known,
                "duplicates": result.duplicates,
                "refused": [*refused, *result.refused],
                "reasons": rows,
                "largest_energy_difference": None if widest is None else widest[0],
                "largest_energy_difference_at": None if widest is None else widest[1],
                "settings": found.settings,
                "table": table,
            }
        )
    else:
        print_import(rows, found.settings, widest)
    if not (result.taken or result.already_known or result.duplicates):
        raise typer.Exit(ExitCode.USER_ERROR)


def _declared_theory(ctx: CampaignContext, name: str) -> TheoryRow:
    """Return the theory that a person names; the campaign's own also goes by its labeler where it has no name."""
    own = ctx.theory
    return own if name == (own.name or own.labeler) else ctx.ledger.theories.find(name)


def read_frames(paths: Sequence[str]) -> Iterator[tuple[Atoms, str]]:
    """Read every structure of some files, each with its file and frame.

    Raises
    ------
    UserError
        if no file is named
    StructureError
        if a file cannot be read
    """
    from alflow.structures import read_structures

    if not paths:
        raise UserError("name at least one file of structures")
    for path in paths:
        for frame, atoms in enumerate(read_structures(Path(path))):
            yield atoms, f"{path}, frame {frame}"


def export(
    selection: Annotated[
        str,
        typer.Argument(
            metavar="SELECTION", help="Which candidates, as in `alflow ls`; default: all.", show_default=False
        ),
    ] = "",
    output: Annotated[
        Path,
        typer.Option(
            "--output", "-o", metavar="FILE", help="File to write; its suffix says the format.", show_default=False
        ),
    ] = ...,  # type: ignore[assignment]  # Typer's way to say: required, after arguments with defaults
    file_format: Annotated[
        str | None,
        typer.Option(
            "--format", "-f", metavar="FORMAT", help="extxyz, cif, json or db (ASE database).", show_default=False
        ),
    ] = None,
    theory: Annotated[
        str | None,
        typer.Option(
            "--theory", metavar="NAME", help="Labels of this theory; default: the campaign's.", show_default=False
        ),
    ] = None,
    everything: Annotated[bool, typer.Option("--all", help="Also candidates without a label.")] = False,
    force: ForceOption = False,
    campaign: CampaignOption = None,
    ledger: LedgerOption = None,
    as_json: JsonOption = False,
) -> None:
    """Write labelled structures to a file.

    Labels are written as REF_energy (eV), REF_forces (eV/Å) and REF_stress (eV/Å³), with where each came from; an ASE
    database carries them as results of a calculator.
    """
    from alflow.cli._console import stderr, working
    from alflow.cli._export import Exported, Format, format_of, write_structures

    if file_format is not None and file_format not in set(Format):
        raise UserError(f"there is no format {file_format!r}; the formats are {', '.join(Format)}")
    wanted = format_of(output, None if file_format is None else Format(file_format))
    if output.exists() and not force:
        raise UserError(f"{output} exists already; --force writes over it")
    require_folder(output)
    with opened(campaign, ledger) as target:
        chosen = _theory(target, theory)
        within = None if target.campaign is None else target.campaign.id
        candidates = target.ledger.candidates(selection, campaign=within, sort="id")
        labels = {} if chosen is None else {r.structure_id: r for r in target.ledger.labels.accepted(chosen.id, within)}
        kept = {c.structure_id: c for c in reversed(candidates) if everything or c.structure_id in labels}
        rows = sorted(kept.values(), key=lambda row: row.id)
        structures = target.ledger.pool.structures([row.id for row in rows])
        others = {} if chosen is None else {r.id: r for r in target.ledger.theories.list() if r.id != chosen.id}
        items = []
        for row, structure in zip(rows, structures, strict=True):
            label = labels.get(row.structure_id)
            equated = None if label is None else others.get(label.theory_id)
            items.append(Exported(candidate=row, structure=structure, label=label, theory=chosen, equated=equated))
    if not items:
        what = "match" if everything else "match and have a label"
        stderr().print(f"nothing to export: of {plural(len(candidates), 'candidate')} none {what}")
        raise typer.Exit(ExitCode.NOTHING_TO_DO)
    with working("writing structures"):
        write_structures(output, items, wanted)
    labelled = sum(item.label is not None for item in items)
    if as_json:
        print_json({"output": output.resolve(), "format": wanted, "structures": len(items), "labelled": labelled})
        return
    without = f", {len(items) - labelled} of them without a label" if labelled < len(items) else ""
    lost = "; CIF carries no labels" if wanted is Format.CIF else ""
    stderr().print(f"wrote {plural(len(items), 'structure')} to {output}{without}{lost}", soft_wrap=True)


def _theory(target: Opened, name: str | None) -> TheoryRow | None:
    """Theory whose labels are meant: the named one, else the campaign's, else the only one."""
    if name is not None:
        return target.ledger.theories.get(name)
    if target.campaign is not None and target.campaign.config.get("theory"):
        return target.ledger.theories.get(str(target.campaign.config["theory"]))
    theories = target.ledger.theories.list()
    if len(theories) > 1:
        names = ", ".join(row.name or row.fingerprint[:12] for row in theories)
        raise UserError(
            f"the ledger holds labels of several theories ({names}), which never mix: choose one with --theory"
        )
    return theories[0] if theories else None
