"""Jobs: looking at them and acting on them."""

from __future__ import annotations

from typing import TYPE_CHECKING

from alflow.errors import FailureKind

if TYPE_CHECKING:
    from tests.cli.conftest import Campaign, Run


def state(alflow: Run, job: int) -> str:
    found = alflow("queue", "ls", "--all", "--json").json()
    return next(str(row["state"]) for row in found if row["id"] == job)


def test_ls_names_the_cause(alflow: Run, campaign: Campaign) -> None:
    table = alflow("queue", "ls").stdout
    assert "refused" in table
    assert "the cell is too small" in table
    row = alflow("queue", "ls", "--state", "failed", "--json").json()[0]
    assert (row["id"], row["formula"], row["theory"], row["attempts"]) == (campaign.job, "Pt4", "emt", 1)
    assert alflow("queue", "ls", "--csv").stdout.startswith("id,state,formula,")


def test_status_counts_failures_and_says_what_to_do(alflow: Run, campaign: Campaign) -> None:
    suggestion = FailureKind.REFUSED.suggestion
    assert f"  failures     1 refused. {suggestion}\n" in alflow("status").stdout
    assert alflow("status", "--json").json()["failures"] == [
        {"kind": "refused", "count": 1, "example": "the cell is too small", "suggestion": suggestion}
    ]
    alflow("queue", "retry", campaign.job)
    assert "  failures " not in alflow("status").stdout


def test_ls_of_nothing(alflow: Run, campaign: Campaign) -> None:
    assert alflow("queue", "ls", "-s", "running").stderr == "no job is running\n"
    assert "the states are queued, leased" in alflow("queue", "ls", "-s", "waiting", code=1).stderr


def test_retry_and_cancel(alflow: Run, campaign: Campaign) -> None:
    assert alflow("queue", "retry", campaign.job).stderr == "1 job queued again\n"
    assert state(alflow, campaign.job) == "queued"
    assert alflow("queue", "release", campaign.job, "--json").json() == [{"id": campaign.job, "state": "queued"}]
    alflow("queue", "cancel", campaign.job)
    assert state(alflow, campaign.job) == "cancelled"


def test_what_a_job_does_not_allow(alflow: Run, campaign: Campaign) -> None:
    found = alflow("queue", "cancel", campaign.job, code=1)
    assert "failed" in found.stderr
    assert alflow("queue", "retry", 999, code=1).stderr.startswith("error: ")
