r"""MACE at its recommended size on a GPU, test errors against wall time: no CPU budget reaches its plateau.

python benchmarks/potential/peers/run_mace_gpu.py --data FOLDER --out FILE.json --setting recommended --element Si \
    --seed 0 --seconds 250 [--device cuda]

Model, batches, loss, learning rates and averaged weights are those of run_mace.py; what is kept is the end, for nothing
is held out. Judging the test part is not counted. Run it in an environment with mace-torch 0.3.16 and a CUDA build of
torch.

The published run was made by an earlier form of this program; in this one it has been tried on a CPU only.
"""

from __future__ import annotations

import argparse
import json
import sys
import time
from typing import Any

import numpy as np
import torch
from ase import Atoms
from common import Run, averaged, errors
from run_mace import SETTINGS, Batch, Mace

LOOKS = (5, 10, 20, 40, 80, 120, 160, 200, 240, 300, 400, 500)
"""Seconds."""


class OnDevice(Mace):
    """The same model elsewhere."""

    def __init__(self, train_structures: list[Atoms], hidden: str, device: torch.device) -> None:
        super().__init__(train_structures, hidden)
        self.device = device
        self.model.to(device)

    def evaluate(self, graphs: list[Any], *, training: bool) -> tuple[torch.Tensor, torch.Tensor]:
        batch = Batch.from_data_list(graphs).to(self.device)
        found = self.model(batch.to_dict(), training=training, compute_force=True)
        return found["energy"], found["forces"]

    def judge(self, structures: list[Atoms], graphs: list[Any], size: int) -> dict[str, float]:
        found = []
        for k in range(0, len(graphs), size):
            energy, forces = (t.detach().double().cpu() for t in self.evaluate(graphs[k : k + size], training=False))
            ends = np.cumsum([len(a) for a in structures[k : k + size]])[:-1]
            found += list(zip(energy.tolist(), np.split(forces.numpy(), ends), strict=True))
        return errors(structures, found)

    def wait(self) -> None:
        if self.device.type == "cuda":
            torch.cuda.synchronize()


def train(run: Run, device: torch.device) -> list[dict[str, float]]:
    hidden, recipe = SETTINGS[run.setting]
    structures, test = run.structures("training"), run.structures("test")
    peer = OnDevice(structures, hidden, device)
    graphs, test_graphs = peer.prepare(structures), peer.prepare(test)
    energies = torch.tensor([a.info["REF_energy"] for a in structures], dtype=torch.float64, device=device)
    forces = [torch.tensor(a.arrays["REF_forces"], dtype=torch.float32, device=device) for a in structures]
    sizes = torch.tensor([len(a) for a in structures], device=device)

    def loss(rows: list[int], weights: tuple[float, float]) -> torch.Tensor:
        energy, force = peer.evaluate([graphs[r] for r in rows], training=True)
        off = ((energy - energies[rows]) / sizes[rows]) ** 2
        return weights[0] * off.mean() + weights[1] * ((force - torch.cat([forces[r] for r in rows])) ** 2).mean()

    parameters: list[torch.Tensor] = [p for p in peer.model.parameters() if p.requires_grad]
    average = [p.detach().clone() for p in parameters]
    optimiser = torch.optim.Adam(peer.groups(), lr=recipe.rate, amsgrad=recipe.amsgrad)
    for _ in range(4):  # what is compiled at the first calls is not counted
        loss(list(range(recipe.batch)), recipe.weights(0.0)).backward()
    peer.judge(test, test_graphs, recipe.batch)
    peer.wait()

    rng, step, curve = np.random.default_rng(run.seed), 0, []
    due = [float(t) for t in LOOKS if t < 0.97 * run.seconds] + [run.seconds]
    begun, paused = time.perf_counter(), 0.0
    while due:
        order = rng.permutation(len(structures))
        for rows in np.split(order, range(recipe.batch, len(order), recipe.batch)):
            share = (time.perf_counter() - begun - paused) / run.seconds
            for group in optimiser.param_groups:
                group["lr"] = recipe.rate_at(share, step)
            optimiser.zero_grad(set_to_none=True)
            loss(rows.tolist(), recipe.weights(share)).backward()
            if recipe.clip is not None:
                torch.nn.utils.clip_grad_norm_(parameters, recipe.clip)
            optimiser.step()
            step += 1
            with torch.no_grad():
                torch._foreach_lerp_(average, parameters, 1 - min(recipe.average, (1 + step) / (10 + step)))
            peer.wait()
            now = time.perf_counter()
            if now - begun - paused >= due[0]:
                point = {"seconds": now - begun - paused, "epochs": step * recipe.batch / len(structures)}
                with averaged(parameters, average):
                    curve.append(point | peer.judge(test, test_graphs, recipe.batch))
                print(json.dumps(curve[-1]), flush=True)
                paused, due = paused + time.perf_counter() - now, due[1:]
                if not due:
                    break
    return curve


def main() -> None:
    parser = argparse.ArgumentParser(add_help=False)
    parser.add_argument("--device", default="cuda")
    options, rest = parser.parse_known_args()
    sys.argv[1:] = rest
    run = Run.from_command_line(__doc__)
    torch.manual_seed(run.seed)
    torch.set_default_dtype(torch.float32)
    curve = train(run, torch.device(options.device))
    run.out.write_text(json.dumps({"curve": curve, "torch": torch.__version__, "device": options.device}))


if __name__ == "__main__":
    main()
