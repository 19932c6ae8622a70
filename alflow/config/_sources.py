"""The type of one entry under `sources`: what comes with alflow, and what other packages register."""

from __future__ import annotations

from typing import TYPE_CHECKING, Annotated, Union

from pydantic import Field

from alflow.explore import (
    DynamicsSettings,
    EnumerateSettings,
    FilesSettings,
    PerturbSettings,
    RelaxSettings,
    SourceSettings,
)

BUILT_IN: tuple[type[SourceSettings], ...] = (
    EnumerateSettings,
    PerturbSettings,
    RelaxSettings,
    DynamicsSettings,
    FilesSettings,
)


def registered() -> tuple[type[SourceSettings], ...]:
    """Settings of the sources that other packages register; those of alflow are not imported for it."""
    from importlib.metadata import entry_points

    known = {str(model.model_fields["kind"].default) for model in BUILT_IN}
    return tuple(
        point.load().settings_type for point in entry_points(group="alflow.sources") if point.name not in known
    )


if TYPE_CHECKING:
    AnySource = SourceSettings
else:
    AnySource = Annotated[Union[BUILT_IN + registered()], Field(discriminator="kind")]  # noqa: UP007  built at run time
