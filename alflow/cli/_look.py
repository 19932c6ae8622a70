"""``ls``, ``show``, ``why`` and ``report``: reading the ledger."""

from __future__ import annotations

import sys
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from alflow.cli._options import (
    CampaignArgument,
    CampaignOption,
    CandidateIds,
    CsvOption,
    JsonOption,
    LedgerOption,
    complete_columns,
    complete_sort,
)
from alflow.cli._output import cell_text, clock, plural, print_json, print_rows
from alflow.cli._target import candidate_ids, opened, split_campaign

if TYPE_CHECKING:
    from alflow.ledger import CandidateRow, LabelRow, Ledger, TheoryRow
    from alflow.structures import Structure

ROWS_ON_TERMINAL = 50


def ls(
    selection: Annotated[
        list[str] | None,
        typer.Argument(
            metavar="[CAMPAIGN] [SELECTION]",
            help="Elements, comparisons and states joined by commas, as in ASE: 'Ni,Pt,u>1,state=pooled'.",
            show_default=False,
        ),
    ] = None,
    columns: Annotated[
        str | None,
        typer.Option(
            "--columns",
            "-c",
            metavar="NAMES",
            help="Columns: id,formula,u shows these, +volume,-reason changes the usual ones.",
            show_default=False,
            autocompletion=complete_columns,
        ),
    ] = None,
    sort: Annotated[
        str | None,
        typer.Option(
            "--sort",
            "-s",
            metavar="COLUMN",
            help="Sort by a column; with a dash before it (-u) the largest first.",
            show_default=False,
            autocompletion=complete_sort,
        ),
    ] = None,
    limit: Annotated[
        int | None,
        typer.Option(
            "--limit",
            "-n",
            metavar="N",
            min=0,
            help="At most so many; 0 for all.",
            show_default=f"{ROWS_ON_TERMINAL} on a terminal, else all",
        ),
    ] = None,
    offset: Annotated[int, typer.Option("--offset", metavar="N", min=0, help="Leave out so many at the start.")] = 0,
    campaign: CampaignOption = None,
    ledger: LedgerOption = None,
    as_json: JsonOption = False,
    as_csv: CsvOption = False,
) -> None:
    """List candidates.

    Selections, columns and sorting are those of `ase db`: elements and comparisons joined by commas.
    """
    from alflow.cli._console import stderr

    if limit is None:
        limit = ROWS_ON_TERMINAL if sys.stdout.isatty() and not (as_json or as_csv) else 0
    campaign, conditions = split_campaign(selection or [], campaign)
    with opened(campaign, ledger) as target:
        from alflow.cli._columns import check_sort, choose_columns, drop_empty, label_energies, values

        chosen = choose_columns(columns if columns or target.campaign is not None else "+campaign")
        if sort is not None:
            check_sort(sort.removeprefix("-"))
        found = target.ledger.candidates(
            ",".join(conditions),
            campaign=None if target.campaign is None else target.campaign.id,
            sort=sort,
            limit=limit + 1 if limit else None,
            offset=offset,
        )
        shown = found[:limit] if limit else found
        energies = label_energies(target.ledger, shown, chosen)
    rows = [values(candidate, chosen, energies.get(candidate.id)) for candidate in shown]
    if columns is None and not (as_json or as_csv):
        chosen = drop_empty(chosen, rows)
    if rows or as_json or as_csv:
        print_rows(chosen, rows, as_json=as_json, as_csv=as_csv)
    else:
        stderr().print("no candidate matches", style="dim")
    if limit and len(found) > limit:
        stderr().print(f"there are more than {limit}; --limit 0 shows all", style="dim")


def show(
    ids: CandidateIds,
    sites: Annotated[bool, typer.Option("--sites", help="Also list the atoms.")] = False,
    campaign: CampaignOption = None,
    ledger: LedgerOption = None,
    as_json: JsonOption = False,
) -> None:
    """Show candidates with their structure, score, label and origin."""
    from alflow.cli._console import stdout

    campaign, rest = split_campaign(ids, campaign)
    chosen = candidate_ids(rest)
    with opened(campaign, ledger) as target:
        rows = [target.ledger.pool.get(i) for i in chosen]
        structures = target.ledger.pool.structures(chosen)
        labels = [_labels_of(target.ledger, row) for row in rows]
        outputs = [_outputs_of(target.ledger, row) for row in rows]
    if as_json:
        documents = [
            _document(row, structure, found) for row, structure, found in zip(rows, structures, labels, strict=True)
        ]
        print_json(documents[0] if len(documents) == 1 else documents)
        return
    console = stdout()
    for position, (row, structure, found) in enumerate(zip(rows, structures, labels, strict=True)):
        if position:
            console.print()
        for line in _show_lines(row, structure, found, outputs[position], sites=sites):
            console.print(line, markup=False, soft_wrap=True)


def why(
    ids: CandidateIds,
    campaign: CampaignOption = None,
    ledger: LedgerOption = None,
    as_json: JsonOption = False,
) -> None:
    """Say why candidates were or were not labelled."""
    from rich.padding import Padding
    from rich.text import Text

    from alflow.cli._console import stdout

    campaign, rest = split_campaign(ids, campaign)
    chosen = candidate_ids(rest)
    with opened(campaign, ledger) as target:
        answers = [(target.ledger.pool.get(i), target.ledger.why(i)) for i in chosen]
    if as_json:
        documents = [{"id": row.id, "sentences": answer.sentences, "facts": answer.facts} for row, answer in answers]
        print_json(documents[0] if len(documents) == 1 else documents)
        return
    console = stdout()
    for position, (row, answer) in enumerate(answers):
        if position:
            console.print()
        console.print(_title(row))
        for sentence in answer.sentences:
            console.print(Padding(Text(sentence), (0, 0, 0, 2), expand=False))


def report(
    campaign: CampaignArgument = None,
    output: Annotated[
        Path | None,
        typer.Option(
            "--output", "-o", metavar="FILE", help="Where to write the page.", show_default="NAME-report.html"
        ),
    ] = None,
    ledger: LedgerOption = None,
    as_json: JsonOption = False,
) -> None:
    """Write one self-contained HTML page about a campaign.

    Learning curve, parity, calibration, hull, what became of every candidate, and the stable compounds.
    """
    from alflow.cli._console import working
    from alflow.report import write_report

    with opened(campaign, ledger) as target, working("writing the report"):
        row = target.require_campaign()
        path = output or Path(f"{row.name}-report.html")
        path = write_report(target.ledger, row.id, path)
    if as_json:
        print_json({"report": path.resolve()})
    else:
        sys.stdout.write(f"{path}\n")


# -- one candidate -----------------------------------------------------------------------------------------------------


def _labels_of(ledger: Ledger, row: CandidateRow) -> list[tuple[TheoryRow, LabelRow]]:
    found = ((theory, ledger.labels.get(row.structure_id, theory.id)) for theory in ledger.theories.list())
    return [(theory, label) for theory, label in found if label is not None and label.theory_id == theory.id]


def _outputs_of(ledger: Ledger, row: CandidateRow) -> list[str]:
    """Where the outputs of a candidate's calculations are, as far as this machine has them."""
    from alflow.folder.outputs import find_outputs

    found = []
    for job in ledger.queue.jobs_of(row.id):
        for number, attempt in enumerate(ledger.queue.attempts(job), 1):
            place = None if attempt.directory is None else find_outputs(attempt.directory)
            if place is not None:
                found.append(f"{place} (job {job}, attempt {number}: {attempt.state})")
    return found


def _document(row: CandidateRow, structure: Structure, labels: list[tuple[TheoryRow, LabelRow]]) -> dict[str, Any]:
    from alflow.cli._output import jsonable
    from alflow.structures import space_group

    number, symbol = space_group(structure)
    return {
        **jsonable(row),
        "structure": jsonable(structure),
        "space_group": {"number": number, "symbol": symbol},
        "labels": [
            {
                "id": label.id,
                "theory": {"id": theory.id, "name": theory.name, "fingerprint": theory.fingerprint},
                "kind": label.kind,
                "properties": {key: value for key, value in jsonable(label.properties).items() if value is not None},
                "evidence": label.evidence,
                "derived_from": label.derived_from,
            }
            for theory, label in labels
        ],
    }


def _title(row: CandidateRow) -> Any:
    from rich.text import Text

    from alflow.cli._output import cell_style

    title = Text(f"Candidate {row.id}  {row.formula}  ", style="bold")
    title.append(row.state.value, style=cell_style("state", {"state": row.state}))
    return title


def _show_lines(
    row: CandidateRow,
    structure: Structure,
    labels: list[tuple[TheoryRow, LabelRow]],
    outputs: Sequence[str],
    *,
    sites: bool,
) -> list[Any]:
    lines: list[Any] = [_title(row)]

    def add(name: str, text: str) -> None:
        lines.append(f"  {name:<12} {text}")

    add("reason", row.reason or "–")
    add("structure", _structure_text(structure))
    if structure.pbc.any():
        add("cell", _cell_text(structure))
    if structure.charge or structure.moments is not None:
        moments = "" if structure.moments is None else f", moments {cell_text(structure.moments.tolist(), 2)} µB"
        add("electrons", f"charge {structure.charge:g} e{moments}")
    add("hash", row.content_hash[:16])
    if row.u is not None:
        add("score", _score_text(row))
    for theory, label in labels:
        add("label", _label_text(theory, label))
    for text in outputs:
        add("outputs", text)
    origin = f"{row.source}, " + ("before any round" if row.round_index is None else f"round {row.round_index}")
    if row.parent_id is not None:
        origin += f", from candidate {row.parent_id}"
    add("origin", f"{origin}, campaign {row.campaign}, {clock(row.created)} UTC")
    if row.parameters:
        add("parameters", cell_text(row.parameters))
    how = f"stream {row.stream.value}"
    if row.rank is not None:
        how += f", rank {row.rank}"
    if row.inclusion_probability is not None:
        how += f", drawn with probability {row.inclusion_probability:.3g}"
    add("selection", how + (", pinned" if row.pinned else "") + (", deliberate" if row.deliberate else ""))
    if row.duplicate_of is not None:
        add("duplicate", f"of candidate {row.duplicate_of}")
    if sites:
        lines += _site_lines(structure)
    return lines


def _structure_text(structure: Structure) -> str:
    from alflow.structures import space_group

    text = f"{structure.reduced_formula}, {plural(structure.n_atoms, 'atom')}"
    number, symbol = space_group(structure)
    if number:
        text += f", {symbol} ({number})"
    if structure.volume:
        text += f", {structure.volume:.2f} Å³, {structure.volume / structure.n_atoms:.2f} Å³/atom"
    return text


def _cell_text(structure: Structure) -> str:
    import numpy as np

    vectors = structure.cell[structure.pbc]
    lengths = np.linalg.norm(vectors, axis=1)
    text = " ".join(f"{length:.3f}" for length in lengths) + " Å"
    if len(vectors) == 3:
        pairs = ((1, 2), (0, 2), (0, 1))
        cosines = [float(vectors[i] @ vectors[j] / (lengths[i] * lengths[j])) for i, j in pairs]
        text += "  " + " ".join(f"{np.degrees(np.arccos(np.clip(c, -1.0, 1.0))):.2f}" for c in cosines) + "°"
    return text if structure.pbc.all() else f"{text}  periodic along {_periodic(structure)}"


def _periodic(structure: Structure) -> str:
    return ", ".join(name for name, periodic in zip("abc", structure.pbc, strict=True) if periodic)


def _score_text(row: CandidateRow) -> str:
    parts = [f"u {row.u:.2f}"]
    if row.energy_per_atom is not None:
        error = "" if row.energy_error is None else f" ± {row.energy_error:.4f}"
        parts.append(f"energy {row.energy_per_atom:.4f}{error} eV/atom")
    if row.force_error is not None:
        parts.append(f"force ± {row.force_error:.3f} eV/Å")
    if row.stress_error is not None:
        parts.append(f"stress ± {row.stress_error:.5f} eV/Å³")
    if row.distance is not None:
        parts.append(f"distance from the data {row.distance:.2f}")
    if row.e_hull is not None:
        error = "" if row.e_hull_error is None else f" ± {row.e_hull_error:.4f}"
        parts.append(f"above hull {row.e_hull:.4f}{error} eV/atom")
    return ", ".join(parts)


def _label_text(theory: TheoryRow, label: LabelRow) -> str:
    import numpy as np

    properties = label.properties
    parts = [f"{theory.name or theory.labeler}: energy {properties.energy / label.structure.n_atoms:.6f} eV/atom"]
    if properties.forces is not None:
        parts.append(f"largest force {np.linalg.norm(properties.forces, axis=1).max():.4f} eV/Å")
    if properties.stress is not None:
        parts.append(f"pressure {-160.21766208 * np.trace(properties.stress) / 3:.3f} GPa")
    parts.append(
        label.kind.value if label.derived_from is None else f"{label.kind.value} from label {label.derived_from}"
    )
    return ", ".join(parts)


def _site_lines(structure: Structure) -> list[str]:
    from alflow.structures import element_symbol

    return [
        f"  {'site ' + str(i):<12} {element_symbol(int(z)):<2} {x:12.6f} {y:12.6f} {w:12.6f} Å"
        for i, (z, (x, y, w)) in enumerate(zip(structure.numbers, structure.positions, strict=True))
    ]
