"""The flows, run against Prefect's own test server."""

from __future__ import annotations

import warnings
from collections.abc import Iterator

import pytest

from alflow.errors import UserError
from tests.loop.conftest import MakeCampaign

pytestmark = [
    pytest.mark.integration,
    pytest.mark.filterwarnings("ignore"),  # Prefect's own dependencies warn at will
]


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
    ctx.ledger.close()


def test_a_ledger_that_contradicts_itself_fails_its_upkeep(prefect_server: None, make_campaign: MakeCampaign) -> None:
    from alflow.flows.upkeep import upkeep
    from alflow.loop import RunLimits, open_campaign, run

    path = make_campaign()
    ctx = open_campaign(path)
    run(ctx, limits=RunLimits(labels=2))
    assert upkeep(str(path), return_state=True).is_completed()
    with ctx.ledger._database.write() as connection:
        connection.exec_driver_sql("UPDATE label SET quality = 'rejected'")
    state = upkeep(str(path.parent), return_state=True)
    assert state.is_failed()
    assert "labelled without an accepted label" in (state.message or "")
    ctx.ledger.close()


def test_a_step_is_repeated_where_the_machine_failed_and_not_where_it_cannot_help(
    prefect_server: None, make_campaign: MakeCampaign, monkeypatch: pytest.MonkeyPatch
) -> None:
    from alflow.errors import LedgerError, PotentialError
    from alflow.flows import campaign as module
    from alflow.loop import _driver
    from alflow.loop._design import design

    monkeypatch.setattr(module, "RETRY_SECONDS", [0.0, 0.0, 0.0])
    calls = []

    def failing(ctx: object, row: object) -> object:
        calls.append(1)
        if len(calls) < 3:
            raise LedgerError("the ledger refused: disk I/O error")
        return design(ctx, row)  # type: ignore[arg-type]

    monkeypatch.setattr(_driver, "design", failing)
    path = make_campaign()
    assert module.campaign(str(path), rounds=1, return_state=True).is_completed()
    assert len(calls) == 3

    def broken(ctx: object, row: object) -> object:
        calls.append(1)
        raise PotentialError("the loss is not finite")

    monkeypatch.setattr(_driver, "train", broken)
    with pytest.raises(PotentialError, match="not finite"):
        module.campaign(str(path), rounds=1)
    assert len(calls) == 4


@pytest.mark.parametrize("given", ["no-such-campaign.yaml", "postgresql://me:hunter2@host/db", "../../etc"])
def test_what_is_no_campaign_is_one_clear_error_without_secrets(
    prefect_server: None, given: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    from alflow.flows.campaign import campaign

    monkeypatch.delenv("ALFLOW_LEDGER", raising=False)
    with pytest.raises(UserError, match="campaign") as caught:
        campaign(given)
    assert "hunter2" not in str(caught.value)


def test_numbers_are_validated_before_anything_runs(prefect_server: None, make_campaign: MakeCampaign) -> None:
    from prefect.exceptions import ParameterTypeError

    from alflow.flows.campaign import campaign

    with pytest.raises(ParameterTypeError, match="rounds"):
        campaign(str(make_campaign()), rounds=0)
