"""Source: structures that somebody else made, from files."""

from __future__ import annotations

import glob
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import ClassVar

from alflow.errors import ConfigError
from alflow.explore._settings import FilesSettings
from alflow.explore._source import ExploreContext, Proposal
from alflow.structures import Structure, read_structures


@dataclass(frozen=True)
class FilesSource:
    """Every structure of the named files, in the order of the names and of the frames."""

    settings: FilesSettings

    settings_type: ClassVar[type[FilesSettings]] = FilesSettings
    once: ClassVar[bool] = True
    needs_committee: ClassVar[bool] = False

    def propose(self, context: ExploreContext) -> Iterator[Proposal]:
        """Read the files one after the other; structures of other elements than the campaign's come as rejected.

        Raises
        ------
        ConfigError
            if a path or pattern names no file
        StructureError
            for a file or frame that cannot be read; it names both
        """
        for path, name in self._files(context.directory):
            for frame, atoms in enumerate(read_structures(path, max_structures=self.settings.max_structures)):
                structure = Structure.from_atoms(atoms)
                foreign = sorted(set(structure.elements) - set(context.elements))
                yield Proposal(
                    structure=structure,
                    source=self.settings.kind,
                    parameters={"file": name, "frame": frame},
                    deliberate=self.settings.deliberate,
                    rejected=f"holds {', '.join(foreign)}, which the campaign does not" if foreign else None,
                )
                if frame % 1000 == 999:
                    context.report(f"reading {name}", frame + 1)

    def _files(self, directory: Path) -> list[tuple[Path, str]]:
        found: dict[Path, str] = {}
        for pattern in self.settings.paths:
            plain = directory / pattern
            names = [str(plain)] if plain.exists() else sorted(glob.glob(str(plain), recursive=True))  # noqa: PTH207  absolute patterns too
            if not names:
                raise ConfigError(f"files: {pattern!r} names no file below {directory}")
            for name in names:
                path = Path(name)
                found[path] = str(path.relative_to(directory)) if path.is_relative_to(directory) else name
        return list(found.items())
