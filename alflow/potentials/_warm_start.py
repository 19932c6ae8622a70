"""Starting from an earlier committee, also when new elements have appeared."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

import numpy as np
import torch

from alflow.potentials._core import CommitteeCore
from alflow.potentials._network import Constants
from alflow.structures import element_symbol

if TYPE_CHECKING:
    from numpy.typing import NDArray

    from alflow.potentials._committee import NativeCommittee


@dataclass(frozen=True, kw_only=True, eq=False)
class WarmStart:
    """How an earlier committee is used: a sentence, and the core to train on or None for a start from scratch."""

    note: str
    core: CommitteeCore | None


def extend_core(initial: NativeCommittee, fresh: CommitteeCore) -> WarmStart:
    """Carry the weights of `initial` over to the elements of both.

    The network's constants stay those of `initial`, because its weights mean something with them only; elements that it
    did not know get the fresh references and random weights.

    Parameters
    ----------
    initial
        the earlier committee
    fresh
        the core of a start from scratch on the new data
    """
    old = initial.core
    if old.spec.model_copy(update={"dtype": fresh.spec.dtype}) != fresh.spec:
        return WarmStart(note="started from scratch: the earlier committee has another shape", core=None)
    numbers = np.union1d(old.numbers, fresh.numbers)
    weights = old.weights.to(fresh.weights.dtype)
    if np.array_equal(numbers, old.numbers):
        core = CommitteeCore(
            spec=fresh.spec, numbers=numbers, constants=old.constants, references=old.references, weights=weights
        )
        return WarmStart(note="started from the weights of the earlier committee", core=core)

    new = [element_symbol(int(z)) for z in np.setdiff1d(numbers, old.numbers)]
    constants = Constants(
        scale=old.constants.scale,
        neighbours=old.constants.neighbours,
        coordination=old.constants.coordination,
        # plain numbers: a checkpoint with any other kind is refused when it is read
        cohesion=tuple(
            _merge(numbers, fresh, np.array(fresh.constants.cohesion), old, np.array(old.constants.cohesion)).tolist()
        ),
        density=_extended_density(numbers, old),
    )
    core = CommitteeCore(
        spec=fresh.spec,
        numbers=numbers,
        constants=constants,
        references=_merge(numbers, fresh, fresh.references, old, old.references),
        weights=weights,
    )
    if core.network.one_hot != old.network.one_hot:
        return WarmStart(
            note=f"started from scratch: with {', '.join(new)} there are too many elements for one channel each",
            core=None,
        )
    where = np.searchsorted(numbers, old.numbers)
    start = core.network.layout.initial(fresh.spec.n_members, initial.seed + 1, weights.dtype)
    views, before = core.network.layout.views(start), old.network.layout.views(weights)
    if "element.gain" in views:
        views["element.gain"][:, torch.from_numpy(where)] = 1.0  # what a committee of one element does without saying
    for name, value in before.items():
        target = views[name]
        if name.startswith("element."):
            target[:, torch.from_numpy(where)] = value
        elif name == "density" and core.network.one_hot:
            n_radial = fresh.spec.n_radial
            columns = (where[:, None] * n_radial + np.arange(n_radial)).ravel()
            # The same weight has to act as before, whatever the number of columns was when it was drawn.
            target[..., torch.from_numpy(columns)] = value
        else:
            target.copy_(value)
    object.__setattr__(core, "weights", start)
    return WarmStart(note=f"started from the weights of the earlier committee, with {', '.join(new)} new", core=core)


def _extended_density(numbers: NDArray[np.int64], old: CommitteeCore) -> tuple[tuple[float, ...], ...]:
    """Mean densities of the old elements; zero for new ones, so that nothing changes where they are absent."""
    density = np.zeros((len(numbers), old.spec.n_radial))
    density[np.searchsorted(numbers, old.numbers)] = old.constants.density
    return tuple(tuple(float(x) for x in row) for row in density)


def _merge(
    numbers: NDArray[np.int64],
    fresh: CommitteeCore,
    fresh_values: NDArray[np.float64],
    old: CommitteeCore,
    old_values: NDArray[np.float64],
) -> NDArray[np.float64]:
    """Values of the old elements where there are any, else of the fresh ones."""
    merged = np.zeros(len(numbers))
    merged[np.searchsorted(numbers, fresh.numbers)] = fresh_values
    merged[np.searchsorted(numbers, old.numbers)] = old_values
    return merged
