"""Runs whose process and worker both died: an automation on the server shows them as crashed.

Prefect's worker reports a process that ends. Where the worker died as well, nobody reports: the run stays "Running"
until heartbeats, which every run sends, are missed. The campaign itself does not wait for that: its lease in the ledger
runs out, or is taken over at once on the same machine.
"""

from __future__ import annotations

from datetime import timedelta

from prefect.client.orchestration import SyncPrefectClient
from prefect.client.schemas.objects import StateType
from prefect.events.actions import ChangeFlowRunState
from prefect.events.schemas.automations import AutomationCore, EventTrigger, Posture
from prefect.events.schemas.events import ResourceSpecification

HEARTBEAT_SECONDS = 30
"""Between two signs of life of a run: the shortest that Prefect allows."""
SILENCE_SECONDS = 120
"""A run that was silent for so long is called crashed."""
NAME = "alflow: runs that fell silent have crashed"
TAG = "alflow"


def zombie_automation() -> AutomationCore:
    """The automation, as it should be."""
    return AutomationCore(
        name=NAME,
        description="A run tagged alflow sent no heartbeat for a while: its process and its worker died. The "
        "next run of the campaign takes over from its ledger.",
        trigger=EventTrigger(
            match=ResourceSpecification({"prefect.resource.id": "prefect.flow-run.*"}),
            match_related=ResourceSpecification(
                {"prefect.resource.id": f"prefect.tag.{TAG}", "prefect.resource.role": "tag"}
            ),
            after={"prefect.flow-run.heartbeat"},
            expect={
                "prefect.flow-run.heartbeat",
                "prefect.flow-run.Completed",
                "prefect.flow-run.Failed",
                "prefect.flow-run.Cancelled",
                "prefect.flow-run.Crashed",
            },
            for_each={"prefect.resource.id"},
            posture=Posture.Proactive,
            threshold=1,
            within=timedelta(seconds=SILENCE_SECONDS),
        ),
        actions=[
            ChangeFlowRunState(
                state=StateType.CRASHED,
                message=f"no sign of life for {SILENCE_SECONDS} s: the process and its worker died",
            )
        ],
    )


def ensure_zombie_automation(client: SyncPrefectClient) -> None:
    """Create the automation, or bring an older one up to date."""
    wanted = zombie_automation()
    older = client.read_automations_by_name(name=NAME)
    if not older:
        client.create_automation(wanted)
    elif (older[0].trigger, older[0].actions, older[0].enabled) != (wanted.trigger, wanted.actions, True):
        client.update_automation(older[0].id, wanted)
