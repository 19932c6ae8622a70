from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING

import pytest

from alflow.config import mask_url
from alflow.config._ledger_url import resolve_url
from alflow.errors import ConfigError

if TYPE_CHECKING:
    from tests.config.conftest import Fail, Load

SECRET = "hunter2"


@pytest.mark.parametrize(
    ("url", "masked"),
    [
        (f"postgresql://u:{SECRET}@h/d", "postgresql://u:***@h/d"),
        (f"postgresql+psycopg://u:{SECRET}@h:5432/d?x=1", "postgresql+psycopg://u:***@h:5432/d?x=1"),
        (f"postgresql://u:a@{SECRET}/b@h/d", "postgresql://u:***@h/d"),
        (f"postgresql://:{SECRET}@h/d", "postgresql://:***@h/d"),
        (f"postgresql://h/d?user=u&password={SECRET}&x=1", "postgresql://h/d?user=u&password=***&x=1"),
        (f"postgresql://h/d?sslpassword={SECRET}", "postgresql://h/d?sslpassword=***"),
        ("postgresql://u:${PW}@h/d", "postgresql://u:${PW}@h/d"),
        ("postgresql://u@h/d", "postgresql://u@h/d"),
        ("sqlite:///a.db", "sqlite:///a.db"),
    ],
)
def test_a_password_is_masked_and_nothing_else(url: str, masked: str) -> None:
    assert mask_url(url) == masked


def test_the_password_shows_nowhere(load: Load, fail: Fail) -> None:
    loaded = load(f"ledger: postgresql://u:{SECRET}@h/d")
    assert SECRET in loaded.ledger_url
    assert SECRET not in str(loaded.config.to_json())
    assert SECRET not in repr(loaded.config)
    assert SECRET not in fail(f"ledger: mysql://u:{SECRET}@h/d")
    assert SECRET not in fail(f"ledger: [postgresql://u:{SECRET}@h/d]")


def test_the_environment_fills_in_the_url_alone(load: Load, fail: Fail, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("ALFLOW_TEST_PASSWORD", SECRET)
    loaded = load("goal: ${ALFLOW_TEST_PASSWORD}\nledger: postgresql://u:${ALFLOW_TEST_PASSWORD}@h/d")
    assert loaded.ledger_url == f"postgresql://u:{SECRET}@h/d"
    assert loaded.config.goal == "${ALFLOW_TEST_PASSWORD}"
    assert SECRET not in repr(loaded)
    monkeypatch.delenv("ALFLOW_TEST_PASSWORD")
    message = fail("ledger: postgresql://u:${ALFLOW_TEST_PASSWORD}@h/d")
    assert "campaign.yaml:1:1: ledger: the environment variable ALFLOW_TEST_PASSWORD is not set" in message


@pytest.mark.parametrize(
    ("url", "resolved"),
    [
        ("sqlite:///a.db", "sqlite:////folder/a.db"),
        ("sqlite:///sub/a.db?timeout=3", "sqlite:////folder/sub/a.db?timeout=3"),
        ("sqlite:////abs/a.db", "sqlite:////abs/a.db"),
        ("sqlite:///${D}/a.db", "sqlite:////data/a.db"),
        ("sqlite:///:memory:", "sqlite:///:memory:"),
        ("postgresql://h/d", "postgresql://h/d"),
    ],
)
def test_relative_files_start_from_the_campaign(url: str, resolved: str) -> None:
    assert resolve_url(url, Path("/folder"), {"D": "/data"}) == resolved


def test_an_unset_variable_is_an_error() -> None:
    with pytest.raises(ConfigError, match="NOPE is not set"):
        resolve_url("sqlite:///${NOPE}.db", Path("/folder"), {})
