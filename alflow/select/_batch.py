"""The next batch: pinned, random stream, confirmations, then the most uncertain ones made diverse."""

from __future__ import annotations

from dataclasses import dataclass
from enum import StrEnum
from typing import TYPE_CHECKING, TypeAlias

import numpy as np
from pydantic import BaseModel, ConfigDict, Field

from alflow.select._lcmd import lcmd, standardise

if TYPE_CHECKING:
    from collections.abc import Callable, Sequence

    from numpy.typing import ArrayLike, NDArray


FeaturesOf: TypeAlias = "Callable[[list[int]], ArrayLike]"
"""Gives the (m, d) invariant features of m candidates by their ids."""


class Stream(StrEnum):
    """Why a candidate is in the batch; the values are those of the ledger's streams."""

    ACTIVE = "active"
    RANDOM = "random"
    CONFIRM = "confirm"
    MANUAL = "manual"


class SelectionSettings(BaseModel):
    """How a batch is made."""

    model_config = ConfigDict(extra="forbid", frozen=True)

    batch: int = Field(default=10, ge=1, description="labels asked for per round")
    random_fraction: float = Field(
        default=0.1,
        ge=0,
        le=1,
        description="share of every batch drawn at random from all candidates (at least one where batch ≥ 3): the "
        "unbiased stream that tests, calibrates and decides when to stop; 0 switches convergence off",
    )
    pool_factor: float = Field(
        default=8.0,
        ge=1,
        description="diversity chooses among the most uncertain pool_factor × batch candidates; 5 to 10 is sensible",
    )
    u_min: float = Field(default=1.0, ge=0, description="candidates with u at or below this are known well enough")
    confirm_fraction: float = Field(
        default=0.3,
        ge=0,
        le=1,
        description="share of a batch kept for structures predicted stable that still need a label at their relaxed "
        "geometry (at least one where there is any); they also take places that nothing else fills",
    )


@dataclass(frozen=True, kw_only=True)
class Choice:
    """One candidate of the batch.

    Parameters
    ----------
    id
        the candidate
    stream
        why it is here
    rank
        place in the batch, 0 first
    reason
        for a person
    inclusion_probability
        chance of this candidate to be drawn, for the random stream; None for the others
    """

    id: int
    stream: Stream
    rank: int
    reason: str
    inclusion_probability: float | None = None


@dataclass(frozen=True, kw_only=True)
class Selection:
    """The batch and what was set aside.

    Parameters
    ----------
    items
        the batch in order of rank
    set_aside
        candidates above u_max that are not in the batch, looked at again next round
    set_aside_reasons
        one sentence for each of them
    n_uncertain
        candidates with u_min < u ≤ u_cap
    u_cap
        the cap that was used: u_max, or the median u of all candidates where that is larger
    """

    items: tuple[Choice, ...]
    set_aside: tuple[int, ...]
    set_aside_reasons: tuple[str, ...]
    n_uncertain: int
    u_cap: float


def select_batch(
    *,
    ids: Sequence[int],
    u: ArrayLike,
    features: ArrayLike | FeaturesOf | None,
    centres: ArrayLike | None,
    u_max: float,
    settings: SelectionSettings,
    rng: np.random.Generator,
    pinned: Sequence[int] = (),
    confirm: Sequence[int] = (),
    limit: int | None = None,
    leading: Sequence[str] | None = None,
) -> Selection:
    """Choose the next batch; the same arguments in any order of candidates give the same batch.

    1. The random stream is drawn first, uniformly from **all** candidates, whatever their u: it stays unbiased.
    2. Pinned candidates follow, then those waiting for confirmation up to their share.
    3. The rest are active: u_min < u ≤ u_max, the most uncertain ``pool_factor * batch`` of them, made diverse by
       :func:`lcmd` around what is labelled or chosen already. Where fewer are uncertain the batch is smaller.

    A committee to which more than half of all candidates are above u_max is too young to call any of them implausible;
    the cap is then their median u, so that a campaign that begins far from its targets still begins.

    Parameters
    ----------
    ids
        (n,) all candidates that could be labelled now
    u
        (n,); nan (not scored) is neither uncertain nor set aside, but can be drawn at random
    features
        (n, d) invariant features, or a function that gives them for some ids (it is asked once, for the few hundred
        candidates that diversity looks at); None: the most uncertain ones are taken without diversity. nan where a
        candidate without u has none
    centres
        (m, d) the same features of labelled structures
    u_max
        above it a candidate is implausible
    pinned
        candidates a person wants, by priority; labelled whatever their u
    confirm
        candidates predicted near-stable at their relaxed geometry without a label, by priority
    limit
        labels the budget still allows
    leading
        (n,) the kind that sets u, named in the reasons

    Raises
    ------
    ValueError
        if an array has another length than ids, or a pinned or confirm id is not among ids
    """
    order = np.argsort(np.asarray(ids, dtype=np.int64), kind="stable")
    known_ids = np.asarray(ids, dtype=np.int64)[order]
    values = np.asarray(u, dtype=np.float64).reshape(-1)
    n = len(known_ids)
    n_features = n if features is None or callable(features) else len(np.asarray(features))
    for name, length in (("u", len(values)), ("features", n_features)):
        if length != n:
            raise ValueError(f"{n} ids but {length} rows of {name}")
    values = values[order]
    row_of = {int(candidate): row for row, candidate in enumerate(known_ids)}
    unknown = [i for i in (*pinned, *confirm) if i not in row_of]
    if unknown:
        raise ValueError(f"pinned or confirm ids that are not among the candidates: {unknown[:5]}")
    kinds = [""] * n if leading is None else [f" ({leading[i]})" for i in order]

    batch = settings.batch if limit is None else max(0, min(settings.batch, limit))
    rows: list[tuple[int, Stream, str, float | None]] = []
    taken = np.zeros(n, dtype=bool)

    def take(row: int, stream: Stream, reason: str, probability: float | None = None) -> None:
        taken[row] = True
        rows.append((row, stream, reason, probability))

    drawn, probability = _draw(n, batch, settings.random_fraction, rng)
    taken[drawn] = True
    room = batch - len(drawn)
    for candidate in dict.fromkeys(pinned):
        if room > 0 and not taken[row_of[candidate]]:
            take(row_of[candidate], Stream.MANUAL, "pinned by a person")
            room -= 1
    for row in drawn:
        reason = f"random stream: drawn from all {n} candidates before any filter, chance {probability:.3g}"
        take(int(row), Stream.RANDOM, reason, probability)

    waiting = [row_of[i] for i in dict.fromkeys(confirm) if not taken[row_of[i]]]
    share = min(len(waiting), room, max(1, round(settings.confirm_fraction * batch))) if waiting else 0
    if settings.confirm_fraction == 0:
        share = 0
    scored = values[np.isfinite(values)]
    u_cap = max(u_max, float(np.median(scored))) if len(scored) else u_max
    uncertain = np.flatnonzero((values > settings.u_min) & (values <= u_cap))
    for row in waiting[:share]:
        take(row, Stream.CONFIRM, _confirm_reason(values[row], kinds[row]))
    room -= share
    eligible = uncertain[~taken[uncertain]]
    pool_size = max(room, round(settings.pool_factor * settings.batch))
    active = eligible[np.argsort(-values[eligible], kind="stable")][:pool_size]
    if features is None or room <= 0:
        active = active[: max(room, 0)]
    elif len(active):
        compared = np.concatenate([active, np.flatnonzero(taken)])
        points = _features(features, known_ids, order, compared)
        active = active[_diverse(points[: len(active)], points[len(active) :], centres, room)]
    place = _places(values, uncertain)
    for row in active:
        spread = (
            "farthest from what is labelled or chosen in the largest unlabelled cluster" if features is not None else ""
        )
        where = f"{_ordinal(place[int(row)])} most uncertain of {len(uncertain)}"
        take(int(row), Stream.ACTIVE, ", ".join(filter(None, (f"u = {values[row]:.3g}{kinds[row]}", where, spread))))
    room -= len(active)
    if settings.confirm_fraction > 0:
        for row in [r for r in waiting if not taken[r]][:room]:
            take(row, Stream.CONFIRM, _confirm_reason(values[row], kinds[row]))

    items = tuple(
        Choice(id=int(known_ids[row]), stream=stream, rank=rank, reason=reason, inclusion_probability=chance)
        for rank, (row, stream, reason, chance) in enumerate(rows)
    )
    aside = np.flatnonzero((values > u_cap) & ~taken)
    cap = f"u_max = {u_max:g}" if u_cap == u_max else f"{u_cap:.3g}, the median of all candidates"
    return Selection(
        items=items,
        set_aside=tuple(int(known_ids[row]) for row in aside),
        set_aside_reasons=tuple(
            f"set aside as implausible this round: u = {values[row]:.3g}{kinds[row]} is above {cap}" for row in aside
        ),
        n_uncertain=len(uncertain),
        u_cap=u_cap,
    )


def _draw(n: int, batch: int, fraction: float, rng: np.random.Generator) -> tuple[NDArray[np.int64], float]:
    """Rows of the random stream and the inclusion probability that every one of the n candidates had."""
    if n == 0 or batch == 0 or fraction == 0:
        return np.zeros(0, dtype=np.int64), 0.0
    expected = fraction * batch
    if batch >= 3:
        expected = float(max(1, round(expected)))
    # a batch of one or two gets its random part every few rounds: a chance, not a rule, keeps the stream unbiased
    whole = int(expected)
    count = min(n, whole + int(rng.random() < expected - whole))
    return np.sort(rng.choice(n, size=count, replace=False)), min(1.0, expected / n)


def _features(
    features: ArrayLike | FeaturesOf, ids: NDArray[np.int64], order: NDArray[np.int64], rows: NDArray[np.int64]
) -> NDArray[np.float64]:
    if callable(features):
        found = np.asarray(features([int(ids[row]) for row in rows]), dtype=np.float64)
        if len(found) != len(rows):
            raise ValueError(f"{len(rows)} ids but {len(found)} rows of features")
        return found
    return np.asarray(features, dtype=np.float64)[order[rows]]


def _diverse(
    points: NDArray[np.float64], chosen: NDArray[np.float64], centres: ArrayLike | None, n: int
) -> NDArray[np.int64]:
    """Rows of `points` that are diverse among themselves and against what is labelled or chosen already."""
    labelled = np.zeros((0, points.shape[1])) if centres is None else np.asarray(centres, dtype=np.float64)
    described = chosen[np.isfinite(chosen).all(axis=1)]
    return lcmd(*standardise(points, np.concatenate([labelled, described])), n)


def _places(u: NDArray[np.float64], uncertain: NDArray[np.int64]) -> dict[int, int]:
    return {int(row): place for place, row in enumerate(uncertain[np.argsort(-u[uncertain], kind="stable")], start=1)}


def _confirm_reason(u: float, kind: str) -> str:
    return f"predicted stable or nearly so at its relaxed geometry; needs a label there (u = {u:.3g}{kind})"


def _ordinal(number: int) -> str:
    suffix = "th" if number % 100 in (11, 12, 13) else {1: "st", 2: "nd", 3: "rd"}.get(number % 10, "th")
    return f"{number}{suffix}"
