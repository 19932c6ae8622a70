"""How long a campaign needs to compare one structure with a million stored ones, and what that costs in memory.

python benchmarks/ledger/bench_duplicates.py --structures 1000000 [--backend sqlite|postgresql|both] [--url URL]
"""

from __future__ import annotations

import argparse
import os
import tempfile
import time
import tracemalloc
from collections.abc import Callable, Iterator, Sequence
from contextlib import ExitStack
from dataclasses import dataclass
from pathlib import Path

import msgpack
import numpy as np
import yaml
from made_up import make_chemistry
from scipy.spatial.transform import Rotation
from server import find_programs, private_server

from alflow.ledger import CandidateState, NewCandidate
from alflow.ledger import _tables as t
from alflow.ledger._bulk import allocate_ids, bulk_insert
from alflow.ledger._compositions import ensure_chemical_systems
from alflow.ledger._pool import _NEW_COLUMNS, _row
from alflow.ledger._structures import PreparedStructure, ensure_structures, prepare
from alflow.loop import CampaignContext, add_structures, open_campaign
from alflow.loop._duplicates import CampaignDuplicates
from alflow.structures import Fingerprint, Structure, fingerprint

BATCH = 20_000
#: Å³ per atom; relative spread of the volumes
VOLUME, VOLUME_SPREAD = 14.0, 0.08
#: Å, of the atoms around their sites
RATTLE = 0.12
NICKEL, PLATINUM, COPPER = 28, 78, 29
#: how many of the structures are of one composition, at any volume and at one
OF_ONE, AT_ONE_VOLUME = 0.1, 0.01


def crystal(rng: np.random.Generator, numbers: np.ndarray) -> Structure:
    """Atoms in random order on some sites of a simple lattice, each moved a little."""
    n = len(numbers)
    side = int(np.ceil(n ** (1 / 3)))
    sites = np.stack(np.meshgrid(*[np.arange(side)] * 3, indexing="ij"), axis=-1).reshape(-1, 3)
    sites = sites[rng.choice(len(sites), size=n, replace=False)]
    length = (n * VOLUME) ** (1 / 3)
    return Structure(
        cell=np.eye(3) * length,
        pbc=np.ones(3, dtype=bool),
        numbers=rng.permutation(numbers),
        positions=sites * length / side + rng.normal(scale=RATTLE, size=(n, 3)),
    )


def alloy(rng: np.random.Generator, kinds: Sequence[int]) -> Structure:
    """Eight atoms on the sites of an fcc lattice, as in a frame of a simulation of one alloy."""
    corners = np.array([[0, 0, 0], [0, 0.5, 0.5], [0.5, 0, 0.5], [0.5, 0.5, 0]])
    edge = (4 * VOLUME) ** (1 / 3)
    sites = np.concatenate([corners, corners + np.array([1, 0, 0])]) * edge
    return Structure(
        cell=np.diag([2 * edge, edge, edge]),
        pbc=np.ones(3, dtype=bool),
        numbers=rng.permutation(np.resize(kinds, 8)),
        positions=sites + rng.normal(scale=RATTLE, size=(8, 3)),
    )


@dataclass(frozen=True, kw_only=True)
class Prototype:
    """A structure with all that the ledger stores of it, from which scaled copies are made."""

    structure: Structure
    mark: Fingerprint
    prepared: PreparedStructure
    system: str

    @classmethod
    def of(cls, structure: Structure) -> Prototype:
        mark = fingerprint(structure)
        prepared = prepare(structure, mark)
        return cls(structure=structure, mark=mark, prepared=prepared, system=structure.chemical_system)

    def scaled(self, factor: float, number: int) -> PreparedStructure:
        """All lengths times a factor. A fingerprint holds lengths only and follows exactly; the hash is made up."""
        n_periodic, volume, charge, blob = self.prepared.geometry
        content = msgpack.unpackb(blob)
        for name in ("cell", "positions"):
            content[name] = (np.frombuffer(content[name]) * factor).tobytes()
        known = self.prepared.fingerprint
        assert known is not None
        mark = msgpack.unpackb(known["vector"])
        mark["l"] = (np.frombuffer(mark["l"]) * factor).tobytes()
        mark["x"] = (np.frombuffer(mark["x"], dtype=np.float32) * np.float32(factor)).tobytes()
        lengths = {name: x * factor for name, x in known.items() if name.startswith(("leading", "probe"))}
        return PreparedStructure(
            content_hash=f"{number:064x}",
            composition=self.prepared.composition,
            geometry=(n_periodic, volume * factor**3, charge, msgpack.packb(content)),
            fingerprint=known | lengths | {"vector": msgpack.packb(mark)},
        )

    def structure_scaled(self, factor: float) -> Structure:
        return self.structure.with_geometry(
            cell=self.structure.cell * factor, positions=self.structure.positions * factor
        )


class Pool:
    """Made-up structures: many compositions at any volume, one alloy at any volume, another at one volume."""

    def __init__(self, n: int, seed: int = 0) -> None:
        self.rng = np.random.default_rng(seed)
        n_alloy, n_frames = int(OF_ONE * n), int(AT_ONE_VOLUME * n)
        n_spread = n - n_alloy - n_frames
        chemistry = make_chemistry()
        self.prototypes: dict[str, list[Prototype]] = {"any composition": [], "one of 10 %": [], "one volume, 1 %": []}
        #: per prototype, how many structures are made of it
        self.copies: list[int] = []
        for system, share in zip(chemistry.species, chemistry.shares, strict=True):
            for numbers in system:
                wanted = n_spread * share / len(system)
                kinds = min(100, 1 + int(wanted / 40))
                self.prototypes["any composition"] += [Prototype.of(crystal(self.rng, numbers)) for _ in range(kinds)]
                self.copies += [max(1, round(wanted / kinds))] * kinds
        kinds = max(10, n_alloy // 50)
        self.prototypes["one of 10 %"] = [Prototype.of(alloy(self.rng, (NICKEL, PLATINUM))) for _ in range(kinds)]
        self.copies += [n_alloy // kinds] * kinds
        self.prototypes["one volume, 1 %"] = [Prototype.of(alloy(self.rng, (NICKEL, COPPER))) for _ in range(n_frames)]
        self.copies += [1] * n_frames

    def batches(self) -> Iterator[list[tuple[str, Prototype, PreparedStructure]]]:
        """All structures in random order, with their kinds."""
        flat = [(kind, prototype) for kind, found in self.prototypes.items() for prototype in found]
        order = self.rng.permutation(np.repeat(np.arange(len(flat)), self.copies))
        for start in range(0, len(order), BATCH):
            made = []
            for number, place in enumerate(order[start : start + BATCH], start=start):
                kind, prototype = flat[place]
                factor = 1.0 if kind.startswith("one volume") else self.factor()
                made.append((kind, prototype, prototype.scaled(factor, number)))
            yield made

    def factor(self) -> float:
        return float(np.exp(self.rng.normal(scale=VOLUME_SPREAD / 3)))

    def new(self, kind: str) -> Structure:
        """A structure that is not stored: other displacements, at the volume of one that is."""
        prototypes = self.prototypes[kind]
        one = prototypes[self.rng.integers(len(prototypes))]
        structure = one.structure_scaled(1.0 if kind.startswith("one volume") else self.factor())
        moved = structure.positions + self.rng.normal(scale=RATTLE, size=structure.positions.shape)
        return structure.with_geometry(cell=structure.cell, positions=moved)


def in_other_clothes(structure: Structure, rng: np.random.Generator, jiggle: float = 0.0) -> Structure:
    """Doubled, turned, shifted, in another order; and every atom of the cell moved by up to ``jiggle`` Å."""
    turn = Rotation.random(random_state=int(rng.integers(2**31))).as_matrix()
    positions = structure.positions + rng.uniform(-jiggle, jiggle, size=structure.positions.shape) / np.sqrt(3)
    positions = np.concatenate([positions, positions + structure.cell[0]])
    order = rng.permutation(len(positions))
    return Structure(
        cell=np.diag([2.0, 1.0, 1.0]) @ structure.cell @ turn.T,
        pbc=structure.pbc,
        numbers=np.tile(structure.numbers, 2)[order],
        positions=(positions @ turn.T + rng.uniform(-3, 3, size=3))[order],
    )


def open_bench(url: str, folder: Path) -> CampaignContext:
    path = folder / "campaign.yaml"
    path.write_text(
        yaml.safe_dump(
            {
                "name": "bench",
                "elements": ["Ni", "Pt"],
                "ledger": url,
                "theory": {"labeler": "emt"},
                "targets": {"energy": 0.02, "force": 0.3, "stress": 0.03},
            }
        )
    )
    return open_campaign(path)


def fill(contexts: Sequence[CampaignContext], pool: Pool) -> dict[str, list[int]]:
    """Write the rows of the pool into every ledger; return ids of kept candidates by their kind, in all the same."""
    ids: dict[str, list[int]] = {kind: [] for kind in pool.prototypes}
    rng = np.random.default_rng(1)
    done = 0
    for batch in pool.batches():
        dropped = rng.random(len(batch)) < 1 / 7
        for ctx in contexts:
            with ctx.ledger._database.write(durable=False) as connection:
                systems = ensure_chemical_systems(connection, {p.system for _, p, _ in batch})
                structure_ids, _ = ensure_structures(connection, [prepared for *_, prepared in batch])
                numbers = allocate_ids(connection, t.Candidate, len(batch))
                rows = []
                for number, away, (_, prototype, prepared) in zip(numbers, dropped, batch, strict=True):
                    state = CandidateState.REJECTED if away else CandidateState.POOLED
                    item = NewCandidate(structure=prototype.structure, source="random", state=state, reason="made up")
                    structure_id = structure_ids[prepared.content_hash]
                    system = systems[prototype.system]
                    rows.append(_row(number, ctx.campaign_id, None, structure_id, item, 0.0, system))
                bulk_insert(connection, t.Candidate, _NEW_COLUMNS, rows)
        for number, away, (kind, *_) in zip(numbers, dropped, batch, strict=True):
            if not away:
                ids[kind].append(number)
        done += len(batch)
        if (done // BATCH) % 5 == 0:
            print(f"  {done} stored", flush=True)
    return ids


def measure(ctx: CampaignContext, pool: Pool, ids: dict[str, list[int]], options: argparse.Namespace) -> None:
    """Everything, on one database."""
    print(f"\n{ctx.ledger.url.partition(':')[0]}: {sum(pool.copies)} structures\n", flush=True)
    if not ctx.ledger._database.is_sqlite:
        with ctx.ledger._database.write() as connection:  # as autovacuum does within a minute
            connection.exec_driver_sql("ANALYZE")
    rng = np.random.default_rng(2)
    checks = CampaignDuplicates(ctx)
    assert checks.redundant is not None
    print(f"{'':34s}{'near':>8s}{'CPU ms':>24s}{'wall ms':>24s}   found", flush=True)
    for kind in pool.prototypes:
        stored = [ctx.ledger.pool.structures([int(i)])[0] for i in rng.choice(ids[kind], size=options.repeats)]
        cases: dict[str, Callable[[int], Structure]] = {
            "new": lambda _, kind=kind: pool.new(kind),  # type: ignore[misc]
            "identical": lambda i, stored=stored: in_other_clothes(stored[i], rng),  # type: ignore[misc]
            "redundant": lambda i, stored=stored: in_other_clothes(stored[i], rng, 0.01),  # type: ignore[misc]
        }
        for case, other in cases.items():
            near, cpu, wall, found = [], [], [], 0
            for i in range(options.repeats):
                structure = other(i)
                mark = fingerprint(structure)
                near.append(len(ctx.ledger.pool.near(ctx.campaign_id, mark, checks.redundant)))
                begun, begun_cpu = time.perf_counter(), time.process_time()
                found += checks.find(structure, mark, deliberate=False) is not None
                wall.append(1e3 * (time.perf_counter() - begun))
                cpu.append(1e3 * (time.process_time() - begun_cpu))
            told = "".join(f"{np.median(x):10.2f} ({min(x):.1f}–{max(x):.1f})".rjust(24) for x in (cpu, wall))
            print(f"{kind:24s}{case:10s}{np.median(near):6.0f}{told}   {found}/{options.repeats}", flush=True)
    tracemalloc.start()
    for structure in [pool.new("one of 10 %") for _ in range(20)]:
        checks.find(structure, fingerprint(structure), deliberate=False)
    print(f"memory at most, one of 10 %: {tracemalloc.get_traced_memory()[1] / 2**20:.1f} MiB")
    tracemalloc.stop()
    for kind in ("one of 10 %", "one volume, 1 %"):
        batch = [(pool.new(kind), "benchmark") for _ in range(options.batch)]
        begun = time.process_time()
        report = add_structures(ctx, batch)
        ms = 1e3 * (time.process_time() - begun) / len(batch)
        print(f"add_structures, {len(batch)} of {kind}: {ms:.2f} ms CPU each, {report.pooled} pooled", flush=True)
    ctx.ledger.close()


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--structures", type=int, default=50_000)
    parser.add_argument("--repeats", type=int, default=100)
    parser.add_argument("--batch", type=int, default=300)
    parser.add_argument("--backend", choices=["sqlite", "postgresql", "both"], default="both")
    parser.add_argument("--url", help="an empty PostgreSQL database; by default a private server is started")
    options = parser.parse_args()
    with tempfile.TemporaryDirectory() as name, ExitStack() as stack:
        folder = Path(name)
        os.environ["ALFLOW_LEDGER_FILES"] = str(folder / "files")
        urls = [f"sqlite:///{folder / 'bench.db'}"] if options.backend != "postgresql" else []
        if options.backend != "sqlite":
            programs = find_programs()
            if options.url is None and programs is None:
                parser.error("no PostgreSQL server programs on this machine; name an empty database with --url")
            urls.append(options.url or stack.enter_context(private_server(programs)))  # type: ignore[arg-type]
        contexts = [open_bench(url, folder) for url in urls]
        pool = Pool(options.structures)
        ids = fill(contexts, pool)
        for ctx in contexts:
            measure(ctx, pool, ids, options)


if __name__ == "__main__":
    main()
