"""Source: random displacements and strains of known structures."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from typing import ClassVar

from alflow.explore._distort import deform, random_strain, rattle, repeat_to, with_volume_factor
from alflow.explore._settings import PerturbSettings
from alflow.explore._source import ExploreContext, Proposal
from alflow.explore._starts import draw_starts


@dataclass(frozen=True)
class PerturbSource:
    """Rattled and strained copies of the starts; every start is used once before any is used again."""

    settings: PerturbSettings

    settings_type: ClassVar[type[PerturbSettings]] = PerturbSettings
    once: ClassVar[bool] = False
    needs_committee: ClassVar[bool] = False

    def propose(self, context: ExploreContext) -> Iterator[Proposal]:
        """Yield ``n`` copies, amplitudes drawn evenly from zero to the largest; nothing where there is no start."""
        settings, rng = self.settings, context.rng
        for start in draw_starts(rng, context.starts, settings.n):
            amplitude, factor = float(rng.uniform()), 1.0
            structure = repeat_to(start, settings.min_atoms)
            if structure.n_periodic == 3:
                factor = float(1 + settings.volume * rng.uniform(-1, 1))
                strain = random_strain(rng, amplitude * settings.strain, traceless=True)
                structure = with_volume_factor(deform(structure, strain), factor)
            structure = rattle(structure, rng, amplitude * settings.rattle)
            yield Proposal(
                structure=structure,
                source=settings.kind,
                parent=start.content_hash,
                parameters={
                    "rattle": amplitude * settings.rattle,
                    "strain": amplitude * settings.strain if structure.n_periodic == 3 else 0.0,
                    "volume_factor": factor,
                    "repeated": structure.n_atoms // start.n_atoms,
                },
            )
