"""Campaigns: their configuration, their state, and the lease of the one run that drives them."""

from __future__ import annotations

import builtins
import difflib
import hashlib
import re
from collections.abc import Mapping
from typing import Any

from sqlalchemy import Connection, select, update

from alflow.errors import CampaignBusyError, LeaseLostError, NotFoundError, UserError
from alflow.ledger import _tables as t
from alflow.ledger._engine import Database, insert_or_ignore, now, table_columns
from alflow.ledger._events import record
from alflow.ledger._rows import CampaignRow, clock, iso, maybe_iso
from alflow.ledger._states import CAMPAIGN_TRANSITIONS, CampaignState, check_transition
from alflow.ledger._types import AnyRow, plain, to_json

_IDENTITY = re.compile(r"\(boot [^\s,)]*, start \d+(?:, )?")


def config_hash(config: Mapping[str, Any]) -> str:
    """SHA-256 of the canonical JSON of a configuration."""
    return hashlib.sha256(to_json(config).encode()).hexdigest()


def driver_text(owner: str) -> str:
    """Name the owner of a lease for people: without the boot and the start, which tell processes apart for machines."""
    return _IDENTITY.sub("(", owner).replace(" ()", "")


def _row(row: AnyRow) -> CampaignRow:
    return CampaignRow(
        id=row.id,
        name=row.name,
        goal=row.goal,
        config=row.config,
        config_version=row.config_version,
        config_hash=row.config_hash,
        state=CampaignState(row.state),
        reason=row.reason,
        created=iso(row.created),
        lease_owner=row.lease_owner,
        lease_until=maybe_iso(row.lease_until),
        fence=row.fence,
    )


def _select(connection: Connection, key: str | int, *, lock: bool = False) -> AnyRow:
    query = select(*table_columns(t.Campaign)).where(
        t.Campaign.id == key if isinstance(key, int) else t.Campaign.name == key
    )
    row = connection.execute(query.with_for_update() if lock else query).first()
    if row is not None:
        return row
    names = list(connection.scalars(select(t.Campaign.name).order_by(t.Campaign.name)))
    near = difflib.get_close_matches(str(key), names, n=3) or names[:5]
    known = f"; there is {', '.join(near)}" if near else "; the ledger holds no campaign yet"
    raise NotFoundError(f"no campaign {key!r} in the ledger{known}")


class Campaigns:
    """The campaigns of a ledger."""

    def __init__(self, database: Database) -> None:
        self._database = database

    def create(
        self, name: str, goal: str, config: Mapping[str, Any], config_version: int, *, actor: str = "loop"
    ) -> CampaignRow:
        """Add a campaign; repeating it with the same configuration returns the existing one.

        Raises
        ------
        UserError
            if the name is taken by a campaign with another configuration
        """
        digest = config_hash(config)
        with self._database.write() as connection:
            new = {
                "name": name,
                "goal": goal,
                "config": plain(config),
                "config_version": config_version,
                "config_hash": digest,
                "state": CampaignState.ACTIVE,
                "reason": "created",
            }
            # not looked up before: on PostgreSQL two that begin at once would both find nothing
            statement = insert_or_ignore(connection, t.Campaign).returning(t.Campaign.id)
            campaign_id = connection.scalar(statement, new)
            if campaign_id is None:
                old = _select(connection, name)
                if old.config_hash != digest:
                    raise UserError(
                        f"the ledger already holds a campaign {name!r} with another configuration; "
                        "choose another name or update its configuration"
                    )
                return _row(old)
            record(connection, "campaign", f"campaign {name} was created", campaign_id=campaign_id, actor=actor)
            return _row(_select(connection, campaign_id))

    def get(self, key: str | int) -> CampaignRow:
        """The campaign of that name or id.

        Raises
        ------
        NotFoundError
            naming the nearest names
        """
        with self._database.read() as connection:
            return _row(_select(connection, key))

    def list(self) -> builtins.list[CampaignRow]:
        """All campaigns, in order of creation."""
        with self._database.read() as connection:
            rows = connection.execute(select(*table_columns(t.Campaign)).order_by(t.Campaign.id))
            return [_row(row) for row in rows]

    def update_config(
        self,
        campaign_id: int,
        config: Mapping[str, Any],
        reason: str,
        *,
        config_version: int | None = None,
        actor: str = "loop",
    ) -> CampaignRow:
        """Take over a changed configuration; the event keeps the hashes of both."""
        digest = config_hash(config)
        with self._database.write() as connection:
            old = _select(connection, campaign_id, lock=True)
            if old.config_hash == digest:
                return _row(old)
            values: dict[str, Any] = {"config": plain(config), "config_hash": digest, "updated": now(connection)}
            if config_version is not None:
                values["config_version"] = config_version
            if "goal" in config and isinstance(config["goal"], str):
                values["goal"] = config["goal"]
            connection.execute(update(t.Campaign).where(t.Campaign.id == campaign_id).values(**values))
            record(
                connection,
                "configuration",
                f"the configuration changed: {reason}",
                campaign_id=campaign_id,
                payload={"old_hash": old.config_hash, "new_hash": digest, "old": old.config},
                actor=actor,
            )
            return _row(_select(connection, campaign_id))

    def set_state(self, campaign_id: int, state: CampaignState, reason: str, *, actor: str = "loop") -> CampaignRow:
        """Change whether the campaign may be driven on, and say why in a sentence.

        Raises
        ------
        TransitionError
            if the state cannot follow the present one
        """
        with self._database.write() as connection:
            old = _select(connection, campaign_id, lock=True)
            check_transition(CAMPAIGN_TRANSITIONS, f"campaign {old.name}", CampaignState(old.state), state)
            if (old.state, old.reason) != (state, reason):
                connection.execute(
                    update(t.Campaign)
                    .where(t.Campaign.id == campaign_id)
                    .values(state=state, reason=reason, updated=now(connection))
                )
                record(
                    connection,
                    "campaign",
                    f"campaign {old.name} is {state}: {reason}",
                    campaign_id=campaign_id,
                    payload={"from": old.state, "to": state},
                    actor=actor,
                )
            return _row(_select(connection, campaign_id))

    # -- the lease -------------------------------------------------------------------------------------------------

    def acquire_lease(self, campaign_id: int, owner: str, seconds: float, *, takeover: str | None = None) -> int:
        """Become the one run that drives the campaign; return the fence to show with every later call.

        Parameters
        ----------
        owner
            who, for messages
        seconds
            how long the lease holds without renewal
        takeover
            an owner known to be dead, whose running lease may be taken

        Raises
        ------
        CampaignBusyError
            naming who holds the lease and until when
        """
        with self._database.write() as connection:
            old = _select(connection, campaign_id, lock=True)
            time = now(connection)
            held = old.lease_until is not None and old.lease_until > time
            if held and (takeover is None or old.lease_owner != takeover):
                raise CampaignBusyError(
                    f"campaign {old.name} is driven by {driver_text(old.lease_owner)}, whose lease runs until "
                    f"{clock(old.lease_until)} (in {old.lease_until - time:.0f} s) unless renewed: wait for it, stop "
                    "it with Ctrl-C there, or start `alflow worker` to help it with its labels"
                )
            fence = int(old.fence) + 1
            connection.execute(
                update(t.Campaign)
                .where(t.Campaign.id == campaign_id)
                .values(lease_owner=owner, lease_until=time + seconds, fence=fence)
            )
            taken = f", taken over from {old.lease_owner}" if old.lease_until is not None else ""
            record(
                connection, "lease", f"{owner} drives campaign {old.name}{taken}", campaign_id=campaign_id, actor=owner
            )
            return fence

    def renew_lease(self, campaign_id: int, fence: int, seconds: float) -> None:
        """Prolong the lease; raises LeaseLostError if somebody else took over."""
        with self._database.write(durable=False) as connection:
            self._check(connection, campaign_id, fence)
            connection.execute(
                update(t.Campaign).where(t.Campaign.id == campaign_id).values(lease_until=now(connection) + seconds)
            )

    def release_lease(self, campaign_id: int, fence: int) -> None:
        """Give the lease back; one that was lost already is left to its new owner."""
        with self._database.write() as connection:
            connection.execute(
                update(t.Campaign)
                .where(t.Campaign.id == campaign_id, t.Campaign.fence == fence)
                .values(lease_owner=None, lease_until=None)
            )

    def check_fence(self, campaign_id: int, fence: int) -> None:
        """Make sure, inside ``with ledger.write()``, that this run still drives the campaign until the block commits.

        Raises
        ------
        LeaseLostError
            if somebody else took over or the lease was given back
        """
        with self._database.write() as connection:
            self._check(connection, campaign_id, fence)

    @staticmethod
    def _check(connection: Connection, campaign_id: int, fence: int) -> None:
        row = _select(connection, campaign_id, lock=True)
        if row.fence != fence or row.lease_owner is None:
            holder = f"{driver_text(row.lease_owner)} drives it now" if row.lease_owner else "it was given back"
            raise LeaseLostError(f"the lease on campaign {row.name} is lost: {holder}; nothing was written")
