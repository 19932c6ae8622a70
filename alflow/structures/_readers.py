"""Structures from files, through an allow-list of formats.

ASE reads many more formats, some of which unpickle objects, decode classes from JSON or look into neighbouring files.
Here are four that hold numbers and text: extended XYZ, CIF, POSCAR/CONTCAR and ASE's SQLite database. The database is
read column by column, so that nothing in it is decoded but arrays of numbers.
"""

from __future__ import annotations

import gzip
import itertools
import sqlite3
import warnings
from collections.abc import Callable, Iterator
from contextlib import closing, contextmanager
from dataclasses import dataclass
from functools import partial
from io import StringIO, TextIOWrapper
from pathlib import Path
from typing import Any, TextIO

import numpy as np
from ase import Atoms
from ase.calculators.singlepoint import SinglePointCalculator
from ase.data import atomic_numbers

from alflow.errors import StructureError
from alflow.structures._structure import Structure

_Found = tuple[Callable[[], Atoms], str | None, float]  # what parses it, its text, the share of the file

MAX_FILE_BYTES = 4 * 1024**3
MAX_TEXT_BYTES = 64 * 1024**2
MAX_ATOMS = 100_000
_MAX_LENGTH = 1e5
_MIN_VOLUME = 0.1
_MAX_LINE = 10_000_000

# What the parsers raise on files that are damaged; anything else is a mistake of ours and must be seen as one.
_PARSE_ERRORS = (
    ArithmeticError,
    AssertionError,
    AttributeError,
    LookupError,
    OSError,
    RuntimeError,
    StopIteration,
    SyntaxError,
    TypeError,
    ValueError,
    sqlite3.Error,
)


@dataclass(frozen=True, kw_only=True, eq=False)
class Frame:
    """One structure of a file as it stands there; :meth:`load` parses it.

    Parameters
    ----------
    path, number
        the file, and which of its structures this is, from 0
    share
        how much of the file has been gone through, 0 to 1
    text
        the frame as it stands in the file, ending with a line break, where the format is extended XYZ; else None
    parse
        makes the structure of it, unchecked
    """

    path: Path
    number: int
    share: float
    text: str | None
    parse: Callable[[], Atoms]

    def load(self) -> Atoms:
        """Parse and check; raises StructureError, which names file and frame."""
        with _named(self.path, self.number):
            atoms = self.parse()
            _check(atoms)
        return atoms


def read_structures(
    path: str | Path, *, max_structures: int | None = None, index: int | str | slice = ":"
) -> Iterator[Atoms]:
    """Read structures, and the labels that come with them, one after the other.

    Parameters
    ----------
    path
        ``.xyz``, ``.extxyz`` (both also with ``.gz``), ``.cif``, ``.vasp``, ``.poscar``, ``POSCAR…``, ``CONTCAR…``,
        ``.db``
    max_structures
        refuse to give more than this many
    index
        which ones: a number, a slice, or the text of either (``-1``, ``":100"``, ``"::10"``); frames that it leaves out
        are not parsed

    Yields
    ------
    Atoms
        with ``REF_*`` entries as in the file, or energy, forces and stress attached as a single-point calculator

    Raises
    ------
    StructureError
        for a format that is not on the list, a file that is too large, and a frame that cannot be read, has partially
        occupied sites, or holds numbers that are not finite and plausible; it names the file and the frame
    """
    path = Path(path)
    frames = frames_of(path)
    for given, frame in enumerate(_choose(frames, _as_slice(index, path))):
        if max_structures is not None and given >= max_structures:
            raise StructureError(
                f"{path}: more than {max_structures} structures; raise the limit or choose some of them by an index"
            )
        yield frame.load()


def frames_of(path: str | Path) -> Iterator[Frame]:
    """Go through a file of structures without parsing them: to skip, count or copy some, or to go on after a bad one.

    Parameters
    ----------
    path
        as for :func:`read_structures`

    Returns
    -------
    an iterator over the frames in the order of the file

    Raises
    ------
    StructureError
        at once for a file that is not there, of a format that is not on the list or too large; from the iterator for a
        file without structures and for damage after which the next frame cannot be found. Damage within a frame is an
        error of its :meth:`Frame.load`
    """
    path = Path(path)
    reader, largest = _reader(path)  # checked at once, not only when the first frame is asked for
    if not path.is_file():
        raise StructureError(f"{path}: no such file")
    size = path.stat().st_size
    if size > largest:
        raise StructureError(f"{path}: {size / 1e6:.0f} MB; files of this format are read up to {largest / 1e6:.0f} MB")
    return _numbered(reader(path), path)


def _numbered(frames: Iterator[_Found], path: Path) -> Iterator[Frame]:
    for number in itertools.count():
        with _named(path, number):
            found = next(frames, None)
        if found is None and number == 0:
            raise StructureError(f"{path}: it holds no structure")
        if found is None:
            return
        parse, text, share = found
        yield Frame(path=path, number=number, share=share, text=text, parse=parse)


def _reader(path: Path) -> tuple[Callable[[Path], Iterator[_Found]], int]:
    name, suffix = path.name.lower(), path.suffix.lower()
    if name.removesuffix(".gz").endswith((".xyz", ".extxyz")):
        return _read_extxyz, MAX_FILE_BYTES
    if suffix == ".cif":
        return _read_cif, MAX_TEXT_BYTES
    if suffix in {".vasp", ".poscar", ".contcar"} or name.startswith(("poscar", "contcar")):
        return _read_poscar, MAX_TEXT_BYTES
    if suffix == ".db":
        return _read_database, MAX_FILE_BYTES
    raise StructureError(
        f"{path}: structures are read from extended XYZ (.xyz, .extxyz, also .gz), CIF (.cif), POSCAR/CONTCAR (.vasp, "
        ".poscar) and ASE's SQLite database (.db); convert this file to one of them"
    )


def _as_slice(index: int | str | slice, path: Path) -> slice:
    if isinstance(index, str):
        try:
            parts = [int(part) if part.strip() else None for part in index.split(":")]
        except ValueError:
            parts = [None] * 4
        if len(parts) > 3 or parts == [None]:
            raise StructureError(f"{path}: index {index!r} is neither a number nor a slice such as 0:100:10")
        index = parts[0] if len(parts) == 1 and parts[0] is not None else slice(*parts)
    if isinstance(index, int):
        return slice(index, index + 1 if index != -1 else None)
    return index


def _choose(frames: Iterator[Frame], wanted: slice) -> Iterator[Frame]:
    if any(part is not None and part < 0 for part in (wanted.start, wanted.stop, wanted.step)):
        return iter(list(frames)[wanted])
    return itertools.islice(frames, wanted.start, wanted.stop, wanted.step)


@contextmanager
def _named(path: Path, number: int) -> Iterator[None]:
    """Name file and frame in whatever goes wrong."""
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")  # what matters in a file is an error here; the rest is ASE's small talk
            yield
    except StructureError as error:
        raise StructureError(f"{path}, frame {number}: {error}") from error
    except _PARSE_ERRORS as error:
        detail = str(error) or type(error).__name__
        raise StructureError(f"{path}, frame {number}: cannot be read ({detail})") from error


def _check(atoms: Atoms) -> None:
    if len(atoms) > MAX_ATOMS:
        raise StructureError(f"{len(atoms)} atoms; at most {MAX_ATOMS} are read")
    structure = Structure.from_atoms(atoms)
    if max(np.abs(structure.cell).max(), np.abs(structure.positions).max()) > _MAX_LENGTH:
        raise StructureError(f"cell or positions reach beyond {_MAX_LENGTH:g} Å")
    if structure.n_periodic == 3 and structure.volume < _MIN_VOLUME * structure.n_atoms:
        raise StructureError(f"{structure.volume / structure.n_atoms:.3g} Å³/atom is no crystal; are the units Å?")


# -- extended XYZ ------------------------------------------------------------------------------------------------------


def _read_extxyz(path: Path) -> Iterator[_Found]:
    # Read forward only: to seek in a compressed file, as ASE does, costs the square of its length.
    compressed, size = path.suffix.lower() == ".gz", max(path.stat().st_size, 1)
    with (
        path.open("rb") as raw,
        TextIOWrapper(gzip.GzipFile(fileobj=raw) if compressed else raw, encoding="utf-8") as file,
    ):
        line = 0
        while True:
            header = _line(file)
            line += 1
            if not header.strip():
                if not header or not file.read().strip():
                    return
                raise StructureError(f"line {line} is empty; expected a number of atoms")
            if not header.split()[0].isdigit():
                raise StructureError(f"line {line} is {header.strip()[:40]!r}; expected a number of atoms")
            n_atoms = int(header)
            if not 0 < n_atoms <= MAX_ATOMS:
                raise StructureError(f"line {line} announces {n_atoms} atoms; expected 1 to {MAX_ATOMS}")
            rows = [_line(file) for _ in range(n_atoms + 1)]
            if not rows[-1].strip():
                raise StructureError(f"the file ends within the frame that starts in line {line}")
            line += n_atoms + 1
            text = "".join([header, *rows])
            text = text if text.endswith("\n") else text + "\n"
            yield partial(_parse_extxyz, text), text, raw.tell() / size


def _parse_extxyz(text: str) -> Atoms:
    from ase.io.extxyz import read_extxyz

    return next(iter(read_extxyz(StringIO(text), index=slice(0, 1))))


def _line(file: TextIO) -> str:
    text = file.readline(_MAX_LINE)
    if len(text) == _MAX_LINE:
        raise StructureError(f"a line is longer than {_MAX_LINE} characters")
    return text


# -- CIF and POSCAR ----------------------------------------------------------------------------------------------------


def _read_cif(path: Path) -> Iterator[_Found]:
    from ase.io.cif import iread_cif
    from ase.spacegroup.spacegroup import SpacegroupError

    with path.open(encoding="utf-8", errors="replace") as file:
        try:
            for atoms in iread_cif(file, slice(None)):
                yield partial(_plain, atoms), None, 1.0
        except SpacegroupError as error:
            raise StructureError(f"its space group cannot be understood: {error}") from error


def _plain(atoms: Atoms) -> Atoms:
    """Refuse partially occupied sites and drop what only a CIF knows."""
    mixed = [site for site in atoms.info.get("occupancy", {}).values() if _partial(site)]
    if mixed:
        raise StructureError(f"partially occupied sites ({mixed[0]}); order them first")
    for key in ("spacegroup", "unit_cell", "occupancy"):
        atoms.info.pop(key, None)
    atoms.arrays.pop("spacegroup_kinds", None)
    return atoms


def _partial(occupancy: dict[str, float]) -> bool:
    return len(occupancy) > 1 or any(abs(value - 1) > 1e-3 for value in occupancy.values())


def _read_poscar(path: Path) -> Iterator[_Found]:
    yield partial(_parse_poscar, path), None, 1.0


def _parse_poscar(path: Path) -> Atoms:
    from ase.io.vasp import read_vasp

    text = path.read_text(encoding="utf-8")
    lines = text.splitlines()
    if len(lines) < 8:
        raise StructureError("a POSCAR has at least eight lines")
    symbols = [word.split("/")[0].split("_")[0] for word in lines[5].split()]
    # Without names ASE would guess them from the comment or from other files in the folder.
    if not symbols or any(symbol not in atomic_numbers for symbol in symbols):
        raise StructureError(f"line 6 is {lines[5].strip()!r}; expected the names of the elements (VASP 5 format)")
    counts = [int(word) for word in lines[6].split("!")[0].split()]
    if len(counts) != len(symbols) or not 0 < sum(counts) <= MAX_ATOMS:
        raise StructureError(f"line 7 is {lines[6].strip()!r}; expected one number of atoms per element")
    atoms = read_vasp(StringIO(text))
    atoms.set_constraint()
    return atoms


# -- ASE database ------------------------------------------------------------------------------------------------------

_COLUMNS = (
    "numbers, positions, cell, pbc, initial_magmoms, initial_charges, "
    "energy, free_energy, forces, stress, dipole, magmoms"
)
_FLOATS = np.dtype("<f8")


def _read_database(path: Path) -> Iterator[_Found]:
    with closing(sqlite3.connect(f"{path.absolute().as_uri()}?mode=ro", uri=True)) as connection:
        connection.execute("PRAGMA trusted_schema = OFF")
        kind = connection.execute("SELECT type FROM sqlite_master WHERE name = 'systems'").fetchone()
        if kind != ("table",):
            raise StructureError("this SQLite file is not an ASE database")
        connection.row_factory = sqlite3.Row
        total = connection.execute("SELECT count(*) FROM systems").fetchone()[0]
        rows = connection.execute(f"SELECT {_COLUMNS} FROM systems ORDER BY id")  # noqa: S608  a constant
        for number, row in enumerate(rows, start=1):
            yield partial(_row_to_atoms, row), None, number / total


def _row_to_atoms(row: sqlite3.Row) -> Atoms:
    def array(name: str, shape: tuple[int, ...]) -> Any:
        blob = row[name]
        return None if blob is None else np.frombuffer(blob, _FLOATS).astype(float).reshape(shape)

    atoms = Atoms(
        numbers=np.frombuffer(row["numbers"], np.dtype("<i4")).astype(int),
        positions=array("positions", (-1, 3)),
        cell=array("cell", (3, 3)),
        pbc=[bool(row["pbc"] >> axis & 1) for axis in range(3)],
    )
    n_atoms = len(atoms)
    for name, setter in (
        ("initial_magmoms", atoms.set_initial_magnetic_moments),
        ("initial_charges", atoms.set_initial_charges),
    ):
        if row[name] is not None:
            values = array(name, (-1,))
            setter(values.reshape(n_atoms, -1) if len(values) > n_atoms else values)
    results = {name: row[name] for name in ("energy", "free_energy") if row[name] is not None}
    for name, shape in (("forces", (n_atoms, 3)), ("stress", (6,)), ("dipole", (3,)), ("magmoms", (-1,))):
        if row[name] is not None:
            results[name] = array(name, shape)
    if results:
        atoms.calc = SinglePointCalculator(atoms, **results)
    return atoms
