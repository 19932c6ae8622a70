"""Deploy one campaign: its three flows on a work pool, with schedules, limits and the watch over silent runs."""

from __future__ import annotations

import os
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from prefect.client.orchestration import SyncPrefectClient
from prefect.client.schemas.actions import DeploymentScheduleCreate, WorkPoolCreate
from prefect.client.schemas.objects import ConcurrencyLimitConfig, ConcurrencyLimitStrategy, DeploymentSchedule
from prefect.client.schemas.schedules import CronSchedule
from prefect.deployments.runner import RunnerDeployment
from prefect.exceptions import ObjectNotFound
from prefect.flows import Flow
from prefect.types.entrypoint import EntrypointType
from prefect.workers.process import ProcessWorker
from pydantic import ValidationError

from alflow.config import LoadedCampaign, load_campaign
from alflow.errors import UserError
from alflow.flows._zombies import HEARTBEAT_SECONDS, TAG, ensure_zombie_automation
from alflow.flows.campaign import campaign
from alflow.flows.label_worker import label_worker
from alflow.flows.server import DEFAULT_POOL, server
from alflow.flows.upkeep import upkeep

CAMPAIGN_CRON = "0 2 * * *"
UPKEEP_CRON = "30 * * * *"
FILES_VARIABLE = "ALFLOW_LEDGER_FILES"
_SLUG = "alflow"


@dataclass(frozen=True, kw_only=True)
class DeployedFlow:
    """One deployment: its full name, its schedule, and the identity by which the schedule is paused and resumed."""

    name: str
    cron: str | None
    active: bool
    schedule_id: str | None


@dataclass(frozen=True, kw_only=True)
class Deployed:
    """What :func:`deploy_campaign` did."""

    campaign: str
    deployments: tuple[DeployedFlow, ...]
    pool: str
    made_pool: bool
    workers: int
    notes: tuple[str, ...]


def deploy_campaign(
    path: Path | str,
    *,
    cron: str | None = None,
    timezone: str = "UTC",
    active: bool | None = None,
    pool: str = DEFAULT_POOL,
    rounds: int | None = None,
    labels: int | None = None,
    hours: float | None = None,
    work: bool = True,
) -> Deployed:
    """Deploy a campaign as ``campaign/NAME``, with ``label-worker/NAME`` and ``upkeep/NAME`` beside it.

    Deploying again updates all three. Nothing secret is sent to the server: the ledger's password stays in the
    environment of the machine that works.

    Parameters
    ----------
    path
        campaign file, as it lies on the machine whose worker will run it
    cron
        when the campaign runs; None: as deployed before, else every night at two
    timezone
        of ``cron``
    active
        whether the schedule fires at once; None: as deployed before, else not until a person resumes it
    pool
        work pool; one of type ``process`` is made where there is none of that name
    rounds, labels, hours
        what each scheduled run may do at most
    work
        the campaign's runs compute labels themselves; False leaves them to ``label-worker/NAME`` or ``alflow worker``

    Raises
    ------
    UserError
        if no server is configured or answers, or the cron expression or time zone cannot be read
    ConfigError
        if the campaign file cannot be used
    """
    loaded = load_campaign(path)
    name = loaded.config.name
    notes = _notes(loaded)
    with server() as client:
        made = _ensure_pool(client, pool)
        deployer = _Deployer(client=client, loaded=loaded, pool=pool)
        target = str(loaded.path.resolve())
        given = {"rounds": rounds, "labels": labels, "hours": hours}
        parameters = {"campaign": target, "work": work} | {k: v for k, v in given.items() if v is not None}
        nightly = deployer.schedule(campaign, CAMPAIGN_CRON, cron=cron, timezone=timezone, active=active)
        hourly = deployer.schedule(upkeep, UPKEEP_CRON, active=active)
        deployments = (
            deployer.deploy(campaign, parameters, nightly, alone=True),
            deployer.deploy(label_worker, {"campaign": target, "until": "idle"}),
            deployer.deploy(upkeep, {"campaign": target}, hourly, alone=True),
        )
        ensure_zombie_automation(client)
        workers = [w for w in client.read_workers_for_work_pool(pool) if str(w.status).endswith("ONLINE")]
    return Deployed(
        campaign=name, deployments=deployments, pool=pool, made_pool=made, workers=len(workers), notes=tuple(notes)
    )


def _notes(loaded: LoadedCampaign) -> list[str]:
    if loaded.ledger_url.startswith("sqlite") or os.environ.get(FILES_VARIABLE):
        return []
    note = (
        f"{FILES_VARIABLE} is not set: checkpoints then lie in {loaded.directory}; where several machines work, set it "
        "to a folder that all of them share, and deploy again"
    )
    return [note]


def _ensure_pool(client: SyncPrefectClient, pool: str) -> bool:
    try:
        client.read_work_pool(pool)
    except ObjectNotFound:
        template = ProcessWorker.get_default_base_job_template()
        client.create_work_pool(WorkPoolCreate(name=pool, type="process", base_job_template=template))
        return True
    return False


@dataclass(frozen=True, kw_only=True)
class _Deployer:
    """Deploys flows for one campaign."""

    client: SyncPrefectClient
    loaded: LoadedCampaign
    pool: str

    def schedule(
        self,
        flow: Flow[..., Any],
        default: str,
        *,
        cron: str | None = None,
        timezone: str = "UTC",
        active: bool | None = None,
    ) -> DeploymentScheduleCreate:
        """Make the schedule of a flow; what is not said stays as it was deployed before."""
        before = self._deployed_schedule(flow)
        if cron is None and before is not None and isinstance(before.schedule, CronSchedule):
            cron, timezone = before.schedule.cron, before.schedule.timezone or "UTC"
        cron = cron or default
        fires = active if active is not None else before is not None and bool(before.active)
        try:
            return DeploymentScheduleCreate(
                schedule=CronSchedule(cron=cron, timezone=timezone), active=fires, slug=_SLUG
            )
        except ValidationError as error:
            problem = error.errors()[0]["msg"].removeprefix("Value error, ")
            raise UserError(
                f"the schedule {cron!r} in time zone {timezone!r} cannot be read: {problem}; write minute, hour, day, "
                "month and weekday, for example '0 2 * * *' for every night at two"
            ) from error

    def deploy(
        self,
        flow: Flow[..., Any],
        parameters: dict[str, Any],
        schedule: DeploymentScheduleCreate | None = None,
        *,
        alone: bool = False,
    ) -> DeployedFlow:
        """Create or update one deployment; one that runs ``alone`` lets a run that comes meanwhile go again."""
        name = self.loaded.config.name
        limit = ConcurrencyLimitConfig(limit=1, collision_strategy=ConcurrencyLimitStrategy.CANCEL_NEW)
        deployment = RunnerDeployment.from_flow(
            flow,
            name=name,
            parameters=parameters,
            schedules=None if schedule is None else [schedule],
            description=_description(flow, self.loaded),
            tags=[TAG, f"campaign:{name}"],
            concurrency_limit=limit if alone else None,
            work_pool_name=self.pool,
            job_variables={"env": _environment(), "working_dir": str(self.loaded.directory.resolve())},
            entrypoint_type=EntrypointType.MODULE_PATH,
        )
        deployment.apply()
        stored = self._deployed_schedule(flow)
        cron = schedule.schedule.cron if schedule and isinstance(schedule.schedule, CronSchedule) else None
        return DeployedFlow(
            name=f"{flow.name}/{name}",
            cron=cron,
            active=bool(schedule and schedule.active),
            schedule_id=None if stored is None else str(stored.id),
        )

    def _deployed_schedule(self, flow: Flow[..., Any]) -> DeploymentSchedule | None:
        try:
            found = self.client.read_deployment_by_name(f"{flow.name}/{self.loaded.config.name}")
        except ObjectNotFound:
            return None
        return next((row for row in found.schedules if row.slug == _SLUG), None)


def _environment() -> dict[str, str]:
    """What runs get beside their worker's own environment; no secrets, for the server stores it."""
    environment = {
        "PREFECT_SERVER_ANALYTICS_ENABLED": "false",
        "DO_NOT_TRACK": "1",
        "PREFECT_FLOWS_HEARTBEAT_FREQUENCY": str(HEARTBEAT_SECONDS),
    }
    files = os.environ.get(FILES_VARIABLE)
    return environment | ({FILES_VARIABLE: str(Path(files).absolute())} if files else {})


def _description(flow: Flow[..., Any], loaded: LoadedCampaign) -> str:
    first = (flow.description or "").strip().split("\n\n")[0].replace("\n", " ")
    goal = f"\n\nGoal: {loaded.config.goal}" if loaded.config.goal else ""
    return f"{first}{goal}"
