"""The demo against brute force: every enumerated structure relaxed with EMT itself."""

from __future__ import annotations

import shutil
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import pytest
import yaml
from ase.calculators.emt import EMT
from ase.filters import FrechetCellFilter
from ase.optimize import BFGS

from alflow.discovery import hull_energies
from alflow.explore import EnumerateSettings, EnumerateSource, ExploreContext
from alflow.loop import open_campaign, run
from alflow.loop._stop import count_labels
from tests.databases import Databases

pytestmark = pytest.mark.slow


@dataclass(frozen=True, kw_only=True)
class Reference:
    """Brute force: composition, relaxed energy per atom, and what it cost."""

    x: np.ndarray
    energy: np.ndarray
    n_structures: int
    n_calculations: int


@pytest.fixture(scope="module")
def reference() -> Reference:
    source = EnumerateSource(EnumerateSettings(parents=("fcc",), max_atoms=6))
    proposals = list(source.propose(ExploreContext(rng=np.random.default_rng(0), elements=("Ni", "Pt"))))
    fractions, energies, calculations = [], [], 0
    for proposal in proposals:
        atoms = proposal.structure.to_atoms()
        atoms.calc = EMT()
        optimiser = BFGS(FrechetCellFilter(atoms), logfile=None)
        assert optimiser.run(fmax=0.005, steps=300)
        calculations += optimiser.nsteps + 1
        fractions.append(float((atoms.numbers == 78).mean()))
        energies.append(float(atoms.get_potential_energy()) / len(atoms))
    return Reference(
        x=np.array(fractions), energy=np.array(energies), n_structures=len(proposals), n_calculations=calculations
    )


def envelope(x: np.ndarray, energy: np.ndarray, at: np.ndarray) -> np.ndarray:
    """Lower convex envelope of energies (eV/atom) over the platinum fraction."""
    every = np.concatenate([x, at])
    high = np.concatenate([energy, np.full(len(at), energy.max() + 10.0)])
    found: np.ndarray = hull_energies(np.stack([1.0 - every, every], axis=1), high[None])[0][len(x) :]
    return found


# what is chosen does not depend on the database (tests/loop), so one seed is enough for the other one
@pytest.mark.parametrize(
    ("seed", "backend"),
    [*((seed, "sqlite") for seed in range(5)), pytest.param(0, "postgresql", marks=pytest.mark.integration)],
    indirect=["backend"],
)
def test_the_demo_finds_the_hull_for_a_small_part_of_brute_force(
    seed: int, backend: str, databases: Databases, reference: Reference, root: Path, tmp_path: Path
) -> None:
    shutil.copy(root / "examples/ni-pt/campaign.yaml", tmp_path)
    path = tmp_path / "campaign.yaml"
    path.write_text(yaml.safe_dump(yaml.safe_load(path.read_text()) | {"seed": seed}))
    ctx = open_campaign(path, ledger_url=None if backend == "sqlite" else databases.ledger(backend))
    run(ctx)

    labels = ctx.ledger.labels.accepted(ctx.theory.id, ctx.campaign_id)
    spent = count_labels(ctx)
    assert spent <= 0.60 * reference.n_structures
    assert spent <= 0.05 * reference.n_calculations

    x = np.array([s.structure.composition.get("Pt", 0) / s.structure.n_atoms for s in labels])
    energy = np.array([s.properties.energy / s.structure.n_atoms for s in labels])
    at = np.unique(reference.x)
    found, true = envelope(x, energy, at), envelope(reference.x, reference.energy, at)
    print(f"seed {seed}: {spent} labels, envelope off by at most {1000 * np.abs(found - true).max():.2f} meV/atom")
    assert np.abs(found - true).max() <= 0.002

    hull = ctx.ledger.hulls.latest(ctx.campaign_id)
    assert hull is not None
    assert {"Ni", "Pt"} <= {s["formula"] for s in hull.stable}
    assert len(hull.stable) >= 3, "at least one compound beside the elements"
    for compound in hull.stable:
        true_hull = envelope(reference.x, reference.energy, np.array([compound["composition"].get("Pt", 0.0)]))[0]
        print(
            f"  {compound['formula']} {compound['space_group']}: {1000 * (compound['energy'] - true_hull):.2f} meV/atom"
        )
        assert compound["energy"] - true_hull <= 0.002
        assert ctx.ledger.labels.by_id(compound["label_id"]).properties.energy == pytest.approx(
            compound["energy"] * compound["n_atoms"]
        )
