"""How right and how fast the duplicate search is, on sets with known truth. Prints only; CPU time of one thread.

OMP_NUM_THREADS=1 python benchmarks/dedup/bench_dedup.py [--strata NAME ...] [--ladders NAME ...] [--sizes N ...]
                                          [--one-formula N ...] [--index N ...] [--matcher] [--seed S]

Without arguments: every stratum and ladder, 10^3 and 10^4 structures, an index of 10^5. An option without values leaves
its part out.
"""

from __future__ import annotations

import argparse
import resource
import time
import warnings
from collections import Counter, defaultdict
from collections.abc import Callable, Iterator, Sequence
from dataclasses import replace
from functools import partial

import numpy as np
from ladders import LADDERS
from mixed import fast_disguise, mixed_set
from strata import ALL, IDENTICAL, PHASE, STRATA, Stratum

from alflow.structures import DuplicateIndex, DuplicatePolicy, Structure, find_duplicates, find_isometry, fingerprint

SHUFFLES = 3
PAIRS = 40
QUERIES = 300


def cpu(call: Callable[[], object]) -> tuple[float, object]:
    """CPU seconds of a call, and what it returned."""
    begun = time.process_time()
    result = call()
    return time.process_time() - begun, result


def row(*cells: object) -> None:
    """Print one line of a table."""
    print("| " + " | ".join(str(cell) for cell in cells) + " |", flush=True)


def header(*cells: str) -> None:
    print()
    row(*cells)
    row(*("---" for _ in cells))


def pairs_within(labels: np.ndarray) -> int:
    """Number of pairs with the same label."""
    return sum(count * (count - 1) // 2 for count in Counter(labels.tolist()).values())


def agreement(labels: np.ndarray, truth: np.ndarray) -> tuple[int, int, int]:
    """Pairs that are rightly together, wrongly together and wrongly apart."""
    both = Counter(zip(labels.tolist(), truth.tolist(), strict=True))
    right = sum(count * (count - 1) // 2 for count in both.values())
    return right, pairs_within(labels) - right, pairs_within(truth) - right


def share(part: int, rest: int) -> str:
    """A precision or recall; a dash where there is nothing to divide by."""
    return f"{part / (part + rest):.4f}" if part + rest else "–"


def same_partition(labels: np.ndarray, others: np.ndarray) -> bool:
    _, wrong, missed = agreement(labels, others)
    return not wrong and not missed


def spread(seconds: Sequence[float]) -> str:
    """Median, 99th percentile and largest, in milliseconds."""
    if not seconds:
        return "–"
    values = 1000.0 * np.asarray(seconds)
    return f"{np.median(values):.2f} / {np.percentile(values, 99):.2f} / {values.max():.2f}"


def fresh(structures: Sequence[Structure]) -> list[Structure]:
    """The same structures without anything that was computed for them before."""
    return [Structure.from_bytes(s.to_bytes()) for s in structures]


# -- strata ----------------------------------------------------------------------------------------------------------


def strata(names: Sequence[str], seed: int) -> None:
    """Pairs rightly and wrongly merged, time, order of the input, arrival one by one."""
    header(
        "stratum", "relation", "structures", "classes", "groups", "wrong pairs", "missed pairs", "precision", "recall",
        "ms per structure", f"{SHUFFLES} shuffles", "one by one", "alike pairs, ms", "unlike pairs, ms",
    )  # fmt: skip
    total: dict[str, np.ndarray] = defaultdict(lambda: np.zeros(3, dtype=np.int64))
    for name in names:
        for stratum in STRATA[name](np.random.default_rng(seed)):
            for policy in stratum.policies:
                counts = _measure(stratum, policy, np.random.default_rng(seed))
                if not stratum.overlapping:
                    total[policy.relation.value] += counts
    for relation, (right, wrong, missed) in total.items():
        row("all", relation, "", "", "", wrong, missed, share(right, wrong), share(right, missed), *[""] * 5)


def _measure(stratum: Stratum, policy: DuplicatePolicy, rng: np.random.Generator) -> tuple[int, int, int]:
    """One row of the table."""
    n, truth = len(stratum.structures), stratum.truth
    pool = fresh(stratum.structures)
    seconds, labels = cpu(lambda: find_duplicates(pool, policy))
    assert isinstance(labels, np.ndarray)
    alike = 0
    for _ in range(SHUFFLES):
        order = rng.permutation(n)
        shuffled = np.empty(n, dtype=np.int64)
        shuffled[order] = find_duplicates([stratum.structures[i] for i in order], policy)
        alike += same_partition(labels, shuffled)
    arrival = "–"
    if policy.relation is IDENTICAL.relation:
        arrival = "same" if same_partition(labels, _one_by_one(stratum.structures, policy)) else "DIFFERENT"
    counts = agreement(labels, truth)
    quality: tuple[object, ...] = (counts[1], counts[2], share(counts[0], counts[1]), share(counts[0], counts[2]))
    if stratum.overlapping:
        widest = max(int(np.ptp(np.flatnonzero(labels == k))) for k in set(labels.tolist()))
        quality = (f"widest group: {widest + 1} of {n} frames", "–", "–", "–")
    same, different = _sampled_pairs(stratum, rng)
    row(
        stratum.name, policy.relation.value, n, len(set(truth.tolist())), len(set(labels.tolist())), *quality,
        f"{1000.0 * seconds / n:.2f}", f"{alike} same" if alike == SHUFFLES else f"ONLY {alike} SAME", arrival,
        *(spread([cpu(partial(find_isometry, *pair, policy))[0] for pair in pairs]) for pairs in (same, different)),
    )  # fmt: skip
    return counts


def _one_by_one(structures: Sequence[Structure], policy: DuplicatePolicy) -> np.ndarray:
    """Groups where each structure in turn is kept or belongs to one kept before."""
    index = DuplicateIndex(policy)
    found = np.empty(len(structures), dtype=np.int64)
    for i, structure in enumerate(structures):
        match = index.find(structure)
        if match is None:
            index.add(i, structure)
        found[i] = i if match is None else match.key
    return found


Pairs = list[tuple[Structure, Structure]]


def _sampled_pairs(stratum: Stratum, rng: np.random.Generator) -> tuple[Pairs, Pairs]:
    """Pairs of one class, and the pairs of two classes that have the most similar fingerprints."""
    prints = [fingerprint(s) for s in stratum.structures]
    by_bucket: dict[str, list[int]] = defaultdict(list)
    for i, one in enumerate(prints):
        by_bucket[one.bucket].append(i)
    same: list[tuple[int, int]] = []
    different: list[tuple[float, int, int]] = []
    for members in by_bucket.values():
        for i in members:
            others = [j for j in members if j != i]
            kin = [j for j in others if stratum.truth[j] == stratum.truth[i]]
            strangers = [j for j in others if stratum.truth[j] != stratum.truth[i]]
            if kin:
                same.append((i, int(rng.choice(kin))))
            if strangers:
                vectors = np.array([prints[j].vector for j in strangers])
                gaps = np.abs(vectors - prints[i].vector).max(axis=1)
                different.append((float(gaps.min()), i, strangers[int(gaps.argmin())]))
    pick = rng.permutation(len(same))[:PAIRS]
    pool = stratum.structures
    return [(pool[same[k][0]], pool[same[k][1]]) for k in pick], [
        (pool[i], pool[j]) for _, i, j in sorted(different)[:PAIRS]
    ]


def ladders(names: Sequence[str], seed: int) -> None:
    """How many pairs are matched at each step of a ladder, beside how many have to be and how many must not be."""
    header("ladder", "step", "relation", "pairs", "matched", "known to be within", "missed of these",
           "known to be beyond", "matched of these", "ms per pair")  # fmt: skip
    for name in names:
        for rung in LADDERS[name](np.random.default_rng(seed)):
            for policy in ALL:
                times, found = [], []
                for one, other in rung.pairs:
                    seconds, match = cpu(partial(find_isometry, one, other, policy))
                    times.append(seconds)
                    found.append(match is not None)
                matched = np.array(found)
                within, beyond = rung.within(policy), rung.beyond(policy)
                row(
                    name, rung.step, policy.relation.value, len(matched), matched.sum(), within.sum(),
                    (within & ~matched).sum(), beyond.sum(), (beyond & matched).sum(), spread(times),
                )  # fmt: skip


# -- speed -----------------------------------------------------------------------------------------------------------


def peak_memory() -> int:
    """MB, the most this process has held so far."""
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss // 1024


def speed(what: str, sizes: Sequence[int], seed: int, composition: tuple[str, ...] | None) -> None:
    """CPU time of a batch by size, and how it grows."""
    header(what, "relation", "read, s", "fingerprints, s", "hashes, s", "all of find_duplicates, s", "structures/s",
           "wrong pairs", "missed pairs", "memory before and after, MB")  # fmt: skip
    times: dict[str, list[float]] = defaultdict(list)
    for n in sizes:
        made = mixed_set(n, seed, composition=composition)
        blobs = [s.to_bytes() for s in made.structures]
        for policy in ALL:
            reading, pool = cpu(lambda blobs=blobs: [Structure.from_bytes(blob) for blob in blobs])
            printing, _ = cpu(lambda pool=pool: [fingerprint(s) for s in pool])
            hashing, _ = cpu(lambda pool=pool: [s.content_hash for s in pool])
            pool = [Structure.from_bytes(blob) for blob in blobs]
            before = peak_memory()
            grouping, labels = cpu(lambda pool=pool, policy=policy: find_duplicates(pool, policy))
            _, wrong, missed = agreement(np.asarray(labels), made.truth)
            times[policy.relation.value].append(reading + grouping)
            row(
                n, policy.relation.value, f"{reading:.2f}", f"{printing:.2f}", f"{hashing:.2f}", f"{grouping:.2f}",
                f"{n / (reading + grouping):.0f}", wrong, missed, f"{before} / {peak_memory()}",
            )  # fmt: skip
    if len(sizes) > 1:
        for relation, values in times.items():
            exponent = np.polyfit(np.log(sizes), np.log(values), 1)[0]
            print(f"{what}, {relation}: reading and grouping grow as n^{exponent:.2f}")


def stored(n: int, seed: int) -> Iterator[tuple[int, float, Structure]]:
    """Crystals of mixed formulas, each at several volumes: number, factor of length and the crystal at factor one."""
    base = mixed_set(min(n, 100_000), seed).structures
    for k in range(n):
        volume, i = divmod(k, len(base))
        yield k, 1.0 + 0.02 * volume, base[i]


def scaled(structure: Structure, factor: float) -> Structure:
    return structure.with_geometry(cell=structure.cell * factor, positions=structure.positions * factor)


def index(sizes: Sequence[int], seed: int) -> None:
    """Time to check one structure against many stored ones.

    A crystal scaled by a factor has the fingerprint scaled by it: so a million of them take minutes, not an hour.
    """
    header("stored", "relation", "build, s", "check a new one, ms", "check a duplicate, ms", "of it fingerprint, ms",
           "found", "memory, MB")  # fmt: skip
    for n in sizes:
        for policy in ALL:
            rng = np.random.default_rng(seed)
            built = 0.0
            catalogue = DuplicateIndex(policy)
            prints: dict[int, object] = {}
            kept = []
            for k, factor, structure in stored(n, seed):
                if id(structure) not in prints:
                    prints[id(structure)] = fingerprint(structure)
                one = prints[id(structure)]
                here = replace(one, leading=one.leading * factor, vector=one.vector * np.float32(factor))  # type: ignore[attr-defined,type-var]
                seconds, _ = cpu(partial(catalogue.add, k, partial(scaled, structure, factor), here))
                built += seconds
                if rng.random() < QUERIES / n:
                    kept.append(scaled(structure, factor))
            old = [fast_disguise(s, rng) for s in kept]
            new = mixed_set(QUERIES, seed + 1).structures
            printing = [cpu(partial(fingerprint, s))[0] for s in fresh(old + new)]
            found = [cpu(partial(catalogue.find, s)) for s in fresh(old)]
            missed = [cpu(partial(catalogue.find, s)) for s in fresh(new)]
            row(
                n, policy.relation.value, f"{built:.1f}", spread([s for s, _ in missed]), spread([s for s, _ in found]),
                spread(printing), f"{sum(m is not None for _, m in found)} of {len(found)}", peak_memory(),
            )  # fmt: skip


# -- a peer ----------------------------------------------------------------------------------------------------------


def matcher(names: Sequence[str], seed: int, most: int = 24) -> None:
    """The same pairs by pymatgen's StructureMatcher: crystals, all pairs of one formula in a part of each stratum."""
    from pymatgen.analysis.structure_matcher import StructureMatcher

    ways = {
        "StructureMatcher, defaults": StructureMatcher(),
        # its reduction to primitive cells has a tolerance of 0.25 Å of its own, which averages frames away
        "StructureMatcher, tight": StructureMatcher(
            ltol=0.01, stol=0.03, angle_tol=0.6, scale=False, primitive_cell=False, attempt_supercell=True
        ),
    }
    header("stratum", "way", "pairs", "wrong", "missed", "precision", "recall", "depends on the order", "ms per pair")
    for name in names:
        for stratum in STRATA[name](np.random.default_rng(seed)):
            crystals = [i for i, s in enumerate(stratum.structures) if s.n_periodic == 3]
            if PHASE not in stratum.policies or not crystals or stratum.overlapping:
                continue
            chosen = _related(stratum, crystals, most)
            pairs = [
                (i, j)
                for k, i in enumerate(chosen)
                for j in chosen[:k]
                if stratum.structures[i].reduced_formula == stratum.structures[j].reduced_formula
            ]
            truth = np.array([stratum.truth[i] == stratum.truth[j] for i, j in pairs])
            with warnings.catch_warnings():
                warnings.simplefilter("ignore")
                peers = {i: stratum.structures[i].to_pymatgen() for i in chosen}
                for way, peer in ways.items():
                    forth = [cpu(partial(peer.fit, peers[i], peers[j])) for i, j in pairs]
                    back = [peer.fit(peers[j], peers[i]) for i, j in pairs]
                    _compare(stratum.name, way, truth, [bool(m) for _, m in forth], [bool(m) for m in back],
                             [s for s, _ in forth])  # fmt: skip
            forth = [cpu(partial(find_isometry, stratum.structures[i], stratum.structures[j], PHASE)) for i, j in pairs]
            back = [find_isometry(stratum.structures[j], stratum.structures[i], PHASE) for i, j in pairs]
            _compare(stratum.name, "find_isometry, same phase", truth, [m is not None for _, m in forth],
                     [m is not None for m in back], [s for s, _ in forth])  # fmt: skip


def _related(stratum: Stratum, among: Sequence[int], most: int) -> list[int]:
    """Structures of the commonest formula, whole classes first."""
    formulas = Counter(stratum.structures[i].reduced_formula for i in among)
    formula = formulas.most_common(1)[0][0]
    members = [i for i in among if stratum.structures[i].reduced_formula == formula]
    return sorted(members, key=lambda i: stratum.truth[i])[:most]


def _compare(
    name: str, way: str, truth: np.ndarray, forth: list[bool], back: list[bool], seconds: Sequence[float]
) -> None:
    matched = np.array(forth)
    right, wrong, missed = (int(x.sum()) for x in (matched & truth, matched & ~truth, truth & ~matched))
    unsure = int((matched != np.array(back)).sum())
    row(name, way, len(truth), wrong, missed, share(right, wrong), share(right, missed), unsure, spread(seconds))


def main() -> None:
    """Run the parts that were asked for."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--strata", nargs="*", choices=list(STRATA), default=list(STRATA))
    parser.add_argument("--ladders", nargs="*", choices=list(LADDERS), default=list(LADDERS))
    parser.add_argument("--sizes", nargs="*", type=int, default=[1000, 10_000])
    parser.add_argument("--one-formula", nargs="*", type=int, default=[1000])
    parser.add_argument("--index", nargs="*", type=int, default=[100_000])
    parser.add_argument("--matcher", action="store_true", help="compare with pymatgen on a part of the strata, only")
    parser.add_argument("--seed", type=int, default=0)
    options = parser.parse_args()
    if options.matcher:
        matcher(options.strata, options.seed)
        return
    if options.strata:
        strata(options.strata, options.seed)
    if options.ladders:
        ladders(options.ladders, options.seed)
    if options.sizes:
        speed("mixed formulas", options.sizes, options.seed, None)
    if options.one_formula:
        speed("one formula", options.one_formula, options.seed, ("Ni", "Pt"))
    if options.index:
        index(options.index, options.seed)


if __name__ == "__main__":
    main()
