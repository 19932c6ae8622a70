"""NequIP, built by its own model builder, trained by the common loop. Run by compare.py in NequIP's environment."""

from __future__ import annotations

from typing import Any

import numpy as np
import torch
from ase import Atoms
from common import R_MAX, SMALL, Peer, Recipe, Run, train, work
from nequip.data import AtomicDataDict, compute_neighborlist_, from_ase
from nequip.data.transforms import ChemicalSpeciesToAtomTypeMapper
from nequip.model import NequIPGNNModel
from nequip.utils.global_state import set_global_state

# The tutorial's configuration: model, loss, optimiser, averaging, plateau of the held-out errors, batches of five.
RECOMMENDED = Recipe(batch=5, force_weight=1, energy_weight=1, plateau=(0.6, 5, 0.2), average=0.999)
SETTINGS: dict[str, tuple[dict[str, Any], Recipe]] = {
    "small": ({"num_layers": 2, "l_max": 1, "parity": False, "num_features": 32}, SMALL),
    "recommended": (
        {
            "num_layers": 4,
            "l_max": 1,
            "parity": True,
            "num_features": 32,
            "radial_mlp_depth": 2,
            "radial_mlp_width": 64,
        },
        RECOMMENDED,
    ),
}


class Nequip(Peer):
    """The GNN model, compiled by the package itself; scales and shifts from the training structures."""

    def __init__(self, train_structures: list[Atoms], shape: dict[str, Any], seed: int) -> None:
        names = sorted({s for a in train_structures for s in a.symbols})
        self.mapper = ChemicalSpeciesToAtomTypeMapper(model_type_names=names)
        per_atom = float(np.mean([a.info["REF_energy"] / len(a) for a in train_structures]))
        forces = np.concatenate([a.arrays["REF_forces"] for a in train_structures])
        symbols = np.concatenate([np.array(a.symbols) for a in train_structures])
        graphs = self.prepare(train_structures)
        edges = sum(g[AtomicDataDict.EDGE_INDEX_KEY].shape[1] for g in graphs)
        self.model = NequIPGNNModel(
            seed=seed,
            model_dtype="float32",
            compile_mode="compile",
            r_max=R_MAX,
            type_names=names,
            avg_num_neighbors=edges / len(symbols),
            per_type_energy_scales={s: float(np.sqrt((forces[symbols == s] ** 2).mean())) for s in names},
            per_type_energy_shifts=dict.fromkeys(names, per_atom),
            pair_potential={"_target_": "nequip.nn.pair_potential.ZBL", "units": "metal", "chemical_species": names},
            **shape,
        )

    def prepare(self, structures: list[Atoms]) -> list[Any]:
        graphs = []
        for atoms in structures:
            bare = Atoms(atoms.numbers, positions=atoms.positions, cell=atoms.cell, pbc=atoms.pbc)
            graphs.append(compute_neighborlist_(self.mapper(from_ase(bare)), R_MAX))
        return graphs

    def evaluate(self, graphs: list[Any], *, training: bool) -> tuple[torch.Tensor, torch.Tensor]:
        self.model.train(training)
        found = self.model(AtomicDataDict.batched_from_list(graphs))
        return found[AtomicDataDict.TOTAL_ENERGY_KEY].squeeze(-1), found[AtomicDataDict.FORCE_KEY]


def job(run: Run) -> dict[str, Any]:
    shape, recipe = SETTINGS[run.setting]
    set_global_state(allow_tf32=False)
    torch.manual_seed(run.seed)
    peer = Nequip(run.structures("training"), shape, run.seed)
    shown = f"{shape['num_layers']} layers, l {shape['l_max']}, {shape['num_features']} features"
    return train(peer, recipe, run) | {"members": 1, "shape": shown, "batch": recipe.batch}


if __name__ == "__main__":
    work("NequIP", "nequip", __doc__, job)
