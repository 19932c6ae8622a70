"""What a ledger says when its server is gone, and that it works again when the server is back."""

from __future__ import annotations

import pytest

from alflow.errors import LedgerUnavailableError
from alflow.ledger import Ledger, open_ledger
from tests.databases import PostgresqlServer, running_server


def test_a_server_that_is_not_there_is_an_error_in_one_line() -> None:
    with pytest.raises(LedgerUnavailableError, match="cannot be reached") as caught:
        open_ledger("postgresql+psycopg://somebody:secret@127.0.0.1:1/nothing")
    assert "\n" not in str(caught.value)
    assert "secret" not in str(caught.value)


def crash_inside(server: PostgresqlServer, ledger: Ledger, campaign_id: int, *, back: bool) -> None:
    with ledger.write():
        ledger.events.add("lost", "before the crash", campaign_id=campaign_id)
        server.stop("immediate")
        if back:
            server.start()
        ledger.events.add("lost", "after it", campaign_id=campaign_id)


@pytest.mark.integration
def test_a_ledger_outlives_a_crash_of_its_server() -> None:
    with running_server() as server:
        server.administer("CREATE DATABASE ledger")
        with open_ledger(f"{server.url}/ledger") as ledger:
            campaign = ledger.campaigns.create("small", "", {}, 1)
            with pytest.raises(LedgerUnavailableError):
                crash_inside(server, ledger, campaign.id, back=False)
            for _ in range(2):
                with pytest.raises(LedgerUnavailableError):
                    ledger.campaigns.get(campaign.id)
            server.start()
            assert ledger.campaigns.get(campaign.id) == campaign
            assert ledger.events.list(campaign.id, kind="lost") == []
            with pytest.raises(LedgerUnavailableError):
                crash_inside(server, ledger, campaign.id, back=True)
            assert ledger.events.list(campaign.id, kind="lost") == []
            ledger.events.add("kept", "after all", campaign_id=campaign.id)
