"""A made-up pool of candidates whose chemistry has the traits that make element queries hard.

Some elements are in half of all structures and some in one of ten thousand; Mg and Zn are common but hardly ever occur
together, Na and Cu never do; whatever holds K is well known, so that it comes last by uncertainty.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass

import numpy as np

from alflow.ledger import CandidateState, NewCandidate
from alflow.structures import Structure, atomic_number

#: how often an element is in a chemical system, relative to the others
_WEIGHTS = {
    "O": 30.0, "Li": 8.0, "Fe": 7.0, "Mn": 5.0, "Ni": 5.0, "Co": 4.0, "Ti": 4.0, "Si": 4.0, "Al": 4.0, "Mg": 4.0,
    "Zn": 4.0, "P": 3.0, "S": 3.0, "F": 3.0, "Na": 3.0, "Cu": 3.0, "K": 2.0, "Ca": 2.0, "V": 1.0, "Cr": 1.0,
    "Zr": 0.5, "Sn": 0.2, "Au": 0.02, "Pt": 0.02, "Re": 0.004,
}  # fmt: skip
_RARE_PAIR, _NEVER, _KNOWN = {"Mg", "Zn"}, {"Na", "Cu"}, "K"
_FORMULAS = 4
#: cell volume per atom, Å³
_VOLUME = 12.0


@dataclass(frozen=True, kw_only=True)
class Chemistry:
    """Chemical systems with the share of the structures that each has, and how uncertain its structures are.

    Attributes
    ----------
    systems
        element symbols of each
    shares
        (n_systems,), sum 1
    mean_log_u
        (n_systems,), mean of ln u
    species
        per system the atomic numbers of a few formulas
    """

    systems: tuple[tuple[str, ...], ...]
    shares: np.ndarray
    mean_log_u: np.ndarray
    species: tuple[tuple[np.ndarray, ...], ...]


def make_chemistry(n_systems: int = 5000, seed: int = 0) -> Chemistry:
    """Draw systems of two to five elements; their shares fall off as in real collections, a few hold most."""
    rng = np.random.default_rng(seed)
    symbols, weights = list(_WEIGHTS), np.array(list(_WEIGHTS.values()))
    found: dict[tuple[str, ...], None] = {}
    pairs = 0
    while len(found) < n_systems:
        size = rng.choice([2, 3, 4, 5], p=[0.1, 0.35, 0.35, 0.2])
        system = {symbols[i] for i in rng.choice(len(symbols), size=size, replace=False, p=weights / weights.sum())}
        if system >= _NEVER:
            continue
        if system >= _RARE_PAIR:
            if pairs == 3:
                continue
            pairs += 1
        found[tuple(sorted(system))] = None
    systems = tuple(found)
    shares = rng.permutation(1 / np.arange(1, n_systems + 1) ** 0.8)
    for place, system in enumerate(systems):
        scarce = min(_WEIGHTS[e] for e in system)
        shares[place] *= 0.02 if set(system) >= _RARE_PAIR else min(1.0, scarce)
    known = np.array([_KNOWN in system for system in systems])
    mean_log_u = rng.normal(-0.3, 0.5, n_systems) - 4.0 * known
    species = []
    for system in systems:
        numbers = [atomic_number(e) for e in system]
        species.append(tuple(np.repeat(numbers, rng.integers(1, 5, len(numbers))) for _ in range(_FORMULAS)))
    return Chemistry(systems=systems, shares=shares / shares.sum(), mean_log_u=mean_log_u, species=tuple(species))


def candidates(chemistry: Chemistry, n: int, seed: int) -> Iterator[tuple[NewCandidate, float]]:
    """Candidates of 2 to 20 atoms with their ``u``; of seven one was rejected, of fifty one has no ``u``."""
    rng = np.random.default_rng(seed)
    chosen = rng.choice(len(chemistry.systems), size=n, p=chemistry.shares)
    log_u = rng.normal(chemistry.mean_log_u[chosen], 0.6)
    for place, lot, rejected, unscored in zip(chosen, log_u, rng.random(n) < 1 / 7, rng.random(n) < 0.02, strict=True):
        species = chemistry.species[place][rng.integers(_FORMULAS)]
        side = (len(species) * _VOLUME) ** (1 / 3)
        structure = Structure(
            cell=np.diag([side] * 3) + rng.normal(size=(3, 3)) * 0.1,
            pbc=np.ones(3, dtype=bool),
            numbers=species,
            positions=rng.random((len(species), 3)) * side,
        )
        item = NewCandidate(
            structure=structure,
            source="random",
            state=CandidateState.REJECTED if rejected else CandidateState.POOLED,
            reason="atoms closer than 1.6 Å" if rejected else "passed the filters",
        )
        yield item, float("nan") if unscored else float(np.exp(lot))
