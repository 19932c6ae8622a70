"""Source: frames of molecular dynamics with the committee."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any, ClassVar

from alflow.errors import PotentialError
from alflow.explore._distort import repeat_to, with_volume_factor
from alflow.explore._dynamics import Walk, WalkStop, run_dynamics
from alflow.explore._settings import DynamicsSettings
from alflow.explore._source import ExploreContext, Proposal
from alflow.explore._starts import draw_starts
from alflow.structures import Structure


@dataclass(frozen=True)
class DynamicsSource:
    """Frames of walkers that start from known structures and end where the committee no longer knows."""

    settings: DynamicsSettings

    settings_type: ClassVar[type[DynamicsSettings]] = DynamicsSettings
    once: ClassVar[bool] = False
    needs_committee: ClassVar[bool] = True

    def propose(self, context: ExploreContext) -> Iterator[Proposal]:
        """Run all walkers, then yield their frames walker by walker.

        Raises
        ------
        PotentialError
            if the context has no committee
        """
        if context.committee is None:
            raise PotentialError("the source dynamics needs a committee: train one first")
        settings, rng = self.settings, context.rng
        starts = list(draw_starts(rng, [s for s in context.starts if _movable(s)], settings.walkers))
        factors = [float(1 + settings.volume * rng.uniform(-1, 1)) if s.n_periodic == 3 else 1.0 for s in starts]
        walkers = [
            with_volume_factor(repeat_to(start, settings.min_atoms), factor)
            for start, factor in zip(starts, factors, strict=True)
        ]
        temperatures = [settings.temperatures[i % len(settings.temperatures)] for i in range(len(walkers))]
        walks = run_dynamics(context.committee, walkers, temperatures, settings, rng=rng, progress=context.progress)
        for number, (start, factor, walk) in enumerate(zip(starts, factors, walks, strict=True)):
            yield from self._proposals(number, start, factor, walk)

    def _proposals(self, number: int, start: Structure, factor: float, walk: Walk) -> Iterator[Proposal]:
        for frame in walk.frames:
            ended = walk.stop is WalkStop.UNCERTAIN and frame is walk.frames[-1]
            parameters: dict[str, Any] = {
                "walker": number,
                "temperature": walk.temperature,
                "step": frame.step,
                "time_fs": frame.step * self.settings.timestep,
                "volume_factor": factor,
                "u": frame.u,
            }
            if ended:
                parameters["reason"] = (
                    f"dynamics at {walk.temperature:.0f} K left what the committee knows in step {frame.step}: "
                    f"u = {frame.u:.1f}"
                )
            yield Proposal(
                structure=frame.structure,
                source=self.settings.kind,
                parameters=parameters,
                parent=start.content_hash,
            )


def _movable(structure: Structure) -> bool:
    """True where the structure has, or can be repeated to have, at least two atoms."""
    return structure.n_atoms > 1 or structure.n_periodic > 0
