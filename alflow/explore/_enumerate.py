"""Source: every symmetry-distinct ordering of the elements on parent lattices."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, ClassVar

import numpy as np

from alflow.errors import ConfigError
from alflow.explore._derivative import Orderings, Parent, count_labelings, enumerate_orderings
from alflow.explore._prototypes import PROTOTYPES, Lattice, elemental_volume, prototype, reference_volume
from alflow.explore._settings import EnumerateSettings
from alflow.explore._source import ExploreContext, Proposal
from alflow.structures import Structure, atomic_number, element_symbol, read_structures

if TYPE_CHECKING:
    from collections.abc import Mapping

    from numpy.typing import NDArray


@dataclass(frozen=True)
class EnumerateSource:
    """Orderings on parent lattices up to a number of atoms, each exactly once."""

    settings: EnumerateSettings

    settings_type: ClassVar[type[EnumerateSettings]] = EnumerateSettings
    once: ClassVar[bool] = True
    needs_committee: ClassVar[bool] = False

    def propose(self, context: ExploreContext) -> Iterator[Proposal]:
        """Yield the orderings parent by parent, from small cells to large ones.

        Raises
        ------
        ConfigError
            for an unknown parent, a parent without a site to substitute, or an enumeration beyond ``max_labelings``
        StructureError
            for an unreadable parent file or an unknown element
        """
        elements = tuple(sorted(self.settings.elements or context.elements))
        for element in (*elements, *self.settings.volumes):
            atomic_number(element)
        decorated = [_parent(name, elements, self.settings, context.directory) for name in self.settings.parents]
        self._check_size(decorated)
        for item in decorated:
            largest = self.settings.max_atoms // item.parent.n_sites
            for size in range(1, largest + 1):
                context.report(f"orderings on {item.name}", size, largest)
                for orderings in enumerate_orderings(item.parent, size):
                    yield from self._proposals(item, size, orderings)

    def _check_size(self, decorated: Sequence[_Decorated]) -> None:
        labelings = 0
        for item in decorated:
            for size in range(1, self.settings.max_atoms // item.parent.n_sites + 1):
                labelings += count_labelings(item.parent, size)
                if labelings > self.settings.max_labelings:
                    raise ConfigError(
                        f"enumerate: {item.name} up to {self.settings.max_atoms} atoms needs more than "
                        f"{self.settings.max_labelings:,} labelings (passed at {size * item.parent.n_sites} atoms); "
                        "lower max_atoms, give fewer elements or raise max_labelings"
                    )

    def _proposals(self, item: _Decorated, size: int, orderings: Orderings) -> Iterator[Proposal]:
        volume = abs(float(np.linalg.det(orderings.cell)))
        for labels in orderings.labels:
            if not self.settings.pure_elements and len(set(labels)) == 1:
                continue
            species = [item.species[label] for label in labels]
            factor = (sum(item.volumes[s] for s in species) / volume) ** (1 / 3)
            cell = orderings.cell * factor
            structure = Structure(
                cell=cell,
                pbc=np.ones(3, dtype=bool),
                numbers=np.array([atomic_number(s) for s in species]),
                positions=orderings.fractional @ cell,
            )
            yield Proposal(
                structure=structure,
                source=self.settings.kind,
                parameters={
                    "parent": item.name,
                    "size": size,
                    "hermite": orderings.hermite.tolist(),
                    "species": species,
                },
            )


@dataclass(frozen=True, kw_only=True, eq=False)
class _Decorated:
    """A parent with species for labels and the volume that each species brings, Å³."""

    name: str
    parent: Parent
    species: tuple[str, ...]
    volumes: Mapping[str, float]


def _parent(name: str, elements: tuple[str, ...], settings: EnumerateSettings, directory: Path) -> _Decorated:
    if name in PROTOTYPES:
        lattice = prototype(name)
        return _Decorated(
            name=name,
            parent=Parent.create(lattice, [range(len(elements))] * lattice.n_sites),
            species=elements,
            volumes={e: elemental_volume(e, name, settings.volumes) for e in elements},
        )
    path = directory / name
    if not path.exists():
        raise ConfigError(
            f"enumerate: parent {name!r} is neither a prototype ({', '.join(PROTOTYPES)}) nor a file; "
            f"{path} does not exist"
        )
    return _parent_from_file(path, name, elements, settings)


def _parent_from_file(path: Path, name: str, elements: tuple[str, ...], settings: EnumerateSettings) -> _Decorated:
    structures = [Structure.from_atoms(atoms) for atoms in read_structures(path)]
    if len(structures) != 1 or structures[0].n_periodic != 3:
        raise ConfigError(f"enumerate: {path} must hold exactly one crystal, periodic in three directions")
    crystal = structures[0]
    symbols = _symbols(crystal.numbers)
    spectators = sorted(set(symbols) - set(elements))
    if len(spectators) == len(set(symbols)):
        raise ConfigError(
            f"enumerate: {path} has no site of {', '.join(elements)} to substitute; it holds {crystal.formula}"
        )
    species = (*elements, *spectators)
    allowed = [range(len(elements)) if s in elements else (species.index(s),) for s in symbols]
    fractional = crystal.positions @ np.linalg.inv(crystal.cell)
    # Zen's law relative to the file: its volume already knows how dense this parent is.
    density = crystal.volume / sum(reference_volume(s, settings.volumes) for s in symbols)
    return _Decorated(
        name=name,
        parent=Parent.create(Lattice(cell=crystal.cell, fractional=fractional), allowed),
        species=species,
        volumes={s: density * reference_volume(s, settings.volumes) for s in species},
    )


def _symbols(numbers: NDArray[np.int64]) -> list[str]:
    return [element_symbol(int(n)) for n in numbers]
