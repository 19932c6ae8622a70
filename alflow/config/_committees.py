"""The type of the section `committee`: the native potential, MACE, and what other packages register."""

from __future__ import annotations

from collections.abc import Mapping
from typing import TYPE_CHECKING, Annotated, Any, Union

from pydantic import BeforeValidator, Field

from alflow.potentials import CommitteeSpec, MaceSpec
from alflow.potentials._kinds import registered_settings


def with_kind(content: Any) -> Any:
    """Return a section `committee` that says which potential it means: the native one where nothing is said."""
    return {"kind": "native", **content} if isinstance(content, Mapping) and "kind" not in content else content


if TYPE_CHECKING:
    AnyCommittee = CommitteeSpec | MaceSpec
else:
    AnyCommittee = Annotated[
        Union[registered_settings()],  # noqa: UP007  built at run time
        Field(discriminator="kind"),
        BeforeValidator(with_kind),
    ]
