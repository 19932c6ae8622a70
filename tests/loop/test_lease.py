from __future__ import annotations

import os
import re
import subprocess
import sys

import pytest

from alflow.errors import CampaignBusyError
from alflow.loop import CampaignContext, RunLimits, run
from alflow.loop._lease import is_dead, run_owner


def owner_of_a_killed_process() -> str:
    code = "import os, signal; from alflow.loop._lease import run_owner; print(run_owner(), flush=True); "
    killed = subprocess.run(
        [sys.executable, "-c", code + "os.kill(os.getpid(), signal.SIGKILL)"],
        capture_output=True,
        text=True,
        check=False,
    )
    assert killed.returncode == -9
    return killed.stdout.strip()


def test_a_run_that_was_killed_here_does_not_block_the_next(small: CampaignContext) -> None:
    small.ledger.campaigns.acquire_lease(small.campaign_id, owner_of_a_killed_process(), 3600)
    assert run(small, limits=RunLimits(rounds=1)).rounds == 1


def test_a_living_run_and_one_elsewhere_keep_their_lease(small: CampaignContext) -> None:
    assert not is_dead(run_owner())
    small.ledger.campaigns.acquire_lease(small.campaign_id, "process 1 on elsewhere (boot 01234567, start 1)", 3600)
    with pytest.raises(CampaignBusyError, match="elsewhere"):
        run(small)


def test_a_process_number_used_again_is_another_process() -> None:
    again = re.sub(r"start \d+", "start 1", run_owner("flow run otter"))
    assert f"process {os.getpid()} on " in again
    assert is_dead(again)


def test_what_else_a_run_is_called_is_told_to_the_next(small: CampaignContext) -> None:
    owner = run_owner("flow run otter")
    assert not is_dead(owner)
    small.ledger.campaigns.acquire_lease(small.campaign_id, owner, 3600)
    with pytest.raises(CampaignBusyError, match="flow run otter"):
        run(small)
