"""Committees of MACE models with mace-torch itself.

mace-torch holds e3nn at an old version, so it lives in an environment of its own; `test_mace_environment.py` makes one
and runs this file there. It uses nothing of the other tests, for mace-torch installs a package `tests` of its own.
"""

from __future__ import annotations

import importlib.util
import os
import pickle
import warnings
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from ase import Atoms
from ase.build import bulk, fcc111
from ase.calculators.emt import EMT

from alflow.errors import CheckpointError, PotentialError
from alflow.potentials import Committee, MaceSpec, TrainingSpec, check_committee, load_committee
from alflow.potentials.mace import MaceCommittee, foundation_committee, train_mace_committee

if importlib.util.find_spec("mace") is None:
    pytest.skip("needs mace-torch in an environment of its own: pip install 'alflow[mace]'", allow_module_level=True)

TINY = MaceSpec(n_members=2, channels=4, l_hidden=1, l_max=2, correlation=2, n_layers=1, r_max=4.0, dtype="float64")
SHORT = TrainingSpec(steps=12, warm_steps=6)


def label(atoms: Atoms) -> Atoms:
    found = atoms.copy()
    found.calc = EMT()
    found.info["REF_energy"], found.arrays["REF_forces"] = found.get_potential_energy(), found.get_forces()
    if found.pbc.all():
        found.info["REF_stress"] = found.get_stress(voigt=False)
    found.calc = None
    return found


def cells(n: int, seed: int = 0) -> list[Atoms]:
    rng = np.random.default_rng(seed)
    found = []
    for k in range(n):
        atoms = bulk("Ni", a=3.6 + 0.2 * rng.random()) * ((1, 1, 1), (2, 1, 1), (2, 2, 1))[k % 3]
        atoms.symbols[:] = np.where(rng.random(len(atoms)) < 0.5, "Ni", "Pt")
        atoms.positions += rng.normal(size=atoms.positions.shape) * 0.08
        found.append(atoms)
    found[0].symbols[:], found[1].symbols[:] = "Ni", "Pt"
    return found


def odd_ones() -> list[Atoms]:
    slab = fcc111("Pt", (1, 2, 2), vacuum=6)
    slab.positions += np.random.default_rng(1).normal(size=slab.positions.shape) * 0.1
    wire = bulk("Ni", a=3.5) * (1, 1, 2)
    wire.pbc = [False, False, True]
    molecule = Atoms("NiPtNi", positions=[[0, 0, 0], [2.3, 0.2, 0], [0.4, 2.2, 0.3]])
    return [slab, wire, molecule, Atoms("Pt", positions=[[1.0, 2.0, 3.0]])]


@pytest.fixture(scope="module")
def labelled() -> list[Atoms]:
    return [label(atoms) for atoms in cells(24)]


@pytest.fixture(scope="module")
def committee(labelled: list[Atoms]) -> MaceCommittee:
    return train_mace_committee(labelled, TINY, SHORT, seed=1)


@pytest.fixture(scope="module")
def foundation(committee: MaceCommittee, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A MACE file as mace_run_train writes it: the first member of the committee, with its reference energies."""
    path = tmp_path_factory.mktemp("foundation") / "tiny.model"
    model: Any = committee.core.engine.module.model
    names = [name.removeprefix("model.") for name in committee.core.engine.shapes]
    parts = torch.split(committee.core.weights[0], [s.numel() for s in committee.core.engine.shapes.values()])
    own = dict(model.named_parameters())
    with torch.no_grad():
        for name, part in zip(names, parts, strict=True):
            own[name].copy_(part.view(own[name].shape))
        model.atomic_energies_fn.atomic_energies.copy_(torch.from_numpy(committee.core.references))
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # of torch, about torch.jit
        torch.save(model, path)
    return path


def spec_of(path: Path, **changes: Any) -> MaceSpec:
    return MaceSpec(foundation=path, trust_foundation=True, dtype="float64", n_members=2, **changes)


def test_it_keeps_the_promises_of_a_committee(committee: MaceCommittee) -> None:
    assert isinstance(committee, Committee)
    check_committee(committee, [*odd_ones()[:3], *cells(3, 5)], tolerance=1e-4)
    assert committee.elements == ("Ni", "Pt")
    assert committee.r_max == 4.0


def test_training_learns_and_members_differ(labelled: list[Atoms], committee: MaceCommittee) -> None:
    longer = train_mace_committee(labelled, TINY, TrainingSpec(steps=60), seed=1)
    assert longer.report is not None
    assert committee.report is not None
    assert longer.report.train.energy_mae < committee.report.train.energy_mae
    assert (longer.predict(labelled).energy_spread > 0).all()


def test_a_file_gives_the_same_predictions_and_executes_nothing(
    committee: MaceCommittee, labelled: list[Atoms], tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    committee.save(tmp_path / "c")
    read = load_committee(tmp_path / "c")
    assert isinstance(read, MaceCommittee)
    one, other = (c.predict([*labelled, *odd_ones()], features=True) for c in (committee, read))
    assert one.features is not None
    np.testing.assert_array_equal(one.energy, other.energy)
    np.testing.assert_array_equal(np.asarray(one.features), np.asarray(other.features))
    for mine, theirs in zip(one.forces, other.forces, strict=True):
        np.testing.assert_array_equal(mine, theirs)
    # importing mace must not have loosened how files are read
    assert "TORCH_FORCE_NO_WEIGHTS_ONLY_LOAD" not in os.environ
    content = torch.load(tmp_path / "c", weights_only=True)
    torch.save(content | {"spec": Exploit()}, tmp_path / "bad")
    with pytest.raises(CheckpointError):
        load_committee(tmp_path / "bad")
    assert "executed" not in capsys.readouterr().out
    for key, value in (("weights", torch.zeros(2, 3)), ("names", []), ("references", [1.0]), ("model", "{}")):
        torch.save(content | {key: value}, tmp_path / "bad")
        with pytest.raises((CheckpointError, PotentialError)):
            load_committee(tmp_path / "bad")


class Exploit:
    def __reduce__(self) -> tuple[object, tuple[str]]:
        return (print, ("executed",))


def test_a_foundation_model_predicts_what_maces_own_calculator_does(committee: MaceCommittee, foundation: Path) -> None:
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        from mace.calculators import MACECalculator  # type: ignore[import-not-found,unused-ignore]

        calculator = MACECalculator(model_paths=str(foundation), device="cpu", default_dtype="float64")
    alone = foundation_committee(spec_of(foundation))
    structures = [odd_ones()[0], *odd_ones()[2:], *cells(4, 7)]
    p = alone.predict(structures)
    np.testing.assert_allclose(p.energy[0], committee.predict(structures).energy[0], atol=1e-9)
    assert p.stress is not None
    for i, atoms in enumerate(structures):
        atoms.calc = calculator
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            assert p.energy[0, i] == pytest.approx(atoms.get_potential_energy(), abs=1e-8)
            np.testing.assert_allclose(p.forces[i][0], atoms.get_forces(), atol=1e-8)
            if atoms.pbc.all():
                np.testing.assert_allclose(p.stress[0, i], atoms.get_stress(voigt=False), atol=1e-9)


@pytest.mark.parametrize("tune", ["all", "readouts"])
def test_fine_tuning_starts_from_the_foundation_model(
    labelled: list[Atoms], foundation: Path, tmp_path: Path, tune: str
) -> None:
    shifted = []
    for atoms in labelled:
        other = atoms.copy()
        other.info["REF_energy"] += 7.0 * sum(other.symbols == "Ni") - 3.0 * sum(other.symbols == "Pt")
        shifted.append(other)
    spec = spec_of(Path(foundation.name), tune=tune)
    tuned = train_mace_committee(shifted, spec, SHORT, directory=foundation.parent)
    assert tuned.report is not None
    assert "foundation model" in tuned.report.warm_start
    assert tuned.report.train.energy_mae < 0.5  # another theory's zero of energy is no error
    p = tuned.predict(labelled)
    assert (p.energy_spread > 0).all()
    assert np.isfinite(p.u).all()
    everything = foundation_committee(spec_of(foundation)).core.engine.size
    assert (tuned.core.engine.size < everything) is (tune == "readouts")
    tuned.save(tmp_path / "tuned")
    np.testing.assert_array_equal(load_committee(tmp_path / "tuned").predict(labelled).energy, p.energy)


def test_a_warm_start_goes_on(labelled: list[Atoms], committee: MaceCommittee) -> None:
    warm = train_mace_committee(labelled, TINY, SHORT, initial=committee)
    assert warm.report is not None
    assert committee.report is not None
    assert "earlier committee" in warm.report.warm_start
    assert warm.report.train.energy_mae < committee.report.train.energy_mae


def test_what_cannot_be_used_is_said(labelled: list[Atoms], foundation: Path, tmp_path: Path) -> None:
    copper = bulk("Cu")
    with pytest.raises(PotentialError, match="nothing of Cu"):
        train_mace_committee([*labelled, label(copper)], spec_of(foundation), SHORT)
    with pytest.raises(PotentialError, match=r"no head 'pbe'; it has Default"):
        foundation_committee(spec_of(foundation, head="pbe"))
    for content in (b"", b"no model", foundation.read_bytes()[:500]):
        (tmp_path / "bad.model").write_bytes(content)
        with pytest.raises(CheckpointError, match=r"bad\.model cannot be read"):
            foundation_committee(spec_of(tmp_path / "bad.model"))
    (tmp_path / "bad.model").write_bytes(pickle.dumps({"weights": 3}))
    with pytest.raises(CheckpointError, match=r"bad\.model"):
        foundation_committee(spec_of(tmp_path / "bad.model"))


def test_the_ase_calculator_relaxes(committee: MaceCommittee) -> None:
    from ase.optimize import BFGS

    atoms = cells(3, 6)[2]
    atoms.calc = committee.calculator()
    before = np.abs(atoms.get_forces()).max()
    BFGS(atoms, logfile=None).run(fmax=before / 5, steps=15)
    assert np.abs(atoms.get_forces()).max() < before


def test_a_campaign_explores_and_learns_with_mace(foundation: Path, tmp_path: Path) -> None:
    import yaml

    from alflow.loop import RunLimits, open_campaign, run
    from alflow.loop._committee import latest_committee

    (tmp_path / "tiny.model").write_bytes(foundation.read_bytes())
    committee = {"kind": "mace", "foundation": "tiny.model", "trust_foundation": True, "n_members": 2}
    content = {
        "name": "tiny",
        "elements": ["Ni", "Pt"],
        "theory": {"labeler": "emt"},
        "round0": {"prototypes": ["fcc"], "n_spread": 4, "max_atoms": 4, "n_pool": 1},
        "sources": [{"kind": "enumerate", "max_atoms": 2}, {"kind": "relax", "max_starts": 2, "max_steps": 5}],
        "committee": committee,
        "explorer": {"rounds": 1},
        "training": {"warm_steps": 3},
        "selection": {"batch": 3},
    }
    path = tmp_path / "campaign.yaml"
    path.write_text(yaml.safe_dump(content))
    ctx = open_campaign(path)
    run(ctx, limits=RunLimits(rounds=2))
    rows = ctx.ledger.committees.list(ctx.campaign_id)
    assert [row.spec["kind"] for row in rows] == ["mace"]
    assert "foundation model" in rows[0].metrics["warm_start"]
    stored = latest_committee(ctx)
    assert isinstance(stored, MaceCommittee)
    assert stored.calibration is not None
    rounds = ctx.ledger.rounds.list(ctx.campaign_id)
    assert any(step.name.startswith("explore-relax") for step in ctx.ledger.rounds.steps(rounds[0].id))
    assert rounds[1].summary["assessed"]
