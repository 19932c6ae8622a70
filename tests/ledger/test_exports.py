from __future__ import annotations

import subprocess
import sys
from types import ModuleType

import alflow.ledger


def test_the_face_is_exactly_what_is_exported() -> None:
    public = {
        name
        for name, value in vars(alflow.ledger).items()
        if not name.startswith("_") and not isinstance(value, ModuleType)
    }
    assert public == set(alflow.ledger.__all__)
    assert all(getattr(alflow.ledger, name).__doc__ for name in alflow.ledger.__all__)


def test_opening_an_existing_ledger_does_not_import_alembic(sqlite_template: object) -> None:
    code = (
        "import sys; from alflow.ledger import open_ledger\n"
        f"open_ledger('sqlite:///{sqlite_template}').close()\n"
        "assert not {'alembic', 'torch', 'pymatgen', 'prefect'} & set(sys.modules), sorted(sys.modules)"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True)
    assert done.returncode == 0, done.stderr
