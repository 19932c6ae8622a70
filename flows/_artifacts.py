"""What a flow run shows in Prefect's pages: tables, Markdown, images, progress. Losing one never stops a campaign."""

from __future__ import annotations

import base64
import math
import re
import time
from collections.abc import Callable, Sequence
from typing import Any
from uuid import UUID

import httpx
from prefect.artifacts import (
    create_image_artifact,
    create_markdown_artifact,
    create_progress_artifact,
    create_table_artifact,
    update_progress_artifact,
)
from prefect.exceptions import PrefectException

from alflow.ledger import Ledger
from alflow.report import summarise

PROGRESS_SECONDS = 5.0
"""Between two updates of a progress bar: each is a request to the server."""
PAUSE_SECONDS = 600.0
"""A server that is away is left alone for so long: Prefect's client tries each request for about a minute."""


class Artifacts:
    """Artifacts of one campaign; a later one of the same kind is a new version of it.

    Parameters
    ----------
    campaign
        its name, from which the artifacts' keys are made
    log
        told where the server did not take an artifact
    """

    def __init__(self, campaign: str, log: Any) -> None:
        self._slug = slug(campaign)
        self._name = campaign
        self._log = log
        self._progress: tuple[str, UUID] | None = None
        self._told = 0.0
        self._silent_until = -math.inf

    def table(self, name: str, description: str, rows: Sequence[dict[str, Any]]) -> None:
        """Show a table."""
        self._try(lambda: create_table_artifact(table=list(rows), key=f"{self._slug}-{name}", description=description))

    def markdown(self, name: str, text: str, description: str) -> None:
        """Show Markdown."""
        self._try(lambda: create_markdown_artifact(markdown=text, key=f"{self._slug}-{name}", description=description))

    def image(self, name: str, png: bytes, description: str) -> None:
        """Show an image; it travels inside the artifact, for there is no place that all browsers could reach."""
        url = f"data:image/png;base64,{base64.b64encode(png).decode()}"
        self._try(lambda: create_image_artifact(image_url=url, key=f"{self._slug}-{name}", description=description))

    def progress(self, what: str, done: int, total: int | None, text: str) -> None:
        """Move the progress bar, at most every few seconds; a new ``what`` is a new bar."""
        if not total:
            return
        share = min(100.0, 100.0 * done / total)
        begun = self._progress is not None and self._progress[0] == what
        if begun and time.monotonic() - self._told < PROGRESS_SECONDS:
            return
        self._told = time.monotonic()
        description = f"{self._name}, {what}: {done} of {total}{f', {text}' if text else ''}"
        if begun and self._progress is not None:
            bar = self._progress[1]
            self._try(lambda: update_progress_artifact(bar, share, description))
            return
        made = self._try(lambda: create_progress_artifact(share, key=f"{self._slug}-progress", description=description))
        self._progress = None if made is None else (what, made)

    def finish_progress(self) -> None:
        """Fill the bar: what it showed is done."""
        if self._progress is not None:
            what, bar = self._progress
            self._progress = None
            self._try(lambda: update_progress_artifact(bar, 100.0, f"{self._name}, {what}: done"))

    def summary(self, ledger: Ledger) -> None:
        """Show the campaign's findings and its learning curve."""
        try:
            found = summarise(ledger, self._name)
        except Exception:  # noqa: BLE001  a page that cannot be drawn is a bug, but no reason to end a campaign that works
            self._log.exception("the summary of campaign %s could not be made; please report this", self._name)
            return
        self.markdown("findings", found.findings, f"{self._name}: what it found, what it cost")
        if found.learning_curve is not None:
            self.image("learning-curve", found.learning_curve, f"{self._name}: errors made before learning from labels")

    def _try(self, call: Callable[[], Any]) -> UUID | None:
        if time.monotonic() < self._silent_until:
            return None
        try:
            made = call()
        except (PrefectException, httpx.HTTPError) as error:
            self._log.warning("Prefect's server did not take an artifact, going on without: %s", error)
            if isinstance(error, httpx.TransportError):
                self._silent_until = time.monotonic() + PAUSE_SECONDS
            return None
        return made if isinstance(made, UUID) else None


def slug(name: str) -> str:
    """Turn a campaign's name into what Prefect takes as a key: lower case letters, digits and dashes."""
    return re.sub(r"[^a-z0-9]+", "-", name.lower()).strip("-") or "campaign"
