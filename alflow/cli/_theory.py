"""``theory``: what the labels of a ledger are of, what differs, and which count for which."""

from __future__ import annotations

import json
from collections.abc import Iterator, Mapping
from typing import TYPE_CHECKING, Annotated, Any

import typer

from alflow.cli._options import CampaignOption, CsvOption, JsonOption, LedgerOption
from alflow.cli._output import Column, clock, plural, print_json, print_rows
from alflow.cli._target import actor, opened
from alflow.errors import UserError

if TYPE_CHECKING:
    from alflow.ledger import EquationRow, TheoryRow

COLUMNS = (
    Column(key="id", label="Theory"),
    Column(key="name", label="Name"),
    Column(key="labeler", label="Labeler"),
    Column(key="code", label="Code"),
    Column(key="labels", label="Labels"),
    Column(key="created", label="First used"),
    Column(key="noise", label="Noise", unit="eV/atom", digits=5),
    Column(key="counts_as", label="Counts as"),
    Column(key="fingerprint", label="Fingerprint"),
)

TheoryKey = Annotated[
    str, typer.Argument(metavar="THEORY", help="Name, id, or beginning of the fingerprint.", show_default=False)
]


def ls(
    campaign: CampaignOption = None,
    ledger: LedgerOption = None,
    as_json: JsonOption = False,
    as_csv: CsvOption = False,
) -> None:
    """List the theories of the ledger."""
    from alflow.cli._console import stderr
    from alflow.ledger import theory_name

    with opened(campaign, ledger) as target:
        theories = target.ledger.theories.list()
        counts = target.ledger.theories.label_counts()
        equations = target.ledger.equations.list()
    names = {theory.id: theory_name(theory) for theory in theories}
    rows = [
        {
            "id": theory.id,
            "name": theory.name,
            "labeler": theory.labeler,
            "code": theory.code,
            "labels": counts.get(theory.id, 0),
            "created": theory.created if as_json or as_csv else clock(theory.created),
            "noise": None if theory.noise is None else theory.noise.get("energy"),
            "counts_as": [names[e.counts_as] for e in equations if e.theory_id == theory.id] or None,
            "fingerprint": theory.fingerprint if as_json or as_csv else theory.fingerprint[:12],
        }
        for theory in theories
    ]
    if rows or as_json or as_csv:
        print_rows(COLUMNS, rows, as_json=as_json, as_csv=as_csv)
    else:
        stderr().print("no theory yet: the first `alflow run` or `alflow add` of a campaign brings one", style="dim")


def show(
    theory: TheoryKey,
    other: Annotated[
        str | None,
        typer.Argument(metavar="[OTHER]", help="A second theory: show what differs.", show_default=False),
    ] = None,
    campaign: CampaignOption = None,
    ledger: LedgerOption = None,
    as_json: JsonOption = False,
) -> None:
    """Show a theory with its settings and files, or what two theories differ in."""
    with opened(campaign, ledger) as target:
        chosen = target.ledger.theories.find(theory)
        against = None if other is None else target.ledger.theories.find(other)
        labels = target.ledger.theories.label_counts().get(chosen.id, 0)
        equations = target.ledger.equations.list(withdrawn=True)
        theories = {row.id: row for row in target.ledger.theories.list()}
    if against is not None:
        _show_differences(chosen, against, as_json=as_json)
        return
    about = [e for e in equations if chosen.id in {e.theory_id, e.counts_as}]
    if as_json:
        print_json({**vars(chosen), "labels": labels, "equations": about})
        return
    from alflow.cli._console import stdout

    console = stdout()
    for line in _show_lines(chosen, labels, about, theories):
        console.print(line, markup=False, soft_wrap=True)


def equate(
    theory: TheoryKey,
    other: Annotated[
        str, typer.Argument(metavar="OTHER", help="The theory that its labels shall count for.", show_default=False)
    ],
    reason: Annotated[
        str,
        typer.Option(
            "--reason",
            "-r",
            metavar="TEXT",
            help="Why both give the same numbers: what was compared, and how large the differences are.",
            show_default=False,
        ),
    ],
    withdraw: Annotated[bool, typer.Option("--withdraw", help="Take the declaration back.")] = False,
    campaign: CampaignOption = None,
    ledger: LedgerOption = None,
    as_json: JsonOption = False,
) -> None:
    """Declare that labels of one theory count as labels of another.

    Holds in this direction and for this pair only. Structures with labels of both are compared, and what is found is
    kept with the reason. Nothing is changed: --withdraw makes everything as before.
    """
    from alflow.cli._console import stderr
    from alflow.ledger import theory_name

    with opened(campaign, ledger) as target:
        one, two = (target.ledger.theories.find(key) for key in (theory, other))
        change = target.ledger.equations.withdraw if withdraw else target.ledger.equations.declare
        row = change(one.id, two.id, reason, actor())
        labels = target.ledger.theories.label_counts().get(one.id, 0)
    if as_json:
        print_json(row)
        return
    console = stderr()
    names = f"labels of {theory_name(one)} count as labels of {theory_name(two)}"
    if withdraw:
        console.print(f"withdrawn: no {names} any more", markup=False, soft_wrap=True)
        return
    console.print(f"{names} from now on: {plural(labels, 'label')}", markup=False, soft_wrap=True)
    console.print(_evidence_text(row.evidence), markup=False, soft_wrap=True)


def _evidence_text(evidence: Mapping[str, Any]) -> str:
    """Say what the ledger itself knows about the difference of two theories."""
    count = int(evidence.get("structures", 0))
    if not count:
        return "no structure has labels of both: only the reason speaks for it"
    units = {"energy": ("energies", "meV/atom"), "force": ("forces", "meV/Å"), "stress": ("stresses", "meV/Å³")}
    parts = [f"{what} by {1e3 * evidence[key]:.3g} {unit}" for key, (what, unit) in units.items() if key in evidence]
    return f"{plural(count, 'structure')} with labels of both differ at most in {', '.join(parts)}"


# -- one theory, two theories ------------------------------------------------------------------------------------------


def _show_lines(
    theory: TheoryRow, labels: int, equations: list[EquationRow], theories: Mapping[int, TheoryRow]
) -> Iterator[Any]:
    from rich.text import Text

    from alflow.ledger import theory_name

    yield Text(f"Theory {theory.id}  {theory_name(theory)}", style="bold")

    def line(name: str, text: str) -> str:
        return f"  {name:<12} {text}"

    yield line("labeler", f"{theory.labeler}, {theory.code}")
    yield line("fingerprint", theory.fingerprint)
    yield line("labels", f"{labels}, first used {clock(theory.created)} UTC")
    for key, value in flattened(theory.settings).items():
        yield line("setting", f"{key}: {_value(value)}")
    for role, digest in sorted(theory.files.items()):
        yield line("file", f"{role}: {digest}")
    yield line("noise", "not measured; `alflow labeler noise` does" if theory.noise is None else _noise(theory.noise))
    for equation in equations:
        source, target = theories[equation.theory_id], theories[equation.counts_as]
        ended = "" if equation.withdrawn is None else f"; withdrawn {clock(equation.withdrawn)} UTC"
        yield line(
            "equated",
            f"labels of {theory_name(source)} count as labels of {theory_name(target)}, by {equation.actor}, "
            f"{clock(equation.created)} UTC: {equation.reason} ({_evidence_text(equation.evidence)}){ended}",
        )


def _noise(noise: Mapping[str, Any]) -> str:
    units = {"energy": "eV/atom", "force": "eV/Å", "stress": "eV/Å³"}
    parts = [f"{key} {noise[key]:.2g} {unit}" for key, unit in units.items() if noise.get(key) is not None]
    return ", ".join(parts) + (f", of {noise['structure']}" if noise.get("structure") else "")


def flattened(settings: Mapping[str, Any], prefix: str = "") -> dict[str, Any]:
    """Settings with dotted keys, ``kpoints.spacing``, so that each can be compared."""
    found: dict[str, Any] = {}
    for key, value in sorted(settings.items()):
        name = f"{prefix}{key}"
        if isinstance(value, Mapping) and value:
            found |= flattened(value, f"{name}.")
        else:
            found[name] = value
    return found


def differences(one: TheoryRow, other: TheoryRow) -> list[dict[str, Any]]:
    """What two theories differ in, None where one of them lacks it: labeler, code, settings, files."""
    sides = [
        {"labeler": theory.labeler, "code": theory.code}
        | {f"setting {key}": value for key, value in flattened(theory.settings).items()}
        | {f"file {role}": digest for role, digest in theory.files.items()}
        for theory in (one, other)
    ]
    names = list(dict.fromkeys([*sides[0], *sides[1]]))
    return [
        {"what": name, "one": sides[0].get(name), "other": sides[1].get(name)}
        for name in names
        if name not in sides[0] or name not in sides[1] or sides[0][name] != sides[1][name]
    ]


def _show_differences(one: TheoryRow, other: TheoryRow, *, as_json: bool) -> None:
    from alflow.ledger import theory_name

    if one.id == other.id:
        raise UserError(f"{theory_name(one)} is one theory: name another to compare it with")
    found = differences(one, other)
    if as_json:
        print_json({"one": one.id, "other": other.id, "differences": found})
        return
    columns = [
        Column(key="what", label="What"),
        Column(key="one", label=theory_name(one), elastic=True),
        Column(key="other", label=theory_name(other), elastic=True),
    ]
    print_rows(columns, [row | {key: _value(row[key]) for key in ("one", "other")} for row in found])


def _value(value: Any) -> str:
    if value is None:
        return "–"
    return value if isinstance(value, str) else json.dumps(value, ensure_ascii=False)
