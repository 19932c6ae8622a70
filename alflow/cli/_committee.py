"""``committee``: the potentials that a campaign trained, and how to take one along."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from alflow.cli._options import CampaignOption, CsvOption, ForceOption, JsonOption, LedgerOption, require_new_file
from alflow.cli._output import Column, clock, plural, print_json, print_rows
from alflow.cli._target import opened

if TYPE_CHECKING:
    from alflow.ledger import CommitteeRow

SCALED = {"energy": ("Energy", "meV/atom", 1), "force": ("Force", "meV/Å", 1), "stress": ("Stress", "meV/Å³", 2)}


def ls(
    campaign: CampaignOption = None,
    ledger: LedgerOption = None,
    as_json: JsonOption = False,
    as_csv: CsvOption = False,
) -> None:
    """List the committees of a campaign, with their errors on the labels held out of their training.

    Errors are mean absolute ones of the members' mean; JSON and CSV give them in eV/atom, eV/Å and eV/Å³.
    """
    from alflow.cli._console import stderr

    with opened(campaign, ledger) as target:
        committees = target.ledger.committees.list(target.require_campaign().id)
    machine = as_json or as_csv
    if not committees and not machine:
        stderr().print("no committee yet: `alflow run` trains the first one after round 0", style="dim")
        return
    errors = [
        Column(key=f"{kind}_mae", label=label, unit=unit, digits=digits)
        for kind, (label, unit, digits) in SCALED.items()
        if machine or any(_held_out(row).get(f"{kind}_mae") is not None for row in committees)
    ]
    columns = [
        Column(key="round", label="Round"),
        Column(key="kind", label="Kind"),
        Column(key="members", label="Members"),
        Column(key="labels", label="Labels"),
        Column(key="held_out", label="Held out"),
        *errors,
        Column(key="epochs", label="Epochs"),
        Column(key="cpu_seconds", label="CPU time", unit="s", digits=0),
        Column(key="created", label="Trained"),
        Column(key="kept", label="Kept"),
    ]
    rows = [_row(row, 1.0 if machine else 1e3) for row in committees]
    if not machine:
        rows = [
            row | {"created": clock(str(row["created"])), "kept": "yes" if row["kept"] else "let go"} for row in rows
        ]
    print_rows(columns, rows, as_json=as_json, as_csv=as_csv)


def save(
    output: Annotated[Path, typer.Option("--output", "-o", metavar="MODEL", help="File to write.", show_default=False)],
    round_index: Annotated[
        int | None,
        typer.Option(
            "--round", "-r", metavar="N", help="The committee of this round; default: the newest.", show_default=False
        ),
    ] = None,
    force: ForceOption = False,
    campaign: CampaignOption = None,
    ledger: LedgerOption = None,
    as_json: JsonOption = False,
) -> None:
    """Write a committee of a campaign to a file of its own, calibration included.

    `alflow eval` and `alflow lammps` read it, and load_committee of alflow.potentials for ASE.
    """
    from alflow.cli._console import stderr
    from alflow.loop import find_committee, open_committee

    require_new_file(output, force=force)
    with opened(campaign, ledger) as target:
        campaign_row = target.require_campaign()
        row = find_committee(target.ledger, campaign_row.id, round_index=round_index)
        committee = open_committee(target.ledger, row)
        committee.save(output)
    about = _row(row, 1.0)
    if as_json:
        print_json({"model": output.resolve(), "campaign": campaign_row.name, "elements": committee.elements, **about})
        return
    who = f"the committee of round {row.round_index} of {campaign_row.name}"
    what = f"{plural(committee.n_members, 'member')} for {', '.join(committee.elements)}"
    stderr().print(f"wrote {output}: {who}, {what}, from {plural(int(about['labels'] or 0), 'label')}", soft_wrap=True)


def _held_out(row: CommitteeRow) -> dict[str, Any]:
    return row.metrics.get("held_out") or {}


def _row(row: CommitteeRow, scale: float) -> dict[str, Any]:
    """One committee as it is listed; errors are multiplied by ``scale``."""
    held_out = _held_out(row)
    found = {kind: held_out.get(f"{kind}_mae") for kind in SCALED}
    return {
        "round": row.round_index,
        "kind": row.spec.get("kind", "native"),
        "members": row.spec.get("n_members"),
        "labels": row.metrics.get("n_labels"),
        "held_out": row.metrics.get("n_held_out"),
        **{f"{kind}_mae": None if value is None else scale * value for kind, value in found.items()},
        "epochs": row.metrics.get("epochs"),
        "cpu_seconds": row.metrics.get("cpu_seconds"),
        "created": row.created,
        "kept": row.artifact_id is not None,
    }
