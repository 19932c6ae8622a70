r"""How fast committees predict and train on a GPU, what four members cost beside one, and how near it is to a CPU.

python benchmarks/potential/bench_gpu.py [--device cuda] [--parts predict,train,agree,tf32] [--repeats 10] \
    [--sizes 2,3,5,11,23] [--shapes 1x16,4x16,1x32,4x32] [--batches 8,32,128] [--data FOLDER] [--profile]

Rattled silicon cells of 8 n³ atoms (made up; speed does not depend on labels), cutoff 5 Å, 28 neighbours, energies,
forces and stresses of all members, float32. Wall time with the device waited for; median, and range over the repeats,
after three calls that do not count (one, where it took more than half a second). `tf32` trains on silicon of Zuo et
al., J. Phys. Chem. A 124, 731 (2020): FOLDER holds Si_training.xyz.gz and Si_test.xyz.gz. On a CPU: --device cpu
--sizes 1,2.
"""

from __future__ import annotations

import argparse
import logging
import os
import time
from collections.abc import Callable, Sequence
from dataclasses import replace
from pathlib import Path

import numpy as np
import torch
from ase import Atoms
from ase.build import bulk
from bench_accuracy import judge, load

from alflow.potentials import CommitteeSpec, NativeCommittee, Targets, TrainingSpec, train_committee
from alflow.potentials._core import CommitteeCore
from alflow.potentials._device import DEVICE, wanted_device
from alflow.potentials._engine import PlainEngine
from alflow.potentials._geometry import EdgeList
from alflow.potentials._network import CommitteeNetwork, Constants
from alflow.structures import Structure

SILICON = np.array([14])
WARM_UP = 3
LARGE = 50_000


def cell(n: int, seed: int = 0) -> Atoms:
    """8 n³ atoms of diamond, somewhat strained and rattled."""
    rng = np.random.default_rng(seed)
    atoms = bulk("Si", a=5.43, cubic=True) * (n, n, n)
    atoms.set_cell(atoms.cell.array @ (np.eye(3) + rng.normal(size=(3, 3)) * 0.01), scale_atoms=True)
    atoms.positions += rng.normal(size=atoms.positions.shape) * 0.1
    return atoms


def untrained(members: int, channels: int, dtype: torch.dtype = torch.float32) -> NativeCommittee:
    """A committee with random weights that knows the atoms of three cells, on the device of the environment."""
    spec = CommitteeSpec(n_members=members, channels=channels)
    density = (tuple(float(x) for x in np.linspace(0.5, 0.1, spec.n_radial)),)
    constants = Constants(scale=1.0, neighbours=28.0, coordination=10.0, cohesion=(0.0,), density=density)
    weights = CommitteeNetwork(spec, 1, constants).layout.initial(members, 0, dtype)
    core = CommitteeCore(spec=spec, numbers=SILICON, constants=constants, references=np.zeros(1), weights=weights)
    core = core.learn_familiar([edges_of(cell(2, seed)) for seed in range(3)])
    return NativeCommittee(core=core, targets=Targets())


def edges_of(atoms: Atoms) -> EdgeList:
    return EdgeList.of(Structure.from_atoms(atoms), SILICON, CommitteeSpec().r_max)


def wait() -> None:
    """Until the device has done all that it was told."""
    if wanted_device().type == "cuda":
        torch.cuda.synchronize()


def seconds(call: Callable[[], object], repeats: int) -> list[float]:
    """Wall time of each call, after some that do not count."""
    times: list[float] = []
    for _ in range(repeats + WARM_UP):
        wait()
        begun = time.perf_counter()
        call()
        wait()
        times.append(time.perf_counter() - begun)
        if times[0] > 0.5 and len(times) == repeats + 1:
            return times[1:]
    return times[WARM_UP:]


def rate(count: float, times: Sequence[float]) -> str:
    """Median and range of a rate."""
    return f"{count / np.median(times):,.0f} ({count / max(times):,.0f}–{count / min(times):,.0f})"


def peak_gib(call: Callable[[], object]) -> float:
    """Largest memory of a call on the device, nan on a CPU."""
    if wanted_device().type == "cpu":
        return float("nan")
    torch.cuda.reset_peak_memory_stats()
    call()
    return torch.cuda.max_memory_allocated() / 2**30


def predict(options: argparse.Namespace) -> None:
    print("\natoms predicted per second: network alone; from neighbour lists on; whole call; moving atoms, lists kept")
    networks, listed = {}, {}
    for shape in options.shapes:
        committee = untrained(*map(int, shape.split("x")))
        for n in options.sizes:
            networks[shape, 8 * n**3], listed[shape, 8 * n**3] = predict_one(shape, committee, cell(n), options.repeats)
    ratios("network", networks)
    ratios("from neighbour lists on", listed)


def predict_one(shape: str, committee: NativeCommittee, atoms: Atoms, repeats: int) -> tuple[float, float]:
    """Print rates; median seconds of the network alone (nan where it needs blocks) and from neighbour lists on."""
    core, size, edges = committee.core, len(atoms), edges_of(atoms)
    if size > LARGE:
        repeats = min(repeats, 3)
    parts = [joined for _, joined, _ in core._parts([edges], np.zeros(1, dtype=np.int64))]
    times = [float("nan")]
    if len(parts) == 1:
        batch = core.engine.batch(parts[0])
        times = seconds(lambda: core.engine.evaluate(core.weights, batch), repeats)
        del batch
    listed = seconds(lambda: core.predict([edges]), repeats)
    whole = seconds(lambda: committee.predict([atoms]), min(repeats, 3))
    moving, rng = committee.evaluator([atoms]), np.random.default_rng(1)

    def move() -> None:
        moving([atoms.positions + rng.normal(size=(size, 3)) * 0.01], atoms.cell.array[None])

    rates = (rate(size, measured) for measured in (times, listed, whole, seconds(move, repeats)))
    gib = peak_gib(lambda: core.predict([edges]))
    shown = "".join(f"{text:34s}" for text in rates)
    print(f"{shape:>5s} {size:7,d} atoms  {shown}{gib:6.2f} GiB, {len(parts)} blocks", flush=True)
    return float(np.median(times)), float(np.median(listed))


def ratios(what: str, medians: dict[tuple[str, int], float]) -> None:
    """Cost of several members relative to one of the same width."""
    for shape, size in medians:
        members, channels = shape.split("x")
        single = medians.get((f"1x{channels}", size))
        if members != "1" and single:
            print(f"{what}: {members} members cost {medians[shape, size] / single:.2f} × one, {channels}, {size:,d}")


def labelled(n: int) -> list[Atoms]:
    """64-atom cells with made-up labels."""
    rng = np.random.default_rng(0)
    found = []
    for k in range(n):
        atoms = cell(2, k)
        atoms.info["REF_energy"] = -5.0 * len(atoms) + rng.normal()
        atoms.arrays["REF_forces"] = rng.normal(size=atoms.positions.shape)
        stress = rng.normal(size=(3, 3)) * 0.01
        atoms.info["REF_stress"] = stress + stress.T
        found.append(atoms)
    return found


def train(options: argparse.Namespace) -> None:
    print("\nstructures of 64 atoms trained per second, whole loop, times the members")
    data = labelled(2 * max(options.batches))
    medians: dict[tuple[str, int], float] = {}
    for batch_size in options.batches:
        for shape in options.shapes:
            members, channels = map(int, shape.split("x"))
            spec = CommitteeSpec(n_members=members, channels=channels)
            training = TrainingSpec(
                max_epochs=options.repeats + WARM_UP, batch_size=batch_size, validation_fraction=0, warmup_steps=0
            )
            ends: list[float] = []
            if wanted_device().type == "cuda":
                torch.cuda.reset_peak_memory_stats()
            train_committee(data, spec, training, progress=lambda _, e=ends: e.append(time.perf_counter()))
            gib = torch.cuda.max_memory_allocated() / 2**30 if wanted_device().type == "cuda" else float("nan")
            times = np.diff(ends)[WARM_UP - 1 :]
            medians[shape, batch_size] = float(np.median(times))
            ms = 1e3 * np.median(times) / np.ceil(len(data) / batch_size)
            print(
                f"{shape:>5s} batches of {batch_size:3d}  {rate(len(data), times):24s} {ms:7.1f} ms/step {gib:6.2f} GiB"
            )
    ratios("training, batch size", medians)


def agree(options: argparse.Namespace) -> None:
    print("\nlargest differences from a CPU in double precision, plain torch: energy eV/atom, force eV/Å")
    for shape in options.shapes:
        members, channels = map(int, shape.split("x"))
        committee = untrained(members, channels, torch.float64)
        for n in [n for n in options.sizes if 8 * n**3 <= options.largest_agreement]:
            edges, found = edges_of(cell(n)), {}
            for name, device, dtype in (
                ("cpu double", torch.device("cpu"), torch.float64),
                ("cpu single", torch.device("cpu"), torch.float32),
                ("here double", wanted_device(), torch.float64),
                ("here single", wanted_device(), torch.float32),
                ("here single, TF32", wanted_device(), torch.float32),
            ):
                torch.set_float32_matmul_precision("high" if "TF32" in name else "highest")
                core = replace(committee.core.to(dtype))
                core.__dict__["engine"] = PlainEngine(core.network, core.numbers, dtype, device)
                found[name] = core.predict([edges])
            torch.set_float32_matmul_precision("highest")
            exact = found.pop("cpu double")
            largest = np.abs(exact.forces).max()
            shown = "; ".join(
                f"{name} {np.abs(p.energy - exact.energy).max() / (8 * n**3):.1e}, "
                f"{np.abs(p.forces - exact.forces).max():.1e}"
                for name, p in found.items()
            )
            print(f"{shape:>5s} {8 * n**3:6,d} atoms, forces up to {largest:.2f}: {shown}", flush=True)


def tf32(options: argparse.Namespace) -> None:
    print("\nTF32 on silicon: predictions of one committee, then trainings of 500 steps; test errors meV/atom, meV/Å")
    core, large = untrained(4, 16).core, cell(options.sizes[-1])
    batch = core.engine.batch(edges_of(large))
    for name in ("highest", "high"):
        torch.set_float32_matmul_precision(name)
        times = seconds(lambda: core.engine.evaluate(core.weights, batch), options.repeats)
        print(f"4x16 {name:8s} {rate(len(large), times)} atoms/s, network alone, {len(large):,d} atoms")
    torch.set_float32_matmul_precision("highest")
    learn, test = (load(options.data / f"Si_{part}.xyz.gz") for part in ("training", "test"))
    for shape in options.shapes:
        members, channels = map(int, shape.split("x"))
        spec = CommitteeSpec(n_members=members, channels=channels)
        committee = train_committee(learn, spec, TrainingSpec(batch_size=4))
        exact = committee.predict(test, dtype="float64")
        for name in ("highest", "high"):
            torch.set_float32_matmul_precision(name)
            found = committee.predict(test)
            force = np.concatenate([(a - b).ravel() for a, b in zip(found.forces, exact.forces, strict=True)])
            energy = np.abs(found.energy - exact.energy) / exact.n_atoms
            begun = time.perf_counter()
            trained = train_committee(learn, spec, TrainingSpec(batch_size=4), seed=1)
            spent = time.perf_counter() - begun
            torch.set_float32_matmul_precision("highest")
            errors = judge(trained, test)
            print(
                f"{shape} {name:8s} off by {1e3 * energy.max():.1e} meV/atom, "
                f"{1e3 * np.abs(force).max():.1e} meV/Å (root mean square {1e3 * np.sqrt(np.mean(force**2)):.1e}); "
                f"trained in {spent:.1f} s: {errors['energy']:.2f}, {errors['force']:.1f}",
                flush=True,
            )


def profile(options: argparse.Namespace) -> None:
    """Where the time goes: one prediction of the middle size and one epoch."""
    from torch.profiler import ProfilerActivity, profile

    kinds = [ProfilerActivity.CPU] + [ProfilerActivity.CUDA] * (wanted_device().type == "cuda")
    order = "self_cuda_time_total" if wanted_device().type == "cuda" else "self_cpu_time_total"
    committee, edges, data = untrained(4, 16), edges_of(cell(options.sizes[len(options.sizes) // 2])), labelled(16)

    def learn() -> None:
        train_committee(data, CommitteeSpec(), TrainingSpec(max_epochs=3, batch_size=8, validation_fraction=0))

    for name, call in (("a prediction", lambda: committee.core.predict([edges])), ("a training of 6 steps", learn)):
        for _ in range(WARM_UP):
            call()
        wait()
        begun = time.perf_counter()
        with profile(activities=kinds) as record:
            call()
            wait()
        print(f"\n{name}, {1e3 * (time.perf_counter() - begun):.1f} ms with the profiler")
        print(record.key_averages().table(sort_by=order, row_limit=18, max_name_column_width=60))
        print(record.key_averages().table(sort_by="self_cpu_time_total", row_limit=14, max_name_column_width=60))


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--device", default="cuda")
    parser.add_argument("--parts", default="predict,train,agree", type=lambda s: s.split(","))
    parser.add_argument("--sizes", default=[2, 3, 5, 11, 23], type=lambda s: [int(n) for n in s.split(",")])
    parser.add_argument("--shapes", default=["1x16", "4x16", "1x32", "4x32"], type=lambda s: s.split(","))
    parser.add_argument("--batches", default=[8, 32, 128], type=lambda s: [int(n) for n in s.split(",")])
    parser.add_argument("--largest-agreement", type=int, default=1000, help="atoms of the largest cell compared")
    parser.add_argument("--repeats", type=int, default=10)
    parser.add_argument("--data", type=Path, help="folder of the published silicon data, for the part tf32")
    parser.add_argument("--profile", action="store_true", help="tables of torch's profiler as well")
    options = parser.parse_args()
    if "tf32" in options.parts and options.data is None:
        parser.error("the part tf32 needs --data")
    logging.getLogger("alflow.potentials").setLevel(logging.ERROR)  # TF32 is switched on deliberately here
    os.environ[DEVICE] = options.device
    os.environ["ALFLOW_KERNELS"] = "off"
    name = torch.cuda.get_device_name(wanted_device()) if wanted_device().type == "cuda" else "CPU"
    print(
        f"{name}, torch {torch.__version__}, CUDA {torch.version.cuda}, {torch.get_num_threads()} threads of the host"
    )
    for part, run in (("predict", predict), ("train", train), ("agree", agree), ("tf32", tf32)):
        if part in options.parts:
            run(options)
    if options.profile:
        profile(options)


if __name__ == "__main__":
    main()
