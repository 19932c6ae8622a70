"""What every test shares: one thread per process, no telemetry, no window system, and the large reference data."""

from __future__ import annotations

import os
import sys
from pathlib import Path

import pytest

from tests.databases import (
    backend,
    databases,
    empty_url,
    postgresql_ledger,
    postgresql_server,
    postgresql_template,
    sqlite_template,
    url,
)

__all__ = [
    "backend",
    "databases",
    "empty_url",
    "postgresql_ledger",
    "postgresql_server",
    "postgresql_template",
    "sqlite_template",
    "url",
]

ROOT = Path(__file__).resolve().parents[1]

# Read by the libraries when they are first imported, so this stands before any of them.
for _name, _value in {
    "OMP_NUM_THREADS": "1",
    "MKL_NUM_THREADS": "1",
    "OPENBLAS_NUM_THREADS": "1",
    "MPLBACKEND": "Agg",
    "PREFECT_SERVER_ANALYTICS_ENABLED": "false",
    "DO_NOT_TRACK": "1",
}.items():
    os.environ.setdefault(_name, _value)


@pytest.fixture(autouse=True)
def _one_torch_thread() -> None:
    """Keep torch on one thread without importing it for tests that do not need it."""
    torch = sys.modules.get("torch")
    if torch is not None and torch.get_num_threads() != 1:
        torch.set_num_threads(1)


@pytest.fixture(scope="session")
def root() -> Path:
    """The root of the repository."""
    return ROOT


@pytest.fixture(scope="session")
def shared_data() -> Path:
    """Reference data too large for the repository; ``ALFLOW_TEST_DATA`` names another place for it."""
    path = Path(os.environ.get("ALFLOW_TEST_DATA", ROOT.parent / "shared" / "data"))
    if not path.is_dir():
        pytest.skip(f"no reference data at {path}; set ALFLOW_TEST_DATA to a folder that holds it")
    return path
