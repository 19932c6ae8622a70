"""What there is of Prefect: a server that answers, a work pool, workers that look for runs, and what starts them."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass

import httpx
from prefect.client.orchestration import SyncPrefectClient, get_client
from prefect.deployments.runner import DeploymentApplyError
from prefect.exceptions import ObjectNotFound, PrefectException
from prefect.settings import get_current_settings

from alflow.errors import UserError

DEFAULT_POOL = "alflow"
START_SERVER = "`PREFECT_SERVER_ANALYTICS_ENABLED=false prefect server start`"
DEFAULT_URL = "http://127.0.0.1:4200/api"


@dataclass(frozen=True, kw_only=True)
class PrefectFinding:
    """One thing that deployments need; ``ok`` None: not there, and not needed without a deployment."""

    what: str
    ok: bool | None
    text: str


def server_url() -> str | None:
    """Where Prefect's server is said to be; None where nobody said so."""
    return get_current_settings().api.url


@contextmanager
def server() -> Iterator[SyncPrefectClient]:
    """Talk to the server that is configured; never to a temporary one that Prefect would start by itself.

    Raises
    ------
    UserError
        if none is configured or it does not answer, with the commands that help
    """
    url = server_url()
    if url is None:
        raise UserError(
            f"no Prefect server is configured: start one with {START_SERVER}, then "
            f"`prefect config set PREFECT_API_URL={DEFAULT_URL}`"
        )
    try:
        with get_client(sync_client=True) as client:
            error = client.api_healthcheck()
            if error is not None:
                raise UserError(f"no Prefect server answers at {url}: start it with {START_SERVER}")
            yield client
    except (httpx.HTTPError, PrefectException, DeploymentApplyError) as error:
        raise UserError(f"Prefect's server at {url} did not do as asked: {error}") from error


def examine_prefect(campaign: str) -> Iterator[PrefectFinding]:
    """Look whether a deployed campaign can run: server, deployment, pool, worker.

    Without a deployment nothing of this is needed, and nothing is called wrong.

    Parameters
    ----------
    campaign
        name of the campaign
    """
    url = server_url()
    if url is None:
        text = f"no server configured; only schedules need one: {START_SERVER}, then `alflow deploy` says what else"
        yield PrefectFinding(what="prefect", ok=None, text=text)
        return
    try:
        with server() as client:
            yield PrefectFinding(what="prefect", ok=True, text=f"server at {url}")
            yield from _deployment(client, campaign)
    except UserError as error:
        yield PrefectFinding(what="prefect", ok=False, text=str(error))


def _deployment(client: SyncPrefectClient, campaign: str) -> Iterator[PrefectFinding]:
    name = f"campaign/{campaign}"
    try:
        deployment = client.read_deployment_by_name(name)
    except ObjectNotFound:
        yield PrefectFinding(what="deployment", ok=None, text=f"{name} is not deployed: `alflow deploy` does that")
        return
    active = [s for s in deployment.schedules if s.active and not deployment.paused]
    when = f"scheduled {', '.join(_when(s.schedule) for s in active)}" if active else "its schedule is paused"
    yield PrefectFinding(what="deployment", ok=True, text=f"{name}, {when}")
    pool = deployment.work_pool_name
    if pool is None:
        yield PrefectFinding(
            what="work pool", ok=False, text=f"{name} names no work pool: `alflow deploy` gives it one"
        )
        return
    yield from _pool(client, pool)


def _pool(client: SyncPrefectClient, pool: str) -> Iterator[PrefectFinding]:
    try:
        found = client.read_work_pool(pool)
    except ObjectNotFound:
        yield PrefectFinding(what="work pool", ok=False, text=f"{pool} does not exist: `alflow deploy` makes it")
        return
    if found.is_paused:
        text = f"{pool} is paused: `prefect work-pool resume {pool}`"
        yield PrefectFinding(what="work pool", ok=False, text=text)
    else:
        yield PrefectFinding(what="work pool", ok=True, text=f"{pool}, {found.type}")
    workers = [w for w in client.read_workers_for_work_pool(pool) if str(w.status).endswith("ONLINE")]
    if workers:
        names = ", ".join(sorted(w.name for w in workers))
        yield PrefectFinding(what="worker", ok=True, text=f"{names} on {pool}")
    else:
        text = f"nobody looks for runs in {pool}: `prefect worker start --pool {pool}`"
        yield PrefectFinding(what="worker", ok=False, text=text)


def _when(schedule: object) -> str:
    cron = getattr(schedule, "cron", None)
    return f"by cron {cron!r} {getattr(schedule, 'timezone', None) or 'UTC'}" if cron else "by another rule"
