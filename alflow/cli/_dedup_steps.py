"""The three passes of ``alflow dedup``: read and fingerprint, group bucket by bucket, write what is kept.

Memory: some hundred structures while reading; while grouping the fingerprints of the largest bucket's groups (0.5 to
2 kB each) and DuplicateIndex's cache of prepared structures; one structure while writing.
"""

from __future__ import annotations

import csv
import gzip
import itertools
import math
import time
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Any, TextIO

from alflow.cli._dedup_work import BadFrame, Decision, Member, ReadFrame, Source, WorkFile
from alflow.cli._output import duration
from alflow.errors import StructureError, UserError
from alflow.structures import DuplicateIndex, Structure, fingerprint, frames_of

if TYPE_CHECKING:
    from ase import Atoms

    from alflow.cli._reporter import ConsoleReporter
    from alflow.structures import DuplicatePolicy, Isometry

BATCH = 256
TABLE_COLUMNS = (
    "file",
    "frame",
    "formula",
    "n_atoms",
    "energy_per_atom",
    "group",
    "duplicate_of",
    "displacement",
    "rms",
    "strain",
    "mirrored",
    "copies",
    "error",
)


class Pace:
    """How fast work goes, and how long the rest will take."""

    def __init__(self, share: float) -> None:
        self._begin, self._from = time.monotonic(), share

    def text(self, n_done: int, share: float) -> str:
        """``812 structures/s, 3 min 20 s left`` after ``n_done`` structures of this run, at a share of the whole."""
        seconds = max(time.monotonic() - self._begin, 1e-6)
        words = f"{n_done / seconds:.0f} structures/s"
        if share > self._from and seconds > 2.0:
            words += f", {duration(seconds * (1.0 - share) / (share - self._from))} left"
        return words


# -- first pass ----------------------------------------------------------------------------------------------------


def read_all(work: WorkFile, sources: Sequence[Source], report: ConsoleReporter, *, skip_bad: bool) -> None:
    """Read what is not read yet.

    Raises
    ------
    StructureError
        for a frame that cannot be read, unless ``skip_bad``; what was read before it is kept
    """
    left_out = None if skip_bad else work.first_bad()
    if left_out is not None:
        raise _unreadable(*left_out)
    total = max(sum(source.size for source in sources), 1)
    before = [0, *itertools.accumulate(source.size for source in sources)]
    done = 0
    pace: Pace | None = None
    for source, begin in zip(sources, before, strict=False):
        if work.is_complete(source):
            continue
        loaded = _loaded(source, work.next_number(source))
        while batch := list(itertools.islice(loaded, BATCH)):
            found = _with_fingerprints([item for item, _ in batch])
            bad = next((item for item in found if isinstance(item, BadFrame)), None)
            if bad is not None and not skip_bad:
                work.add(source, found[: found.index(bad)])
                raise _unreadable(source.path, bad)
            work.add(source, found)
            done += len(found)
            at = (begin + batch[-1][1] * source.size) / total
            pace = pace or Pace(at)
            report.progress("read", math.floor(100 * at), 100, f"%, {done} structures, {pace.text(done, at)}")
        work.complete(source)
    work.commit()


@dataclass(frozen=True, kw_only=True, eq=False)
class _Loaded:
    """A structure that was parsed; ``energy`` in eV, None without a label."""

    number: int
    structure: Structure
    energy: float | None


def _loaded(source: Source, first: int) -> Iterator[tuple[_Loaded | BadFrame, float]]:
    """Frames of a file from one on, each with the share of the file behind it; damage between frames is the last."""
    frames = itertools.islice(frames_of(source.path), first, None)
    for number in itertools.count(first):
        try:
            frame = next(frames, None)
        except StructureError as error:
            yield BadFrame(number=number, message=f"{_bare(error, source, number)}; nothing behind it can be read"), 1.0
            return
        if frame is None:
            return
        try:
            atoms = frame.load()
        except StructureError as error:
            yield BadFrame(number=number, message=_bare(error, source, number)), frame.share
            continue
        loaded = _Loaded(number=number, structure=Structure.from_atoms(atoms), energy=labelled_energy(atoms))
        yield loaded, frame.share


def _unreadable(path: Path | str, bad: BadFrame) -> StructureError:
    return StructureError(f"{path}, frame {bad.number}: {bad.message}; --skip-bad leaves such frames out")


def _bare(error: StructureError, source: Source, number: int) -> str:
    """The message without file and frame, which stand beside it."""
    return str(error).removeprefix(f"{source.path}, frame {number}: ").removeprefix(f"{source.path}: ")


def _with_fingerprints(frames: Sequence[_Loaded | BadFrame]) -> list[ReadFrame | BadFrame]:
    """Fingerprint what was parsed; a structure that has none becomes a bad frame."""
    found: list[ReadFrame | BadFrame] = []
    for frame in frames:
        if isinstance(frame, BadFrame):
            found.append(frame)
            continue
        try:
            prints = fingerprint(frame.structure)
        except StructureError as error:
            found.append(BadFrame(number=frame.number, message=str(error)))
            continue
        energy = None if frame.energy is None else frame.energy / frame.structure.n_atoms
        found.append(ReadFrame(number=frame.number, structure=frame.structure, fingerprint=prints, energy=energy))
    return found


def labelled_energy(atoms: Atoms) -> float | None:
    """The energy that a structure is labelled with, eV: ``REF_energy``, else a result; None where there is none."""
    results = {} if atoms.calc is None else atoms.calc.results
    energy = atoms.info.get("REF_energy", results.get("free_energy", results.get("energy")))
    try:
        value = float(energy)
    except (TypeError, ValueError):
        return None
    return value if math.isfinite(value) else None


# -- second pass ---------------------------------------------------------------------------------------------------


def group_all(work: WorkFile, policy: DuplicatePolicy, report: ConsoleReporter, n_structures: int) -> None:
    """Decide for every structure which group it belongs to, as :func:`alflow.structures.find_duplicates` does.

    Labelled structures come first in the canonical order, so that none is dropped for one without a label.
    """
    before = decided = work.n_decided
    pace = Pace(before / max(n_structures, 1))
    for bucket in work.open_buckets():
        for _ in _group_bucket(work, bucket, policy):
            decided += 1
            text = pace.text(decided - before, decided / n_structures)
            report.progress("group", decided, n_structures, text)
    work.commit()


def _group_bucket(work: WorkFile, bucket: str, policy: DuplicatePolicy) -> Iterator[int]:
    """Take the decisions of a bucket that are not taken yet, one after the other."""
    index = DuplicateIndex(policy)
    previous: Member | None = None
    for member in work.members(bucket):
        if member.leader == member.id:
            index.add(member.id, partial(work.structure, member.id), work.fingerprint(member.id))
        elif member.leader is None:
            if previous is not None and previous.hash == member.hash:
                decision = _copied(work.decision(previous.id), member.id)
            else:
                decision = _searched(work, member.id, index)
            work.decide(decision)
            yield member.id
        previous = member


def _searched(work: WorkFile, frame: int, index: DuplicateIndex) -> Decision:
    """The group of a structure among the leaders so far; a structure without one leads the next."""
    prints = work.fingerprint(frame)
    try:
        match = index.find(work.structure(frame), prints)
    except StructureError as error:
        raise StructureError(f"{work.origin(frame)}: {error}") from error
    if match is not None:
        return _matched(frame, int(str(match.key)), match.isometry)
    index.add(frame, partial(work.structure, frame), prints)
    return Decision(frame=frame, leader=frame)


def _matched(frame: int, leader: int, isometry: Isometry) -> Decision:
    return Decision(
        frame=frame,
        leader=leader,
        displacement=isometry.max_displacement,
        rms=isometry.rms_displacement,
        strain=isometry.max_strain,
        mirrored=isometry.det < 0,
        copies=isometry.n_copies,
    )


def _copied(known: Decision, frame: int) -> Decision:
    """The decision on a structure whose content equals that of one already decided."""
    if known.leader == known.frame:
        return replace(known, frame=frame, displacement=0.0, rms=0.0, strain=0.0, mirrored=False, copies=1.0)
    return replace(known, frame=frame)


# -- third pass ----------------------------------------------------------------------------------------------------


def write_all(
    work: WorkFile,
    sources: Sequence[Source],
    output: Path,
    tables: Mapping[Path, tuple[Sequence[str], Iterable[Mapping[str, Any]]]],
    report: ConsoleReporter,
    n_unique: int,
) -> None:
    """Write structures and tables (columns and rows for each file) under temporary names, then put all in place.

    Raises
    ------
    UserError
        if an input file has changed meanwhile; nothing is put in place
    """
    drafts = {path: path.with_name(f".{path.name}.draft") for path in (*tables, output)}
    try:
        with _opened(drafts[output], compressed=output.suffix.lower() == ".gz") as file:
            for number, text in enumerate(_kept_texts(work, sources), start=1):
                file.write(text)
                report.progress("write", number, n_unique)
        for path, (columns, rows) in tables.items():
            with drafts[path].open("w", encoding="utf-8", newline="") as file:
                _write_rows(file, columns, rows)
        work.set_publishing(True)
        for path, draft in drafts.items():
            draft.replace(path)
        work.set_publishing(False)
    finally:
        for draft in drafts.values():
            draft.unlink(missing_ok=True)


def _opened(path: Path, *, compressed: bool) -> TextIO:
    if compressed:
        return gzip.open(path, "wt", encoding="utf-8", compresslevel=6)
    return path.open("w", encoding="utf-8", newline="\n")


def _write_rows(file: TextIO, columns: Sequence[str], rows: Iterable[Mapping[str, Any]]) -> None:
    """Write a CSV table: None as an empty field, truth as yes and no, lengths (Å) and strains to six decimals."""
    writer = csv.writer(file, lineterminator="\n")
    writer.writerow(columns)
    for row in rows:
        writer.writerow([_cell(name, row[name]) for name in columns])


def _cell(name: str, value: Any) -> Any:
    if name == "mirrored" and value is not None:
        return "yes" if value else "no"
    if not isinstance(value, float) or name == "energy_per_atom":
        return value
    return f"{value:g}" if name == "copies" else f"{value:.6f}"


def _kept_texts(work: WorkFile, sources: Sequence[Source]) -> Iterator[str]:
    """Kept structures in the order of the input: as they stand in an extended XYZ file, else written anew."""
    results = work.results
    for source in sources:
        kept = results.kept_numbers(source.id)
        wanted = next(kept, None)
        if wanted is None:
            continue
        _check_unchanged(source)
        for frame in frames_of(source.path):
            if frame.number == wanted:
                yield frame.text or _as_extxyz(frame.load())
                wanted = next(kept, None)
                if wanted is None:
                    break
        _check_unchanged(source)
        if wanted is not None:
            raise UserError(f"{source.path} ends before frame {wanted}, which it held before; run the command again")


def _check_unchanged(source: Source) -> None:
    if source.has_changed():
        raise UserError(f"{source.path} has changed since it was read; the same command reads it again")


def _as_extxyz(atoms: Atoms) -> str:
    from io import StringIO

    from ase.io.extxyz import write_extxyz

    stream = StringIO()
    write_extxyz(stream, [atoms])
    return stream.getvalue()
