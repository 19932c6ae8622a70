"""Find labelers by name: those of alflow and those that other packages register."""

from __future__ import annotations

from collections.abc import Mapping
from importlib.metadata import EntryPoint, entry_points
from pathlib import Path
from typing import Any

from pydantic import BaseModel, ValidationError

from alflow.errors import ConfigError, TheoryError
from alflow.labelers._names import unknown_name
from alflow.labelers._protocol import Labeler
from alflow.labelers._worker import WorkerConfig
from alflow.settings import Document, Place, problems_of

GROUP = "alflow.labelers"


def labeler_names() -> tuple[str, ...]:
    """Names of all registered labelers, sorted; nothing is imported."""
    return tuple(sorted(entry_points(group=GROUP).names))


def labeler_type(name: str) -> type[Labeler]:
    """Return the class of a labeler.

    Raises
    ------
    ConfigError
        if no such labeler is registered, naming the nearest, or if it cannot be imported
    """
    found: tuple[EntryPoint, ...] = tuple(entry_points(group=GROUP, name=name))
    if not found:
        raise ConfigError(
            unknown_name("labeler", name, labeler_names(), otherwise="others come with packages that register them")
        )
    try:
        loaded: type[Labeler] = found[0].load()
    except (ImportError, AttributeError) as error:
        raise ConfigError(f"the labeler {name!r} ({found[0].value}) cannot be imported: {error}") from error
    return loaded


def get_labeler(
    name: str,
    settings: Mapping[str, Any] | None = None,
    *,
    worker: WorkerConfig | None = None,
    directory: Path | None = None,
) -> Labeler:
    """Make a labeler.

    Parameters
    ----------
    name
        registered name: `emt`, `ase`, `replay`, …
    settings
        its settings; those recorded with a theory (:attr:`TheorySpec.settings`) make it again
    worker
        the worker's local configuration, for labelers that run what this machine allows; default: nothing is allowed
    directory
        folder that relative paths in the settings start from; default: the working directory

    Raises
    ------
    ConfigError
        if the name or a setting is not known, with the nearest valid one
    TheoryError
        if settings recorded with a theory mean other physics on this machine

    Examples
    --------
    >>> from ase.build import bulk
    >>> from alflow.labelers import get_labeler
    >>> get_labeler("emt").label(bulk("Cu")).properties.forces.shape
    (1, 3)
    """
    kind = labeler_type(name)
    given = dict(settings or {})
    try:
        model = kind.settings_model.model_validate(given)
    except ValidationError as error:
        raise ConfigError(_describe(name, kind.settings_model, given, error)) from error
    return kind.create(model, worker=worker or WorkerConfig(), directory=directory or Path.cwd())


def labeler_for_theory(
    labeler: str,
    settings: Mapping[str, Any],
    fingerprint: str,
    *,
    worker: WorkerConfig | None = None,
    directory: Path | None = None,
) -> Labeler:
    """Make the labeler that computes exactly a recorded theory.

    Raises
    ------
    ConfigError
        if this machine cannot run it
    TheoryError
        if it would compute other physics here: another code version, other files, other defaults
    """
    made = get_labeler(labeler, settings, worker=worker, directory=directory)
    spec = made.theory()
    if spec.fingerprint != fingerprint:
        raise TheoryError(
            f"here the labeler {labeler!r} computes theory {spec.fingerprint[:12]} ({spec.code}), but "
            f"{fingerprint[:12]} was asked for: its code version, settings or files differ; labels of two theories "
            "never mix"
        )
    return made


def _describe(name: str, model: type[BaseModel], given: Mapping[str, Any], error: ValidationError) -> str:
    document = Document(name=f"settings of {name}", content=given, places={(): Place(line=1, column=1)})
    problems = problems_of(error, model, document)
    return f"labeler {name!r}: " + "; ".join(problem.text() for problem in problems)
