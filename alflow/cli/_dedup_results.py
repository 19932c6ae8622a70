"""What ``alflow dedup`` found: the groups as tables and numbers, from the rows of the work file."""

from __future__ import annotations

import sqlite3
from collections.abc import Iterator
from typing import Any


class Results:
    """Questions to a work file in which every structure has its decision."""

    def __init__(self, connection: sqlite3.Connection) -> None:
        self._connection = connection
        # a group has the number of its leader in the order of the input, which is the order of the output
        self._connection.executescript(
            "DROP TABLE IF EXISTS temp.kept; CREATE TEMP TABLE kept (leader INTEGER PRIMARY KEY, number INTEGER);"
            "INSERT INTO kept SELECT f.id, row_number() OVER (ORDER BY file.position, f.number) - 1 "
            "FROM frame f JOIN decision d ON d.frame = f.id AND d.leader = f.id JOIN file ON file.id = f.file;"
        )

    def kept_numbers(self, source: int) -> Iterator[int]:
        """Frames of a file (its row) that are kept, ascending."""
        query = "SELECT f.number FROM frame f JOIN kept ON kept.leader = f.id WHERE f.file = ? ORDER BY f.number"
        return (row[0] for row in self._connection.execute(query, (source,)))

    def table(self) -> Iterator[dict[str, Any]]:
        """A row for every frame in the order of the input, readable or not."""
        query = """
            SELECT file.name AS file, f.number AS frame, f.formula AS formula, f.n_atoms AS n_atoms,
                f.energy AS energy_per_atom, kept.number AS "group",
                CASE WHEN d.leader != f.id THEN leader_file.name || '#' || leader.number END AS duplicate_of,
                d.displacement AS displacement, d.rms AS rms, d.strain AS strain, d.mirrored AS mirrored,
                d.copies AS copies, NULL AS error, file.position AS position
            FROM frame f JOIN file ON file.id = f.file JOIN decision d ON d.frame = f.id
            JOIN kept ON kept.leader = d.leader JOIN frame leader ON leader.id = d.leader
            JOIN file leader_file ON leader_file.id = leader.file
            UNION ALL
            SELECT file.name, u.number, NULL, NULL, NULL, NULL, NULL, NULL, NULL, NULL, NULL, NULL, u.message,
                file.position
            FROM unreadable u JOIN file ON file.id = u.file
            ORDER BY position, frame
        """
        cursor = self._connection.execute(query)
        names = [column[0] for column in cursor.description]
        return (dict(zip(names, row, strict=True)) for row in cursor)

    def leaders_by_bucket(self, max_atoms: int) -> Iterator[list[int]]:
        """Leaders of each bucket of three-dimensional crystals that holds more than one of them."""
        query = (
            "SELECT f.bucket FROM decision d JOIN frame f ON f.id = d.frame WHERE d.leader = d.frame "
            "AND f.bucket LIKE '3:%' AND f.n_atoms <= ? GROUP BY f.bucket HAVING count(*) > 1 ORDER BY f.bucket"
        )
        members = (
            "SELECT f.id FROM frame f JOIN decision d ON d.frame = f.id AND d.leader = f.id "
            "WHERE f.bucket = ? AND f.n_atoms <= ?"
        )
        for (bucket,) in self._connection.execute(query, (max_atoms,)).fetchall():
            yield [row[0] for row in self._connection.execute(members, (bucket, max_atoms))]

    def duplicate_pairs(self, max_atoms: int) -> list[tuple[int, int]]:
        """(leader, duplicate) of three-dimensional crystals whose contents differ."""
        query = (
            "SELECT d.leader, d.frame FROM decision d JOIN frame f ON f.id = d.frame JOIN frame l ON l.id = d.leader "
            "WHERE d.leader != d.frame AND f.hash != l.hash AND f.bucket LIKE '3:%' AND max(f.n_atoms, l.n_atoms) <= ? "
            "ORDER BY d.frame"
        )
        return self._connection.execute(query, (max_atoms,)).fetchall()

    def counts(self) -> dict[str, int]:
        """How many structures were read, are kept, are duplicates (copies, labelled ones), carry a label, are bad."""
        row = self._connection.execute("""
            SELECT count(*), sum(d.leader = d.frame), sum(d.leader != d.frame),
                sum(d.leader != d.frame AND f.hash = l.hash), count(f.energy),
                sum(d.leader != d.frame AND f.energy IS NOT NULL)
            FROM frame f JOIN decision d ON d.frame = f.id JOIN frame l ON l.id = d.leader
        """).fetchone()
        names = ("read", "unique", "duplicates", "exact_copies", "labelled", "labelled_duplicates")
        counts = {name: int(value or 0) for name, value in zip(names, row, strict=True)}
        return {**counts, "unreadable": int(self._connection.execute("SELECT count(*) FROM unreadable").fetchone()[0])}

    def by_file(self) -> list[dict[str, Any]]:
        """For each file: its structures, how many are kept, how many belong to a group that has members elsewhere."""
        query = """
            WITH shared AS (
                SELECT d.leader FROM decision d JOIN frame f ON f.id = d.frame
                GROUP BY d.leader HAVING min(f.file) < max(f.file)
            )
            SELECT file.name, count(*), sum(d.leader = d.frame), count(shared.leader)
            FROM frame f JOIN decision d ON d.frame = f.id JOIN file ON file.id = f.file
            LEFT JOIN shared ON shared.leader = d.leader GROUP BY file.id ORDER BY file.position
        """
        names = ("file", "structures", "kept", "shared")
        return [dict(zip(names, row, strict=True)) for row in self._connection.execute(query)]

    def most_duplicated(self, limit: int) -> list[tuple[str, int, int]]:
        """(reduced formula, structures, duplicates) of the compositions with the most duplicates."""
        query = """
            SELECT f.bucket, count(*), sum(d.leader != d.frame) AS n FROM frame f JOIN decision d ON d.frame = f.id
            GROUP BY f.bucket HAVING n > 0 ORDER BY n DESC, f.bucket LIMIT ?
        """
        return [(bucket.split(":")[1], n, d) for bucket, n, d in self._connection.execute(query, (limit,))]

    def widest_energies(self) -> tuple[int, float] | None:
        """The leader of the group whose labels differ most, and the difference, eV/atom; None without such a group."""
        query = """
            SELECT d.leader, max(f.energy) - min(f.energy) AS spread FROM frame f JOIN decision d ON d.frame = f.id
            GROUP BY d.leader HAVING count(f.energy) > 1 ORDER BY spread DESC, d.leader LIMIT 1
        """
        row = self._connection.execute(query).fetchone()
        return None if row is None else (int(row[0]), float(row[1]))
