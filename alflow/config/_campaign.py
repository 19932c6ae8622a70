"""The models of the campaign file."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Mapping
from typing import Annotated, Any, Literal, Self

from pydantic import AfterValidator, BaseModel, ConfigDict, Field, PlainSerializer, field_validator, model_validator

from alflow.config._committees import AnyCommittee
from alflow.config._ledger_url import check_url, mask_url
from alflow.config._sources import AnySource
from alflow.discovery import DiscoverySettings
from alflow.errors import ConfigError
from alflow.explore import DynamicsSettings, EnumerateSettings, FilterSettings, RelaxSettings, Round0Settings
from alflow.labelers import labeler_type
from alflow.potentials import CommitteeSpec, Targets, TrainingSpec
from alflow.select import Budget, SelectionSettings, StoppingSettings
from alflow.structures import known_element

CONFIG_VERSION = 1


def known_labeler(name: str) -> str:
    """Return the name as it is; raises ValueError naming the nearest labeler where there is none of that name."""
    try:
        labeler_type(name)
    except ConfigError as error:
        raise ValueError(str(error)) from error
    return name


Element = Annotated[str, AfterValidator(known_element)]
LedgerUrl = Annotated[str, AfterValidator(check_url), PlainSerializer(mask_url, when_used="json")]


class _Section(BaseModel):
    """What all sections share: immutable, and an unknown key is an error."""

    model_config = ConfigDict(extra="forbid", frozen=True)


class TheorySettings(_Section):
    """What computes the labels. Labels of two theories never mix."""

    labeler: Annotated[str, AfterValidator(known_labeler)] = Field(
        description="which labeler: `emt`, `ase`, `replay`, or one of another package"
    )
    settings: Mapping[str, Any] = Field(
        default_factory=dict, description="settings of the labeler, see [labelers](#settings-of-the-labelers)"
    )
    name: str | None = Field(
        default=None,
        description="short name of the theory in the ledger; for the labeler `ase` also the entry of the worker's file "
        "where `settings` names none",
    )

    @model_validator(mode="before")
    @classmethod
    def _calculator_from_name(cls, content: Any) -> Any:
        """Let the name of the theory name the worker's calculator."""
        if not isinstance(content, Mapping) or content.get("labeler") != "ase" or not content.get("name"):
            return content
        settings = content.get("settings") or {}
        if not isinstance(settings, Mapping) or "calculator" in settings:
            return content
        return {**content, "settings": {**settings, "calculator": content["name"]}}


class DuplicateSettings(_Section):
    """From which similarity on a candidate is not worth a calculation of its own.

    A change holds for the candidates that come after it; each duplicate keeps the tolerances under which it was found.
    """

    relation: Literal["redundant", "identical"] = Field(
        default="redundant", description="`identical`: only identical structures are duplicates, near ones are kept"
    )
    displacement: float = Field(
        default=0.015, gt=1e-4, le=0.3, description="largest displacement of any atom of a redundant structure, Å"
    )
    strain: float = Field(default=0.002, gt=1e-5, le=0.05, description="largest strain of a redundant structure")
    moments: float = Field(
        default=1e-3, ge=1e-3, description="largest difference of an initial moment of a redundant structure, µB"
    )
    mirror: bool = Field(default=True, description="mirror images count as the same")


class ExplorerSettings(_Section):
    """Foreign potentials that explore in the first rounds, instead of the campaign's own committee.

    They only lead relaxations and dynamics; candidates are judged by the committee and labelled by the theory. What
    they find in round 0 is labelled there as far as `round0: n_pool` says. One alone has no spread, so that `u_limit`
    stops nothing.
    """

    rounds: int = Field(default=0, ge=0, description="how many rounds, from round 0 on, they lead; 0: none")
    calculators: tuple[str, ...] = Field(
        default=(),
        description="ASE calculators, by their names under `labelers` in the worker's file; none: the foundation model "
        "of `committee`",
    )


def _default_sources() -> tuple[AnySource, ...]:
    return (EnumerateSettings(), RelaxSettings(), DynamicsSettings())


class CampaignConfig(_Section):
    """One campaign. Only `name`, `elements` and `theory` have to be given."""

    version: Literal[1] = Field(default=1, description="version of this file's format")
    name: str = Field(
        pattern=r"^[A-Za-z0-9][A-Za-z0-9._-]*$",
        max_length=100,
        description="name of the campaign in the ledger: letters, digits, `.`, `_`, `-`",
    )
    goal: str = Field(default="", description="what the campaign is for, in a sentence")
    elements: tuple[Element, ...] = Field(min_length=1, description="element symbols that candidates are made of")
    ledger: LedgerUrl = Field(
        default="sqlite:///campaign.db",
        repr=False,
        description="database that holds everything: `sqlite:///FILE` relative to this file, or "
        "`postgresql+psycopg://user:${PASSWORD}@host/database`; `${NAME}` is taken from the environment",
    )
    seed: int = Field(default=0, ge=0, description="seed of all random choices")
    theory: TheorySettings = Field(description="what computes the labels")
    targets: Targets = Field(default_factory=Targets, description="how well things have to be known")
    round0: Round0Settings = Field(default_factory=Round0Settings, description="the designed first round")
    sources: tuple[AnySource, ...] = Field(
        default_factory=_default_sources,
        min_length=1,
        description="what proposes candidates; default: `enumerate`, `relax` and `dynamics`",
    )
    filters: FilterSettings = Field(default_factory=FilterSettings, description="physical limits of candidates")
    duplicates: DuplicateSettings = Field(
        default_factory=DuplicateSettings, description="from which similarity on a candidate is redundant"
    )
    committee: AnyCommittee = Field(
        default_factory=CommitteeSpec, description="the potential: `kind` says which, `native` where nothing is said"
    )
    explorer: ExplorerSettings = Field(
        default_factory=ExplorerSettings, description="foreign potentials that explore in the first rounds"
    )
    training: TrainingSpec = Field(default_factory=TrainingSpec, description="how the committee is trained")
    selection: SelectionSettings = Field(default_factory=SelectionSettings, description="how a batch is chosen")
    stopping: StoppingSettings = Field(
        default_factory=StoppingSettings, description="when the potential is good enough"
    )
    budget: Budget = Field(default_factory=Budget, description="what the campaign may spend")
    approval: Literal["auto", "manual"] = Field(
        default="auto", description="`manual`: every batch waits for `alflow approve` before it is queued"
    )
    discovery: DiscoverySettings = Field(
        default_factory=DiscoverySettings, description="search for stable compounds on the convex hull"
    )

    @field_validator("elements")
    @classmethod
    def _each_once(cls, elements: tuple[str, ...]) -> tuple[str, ...]:
        repeated = sorted({e for e in elements if elements.count(e) > 1})
        if repeated:
            raise ValueError(f"{', '.join(repeated)} is listed more than once: keep one")
        return elements

    def to_json(self) -> dict[str, Any]:
        """JSON values for the ledger, without passwords."""
        return self.model_dump(mode="json")

    @classmethod
    def from_json(cls, content: Mapping[str, Any]) -> Self:
        """Inverse of :meth:`to_json`, also for files of older versions.

        Raises
        ------
        ConfigError
            if the content was written by a newer alflow
        """
        from alflow.config._migrate import migrate

        return cls.model_validate(migrate(content))

    @property
    def config_hash(self) -> str:
        """SHA-256 over everything that describes the campaign; where its ledger lies does not."""
        content = {key: value for key, value in self.to_json().items() if key != "ledger"}
        return hashlib.sha256(json.dumps(content, sort_keys=True).encode()).hexdigest()
