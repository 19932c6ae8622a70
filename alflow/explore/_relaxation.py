"""Source: known structures, relaxed with the committee."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import Any, ClassVar

import numpy as np

from alflow.errors import PotentialError
from alflow.explore._relax import Relaxed, RelaxStop, relax_batch
from alflow.explore._settings import RelaxSettings
from alflow.explore._source import ExploreContext, Proposal
from alflow.structures import Structure


@dataclass(frozen=True)
class RelaxSource:
    """Relaxed geometries of the starts, and the geometries at which a relaxation left what the committee knows."""

    settings: RelaxSettings

    settings_type: ClassVar[type[RelaxSettings]] = RelaxSettings
    once: ClassVar[bool] = False
    needs_committee: ClassVar[bool] = True

    def propose(self, context: ExploreContext) -> Iterator[Proposal]:
        """Relax the starts (the first ``max_starts`` of them, in their order) and yield one proposal for each.

        Raises
        ------
        PotentialError
            if the context has no committee
        """
        if context.committee is None:
            raise PotentialError("the source relax needs a committee: train one first")
        starts = list(context.starts)[: self.settings.max_starts]
        results = relax_batch(context.committee, starts, self.settings, progress=context.progress)
        heights = _above_hull(results)
        for start, result, height in zip(starts, results, heights, strict=True):
            yield self._proposal(start, result, height)

    def _proposal(self, start: Structure, result: Relaxed, height: float | None) -> Proposal:
        parameters: dict[str, Any] = {"stop": result.stop.value, "steps": result.steps, "reason": _reason(result)}
        if np.isfinite(result.energy):
            parameters |= {
                "energy_per_atom": result.energy / result.structure.n_atoms,
                "u": result.u,
                "max_force": result.residual,
                "stress": result.stress_residual,
            }
        if height is not None:
            parameters["predicted_above_hull"] = height
        return Proposal(
            structure=result.structure,
            source=self.settings.kind,
            parameters=parameters,
            parent=start.content_hash,
            rejected=self._advice(result, height),
        )

    def _advice(self, result: Relaxed, height: float | None) -> str | None:
        """Say why the geometry is not worth a label; None where it is."""
        window = self.settings.e_hull_window
        match result.stop:
            case RelaxStop.VOLUME | RelaxStop.STALLED:
                return _reason(result)
            case RelaxStop.MAX_STEPS if not self.settings.propose_unconverged:
                return _reason(result)
            case RelaxStop.CONVERGED if height is not None and window is not None and height > window:
                return (
                    f"relaxed to {1000 * height:.0f} meV/atom above the predicted hull, outside the window of "
                    f"{1000 * window:.0f} meV/atom"
                )
        return None


def _reason(result: Relaxed) -> str:
    """Say in words why a relaxation ended."""
    rest = f"largest force {result.residual:.3g} eV/Å, stress {result.stress_residual:.2g} eV/Å³"
    match result.stop:
        case RelaxStop.CONVERGED:
            return f"relaxed in {result.steps} steps to {rest}"
        case RelaxStop.UNCERTAIN:
            return f"left what the committee knows in step {result.steps}: u = {result.u:.1f}"
        case RelaxStop.MAX_STEPS:
            return f"not relaxed after {result.steps} steps: {rest}"
        case RelaxStop.VOLUME:
            return f"the volume ran away in step {result.steps}"
        case RelaxStop.STALLED:
            return f"the relaxation found no lower energy after step {result.steps}: {rest}"


def _above_hull(results: Sequence[Relaxed]) -> list[float | None]:
    """Energy of the relaxed structures above their own lower hull, eV/atom; None for those that did not relax.

    The hull at a composition x is the cheapest mixture of the relaxed structures: min Σ w_j e_j with Σ w_j x_j = x and
    Σ w_j = 1, w ≥ 0. It is a rough guide; stability is judged elsewhere, on labels.
    """
    from scipy.optimize import linprog

    relaxed = [r for r in results if r.converged]
    if not relaxed:
        return [None] * len(results)
    elements = sorted({e for r in relaxed for e in r.structure.elements})
    fractions = np.array([[r.structure.composition.get(e, 0) / r.structure.n_atoms for e in elements] for r in relaxed])
    energies = np.array([r.energy / r.structure.n_atoms for r in relaxed])
    # One entry per composition is enough, and keeps the linear programme small.
    compositions, group = np.unique(np.round(fractions, 9), axis=0, return_inverse=True)
    group = group.reshape(-1)
    lowest = np.array([energies[group == g].min() for g in range(len(compositions))])
    hull = np.array([linprog(lowest, A_eq=compositions.T, b_eq=x).fun for x in compositions])
    height = iter(energies - hull[group])
    return [float(max(next(height), 0.0)) if r.converged else None for r in results]
