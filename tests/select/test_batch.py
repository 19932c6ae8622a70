from collections.abc import Callable

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from alflow.select import Selection, SelectionSettings, Stream, select_batch


def choose(
    u: list[float], seed: int = 0, *, batch: int = 10, features: object = None, u_max: float = 10.0, **more: object
) -> Selection:
    arguments: dict[str, object] = {
        "ids": list(range(100, 100 + len(u))),
        "u": u,
        "features": np.random.default_rng(1).normal(size=(len(u), 3)) if features is None else features,
        "centres": np.zeros((2, 3)),
        "u_max": u_max,
        "settings": SelectionSettings(batch=batch),
        "rng": np.random.default_rng(seed),
    }
    return select_batch(**{**arguments, **more})  # type: ignore[arg-type]


def ids(selection: Selection, stream: Stream) -> list[int]:
    return [item.id for item in selection.items if item.stream == stream]


MIXED = [*np.linspace(0.1, 0.9, 100), *np.linspace(1.1, 5.0, 100), *np.linspace(11, 20, 10)]


def test_a_batch_is_nine_uncertain_and_one_random_none_twice() -> None:
    selection = choose(MIXED)
    chosen = [item.id for item in selection.items]
    assert len(chosen) == len(set(chosen)) == 10
    assert [item.rank for item in selection.items] == list(range(10))
    assert len(ids(selection, Stream.RANDOM)) == 1
    u = np.array(MIXED)
    assert all(1 < u[i - 100] <= 10 for i in ids(selection, Stream.ACTIVE))
    assert selection.n_uncertain == 100


def test_diversity_chooses_among_the_most_uncertain_only() -> None:
    u = np.array(MIXED)
    threshold = np.sort(u[(u > 1) & (u <= 10)])[-82]
    for seed in range(5):
        assert all(u[i - 100] >= threshold for i in ids(choose(MIXED, seed), Stream.ACTIVE))


def test_above_u_max_is_set_aside_with_a_reason() -> None:
    selection = choose(MIXED)
    assert set(selection.set_aside) <= set(range(300, 310))
    assert len(selection.set_aside) + sum(i >= 300 for i in ids(selection, Stream.RANDOM)) == 10
    assert "u = 11 is above u_max = 10" in selection.set_aside_reasons[0]


def test_a_young_committee_that_finds_most_candidates_implausible_still_gets_a_batch() -> None:
    selection = choose(np.linspace(8, 80, 101).tolist())
    assert selection.u_cap == pytest.approx(44.0)
    assert len(selection.items) == 10
    assert all(item.id <= 150 for item in selection.items if item.stream == Stream.ACTIVE)
    assert "is above 44, the median of all candidates" in selection.set_aside_reasons[-1]
    assert choose(MIXED).u_cap == 10.0


def test_the_batch_shrinks_instead_of_being_padded_with_what_is_known() -> None:
    selection = choose([0.5] * 50 + [2.0, 3.0])
    assert len(ids(selection, Stream.RANDOM)) == 1
    assert set(ids(selection, Stream.ACTIVE)) | set(ids(selection, Stream.RANDOM)) >= {150, 151}
    assert len(selection.items) <= 3
    assert [item.stream for item in choose([0.5] * 50).items] == [Stream.RANDOM]
    assert choose([]).items == ()


def test_the_random_stream_is_uniform_over_all_candidates_whatever_their_u() -> None:
    counts = np.zeros(40)
    u = [0.5] * 20 + [2.0] * 10 + [50.0] * 9 + [float("nan")]
    n = 3000
    for seed in range(n):
        for item in choose(u, seed, batch=20, features=np.zeros((40, 1)), centres=None).items:
            if item.stream == Stream.RANDOM:
                assert item.inclusion_probability == pytest.approx(2 / 40)
                counts[item.id - 100] += 1
    assert np.abs(counts / n - 2 / 40).max() < 5 * np.sqrt(0.05 / n)


def test_small_batches_draw_at_random_by_chance_at_the_stated_probability() -> None:
    drawn = [choose([2.0] * 20, seed, batch=2) for seed in range(2000)]
    share = np.mean([len(ids(selection, Stream.RANDOM)) for selection in drawn])
    assert share == pytest.approx(0.2, abs=0.03)
    chances = {item.inclusion_probability for s in drawn for item in s.items if item.stream == Stream.RANDOM}
    assert chances == {0.2 / 20}


def test_pinned_come_first_whatever_their_u_but_the_stream_keeps_its_place() -> None:
    selection = choose(MIXED, pinned=[100, 309, 101])
    assert [item.id for item in selection.items if item.stream != Stream.RANDOM][:3] == [100, 309, 101]
    crowded = choose(MIXED, pinned=list(range(100, 130)))
    assert len(crowded.items) == 10
    assert len(ids(crowded, Stream.RANDOM)) == 1


def test_confirmations_get_their_share_and_the_places_that_nothing_else_fills() -> None:
    waiting = list(range(100, 120))
    assert len(ids(choose(MIXED, confirm=waiting), Stream.CONFIRM)) == 3
    assert (
        ids(choose(MIXED, confirm=waiting), Stream.CONFIRM)
        == [i for i in waiting if i not in ids(choose(MIXED), Stream.RANDOM)][:3]
    )
    assert len(choose([0.5] * 50, confirm=waiting).items) == 10
    none = SelectionSettings(batch=10, confirm_fraction=0)
    assert ids(choose([0.5] * 50, confirm=waiting, settings=none), Stream.CONFIRM) == []


@pytest.mark.parametrize(("limit", "expected"), [(0, 0), (1, 1), (4, 4), (99, 10)])
def test_the_budget_caps_the_batch(limit: int, expected: int) -> None:
    assert len(choose(MIXED, limit=limit).items) == expected


@given(st.integers(0, 2**32 - 1), st.randoms(use_true_random=False))
@settings(max_examples=20, deadline=None)
def test_the_order_of_candidates_does_not_matter(seed: int, random: object) -> None:
    order = np.random.default_rng(seed).permutation(len(MIXED))
    features = np.random.default_rng(2).normal(size=(len(MIXED), 3))
    straight = choose(MIXED, seed, features=features)
    shuffled = choose([MIXED[i] for i in order], seed, features=features[order], ids=[int(100 + i) for i in order])
    assert straight == shuffled


def test_reasons_are_for_people() -> None:
    selection = choose([0.5] * 20 + [3.2, 2.5], leading=["energy"] * 20 + ["force", "stress"], batch=5)
    reasons = {item.id: item.reason for item in selection.items if item.stream == Stream.ACTIVE}
    if 120 in reasons:
        assert reasons[120].startswith("u = 3.2 (force), 1st most uncertain of 2, farthest from what is labelled")
    assert reasons[121].startswith("u = 2.5 (stress), 2nd most uncertain of 2")
    random = next(item.reason for item in selection.items if item.stream == Stream.RANDOM)
    assert "drawn from all 22 candidates before any filter" in random


def test_without_features_the_most_uncertain_are_taken() -> None:
    selection = select_batch(
        ids=range(50),
        u=np.linspace(0.5, 5, 50),
        features=None,
        centres=None,
        u_max=10,
        settings=SelectionSettings(batch=5, random_fraction=0),
        rng=np.random.default_rng(0),
    )
    assert [item.id for item in selection.items] == [49, 48, 47, 46, 45]


def test_features_can_be_asked_for_only_where_they_are_compared() -> None:
    features = np.random.default_rng(1).normal(size=(len(MIXED), 3))
    asked: list[list[int]] = []

    def some(ids: list[int]) -> object:
        asked.append(ids)
        return features[np.array(ids) - 100]

    assert choose(MIXED, features=some, pinned=[100]) == choose(MIXED, features=features, pinned=[100])
    assert len(asked) == 1
    assert len(asked[0]) == 80 + 1 + 1
    with pytest.raises(ValueError, match="rows of features"):
        choose(MIXED, features=lambda ids: features[:3])


def test_diversity_avoids_what_is_labelled_pinned_or_alike() -> None:
    features = np.array([[0.0], [0.01], [5.0], [5.01], [10.0]])
    selection = select_batch(
        ids=range(5),
        u=[5.0, 4.9, 4.8, 4.7, 4.6],
        features=features,
        centres=[[0.0]],
        u_max=10,
        settings=SelectionSettings(batch=3, random_fraction=0),
        rng=np.random.default_rng(0),
        pinned=[2],
    )
    assert selection.items[0].id == 2
    assert selection.items[1].id == 4


@pytest.mark.parametrize(
    "wrong",
    [
        lambda: choose([1.0, 2.0], ids=[1]),
        lambda: choose([1.0, 2.0], features=np.zeros((3, 1))),
        lambda: choose([1.0, 2.0], pinned=[7]),
        lambda: choose([1.0, 2.0], confirm=[7]),
    ],
)
def test_arguments_that_do_not_fit_are_refused(wrong: Callable[[], Selection]) -> None:
    with pytest.raises(ValueError, match=r"ids but|not among"):
        wrong()
