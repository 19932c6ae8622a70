"""Keys of artifacts, and what Prefect is told of a run that fell silent."""

from __future__ import annotations

import re

import pytest


@pytest.mark.parametrize("name", ["ni-pt", "Ni_Pt.2", "___", "A" * 100])
def test_a_campaign_name_becomes_a_key_that_prefect_takes(name: str) -> None:
    from alflow.flows._artifacts import slug

    assert re.fullmatch(r"[a-z0-9]+(-[a-z0-9]+)*", slug(name))


def test_the_automation_waits_for_several_heartbeats_and_every_end_of_a_run() -> None:
    from alflow.flows._zombies import HEARTBEAT_SECONDS, SILENCE_SECONDS, zombie_automation

    assert SILENCE_SECONDS >= 3 * HEARTBEAT_SECONDS
    trigger = zombie_automation().trigger
    ends = {f"prefect.flow-run.{name}" for name in ("Completed", "Failed", "Cancelled", "Crashed")}
    assert ends < trigger.expect  # type: ignore[union-attr]


def test_nothing_that_is_deployed_reports_to_anybody() -> None:
    from alflow.flows.deploying import _environment

    environment = _environment()
    assert environment["PREFECT_SERVER_ANALYTICS_ENABLED"] == "false"
    assert environment["DO_NOT_TRACK"] == "1"
