from __future__ import annotations

import re
import time
from itertools import product
from threading import Barrier, Thread

import pytest

from alflow.errors import CampaignBusyError, LeaseLostError, NotFoundError, TransitionError, UserError
from alflow.ledger import CampaignRow, CampaignState, Ledger, driver_text, open_ledger
from alflow.ledger._states import CAMPAIGN_TRANSITIONS


def test_creating_again_is_the_same_campaign(ledger: Ledger, campaign: CampaignRow) -> None:
    assert ledger.campaigns.create("Ni-Pt", "stable compounds", {"elements": ("Ni", "Pt")}, 1) == campaign
    with pytest.raises(UserError, match="another configuration"):
        ledger.campaigns.create("Ni-Pt", "stable compounds", {"elements": ["Cu"]}, 1)
    assert ledger.campaigns.list() == [campaign]
    assert ledger.campaigns.get("Ni-Pt") == ledger.campaigns.get(campaign.id) == campaign


def test_runs_that_begin_at_once_make_one_campaign(url: str) -> None:
    """PostgreSQL does not let one writer wait for the other before it looks."""
    together, found = Barrier(4), []

    def create() -> None:
        with open_ledger(url) as ledger:
            ledger.now()
            together.wait(30)
            found.append(ledger.campaigns.create("new", "", {}, 1).id)

    threads = [Thread(target=create) for _ in range(4)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join(60)
    assert len(found) == 4
    assert len(set(found)) == 1


def test_an_unknown_name_is_answered_with_the_nearest(ledger: Ledger, campaign: CampaignRow) -> None:
    with pytest.raises(NotFoundError, match="Ni-Pt"):
        ledger.campaigns.get("NiPt")


def test_a_changed_configuration_is_remembered(ledger: Ledger, campaign: CampaignRow) -> None:
    changed = ledger.campaigns.update_config(campaign.id, {"elements": ["Ni"], "goal": "less"}, "narrower")
    assert changed.config == {"elements": ["Ni"], "goal": "less"}
    assert changed.goal == "less"
    assert changed.config_hash != campaign.config_hash
    event = ledger.events.list(campaign.id, kind="configuration")[0]
    assert event.payload["old"] == campaign.config
    ledger.campaigns.update_config(campaign.id, changed.config, "again")
    assert len(ledger.events.list(campaign.id, kind="configuration")) == 1


@pytest.mark.parametrize(("old", "new"), list(product(CampaignState, CampaignState)))
def test_states(ledger: Ledger, campaign: CampaignRow, old: CampaignState, new: CampaignState) -> None:
    ledger.campaigns.set_state(campaign.id, old, "so it is")
    if new == old or new in CAMPAIGN_TRANSITIONS[old]:
        row = ledger.campaigns.set_state(campaign.id, new, "the budget is spent")
        assert (row.state, row.reason) == (new, "the budget is spent")
    else:
        with pytest.raises(TransitionError, match="campaign Ni-Pt"):
            ledger.campaigns.set_state(campaign.id, new, "x")


def test_one_run_drives_a_campaign(ledger: Ledger, campaign: CampaignRow) -> None:
    fence = ledger.campaigns.acquire_lease(campaign.id, "run a", 60)
    with pytest.raises(CampaignBusyError, match="driven by run a"):
        ledger.campaigns.acquire_lease(campaign.id, "run b", 60)
    with ledger.write():
        ledger.campaigns.check_fence(campaign.id, fence)
    ledger.campaigns.renew_lease(campaign.id, fence, 120)
    row = ledger.campaigns.get(campaign.id)
    assert row.lease_owner == "run a"
    assert row.lease_until is not None
    assert 110 < -ledger.seconds_since(row.lease_until) < 121
    ledger.campaigns.release_lease(campaign.id, fence)
    with pytest.raises(LeaseLostError, match="given back"):
        ledger.campaigns.renew_lease(campaign.id, fence, 60)
    assert ledger.campaigns.acquire_lease(campaign.id, "run b", 60) > fence


def test_a_busy_campaign_names_its_driver_as_people_know_it_and_what_to_do(
    ledger: Ledger, campaign: CampaignRow
) -> None:
    ledger.campaigns.acquire_lease(campaign.id, "process 7 on vm (boot 68411012, start 1419838, flow run otter)", 60)
    with pytest.raises(CampaignBusyError) as caught:
        ledger.campaigns.acquire_lease(campaign.id, "run b", 60)
    told = re.fullmatch(
        r"campaign Ni-Pt is driven by process 7 on vm \(flow run otter\), whose lease runs until "
        r"(\d{4}-\d\d-\d\d \d\d:\d\d:\d\d) UTC \(in \d\d s\) unless renewed: wait for it, stop it with "
        r"Ctrl-C there, or start `alflow worker` to help it with its labels",
        str(caught.value),
    )
    assert told is not None, str(caught.value)
    until = ledger.campaigns.get(campaign.id).lease_until
    assert until is not None
    assert until.startswith(told[1].replace(" ", "T"))


@pytest.mark.parametrize(
    ("owner", "text"),
    [
        ("process 7 on vm (boot 68411012, start 1419838)", "process 7 on vm"),
        ("process 7 on vm (boot , start 0)", "process 7 on vm"),
        ("process 7 on vm (boot 68411012, start 14, flow run otter)", "process 7 on vm (flow run otter)"),
        ("run a", "run a"),
    ],
)
def test_drivers_are_shown_without_what_only_machines_read(owner: str, text: str) -> None:
    assert driver_text(owner) == text


def test_a_lease_that_ran_out_is_taken_over_for_good(ledger: Ledger, campaign: CampaignRow) -> None:
    old = ledger.campaigns.acquire_lease(campaign.id, "run a", 0.05)
    time.sleep(0.1)
    new = ledger.campaigns.acquire_lease(campaign.id, "run b", 60)
    assert new == old + 1
    with pytest.raises(LeaseLostError, match="run b drives it now"):
        ledger.campaigns.check_fence(campaign.id, old)
    with pytest.raises(LeaseLostError, match="run b drives it now"):
        ledger.campaigns.renew_lease(campaign.id, old, 60)
    ledger.campaigns.release_lease(campaign.id, old)  # the new owner keeps it
    ledger.campaigns.check_fence(campaign.id, new)


def test_the_lease_of_a_dead_owner_can_be_taken(ledger: Ledger, campaign: CampaignRow) -> None:
    old = ledger.campaigns.acquire_lease(campaign.id, "run a", 60)
    with pytest.raises(CampaignBusyError):
        ledger.campaigns.acquire_lease(campaign.id, "run c", 60, takeover="run b")
    assert ledger.campaigns.acquire_lease(campaign.id, "run c", 60, takeover="run a") == old + 1


def test_a_lost_fence_undoes_the_whole_block(ledger: Ledger, campaign: CampaignRow) -> None:
    fence = ledger.campaigns.acquire_lease(campaign.id, "run a", 60)
    ledger.campaigns.acquire_lease(campaign.id, "run b", 60, takeover="run a")

    def write() -> None:
        with ledger.write():
            ledger.rounds.open(campaign.id, 0)
            ledger.campaigns.check_fence(campaign.id, fence)

    with pytest.raises(LeaseLostError):
        write()
    assert ledger.rounds.list(campaign.id) == []
