"""What flows are told: a campaign by its file, folder or name, and numbers. Never a password."""

from __future__ import annotations

from typing import Annotated

from prefect import runtime
from pydantic import Field

from alflow.config import load_campaign, mask_url
from alflow.errors import AlflowError
from alflow.loop import locate_campaign

CampaignName = Annotated[
    str,
    Field(
        min_length=1,
        max_length=1000,
        title="campaign",
        description="campaign file or its folder on the worker's machine, or the name of a campaign in the ledger that "
        "ALFLOW_LEDGER names there",
    ),
]
Count = Annotated[int, Field(ge=1)]
Hours = Annotated[float, Field(gt=0)]


def run_name() -> str:
    """Name a flow run by its flow and campaign; by what was given where that is no campaign, as the run will say."""
    given = str(runtime.flow_run.parameters.get("campaign", ""))
    try:
        name = load_campaign(locate_campaign(given)).config.name
    except AlflowError:
        name = mask_url(given)
    return f"{runtime.flow_run.flow_name} {name}"
