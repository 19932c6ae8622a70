"""Read a campaign file, and check what the models alone cannot see: files, elements, the labeler's settings."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import dataclass, replace
from pathlib import Path
from typing import TYPE_CHECKING

from pydantic import BaseModel, ValidationError

from alflow.config._campaign import CampaignConfig
from alflow.config._committees import with_kind
from alflow.config._ledger_url import resolve_url
from alflow.config._migrate import migrate
from alflow.errors import ConfigError
from alflow.explore import PROTOTYPES, EnumerateSettings, FilesSettings
from alflow.labelers import labeler_type
from alflow.potentials import MaceSpec
from alflow.settings import Document, Problem, load_settings, nearest, problems_of, raise_problems
from alflow.structures import known_element

if TYPE_CHECKING:
    from alflow.labelers import Labeler


@dataclass(frozen=True, kw_only=True)
class LoadedCampaign:
    """A campaign file that was read and checked.

    Parameters
    ----------
    config
        its content
    path
        the file
    directory
        folder that relative paths in it start from
    text
        as written by the user
    document
        where every key stands
    """

    config: CampaignConfig
    path: Path
    directory: Path
    text: str
    document: Document

    @property
    def ledger_url(self) -> str:
        """URL of the ledger: environment filled in, relative SQLite paths made absolute. It may hold a password."""
        return resolve_url(self.config.ledger, self.directory)

    def require_labeler(self, labeler: Labeler) -> None:
        """Check that the labeler knows the campaign's elements; raises ConfigError at the line that names them."""
        known = labeler.capabilities.elements
        if known is None:
            return
        problems = [
            Problem(
                path=("elements", index),
                message=f"the labeler {labeler.name!r} has no {element}",
                remedy=f"it knows {', '.join(sorted(known))}; choose others, or another labeler under `theory`",
            )
            for index, element in enumerate(self.config.elements)
            if element not in known
        ]
        if problems:
            raise_problems(self.document, problems)


def load_campaign(path: Path | str) -> LoadedCampaign:
    """Read a campaign file.

    Raises
    ------
    ConfigError
        listing every problem with file, line, column, key, the nearest valid key and what to do

    Examples
    --------
    >>> from alflow.config import load_campaign
    >>> load_campaign("campaign.yaml").config.elements      # doctest: +SKIP
    ('Ni', 'Pt')
    """
    path = Path(path)
    loaded = load_settings(
        path,
        CampaignConfig,
        prepare=_migrated,
        secret=frozenset({"ledger"}),
        missing="`alflow init` writes one to start from",
    )
    config, document, directory = loaded.settings, loaded.document, path.resolve().parent
    problems = [
        *_ledger_problems(config, directory),
        *_labeler_problems(config, document, directory),
        *_missing_files(config.committee, ("committee",), directory),
        *_explorer_problems(config),
        *_source_problems(config, directory),
        *_volume_problems(document.content),
    ]
    if problems:
        raise_problems(document, problems)
    return LoadedCampaign(
        config=config, path=path, directory=directory, text=path.read_text(encoding="utf-8"), document=document
    )


def _migrated(document: Document) -> Document:
    try:
        content = migrate(document.content)
    except ConfigError as error:
        raise_problems(document, [Problem(path=("version",), message=str(error))])
    if "committee" in content:
        content["committee"] = with_kind(content["committee"])
    return replace(document, content=content)


def _ledger_problems(config: CampaignConfig, directory: Path) -> Iterator[Problem]:
    try:
        resolve_url(config.ledger, directory)
    except ConfigError as error:
        yield Problem(path=("ledger",), message=str(error))


def _labeler_problems(config: CampaignConfig, document: Document, directory: Path) -> Iterator[Problem]:
    """Yield what the labeler's own settings model says, and paths in it that lead nowhere."""
    model = labeler_type(config.theory.labeler).settings_model
    prefix = ("theory", "settings")
    content = dict(config.theory.settings)
    try:
        settings = model.model_validate(content)
    except ValidationError as error:
        for problem in problems_of(error, model, replace(document, content=content)):
            yield replace(problem, path=(*prefix, *problem.path))
        return
    yield from _missing_files(settings, prefix, directory)


def _missing_files(settings: BaseModel, prefix: tuple[str | int, ...], directory: Path) -> Iterator[Problem]:
    for key, value in settings:
        if isinstance(value, Path) and not (directory / value.expanduser()).exists():
            found = directory / value.expanduser()
            yield Problem(path=(*prefix, key), message=f"{found} does not exist", remedy=_similar_file(found))


def _explorer_problems(config: CampaignConfig) -> Iterator[Problem]:
    if config.explorer.calculators and not config.explorer.rounds:
        yield Problem(
            path=("explorer", "rounds"),
            message="the calculators never explore: there are 0 rounds for them",
            remedy="set `rounds`, or leave `calculators` out",
        )
    foundation = config.committee.foundation if isinstance(config.committee, MaceSpec) else None
    if config.explorer.rounds and not config.explorer.calculators and foundation is None:
        yield Problem(
            path=("explorer", "rounds"),
            message="there is nothing to explore with",
            remedy="name `calculators` of the worker's file, or give `committee` a foundation model",
        )


def _source_problems(config: CampaignConfig, directory: Path) -> Iterator[Problem]:
    for index, source in enumerate(config.sources):
        here = ("sources", index)
        if isinstance(source, FilesSettings):
            for number, pattern in enumerate(source.paths):
                found = directory / Path(pattern).expanduser()
                if not found.exists() and not any(directory.glob(pattern) if not Path(pattern).is_absolute() else ()):
                    yield Problem(
                        path=(*here, "paths", number),
                        message=f"no file matches {pattern!r} in {directory}",
                        remedy=_similar_file(found),
                    )
        if isinstance(source, EnumerateSettings):
            yield from _enumerate_problems(source, here, config, directory)


def _enumerate_problems(
    source: EnumerateSettings, here: tuple[str | int, ...], config: CampaignConfig, directory: Path
) -> Iterator[Problem]:
    for number, parent in enumerate(source.parents):
        if parent in PROTOTYPES or (directory / Path(parent).expanduser()).is_file():
            continue
        close = nearest(parent, PROTOTYPES)
        prototypes = f"prototypes: {', '.join(PROTOTYPES)}"
        yield Problem(
            path=(*here, "parents", number),
            message=f"{parent!r} is neither a prototype nor a file",
            remedy=f"did you mean {close!r}? ({prototypes})" if close else prototypes,
        )
    for number, element in enumerate(source.elements or ()):
        if element not in config.elements:
            yield Problem(
                path=(*here, "elements", number),
                message=f"{element!r} is not among the campaign's elements",
                remedy=f"they are {', '.join(config.elements)}",
            )


def _volume_problems(content: Mapping[str, object]) -> Iterator[Problem]:
    """Yield keys of `volumes` mappings that are no elements."""
    places: list[tuple[tuple[str | int, ...], object]] = [(("round0",), content.get("round0"))]
    sources = content.get("sources")
    places += [(("sources", i), s) for i, s in enumerate(sources if isinstance(sources, list) else [])]
    for path, section in places:
        volumes = section.get("volumes") if isinstance(section, Mapping) else None
        for symbol in volumes if isinstance(volumes, Mapping) else ():
            try:
                known_element(str(symbol))
            except ValueError as error:
                yield Problem(path=(*path, "volumes", symbol), message=str(error))


def _similar_file(path: Path) -> str:
    """Suggest what to do about a file that is not there."""
    names = sorted(p.name for p in path.parent.iterdir()) if path.parent.is_dir() else []
    close = nearest(path.name, names)
    return f"did you mean {close!r}?" if close else "paths start from the folder of the campaign file"
