"""Labels that somebody has, read for ``alflow import``, and the table of what became of each."""

from __future__ import annotations

import csv
import sys
from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

from alflow.cli._options import require_folder
from alflow.cli._output import Column, plural, print_rows
from alflow.errors import UserError

if TYPE_CHECKING:
    from alflow.cli._reporter import ConsoleReporter
    from alflow.labelers import ForeignFrame, ForeignKind, ForeignSource, FoundSetting
    from alflow.loop import ImportedLabel

TABLE_COLUMNS = (
    *("origin", "outcome", "reason", "detail", "candidate"),
    *("formula", "n_atoms", "energy", "energy_difference_per_atom", "settings"),
)
_REFUSED = "refused"


@dataclass(frozen=True, kw_only=True, eq=False)
class Found:
    """What some paths hold: every frame, and the settings in which they differ."""

    frames: Sequence[ForeignFrame]
    settings: Sequence[FoundSetting]

    @property
    def usable(self) -> int:
        """Number of labels."""
        return sum(frame.example is not None for frame in self.frames)


def read_labels(paths: Sequence[str], elements: Sequence[str], report: ConsoleReporter) -> Found:
    """Read every label of some files and folders, each file once; of a campaign's elements those of one theory.

    Raises
    ------
    UserError
        if no path is named, one holds no labels, or is nothing that labels are read from
    """
    from alflow.labelers import find_foreign, one_theory, read_foreign

    if not paths:
        raise UserError("name at least one file or folder with labels")
    sources: dict[tuple[Path, ForeignKind], ForeignSource] = {}
    for path in paths:
        nothing = True
        for source in find_foreign(Path(path)):
            nothing = False
            sources.setdefault((source.path.resolve(), source.kind), source)
            report.progress("read", len(sources), text="files and folders found")
        if nothing:
            raise UserError(f"{path}: in this folder are neither runs of VASP (OUTCAR, vasprun.xml) nor DeePMD data")
    frames: list[ForeignFrame] = []
    for done, source in enumerate(sources.values(), 1):
        for frame in read_foreign(source):
            frames.append(frame)
            report.progress("read", done - 1, len(sources), plural(len(frames), "frame"))
        report.progress("read", done, len(sources), plural(len(frames), "frame"))
    kept, differences = one_theory(frames, elements)
    return Found(frames=kept, settings=differences)


def check_table(table: Path | None) -> None:
    """Refuse a table that exists, or whose folder does not, before the work begins."""
    if table is None:
        return
    if table.exists():
        raise UserError(f"{table} exists already; choose another --table")
    require_folder(table)


def write_table(table: Path, found: Found, labels: Sequence[ImportedLabel]) -> None:
    """Write a row for every frame in the order in which they were read; energies in eV per cell."""
    outcomes = iter(labels)
    draft = table.with_name(f".{table.name}.draft")
    try:
        with draft.open("w", encoding="utf-8", newline="") as file:
            writer = csv.writer(file, lineterminator="\n")
            writer.writerow(TABLE_COLUMNS)
            for frame in found.frames:
                settings = "" if frame.settings is None else "; ".join(f"{k} {v}" for k, v in frame.settings.named())
                if frame.example is None:
                    writer.writerow(
                        [frame.origin, _REFUSED, frame.refused, frame.detail, None, None, None, None, None, settings]
                    )
                    continue
                label, structure = next(outcomes), frame.example.structure
                writer.writerow(
                    [
                        frame.origin,
                        label.outcome.value,
                        label.reason,
                        label.detail,
                        label.candidate,
                        structure.formula,
                        structure.n_atoms,
                        frame.example.properties.energy,
                        label.difference,
                        settings,
                    ]
                )
        draft.replace(table)
    finally:
        draft.unlink(missing_ok=True)


def counts_by_reason(found: Found, labels: Sequence[ImportedLabel]) -> list[dict[str, object]]:
    """How many frames were taken, were known and were refused, by reason, with an example of each reason."""
    from alflow.loop import ImportOutcome

    rows: Counter[tuple[str, str]] = Counter()
    examples: dict[tuple[str, str], str] = {}
    for frame in found.frames:
        if frame.example is None:
            rows[_REFUSED, frame.refused] += 1
            examples.setdefault((_REFUSED, frame.refused), f"{frame.origin}: {frame.detail}")
    for label in labels:
        key = (label.outcome.value, label.reason)
        rows[key] += 1
        if label.outcome.value == _REFUSED:
            examples.setdefault(key, f"{label.origin}: {label.detail}")
    order = list(ImportOutcome)
    found_rows = sorted(rows.items(), key=lambda row: (order.index(ImportOutcome(row[0][0])), -row[1], row[0][1]))
    return [
        {"outcome": outcome, "reason": reason, "frames": n, "example": examples.get((outcome, reason))}
        for (outcome, reason), n in found_rows
    ]


def widest_difference(labels: Sequence[ImportedLabel]) -> tuple[float, str] | None:
    """The copy whose energy differs most from the label that the campaign has: by how much, eV/atom, and where."""
    copies = [(abs(label.difference), label.origin) for label in labels if label.difference is not None]
    return max(copies, default=None)


def print_import(
    rows: Sequence[dict[str, object]], settings: Sequence[FoundSetting], widest: tuple[float, str] | None
) -> None:
    """Print what became of the frames, how far copies are from known labels and, of several settings, which stayed."""
    columns = [Column(key="outcome", label=""), Column(key="reason"), Column(key="frames")]
    shown = [{**row, "reason": row["reason"] or ""} for row in rows]
    print_rows([*columns, Column(key="example", label="for example", elastic=True)], shown)
    if widest is not None:
        sys.stdout.write(
            f"\nOf structures that have a label the energies differ from it by at most {1e3 * widest[0]:.3g} meV/atom "
            f"({widest[1]}).\n"
        )
    if not settings:
        return
    sys.stdout.write("\n")
    print_rows(
        [
            Column(key="setting", label="settings differ"),
            Column(key="value", elastic=True),
            Column(key="labels"),
            Column(key="kept"),
        ],
        [{"setting": s.setting, "value": s.value, "labels": s.labels, "kept": s.kept} for s in settings],
    )
    sys.stdout.write("\nLabels of two theories never mix: import the others apart, under the theory that is theirs.\n")
