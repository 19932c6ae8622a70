"""Families of crystals whose members are known to differ: stackings of close-packed layers and homometric sets."""

from __future__ import annotations

import itertools
from collections import defaultdict

import numpy as np
from ase import Atoms

#: Close-packed stackings of identity period n, from n = 2; the test counts them in two ways, as layers and as steps.
POLYTYPES = {2: 1, 3: 1, 4: 1, 5: 1, 6: 2, 7: 3, 8: 6, 9: 7, 10: 16, 11: 21, 12: 43}


# -- stackings -------------------------------------------------------------------------------------------------------


def closed_steps(n: int) -> list[tuple[int, ...]]:
    """All sequences of n steps, +1 (A to B to C to A) or -1, that end on the layer they began with."""
    return [steps for steps in itertools.product((1, -1), repeat=n) if sum(steps) % 3 == 0]


def stackings(n: int) -> list[tuple[int, ...]]:
    """One sequence of steps for every crystal whose layers repeat after n and not earlier.

    Another first layer turns the sequence, a crystal upside down reverses it and changes every sign, a turn by 60° or a
    mirror changes every sign.
    """
    found: dict[tuple[int, ...], tuple[int, ...]] = {}
    for steps in closed_steps(n):
        if any(n % m == 0 and steps == steps[:m] * (n // m) and sum(steps[:m]) % 3 == 0 for m in range(1, n)):
            continue
        turned = [steps[k:] + steps[:k] for k in range(n)]
        kin = [sign for t in turned for way in (t, t[::-1]) for sign in (way, tuple(-s for s in way))]
        found.setdefault(min(kin), steps)
    return list(found.values())


def count_layer_words(n: int) -> int:
    """The same number from words in the letters A, B, C, up to turns, reversal and renaming."""
    classes = set()
    for word in itertools.product(range(3), repeat=n):
        if any(word[k] == word[k - 1] for k in range(n)):
            continue
        if any(n % m == 0 and word == word[:m] * (n // m) for m in range(1, n)):
            continue
        kin = [
            tuple(names[letter] for letter in way[k:] + way[:k])
            for way in (word, word[::-1])
            for k in range(n)
            for names in itertools.permutations(range(3))
        ]
        classes.add(min(kin))
    return len(classes)


def stacked(steps: tuple[int, ...], a: float = 2.55, symbol: str = "Cu") -> Atoms:
    """Close-packed crystal of len(steps) layers in its hexagonal cell, ideal distances."""
    n = len(steps)
    layers = np.cumsum((0, *steps[:-1])) % 3
    cell = np.array([[a, 0, 0], [a / 2, a * np.sqrt(3) / 2, 0], [0, 0, n * a * np.sqrt(2 / 3)]])
    scaled = [(layer / 3, layer / 3, k / n) for k, layer in enumerate(layers)]
    return Atoms(f"{symbol}{n}", scaled_positions=scaled, cell=cell, pbc=True)


# -- homometric sets -------------------------------------------------------------------------------------------------


def homometric_sets(n: int) -> list[list[tuple[int, ...]]]:
    """Groups of subsets of a ring of n places with the same differences, none a turn or a reflection of another."""
    by_differences: dict[tuple[int, ...], dict[tuple[int, ...], tuple[int, ...]]] = defaultdict(dict)
    for size in range(2, n // 2 + 1):
        for rest in itertools.combinations(range(1, n), size - 1):
            marks = (0, *rest)
            differences = tuple(sorted((b - a) % n for a in marks for b in marks))
            kin = [
                tuple(sorted((sign * mark - origin * sign) % n for mark in marks))
                for origin in marks
                for sign in (1, -1)
            ]
            by_differences[differences].setdefault(min(kin), marks)
    return [list(sets.values()) for sets in by_differences.values() if len(sets) > 1]


def on_ring(
    marks: tuple[int, ...], n: int, *, spacing: float = 1.9, width: float = 2.9, others: str | None = None
) -> Atoms:
    """Crystal of square layers ``width`` apart, copper on the marked places of a ring of n.

    The places between stay empty or hold another species. Two homometric sets give crystals with the same number of
    pairs at every distance, for every pair of species.
    """
    symbols = ["Cu" if k in marks else others for k in range(n)]
    kept = [k for k in range(n) if symbols[k] is not None]
    return Atoms(
        [symbols[k] for k in kept],
        positions=[[0.0, 0.0, spacing * k] for k in kept],
        cell=[width, width, spacing * n],
        pbc=True,
    )


#: Pairs of molecules on a grid, found by trying every choice of five and of six of its 27 points: not congruent, but
#: the atoms of one see the same distances to all others as the atoms of the other.
ALIKE_FROM_EVERY_ATOM = [
    (
        [[0, 0, 0], [0, 0, 1], [0, 1, 2], [1, 2, 0], [1, 2, 1]],
        [[0, 0, 0], [0, 0, 1], [1, 2, 0], [1, 2, 1], [2, 1, 0]],
    ),
    (
        [[0, 0, 0], [0, 0, 2], [0, 1, 1], [2, 1, 1], [2, 2, 0]],
        [[0, 0, 0], [0, 0, 2], [1, 1, 0], [1, 1, 2], [2, 2, 0]],
    ),
    (
        [[0, 0, 0], [0, 0, 1], [0, 1, 0], [0, 1, 1], [1, 0, 2], [1, 1, 2]],
        [[0, 0, 0], [0, 0, 1], [0, 1, 0], [1, 0, 1], [1, 0, 2], [1, 1, 2]],
    ),
    (
        [[0, 0, 0], [0, 0, 1], [0, 1, 0], [0, 1, 2], [1, 2, 0], [1, 2, 1]],
        [[0, 0, 0], [0, 0, 1], [0, 1, 0], [1, 0, 2], [1, 1, 2], [2, 0, 1]],
    ),
]
