"""A ledger as the first schema kept it: rows in every table, by plain SQL, never touched by today's code."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any

from sqlalchemy import Connection, text

from alembic import command
from alflow.ledger._engine import Database
from alflow.ledger._migrate import alembic_config

#: content of the two artifacts, by the place where it lies
FILES = {
    "9a/9a129038d9a00aed0cf6a7ea059ca50a813449061ab87848cf1a13eafdf33b2c": b"weights",
    "57/5775e775a009a883570f8738b2efba72ebd889bebd792398088abf4b78a55133": b"a log",
}

_STRUCTURES: list[tuple[Any, ...]] = [
    (
        1,
        "503af57bb1d5b9c874cf6aa04f5b830ffc7c3d54e86dc49daa44ebb1fe953775",
        "Ni",
        "Ni",
        "A",
        "Ni",
        1,
        1,
        3,
        10.71875,
        0.0,
        225,
        bytes.fromhex(
            "86a17601a463656c6cc4480000000000000000000000000000fc3f000000000000fc3f000000000000fc3f00000000000000"
            "00000000000000fc3f000000000000fc3f000000000000fc3f0000000000000000a3706263c403010101a76e756d62657273"
            "c4011ca9706f736974696f6e73c418000000000000000000000000000000000000000000000000a76d6f6d656e7473c40833"
            "3333333333e33f"
        ),
        1700000001.0,
    ),
    (
        2,
        "79d8ac619d25f7f7ebba3ee259a15cf4a6eaba7a476f933031778916adf75daa",
        "Pt",
        "Pt",
        "A",
        "Pt",
        1,
        1,
        3,
        14.829749999999999,
        0.0,
        225,
        bytes.fromhex(
            "85a17601a463656c6cc4480000000000000000333333333333ff3f333333333333ff3f333333333333ff3f00000000000000"
            "00333333333333ff3f333333333333ff3f333333333333ff3f0000000000000000a3706263c403010101a76e756d62657273"
            "c4014ea9706f736974696f6e73c418000000000000000000000000000000000000000000000000"
        ),
        1700000002.0,
    ),
    (
        3,
        "f0d5602fefe107d7bc0edb375ac58bab77dd8d2c67a135892eb4980593571041",
        "NiPt",
        "NiPt",
        "AB",
        "Ni-Pt",
        2,
        2,
        3,
        26.244000000000003,
        0.0,
        None,
        bytes.fromhex(
            "85a17601a463656c6cc4489a999999999905400000000000000000000000000000000000000000000000009a999999999905"
            "40000000000000000000000000000000000000000000000000cdcccccccccc0c40a3706263c403010101a76e756d62657273"
            "c4021c4ea9706f736974696f6e73c4300000000000000000000000000000000000000000000000009a9999999999f53f9a99"
            "99999999f53fcdccccccccccfc3f"
        ),
        1700000003.0,
    ),
    (
        4,
        "362cecf563250343f2bb7e8075731fe63762434123833b0089af63929405baff",
        "Ni3Pt",
        "Ni3Pt",
        "AB3",
        "Ni-Pt",
        4,
        2,
        3,
        48.627125,
        0.0,
        None,
        bytes.fromhex(
            "85a17601a463656c6cc4483333333333330d400000000000000000000000000000000000000000000000003333333333330d"
            "400000000000000000000000000000000000000000000000003333333333330d40a3706263c403010101a76e756d62657273"
            "c4041c1c1c4ea9706f736974696f6e73c460333333333333fd3f333333333333fd3f0000000000000000333333333333fd3f"
            "0000000000000000333333333333fd3f0000000000000000333333333333fd3f333333333333fd3f00000000000000000000"
            "0000000000000000000000000000"
        ),
        1700000004.0,
    ),
    (
        5,
        "74bb4a73c43ac2edf14987a3359c87cb0cb862382b4e870a52af2c45ca93f6ab",
        "Ni3Pt",
        "Ni3Pt",
        "AB3",
        "Ni-Pt",
        4,
        2,
        3,
        50.653000000000006,
        0.0,
        None,
        bytes.fromhex(
            "85a17601a463656c6cc4489a99999999990d400000000000000000000000000000000000000000000000009a99999999990d"
            "400000000000000000000000000000000000000000000000009a99999999990d40a3706263c403010101a76e756d62657273"
            "c4044e1c1c1ca9706f736974696f6e73c4600000000000000000000000000000000000000000000000009a9999999999fd3f"
            "9a9999999999fd3f00000000000000009a9999999999fd3f00000000000000009a9999999999fd3f00000000000000009a99"
            "99999999fd3f9a9999999999fd3f"
        ),
        1700000005.0,
    ),
]
_MARK = bytes.fromhex(
    "84a17601a162a6333a4e693a30a16cc42039c45b9a8ea30140afa89b75037909405354af998acc03400000000000000000a1"
    "78c4c855641e4055641e4055641e4055641e4055641e4055641e4055641e4055641e4055641e4055641e4055641e4055641e"
    "40000060400000604000006040000060400000604000006040e32b8940e32b8940e32b8940e32b8940e32b8940e32b894000"
    "0000000000000000000000000000000000000000000000000000000000000000000000000000000000000000000000000000"
    "0000000000000000000000000000000000000000000000000000000000000000000000000000000000000000009a99193f00"
    "000000"
)
_PROPERTIES = bytes.fromhex(
    "83a17601a6656e65726779cbc016000000000000a6666f7263657392920103c418000000000000000000000000000000000000000000000000"
)

#: per table its columns and rows, in an order that references allow
TABLES: Mapping[str, tuple[str, list[tuple[Any, ...]]]] = {
    "artifact": (
        "id sha256 kind name size location created",
        [
            (1, "9a129038d9a00aed0cf6a7ea059ca50a813449061ab87848cf1a13eafdf33b2c", "checkpoint", "round 1", 7,
             "9a/9a129038d9a00aed0cf6a7ea059ca50a813449061ab87848cf1a13eafdf33b2c", 1.7e9),
            (2, "5775e775a009a883570f8738b2efba72ebd889bebd792398088abf4b78a55133", "log", "job 1", 5,
             "57/5775e775a009a883570f8738b2efba72ebd889bebd792398088abf4b78a55133", 1.7e9),
        ],
    ),
    "campaign": (
        "id name goal config config_version config_hash state reason lease_owner lease_until fence created updated",
        [
            (1, "Ni-Pt", "stable compounds", '{"elements":["Ni","Pt"]}', 1, "c" * 64, "active", "", "a run", 1.7e9, 7,
             1.7e9, 1.7e9 + 0.25),
            (2, "old", "", "{}", 1, "d" * 64, "stopped", "the budget is spent", None, None, 2**40, 1.7e9, 1.7e9),
        ],
    ),
    "structure": (
        ("id content_hash formula reduced_formula anonymous_formula chemical_system n_atoms n_elements n_periodic "
        "volume charge space_group geometry created"),
        _STRUCTURES,
    ),
    "theory": (
        "id name labeler settings code files fingerprint noise created",
        [(1, "emt", "emt", '{"asap_cutoff":false}', "ase 3.26 emt", "{}", "e" * 64, '{"energy":0.001}', 1.7e9)],
    ),
    "fingerprint": (
        "structure_id version bucket leading_0 leading_1 leading_2 leading_3 vector",
        [(1, 1, "3:Ni:0", 2.204861837316028, 3.184088629544099, 2.4748737341529163, 0.0, _MARK)],
    ),
    "job": (
        ("id structure_id theory_id state precedence fence worker lease_until not_before attempts "
        "infrastructure_failures failures deaths error_kind message created updated"),
        [
            (1, 1, 1, "done", -1.0, 1, None, None, None, 1, 0, 0, 0, None, "", 1.7e9, 1.7e9),
            (2, 2, 1, "failed", 0.0, 2, None, None, None, 2, 1, 1, 0, "implausible", "12 eV/atom", 1.7e9, 1.7e9),
            (3, 4, 1, "queued", -2.5, 0, None, None, 1.7e9, 0, 0, 0, 0, None, "", 1.7e9, 1.7e9),
        ],
    ),
    "round": (
        "id campaign_id index state summary started finished",
        [
            (1, 1, 0, "closed", '{"labels":1}', 1.7e9, 1.7e9 + 1),
            (2, 1, 1, "open", "{}", 1.7e9 + 2, None),
            (3, 2, 0, "closed", "{}", 1.7e9, 1.7e9 + 1),
        ],
    ),
    "structure_element": (
        "element structure_id count fraction",
        [(28, 1, 1, 1.0), (78, 2, 1, 1.0), (28, 3, 1, 0.5), (78, 3, 1, 0.5), (28, 4, 3, 0.75), (78, 4, 1, 0.25),
         (28, 5, 3, 0.75), (78, 5, 1, 0.25)],
    ),
    "attempt": (
        ("id job_id fence worker host boot_id pid pid_started process_group scheduler_id directory numerics state "
        "error_kind message log_id timings started finished"),
        [
            (1, 1, 1, "w1", "here", "boot", 17, 2**33, 17, None, "/tmp/a", '{"threads":1}', "done", None, "", 2,
             '{"total":0.5}', 1.7e9, 1.7e9 + 1),
            (2, 2, 2, "w1", "here", None, 18, None, None, "4711", None, "{}", "failed", "implausible", "12 eV/atom",
             None, "{}", 1.7e9, 1.7e9 + 1),
        ],
    ),
    "committee": (
        "id round_id spec training artifact_id metrics calibration seed created",
        [(1, 2, '{"n_members":2}', "{}", 1, '{"energy":0.002}', '{"a":1.5}', 2**62, 1.7e9 + 3)],
    ),
    "hull": (
        "id round_id entries stable spread created",
        [(1, 1, '[["Ni",-5.5]]', "[1]", '{"members":[]}', 1.7e9 + 1)],
    ),
    "step": (
        "id round_id name state summary started finished",
        [
            (1, 1, "explore", "finished", '{"new":5}', 1.7e9, 1.7e9 + 1),
            (2, 2, "train", "running", "{}", 1.7e9 + 2, None),
        ],
    ),
    "candidate": (
        ("id campaign_id structure_id round_id parent_id state reason source parameters stream inclusion_probability "
        "rank duplicate_of relation pinned deliberate committee_id u energy energy_error force_error stress_error "
        "e_hull e_hull_error created updated"),
        [
            (1, 1, 1, 1, None, "labelled", "label 2 of theory emt", "enumerate", "{}", "design", None, None, None,
             None, False, False, None, None, None, None, None, None, None, None, 1.7e9, 1.7e9),
            (2, 1, 2, 1, None, "failed", "implausible: 12 eV/atom", "enumerate", "{}", "design", None, None, None,
             None, False, False, None, None, None, None, None, None, None, None, 1.7e9, 1.7e9),
            (3, 1, 3, 1, 1, "pooled", "passed the filters", "perturb", '{"strain":0.03}', "active", None, None, None,
             None, True, True, 1, 1.5, -11.25, 0.1 + 0.2, 0.5, 1e-300, -0.01, 0.02, 1.7e9, 1.7e9 + 4),
            (4, 1, 4, 2, 3, "queued", "queued for a label of theory emt as job 3", "dynamics", "{}", "random", 0.125,
             1, None, None, False, False, 1, 2.25, -22.5, 0.1, 0.5, 0.001, 0.01, 0.02, 1.7e9, 1.7e9 + 4),
            (5, 1, 5, 2, 4, "duplicate", "of candidate 4", "dynamics", "{}", "active", None, None, 4,
             '{"relation":"redundant","rms":0.05}', False, False, None, None, None, None, None, None, None, None,
             1.7e9, 1.7e9),
            (6, 2, 1, 3, None, "labelled", "label 2 of theory emt", "files", "{}", "imported", None, None, None,
             None, False, False, None, None, None, None, None, None, None, None, 1.7e9, 1.7e9),
            (7, 2, 3, 3, None, "rejected", "excluded by ada: \u00c5", "files", "{}", "manual", None, None, None,
             None, False, False, None, None, None, None, None, None, None, None, 1.7e9, 1.7e9),
            (8, 2, 4, 3, None, "pooled", "passed the filters", "files", "{}", "active", None, None, None,
             None, False, False, None, 0.25, None, None, None, None, None, None, 1.7e9, 1.7e9),
        ],
    ),
    "label": (
        ("id structure_id theory_id kind quality energy properties evidence derived_from isometry supersedes "
        "attempt_id created"),
        [
            (1, 1, 1, "imported", "superseded", -5.0, _PROPERTIES, "{}", None, None, None, None, 1.7e9),
            (2, 1, 1, "computed", "accepted", -5.5, _PROPERTIES, '{"converged":true}', 1, '{"order":[0]}', 1, 1,
             1.7e9 + 1),
        ],
    ),
    "committee_label": ("committee_id label_id held_out weights", [(1, 2, False, "[1.0,0.5]")]),
    "event": (
        "id time kind message campaign_id candidate_id job_id actor payload",
        [
            (1, 1.7e9, "proposed", "5 new candidates from enumerate: 5 proposed", 1, None, None, "loop",
             '{"ids":[[1,5]],"sources":{"enumerate":5},"states":{"proposed":5}}'),
            (2, 1.7e9 + 1, "transition", "candidate 1 became labelled", 1, 1, 1, "w1",
             '{"changes":[],"to":"labelled"}'),
            (3, 1.7e9 + 2, "note", "of no campaign", None, None, None, "ada", "{}"),
        ],
    ),
    "job_request": (
        "job_id candidate_id cancelled created",
        [(1, 1, None, 1.7e9), (1, 6, 1.7e9 + 1, 1.7e9), (2, 2, None, 1.7e9), (3, 4, None, 1.7e9)],
    ),
    "score": (
        ("id round_id committee_id candidate_id purpose u energy energy_spread force_spread stress_spread energy_error "
        "force_error stress_error e_hull e_hull_error details created"),
        [(1, 2, 1, 4, "selection", 2.25, -22.5, 0.01, 0.02, 0.03, 0.1, 0.5, 0.001, 0.01, 0.02, '{"rank":1}', 1.7e9)],
    ),
}  # fmt: skip


def populate(url: str, files: Path) -> None:
    """Make a ledger of the first schema in an empty database, fill it, and put its files into a folder."""
    database = Database(url)
    database.use_write_ahead_log()
    with database.write() as connection:
        command.upgrade(alembic_config(connection), "0001")
        for table, (names, rows) in TABLES.items():
            columns = names.split()
            quoted, marks = ", ".join(f'"{c}"' for c in columns), ", ".join(f":{c}" for c in columns)
            statement = text(f'INSERT INTO "{table}" ({quoted}) VALUES ({marks})')
            connection.execute(statement, [dict(zip(columns, row, strict=True)) for row in rows])
            if not database.is_sqlite and columns[0] == "id":
                connection.execute(text(f"SELECT setval('{table}_id_seq', (SELECT max(id) FROM \"{table}\"))"))
    database.close()
    for place, content in FILES.items():
        (files / place).parent.mkdir(parents=True)
        (files / place).write_bytes(content)


def dump(connection: Connection) -> dict[str, list[tuple[Any, ...]]]:
    """Every row of every table that the first schema had and this one has, in the first one's columns."""
    found = {}
    for table, (names, _) in TABLES.items():
        if not connection.dialect.has_table(connection, table):
            continue
        columns = ", ".join(f'"{c}"' for c in names.split())
        rows = connection.execute(text(f'SELECT {columns} FROM "{table}" ORDER BY 1, 2'))
        found[table] = [tuple(_plain(value) for value in row) for row in rows]
    return found


def _plain(value: Any) -> Any:
    return bytes(value) if isinstance(value, memoryview) else value
