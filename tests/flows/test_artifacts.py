"""Keys of artifacts, and what Prefect is told of a run that fell silent."""

from __future__ import annotations

import logging
import re

import httpx
import pytest

from alflow.flows._artifacts import PAUSE_SECONDS, Artifacts


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


def test_a_server_that_is_away_is_not_asked_again_for_a_while(
    monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    now, asked = [1000.0], []

    def refuse(**_: object) -> None:
        asked.append(now[0])
        raise httpx.ConnectError("All connection attempts failed")

    monkeypatch.setattr("alflow.flows._artifacts.time.monotonic", lambda: now[0])
    monkeypatch.setattr("alflow.flows._artifacts.create_markdown_artifact", refuse)
    artifacts = Artifacts("c", logging.getLogger("test"))
    for seconds in (0, 1, PAUSE_SECONDS - 2, 2):
        now[0] += seconds
        artifacts.markdown("findings", "text", "description")
    assert asked == [1000.0, 1001.0 + PAUSE_SECONDS]
    assert caplog.text.count("going on without: All connection attempts failed") == 2
