"""The lease of a campaign: one run drives it at a time, and renews its claim from a thread."""

from __future__ import annotations

import re
import threading
from collections.abc import Iterator
from contextlib import contextmanager, suppress

from alflow.errors import LeaseLostError, LedgerError, LedgerUnavailableError
from alflow.ledger import WorkerIdentity, is_alive
from alflow.loop._context import CampaignContext

LEASE_SECONDS = 60.0
_OWNER = re.compile(r"process (?P<pid>\d+) on (?P<host>\S+) \(boot (?P<boot>\S*), start (?P<start>\d+)")


def run_owner(driver: str = "") -> str:
    """Name this very process: number, host, boot and start, since numbers of processes are used again."""
    me = WorkerIdentity.current()
    also = f", {driver}" if driver else ""
    return f"process {me.pid} on {me.host} (boot {(me.boot_id or '')[:8]}, start {me.pid_started or 0}{also})"


def is_dead(owner: str) -> bool:
    """True where the owner of a lease was a process of this machine and is gone; of others only the lease can tell."""
    found = _OWNER.match(owner)
    me = WorkerIdentity.current()
    if found is None or (found["host"], found["boot"]) != (me.host, (me.boot_id or "")[:8]):
        return False
    return not is_alive(int(found["pid"]), int(found["start"]))


@contextmanager
def campaign_lease(ctx: CampaignContext, *, driver: str = "", seconds: float = LEASE_SECONDS) -> Iterator[None]:
    """Hold the campaign's lease for the length of the block; ``driver`` is what others are told beside the process.

    Raises
    ------
    CampaignBusyError
        if another run holds it; the message names the holder and when its lease ends. The lease of a run that was
        killed on this machine is taken over at once
    """
    owner = ctx.campaign.lease_owner
    dead = owner if owner is not None and is_dead(owner) else None
    fence = ctx.ledger.campaigns.acquire_lease(ctx.campaign_id, run_owner(driver), seconds, takeover=dead)
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
        with suppress(LedgerUnavailableError):  # it runs out by itself, and on this machine the next run sees us gone
            ctx.ledger.campaigns.release_lease(ctx.campaign_id, fence)
