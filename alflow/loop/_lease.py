"""The lease of a campaign: one run drives it at a time, and renews its claim from a thread."""

from __future__ import annotations

import threading
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from alflow.errors import LeaseLostError, LedgerError
from alflow.ledger import WorkerIdentity
from alflow.loop._context import CampaignContext

LEASE_SECONDS = 60.0


def run_owner() -> str:
    """Name this very process: host, boot, process id and its start, since numbers of processes are used again."""
    me = WorkerIdentity.current()
    return f"{me.host}/{(me.boot_id or '')[:8]}:{me.pid}:{me.pid_started or 0}"


def is_dead(owner: str) -> bool:
    """True where the owner of a lease was a process of this machine and is gone; of others only the lease can tell."""
    machine, _, process = owner.partition(":")
    if machine != run_owner().partition(":")[0]:
        return False
    pid, _, started = process.partition(":")
    stat = Path("/proc") / pid / "stat"
    if not stat.parent.parent.joinpath("self").exists():
        return False  # a system without /proc
    try:
        # the command name, field 2, may hold spaces and parentheses: count fields after its closing one
        return stat.read_text().rpartition(")")[2].split()[19] != started
    except (FileNotFoundError, ProcessLookupError):
        return True


@contextmanager
def campaign_lease(ctx: CampaignContext, *, seconds: float = LEASE_SECONDS) -> Iterator[None]:
    """Hold the campaign's lease for the length of the block.

    Raises
    ------
    CampaignBusyError
        if another run holds it; the message names the holder and when its lease ends. The lease of a run that was
        killed on this machine is taken over at once
    """
    owner = ctx.campaign.lease_owner
    dead = owner if owner is not None and is_dead(owner) else None
    fence = ctx.ledger.campaigns.acquire_lease(ctx.campaign_id, run_owner(), seconds, takeover=dead)
    ctx.fence = fence
    stop = threading.Event()

    def renew() -> None:
        while not stop.wait(seconds / 4):
            try:
                ctx.ledger.campaigns.renew_lease(ctx.campaign_id, fence, seconds)
            except LeaseLostError:
                return  # the next transaction of a step finds out and ends the run
            except LedgerError as error:
                ctx.report.note(f"the campaign's lease could not be renewed, trying again: {error}")

    thread = threading.Thread(target=renew, name="campaign-lease", daemon=True)
    thread.start()
    try:
        yield
    finally:
        stop.set()
        thread.join()
        ctx.fence = None
        ctx.ledger.campaigns.release_lease(ctx.campaign_id, fence)
