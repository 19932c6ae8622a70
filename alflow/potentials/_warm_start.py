"""Starting from an earlier committee, also when new elements have appeared."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING

import numpy as np
import torch

from alflow.potentials._core import CommitteeCore
from alflow.potentials._network import Constants
from alflow.potentials._references import composition, fit_references, lonely_energies
from alflow.potentials._spec import changed_fields
from alflow.structures import element_symbol

if TYPE_CHECKING:
    from numpy.typing import NDArray

    from alflow.potentials._committee import NativeCommittee
    from alflow.potentials._geometry import EdgeList
    from alflow.structures import LabelledStructure

FAR, EXPLAINED = 1.0, 0.5
"""The zero of energy is moved where labels differ from the earlier committee by more than so many eV per atom, if that
leaves less than such a share of it. Otherwise it is for the training to learn."""


@dataclass(frozen=True, kw_only=True, eq=False)
class WarmStart:
    """How an earlier committee is used: a sentence, and the core to train on or None for a start from scratch."""

    note: str
    core: CommitteeCore | None


def extend_core(initial: NativeCommittee, fresh: CommitteeCore) -> WarmStart:
    """Carry the weights of `initial` over to the elements of both.

    The network's constants stay those of `initial`, because its weights mean something with them only; elements that it
    did not know get the fresh references and random weights. :func:`align_zero` comes after it.

    Parameters
    ----------
    initial
        the earlier committee
    fresh
        the core of a start from scratch on the new data
    """
    old = initial.core
    changed = changed_fields(old.spec.model_copy(update={"dtype": fresh.spec.dtype}), fresh.spec)
    if changed:
        note = f"started from scratch: the earlier committee has another {', '.join(changed)}"
        return WarmStart(note=note, core=None)
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


def align_zero(
    core: CommitteeCore,
    known: NDArray[np.int64],
    examples: Sequence[LabelledStructure],
    edges: Sequence[EdgeList],
) -> tuple[CommitteeCore, str]:
    """Bring the reference energies of an earlier committee to the zero of energy of new labels.

    The energies of the earlier committee may count from elsewhere: other pseudopotentials, another code, or, for new
    elements, references that were fitted without the others. Also, an isolated atom may be labelled now.

    Parameters
    ----------
    core
        with the weights of the earlier committee
    known
        atomic numbers that the earlier committee knew
    examples, edges
        what is learned from

    Returns
    -------
    the core, and the end of a sentence on what was moved (empty: nothing worth a word)
    """
    counts, energies = composition(examples, core.numbers), np.array([e.properties.energy for e in examples])
    predicted = core.predict(edges, derivatives=False).energy.mean(axis=0)
    matter, new = np.array([len(e.centres) > 0 for e in edges]), ~np.isin(core.numbers, known)
    moves = zero_shift(counts, energies - predicted, matter, new)
    lonely = lonely_energies(examples, edges, core.numbers)
    references = np.where(np.isnan(lonely), core.references + moves, lonely)
    if np.array_equal(references, core.references):
        return core, ""
    in_matter = core.references + moves + np.array(core.constants.cohesion)
    constants = replace(core.constants, cohesion=tuple((in_matter - references).tolist()))
    core = replace(core, references=references, constants=constants)
    return core, zero_note(core.elements, np.where(new, 0.0, moves))


def zero_shift(
    counts: NDArray[np.float64], off: NDArray[np.float64], matter: NDArray[np.bool_], new: NDArray[np.bool_]
) -> NDArray[np.float64]:
    """Energies per element, (n_elements,) eV, that explain large differences `off` (n,) of energies; else zeros.

    Where moving the `new` elements alone (n_elements,) explains them, the others stay, for what is known of them holds.
    Elements without a structure stay where they are.
    """
    matter = matter if matter.any() else np.ones(len(off), dtype=bool)
    counts, total = counts[matter], counts[matter].sum(axis=1)
    per_atom = off[matter] / total
    there = counts.sum(axis=0) > 0

    def left(moves: NDArray[np.float64]) -> float:
        return float(np.sqrt(np.mean((per_atom - counts @ moves / total) ** 2)))

    nothing = np.zeros(counts.shape[1])
    enough = EXPLAINED * left(nothing)
    if left(nothing) <= FAR:
        return nothing
    of_new, of_all = nothing.copy(), nothing.copy()
    of_new[new] = np.linalg.lstsq(counts[:, new] / total[:, None], per_atom)[0]
    of_all[there] = fit_references(counts[:, there], off[matter])
    return next((moves for moves in (of_new, of_all) if left(moves) < enough), nothing)


def zero_note(elements: Sequence[str], moves: NDArray[np.float64]) -> str:
    """Say which elements' zero was moved, and how far."""
    moved = [f"{e} by {x:+.2f} eV" for e, x in zip(elements, moves, strict=True) if x]
    return f"; its zero of energy was moved to that of the labels ({', '.join(moved)})" if moved else ""


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
