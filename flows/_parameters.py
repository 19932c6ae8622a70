"""What flows are told: a campaign by its file, folder or name, and numbers. Never a password."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

from prefect import runtime
from pydantic import Field

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
    """Name a flow run by its flow and campaign."""
    path = Path(str(runtime.flow_run.parameters.get("campaign", "")))
    named_by_folder = path.stem == "campaign" and path.parent.name
    return f"{runtime.flow_run.flow_name} {path.parent.name if named_by_folder else path.stem}"
