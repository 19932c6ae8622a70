"""The campaign flow, run against Prefect's own test server."""

from __future__ import annotations

import warnings
from collections.abc import Iterator

import pytest

from tests.loop.conftest import MakeCampaign, make_campaign

__all__ = ["make_campaign"]

pytestmark = pytest.mark.integration


@pytest.fixture(scope="module")
def prefect_server() -> Iterator[None]:
    from prefect.settings import PREFECT_SERVER_EPHEMERAL_STARTUP_TIMEOUT_SECONDS, temporary_settings
    from prefect.testing.utilities import prefect_test_harness

    with (
        warnings.catch_warnings(),
        temporary_settings({PREFECT_SERVER_EPHEMERAL_STARTUP_TIMEOUT_SECONDS: 120}),
        prefect_test_harness(server_startup_timeout=120),
    ):
        yield


@pytest.mark.filterwarnings("ignore")  # Prefect's own dependencies warn at will
def test_the_flow_drives_a_campaign_step_by_step(prefect_server: None, make_campaign: MakeCampaign) -> None:
    from alflow.flows.campaign import campaign
    from alflow.loop import open_campaign

    path = make_campaign()
    state = campaign(str(path), rounds=2, return_state=True)
    assert state.is_completed()
    assert "limited to 2 rounds" in (state.message or "")
    ctx = open_campaign(path, create=False)
    assert [r.index for r in ctx.ledger.rounds.list(ctx.campaign_id)] == [0, 1]
    assert len(ctx.ledger.committees.list(ctx.campaign_id)) == 1
