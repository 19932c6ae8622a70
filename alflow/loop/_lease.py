"""The lease of a campaign: one run drives it at a time, and renews its claim from a thread."""

from __future__ import annotations

import threading
from collections.abc import Iterator
from contextlib import contextmanager

from alflow.errors import LeaseLostError, LedgerError
from alflow.loop._context import CampaignContext, run_owner

LEASE_SECONDS = 60.0


@contextmanager
def campaign_lease(ctx: CampaignContext, *, seconds: float = LEASE_SECONDS) -> Iterator[None]:
    """Hold the campaign's lease for the length of the block.

    Raises
    ------
    CampaignBusyError
        if another run holds it; the message names the holder and when its lease ends
    """
    fence = ctx.ledger.campaigns.acquire_lease(ctx.campaign_id, run_owner(), seconds)
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
