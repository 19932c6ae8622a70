"""``dedup``: the unique structures of some files, without a campaign or a ledger."""

from __future__ import annotations

import sys
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from alflow.cli._options import JsonOption, QuietOption, complete_path, require_folder
from alflow.cli._output import Column, plural, print_json, print_rows
from alflow.errors import UserError

if TYPE_CHECKING:
    from alflow.cli._dedup_check import CrossCheck
    from alflow.cli._dedup_work import WorkFile
    from alflow.structures import DuplicatePolicy

_RELATIONS = ("identical", "redundant", "same-phase")
_SUFFIXES = (".extxyz", ".xyz", ".extxyz.gz", ".xyz.gz")
_MOST, _MOST_FILES = 5, 20


def dedup(
    files: Annotated[
        list[Path],
        typer.Argument(
            metavar="FILES...",
            help="Structures: extxyz (also .gz), CIF, POSCAR/CONTCAR, ASE database.",
            show_default=False,
            autocompletion=complete_path,
        ),
    ],
    output: Annotated[
        Path, typer.Option("--output", "-o", metavar="FILE", help="Where the kept structures go: extended XYZ.")
    ] = Path("unique.extxyz"),
    table: Annotated[
        Path | None,
        typer.Option(
            "--table",
            "-t",
            metavar="FILE",
            help="Where the table of all structures and their groups goes: CSV. (default: beside the output)",
            show_default=False,
        ),
    ] = None,
    relation: Annotated[
        str,
        typer.Option(
            "--relation",
            "-r",
            metavar="RELATION",
            help="identical: one structure in other clothes (1e-4 Å); redundant: also what differs by noise (0.015 Å, "
            "strain 0.002), so that a second calculation would teach nothing; same-phase: also what is slightly "
            "distorted (rms 0.06 Å, 0.18 Å, strain 0.01).",
            autocompletion=lambda incomplete: [word for word in _RELATIONS if word.startswith(incomplete)],
        ),
    ] = "redundant",
    displacement: Annotated[
        float | None,
        typer.Option(
            "--displacement",
            metavar="Å",
            min=1e-4,
            max=0.3,
            help="For redundant: how far any atom may be displaced. (default: 0.015)",
            show_default=False,
        ),
    ] = None,
    strain: Annotated[
        float | None,
        typer.Option(
            "--strain",
            metavar="STRAIN",
            min=1e-5,
            max=0.05,
            help="For redundant: how far the cell may be strained. (default: 0.002)",
            show_default=False,
        ),
    ] = None,
    any_volume: Annotated[
        bool, typer.Option("--any-volume", help="For same-phase: compare crystals at a common volume.")
    ] = False,
    keep_mirror_images: Annotated[
        bool, typer.Option("--keep-mirror-images", help="Mirror images are different structures.")
    ] = False,
    skip_bad: Annotated[
        bool, typer.Option("--skip-bad", help="Leave out frames that cannot be read, and list them in the table.")
    ] = False,
    cross_check: Annotated[
        bool,
        typer.Option(
            "--cross-check",
            help="Ask pymatgen's StructureMatcher about up to 500 pairs; a second table holds its disagreements.",
        ),
    ] = False,
    keep_work: Annotated[
        bool,
        typer.Option(
            "--keep-work", help="Keep the work file, so that another relation need not read everything again."
        ),
    ] = False,
    force: Annotated[bool, typer.Option("--force", help="Write over existing files.")] = False,
    quiet: QuietOption = False,
    as_json: JsonOption = False,
) -> None:
    """Find the unique structures of some files; needs no campaign.

    The same crystal is recognised in any cell, supercell, orientation, order of atoms and amount of vacuum. Writes one
    structure of every group as it stands in its file, with its labels, and a table of all structures, their groups and
    how far each is from the one that is kept. Labelled structures are kept before unlabelled ones, small cells before
    large ones, whatever the order of the files.

    Interrupted, the same command continues where it was: what was read and decided is in a work file beside the output.
    """
    if relation not in _RELATIONS:
        raise typer.BadParameter(f"{relation!r}: choose {', '.join(_RELATIONS)}", param_hint="--relation")
    for name, given, needed in (
        ("--displacement", displacement is not None, "redundant"),
        ("--strain", strain is not None, "redundant"),
        ("--any-volume", any_volume, "same-phase"),
    ):
        if given and relation != needed:
            raise typer.BadParameter(f"goes with --relation {needed} only", param_hint=name)
    if cross_check and keep_mirror_images:
        raise typer.BadParameter(
            "StructureMatcher does not tell mirror images apart; leave out --keep-mirror-images",
            param_hint="--cross-check",
        )
    table = table or _beside(output, "csv")
    disagreements = _beside(output, "cross-check.csv") if cross_check else None
    paths = _checked_paths(files, output, table, disagreements)
    policy = _policy(relation, displacement, strain, any_volume=any_volume, mirror=not keep_mirror_images)
    _work(
        paths,
        policy,
        output=output,
        table=table,
        disagreements=disagreements,
        skip_bad=skip_bad,
        keep_work=keep_work,
        force=force,
        quiet=quiet,
        as_json=as_json,
    )


def _work(
    paths: list[Path],
    policy: DuplicatePolicy,
    *,
    output: Path,
    table: Path,
    disagreements: Path | None,
    skip_bad: bool,
    keep_work: bool,
    force: bool,
    quiet: bool,
    as_json: bool,
) -> None:
    from alflow.cli._dedup_check import CHECK_COLUMNS, cross_check
    from alflow.cli._dedup_steps import TABLE_COLUMNS, group_all, read_all, write_all
    from alflow.cli._dedup_work import WorkFile
    from alflow.cli._reporter import ConsoleReporter

    work_path = output.with_name(output.name + ".work")
    _check_absent([output, table, *([disagreements] if disagreements else [])], work_path, force=force)
    check = None
    with ConsoleReporter(quiet=quiet) as report, WorkFile(work_path) as work:
        sources, notes = work.set_sources(paths)
        if work.found:
            report.note(f"continuing from {work_path}")
        for note in notes:
            report.note(note)
        report.step("read")
        known = work.n_read
        read_all(work, sources, report, skip_bad=skip_bad)
        n_read = work.n_read
        report.step("read", plural(n_read, "structure") + (f", {known} of them by an earlier run" if known else ""))
        if not n_read:
            raise UserError("none of the files holds a structure that can be read")
        report.step("group")
        if work.begin_grouping(policy):
            report.note(f"{plural(work.n_decided, 'structure')} grouped by an earlier run")
        group_all(work, policy, report, n_read)
        results = work.results
        counts = results.counts()
        report.step("group", plural(counts["unique"], "group"))
        if disagreements is not None:
            report.step("cross-check")
            check = cross_check(work, policy, report)
            report.step("cross-check", plural(len(check.disagreements), "disagreement"))
        report.step("write")
        tables: dict[Path, Any] = {table: (TABLE_COLUMNS, results.table())}
        if check is not None and disagreements is not None:
            tables[disagreements] = (CHECK_COLUMNS, check.disagreements)
        write_all(work, sources, output, tables, report, counts["unique"])
        report.step("write", f"{output}, {table}" + (f", {disagreements}" if disagreements else ""))
        summary = _summary(work, policy, counts, output, table, check)
    if not keep_work:
        work_path.unlink(missing_ok=True)
    if as_json:
        print_json({**summary, "work": work_path if keep_work else None})
    else:
        _print_summary(summary, policy)


def _beside(output: Path, ending: str) -> Path:
    """``unique.csv`` beside ``unique.extxyz``."""
    stem = output.name.removesuffix(".gz").removesuffix(".extxyz").removesuffix(".xyz")
    return output.with_name(f"{stem}.{ending}")


def _checked_paths(files: list[Path], output: Path, table: Path, disagreements: Path | None) -> list[Path]:
    """Files to read, each once; everything that is wrong with names is said before the work begins."""
    from alflow.structures import frames_of

    if not output.name.lower().endswith(_SUFFIXES):
        raise UserError(f"{output}: structures are written as extended XYZ; call it *{' or *'.join(_SUFFIXES[:2])}")
    targets = [path for path in (output, table, disagreements) if path is not None]
    for path in targets:
        require_folder(path)
    if len({path.resolve() for path in targets}) < len(targets):
        raise UserError(f"{table} is wanted for two outputs; choose another --table")
    unique = list({path.resolve(): path for path in files}.values())
    for path in unique:
        if path.resolve() in {target.resolve() for target in targets}:
            raise UserError(f"{path} is input and output; leave it out of the files or choose another --output")
        frames_of(path)
    return unique


def _check_absent(targets: list[Path], work_path: Path, *, force: bool) -> None:
    """Refuse to write over files, unless an earlier run of the same output was about to put them in place."""
    from alflow.cli._dedup_work import WorkFile

    existing = [path for path in targets if path.exists()]
    if not existing or force:
        return
    if work_path.exists():
        with WorkFile(work_path) as work:
            if work.publishing:
                return
    raise UserError(f"{existing[0]} exists already; --force writes over it")


def _policy(
    relation: str, displacement: float | None, strain: float | None, *, any_volume: bool, mirror: bool
) -> DuplicatePolicy:
    from alflow.structures import DuplicatePolicy

    if relation == "identical":
        return DuplicatePolicy.identical(mirror=mirror)
    if relation == "same-phase":
        return DuplicatePolicy.same_phase(any_volume, mirror=mirror)
    given = {"displacement": displacement, "strain": strain}
    return DuplicatePolicy.redundant(**{k: v for k, v in given.items() if v is not None}, mirror=mirror)


def _summary(
    work: WorkFile,
    policy: DuplicatePolicy,
    counts: dict[str, int],
    output: Path,
    table: Path,
    check: CrossCheck | None,
) -> dict[str, Any]:
    results = work.results
    widest = results.widest_energies()
    return {
        "output": output,
        "table": table,
        **counts,
        "largest_energy_difference": None if widest is None else widest[1],
        "largest_energy_difference_at": None if widest is None else work.origin(widest[0]),
        "files": results.by_file(),
        "most_duplicates": [
            {"formula": formula, "structures": n, "duplicates": duplicates}
            for formula, n, duplicates in results.most_duplicated(_MOST)
        ],
        "policy": policy,
        "cross_check": check,
    }


def _print_summary(summary: dict[str, Any], policy: DuplicatePolicy) -> None:
    from alflow.cli._dedup_check import check_sentence

    rows = [
        {"what": "read", "n": summary["read"]},
        {"what": "unique: kept", "n": summary["unique"]},
        {"what": "duplicates", "n": summary["duplicates"]},
        {"what": "  of equal content", "n": summary["exact_copies"]},
        {"what": "  with a label", "n": summary["labelled_duplicates"]},
        {"what": "unreadable: left out", "n": summary["unreadable"]},
    ]
    always = ("read", "unique: kept", "duplicates")
    shown = [row for row in rows if row["n"] or row["what"] in always]
    sys.stdout.write(f"{_tolerances(policy)}\n\n")
    print_rows([Column(key="what", label=""), Column(key="n", label="structures")], shown)
    if 1 < len(summary["files"]) <= _MOST_FILES:
        sys.stdout.write("\n")
        columns = [
            Column(key="file", elastic=True),
            Column(key="structures"),
            Column(key="kept"),
            Column(key="shared", label="also in other files"),
        ]
        print_rows(columns, summary["files"])
    if summary["most_duplicates"]:
        sys.stdout.write("\n")
        columns = [Column(key="formula", label="most duplicates"), Column(key="structures"), Column(key="duplicates")]
        print_rows(columns, summary["most_duplicates"])
    if summary["largest_energy_difference"] is not None:
        sys.stdout.write(
            f"\nLabels of one group differ by at most {1e3 * summary['largest_energy_difference']:.3g} meV/atom, "
            f"in the group of {summary['largest_energy_difference_at']}.\n"
        )
    if summary["cross_check"] is not None:
        sys.stdout.write(f"\n{check_sentence(summary['cross_check'])}\n")


def _tolerances(policy: DuplicatePolicy) -> str:
    """The relation in words, with its tolerances."""
    words = [f"any atom {policy.max_displacement:g} Å"]
    if policy.rms_displacement < policy.max_displacement:
        words.insert(0, f"rms {policy.rms_displacement:g} Å")
    words.append(f"strain {policy.max_strain:g}" + (" at any volume" if policy.any_volume else ""))
    if not policy.mirror:
        words.append("mirror images apart")
    return f"{policy.relation.value.replace('_', ' ')}: {', '.join(words)}"
