"""Asks a Python what GPAW it has: the version, and the PAW datasets that it would read."""

from __future__ import annotations

import json
import os
import shutil
import subprocess
import tempfile
from collections.abc import Mapping
from dataclasses import dataclass
from functools import cache
from pathlib import Path

from alflow.errors import ConfigError
from alflow.labelers import _gpaw_run as script

SCRIPT = "gpaw_run.py"
"""Name of the script's copy beside whatever it computes."""

OLDEST = (26, 7)
"""The version whose keywords and results the script speaks."""

_SECONDS = 300.0


@dataclass(frozen=True, kw_only=True)
class Installation:
    """What a GPAW says about itself.

    Parameters
    ----------
    version
        as it prints it
    files
        SHA-256 of the PAW dataset of each element, unpacked
    """

    version: str
    files: Mapping[str, str]


@cache
def describe(
    command: tuple[str, ...],
    environment: tuple[tuple[str, str], ...],
    xc: str,
    setups: tuple[tuple[str, str], ...],
) -> Installation:
    """Ask an installation of GPAW what it is; raises ConfigError where it cannot be used."""
    wanted = {"xc": xc, "elements": [element for element, _ in setups], "setups": dict(setups)}
    shown = " ".join(command)
    try:
        with tempfile.TemporaryDirectory(prefix="alflow-gpaw-") as folder:
            # A copy, as for a calculation: a script's own folder is searched for modules first.
            shutil.copyfile(script.__file__, Path(folder) / SCRIPT)
            ran = subprocess.run(  # noqa: S603  the command of the worker's file
                [*command, SCRIPT, "describe", json.dumps(wanted)],
                cwd=folder,
                stdin=subprocess.DEVNULL,
                capture_output=True,
                text=True,
                errors="replace",
                timeout=_SECONDS,
                env={**os.environ, **dict(environment)},
                check=False,
            )
    except (OSError, subprocess.TimeoutExpired) as error:
        raise ConfigError(f"`{shown}` cannot be run: {error}: correct `command` in alflow-worker.yaml") from error
    said = ran.stdout.strip().splitlines()
    try:
        answer = json.loads(said[-1])
    except (IndexError, ValueError) as error:
        last = (ran.stderr.strip() or "it said nothing").splitlines()[-1][:300]
        raise ConfigError(f"`{shown}` does not run Python scripts (exit code {ran.returncode}): {last}") from error
    if not isinstance(answer, dict):
        raise ConfigError(
            f"`{shown}` answers {said[-1][:100]!r} instead of what GPAW it has: correct `command` in alflow-worker.yaml"
        )
    if "failure" in answer:
        failure = answer["failure"]
        raise ConfigError(
            f"`{shown}` is no Python with a working GPAW ({failure['types'][0]}: {failure['message']}): install it "
            "there, or correct `command` in alflow-worker.yaml"
        )
    version = str(answer["gpaw"])
    if tuple(int(part) for part in version.split(".")[:2] if part.isdigit()) < OLDEST:
        raise ConfigError(f"`{shown}` runs GPAW {version}; {OLDEST[0]}.{OLDEST[1]} or newer is needed: upgrade it")
    files = {element: content["sha256"] for element, content in answer["datasets"].items()}
    missing = [content["file"] for content in answer["datasets"].values() if content["sha256"] is None]
    if missing:
        raise ConfigError(
            f"`{shown}` finds no PAW dataset {', '.join(missing)}: `pip install gpaw-data` there, or name a folder "
            "with it as `potentials` in alflow-worker.yaml, or choose another one under `setups`"
        )
    return Installation(version=version, files=files)
