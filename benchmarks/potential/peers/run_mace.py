"""MACE from its own classes and defaults, trained by the common loop. Run by compare.py in MACE's environment."""

from __future__ import annotations

from typing import Any

import numpy as np
import torch
from ase import Atoms
from common import R_MAX, SMALL, Peer, Recipe, Run, train, work
from mace import data, modules, tools
from mace.tools.scripts_utils import get_params_options
from mace.tools.torch_geometric.batch import Batch
from mace.tools.torch_geometric.dataloader import DataLoader

# isort: split
from e3nn import o3  # after mace, which lets new torch read the old files of e3nn 0.4

# MACE's README and the defaults of its command line: forces first, energies from three quarters on, at a tenth of the
# rate. The rate also falls on a plateau of 50 epochs there, more than these budgets hold.
RECOMMENDED = Recipe(
    batch=10, force_weight=100, energy_weight=1, late_energy_weight=1000, late_from=0.75, late_rate=1e-3,
    amsgrad=True, clip=10,
)  # fmt: skip
SETTINGS = {
    "small": ("32x0e", SMALL),
    "recommended": ("128x0e + 128x1o", RECOMMENDED),
}


class Mace(Peer):
    """ScaleShiftMACE: two layers, l_max 3, correlation 3, energies of the atoms by least squares."""

    def __init__(self, train_structures: list[Atoms], hidden: str) -> None:
        self.keys = data.KeySpecification(info_keys={"energy": "REF_energy"}, arrays_keys={"forces": "REF_forces"})
        self.table = tools.AtomicNumberTable(sorted({int(z) for a in train_structures for z in a.numbers}))
        configs = [data.config_from_atoms(a, self.keys) for a in train_structures]
        energies = data.compute_average_E0s(configs, self.table)
        atomic_energies = np.array([energies[z] for z in self.table.zs])
        loader = DataLoader(self.prepare(train_structures), batch_size=10)
        _, scale = modules.scaling_classes["rms_forces_scaling"](loader, np.atleast_2d(atomic_energies))
        self.model = modules.ScaleShiftMACE(
            r_max=R_MAX,
            num_bessel=8,
            num_polynomial_cutoff=5,
            max_ell=3,
            interaction_cls=modules.interaction_classes["RealAgnosticResidualInteractionBlock"],
            interaction_cls_first=modules.interaction_classes["RealAgnosticInteractionBlock"],
            num_interactions=2,
            num_elements=len(self.table),
            hidden_irreps=o3.Irreps(hidden),
            MLP_irreps=o3.Irreps("16x0e"),
            gate=torch.nn.functional.silu,
            atomic_energies=atomic_energies,
            avg_num_neighbors=modules.compute_avg_num_neighbors(loader),
            atomic_numbers=self.table.zs,
            correlation=3,
            radial_MLP=[64, 64, 64],
            use_reduced_cg=False,
            atomic_inter_scale=float(np.squeeze(scale)),
            atomic_inter_shift=0.0,
        )

    def prepare(self, structures: list[Atoms]) -> list[Any]:
        configs = [data.config_from_atoms(a, self.keys) for a in structures]
        return [data.AtomicData.from_config(c, z_table=self.table, cutoff=R_MAX) for c in configs]

    def evaluate(self, graphs: list[Any], *, training: bool) -> tuple[torch.Tensor, torch.Tensor]:
        found = self.model(Batch.from_data_list(graphs).to_dict(), training=training, compute_force=True)
        return found["energy"], found["forces"]

    def groups(self) -> list[dict[str, Any]]:
        defaults = tools.build_default_arg_parser().parse_args(["--name", "compare"])
        return [
            group | {"params": list(group["params"])} for group in get_params_options(defaults, self.model)["params"]
        ]


def job(run: Run) -> dict[str, Any]:
    hidden, recipe = SETTINGS[run.setting]
    torch.manual_seed(run.seed)
    torch.set_default_dtype(torch.float32)
    peer = Mace(run.structures("training"), hidden)
    return train(peer, recipe, run) | {"members": 1, "shape": hidden, "batch": recipe.batch}


if __name__ == "__main__":
    work("MACE", "mace-torch", __doc__, job)
