"""Housekeeping: nothing that is needed is removed, contradictions are named."""

from __future__ import annotations

from pathlib import Path

import pytest

from alflow.errors import NotFoundError
from alflow.ledger import CandidateState
from alflow.loop import CampaignContext, RunLimits, UpkeepPolicy, locate_campaign, run, upkeep
from alflow.loop._committee import latest_committee, open_committee
from tests.loop.conftest import MakeCampaign


def test_a_sound_ledger_stays_as_it_is(small: CampaignContext) -> None:
    run(small, limits=RunLimits(rounds=2))
    report = upkeep(small.ledger)
    assert report.problems == ()
    assert (report.committees, report.outputs, report.bytes_freed, report.reclaimed) == (0, 0, 0, ())
    assert latest_committee(small) is not None


def test_old_checkpoints_and_outputs_go_by_policy_and_the_campaign_goes_on(small: CampaignContext) -> None:
    run(small, limits=RunLimits(rounds=3))
    *older, new = small.ledger.committees.list(small.campaign_id)
    outputs = small.ledger.directory / "jobs"
    assert list(outputs.glob("job-*/attempt-*"))
    report = upkeep(small.ledger, UpkeepPolicy(keep_committees=1, keep_outputs_days=0))
    assert report.committees == len(older) == 2
    assert report.bytes_freed > 1000
    assert report.outputs > 5
    assert not list(outputs.glob("job-*"))
    assert report.problems == ()
    with pytest.raises(NotFoundError, match="was let go"):
        open_committee(small.ledger, small.ledger.committees.get(older[0].id))
    assert open_committee(small.ledger, new).n_members == 2
    assert upkeep(small.ledger, UpkeepPolicy(keep_committees=1)).committees == 0


def test_a_folder_that_a_worker_did_not_make_is_left_alone(small: CampaignContext, tmp_path: Path) -> None:
    run(small, limits=RunLimits(labels=1))
    [attempt] = small.ledger.queue.attempts_of(small.campaign_id)
    precious = tmp_path / "precious"
    precious.mkdir()
    with small.ledger._database.write() as connection:
        connection.exec_driver_sql(f"UPDATE attempt SET directory = '{precious}' WHERE id = {attempt.id}")
    assert upkeep(small.ledger, UpkeepPolicy(keep_outputs_days=0)).outputs == 0
    assert precious.is_dir()


def test_contradictions_are_named(small: CampaignContext) -> None:
    run(small, limits=RunLimits(labels=1))
    [candidate] = small.ledger.pool.ids(small.campaign_id, [CandidateState.LABELLED])
    with small.ledger._database.write() as connection:
        connection.exec_driver_sql("UPDATE label SET quality = 'rejected'")
    problems = upkeep(small.ledger).problems
    assert any("labelled without an accepted label" in p and str(candidate) in p for p in problems)


def test_a_campaign_is_found_by_file_folder_and_name(
    small: CampaignContext, make_campaign: MakeCampaign, monkeypatch: pytest.MonkeyPatch
) -> None:
    file = make_campaign()
    (file.parent / "alflow-worker.yaml").write_text("lease_seconds: 60\n")
    url = small.ledger.url
    assert locate_campaign(str(file)) == locate_campaign(str(file.parent)) == file
    assert locate_campaign("small", ledger_url=url) == file
    monkeypatch.setenv("ALFLOW_LEDGER", url)
    assert locate_campaign("small") == file
    with pytest.raises(NotFoundError, match="small"):
        locate_campaign("smal")
    file.unlink()
    with pytest.raises(NotFoundError, match="no longer"):
        locate_campaign("small")
