"""The ways of choosing that are compared."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from enum import StrEnum
from typing import TYPE_CHECKING

import numpy as np

from alflow.select import SelectionSettings, lcmd, select_batch, standardise

if TYPE_CHECKING:
    from numpy.typing import NDArray

    from alflow.potentials import Prediction


class Strategy(StrEnum):
    """A way of choosing the next structures."""

    DEFAULT = "default"
    RANDOM = "random"
    RANDOM_WITH_DUPLICATES = "random_with_duplicates"
    UNCERTAIN = "uncertain"
    DIVERSE = "diverse"
    FORCE_SPREAD = "force_spread"

    @property
    def meaning(self) -> str:
        """One line for people."""
        return {
            "default": "alflow's selection: random stream, u-filter, diversity",
            "random": "random choice",
            "random_with_duplicates": "random choice without dropping redundant structures",
            "uncertain": "largest u first, no diversity",
            "diverse": "diversity alone (LCMD)",
            "force_spread": "largest force deviation of the committee first (the DP-GEN criterion)",
        }[self.value]

    @property
    def needs_prediction(self) -> bool:
        """True where the committee must be asked about the whole pool."""
        return self not in {Strategy.RANDOM, Strategy.RANDOM_WITH_DUPLICATES}

    @property
    def needs_features(self) -> bool:
        """True where diversity is measured."""
        return self in {Strategy.DEFAULT, Strategy.DIVERSE}


@dataclass(frozen=True, kw_only=True)
class Picked:
    """Rows of the pool chosen next, and which of them the random stream drew."""

    rows: tuple[int, ...]
    random: tuple[bool, ...]
    stopped: str | None = None


def pick(
    strategy: Strategy,
    *,
    rows: Sequence[int],
    n: int,
    prediction: Prediction | None,
    centres: NDArray[np.float64] | None,
    u_max: float,
    settings: SelectionSettings,
    rng: np.random.Generator,
) -> Picked:
    """Choose up to n of the rows left.

    Parameters
    ----------
    rows
        (m,) rows of the pool that are left
    prediction
        for these m structures, with features where the strategy measures diversity; None for random choice
    centres
        features of what is labelled
    """
    n = min(n, len(rows))
    if strategy in {Strategy.RANDOM, Strategy.RANDOM_WITH_DUPLICATES}:
        chosen = rng.choice(len(rows), size=n, replace=False)
        return Picked(rows=tuple(rows[i] for i in chosen), random=(True,) * n)
    assert prediction is not None, f"strategy {strategy} asks the committee"
    if strategy is Strategy.DEFAULT:
        selection = select_batch(
            ids=list(rows),
            u=prediction.u,
            features=prediction.features,
            centres=centres,
            u_max=u_max,
            settings=settings,
            rng=rng,
            limit=n,
        )
        if selection.n_uncertain == 0 and not selection.set_aside:
            return Picked(
                rows=(), random=(), stopped=f"none of the {len(rows)} structures left has u > {settings.u_min:g}"
            )
        return Picked(
            rows=tuple(item.id for item in selection.items),
            random=tuple(item.stream == "random" for item in selection.items),
        )
    if strategy is Strategy.DIVERSE:
        points, known = standardise(_features(prediction), centres)
        found = [int(i) for i in lcmd(points, known, n)]
    else:
        score = prediction.u if strategy is Strategy.UNCERTAIN else prediction.force_spread
        found = [int(i) for i in np.argsort(-np.nan_to_num(score, nan=-1.0), kind="stable")[:n]]
    return Picked(rows=tuple(rows[i] for i in found), random=(False,) * len(found))


def _features(prediction: Prediction) -> NDArray[np.float64]:
    assert prediction.features is not None, "the prediction was made without features"
    return prediction.features
