"""The example with GPAW, without GPAW: its files are valid, and its script is right about potentials that are known."""

from __future__ import annotations

import importlib.util
import re
import shlex
import sys
from collections.abc import Iterator
from pathlib import Path
from types import ModuleType
from typing import Any

import numpy as np
import pytest
import yaml
from ase import Atoms
from ase.build import bulk
from ase.calculators.calculator import Calculator
from ase.calculators.emt import EMT
from ase.calculators.tersoff import Tersoff, TersoffParameters
from ase.eos import EquationOfState
from ase.io import write
from ase.optimize import BFGS
from ase.units import GPa

from alflow.config import load_campaign
from alflow.errors import NotFoundError, UserError
from alflow.labelers import GpawLabeler, get_labeler, load_worker_config
from alflow.ledger import open_ledger
from alflow.loop import open_campaign, run
from tests.test_docs import check_alflow

ROOT = Path(__file__).parents[2]
FOLDER = ROOT / "examples" / "silicon-gpaw"


@pytest.fixture(scope="module")
def properties() -> Iterator[ModuleType]:
    """The script, with its folder on the path as where it is started."""
    spec = importlib.util.spec_from_file_location("silicon_properties", FOLDER / "properties.py")
    assert spec is not None
    assert spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    with pytest.MonkeyPatch.context() as patch:
        patch.syspath_prepend(FOLDER)
        patch.setitem(sys.modules, spec.name, module)  # dataclasses look their module up
        spec.loader.exec_module(module)
        yield module
        del sys.modules["mechanics"]


def tersoff() -> Calculator:
    """Silicon of J. Tersoff, Phys. Rev. B 38, 9902 (1988)."""
    silicon = TersoffParameters(
        m=3,
        gamma=1.0,
        lambda3=0.0,
        c=100390.0,
        d=16.217,
        h=-0.59825,
        n=0.78734,
        beta=1.1e-6,
        lambda2=1.73222,
        B=471.18,
        R=2.85,
        D=0.15,
        lambda1=2.4799,
        A=1830.8,
    )
    return Tersoff({("Si", "Si", "Si"): silicon})


def test_the_files_of_the_example_are_valid() -> None:
    campaign = load_campaign(FOLDER / "campaign.yaml").config
    worker = load_worker_config(FOLDER / "alflow-worker.yaml", directory=FOLDER)
    labeler = get_labeler(campaign.theory.labeler, dict(campaign.theory.settings), worker=worker, directory=FOLDER)
    assert isinstance(labeler, GpawLabeler)
    assert campaign.elements == ("Si",)
    assert campaign.budget.labels is not None


def test_the_commands_of_the_example_exist() -> None:
    blocks = re.findall(r"^```sh\n(.*?)^```", (FOLDER / "README.md").read_text(), re.MULTILINE | re.DOTALL)
    commands = [shlex.split(line, comments=True) for block in blocks for line in block.splitlines()]
    mine = [words[1:] for words in commands if words[:1] == ["alflow"]]
    assert len(mine) >= 3
    for words in mine:
        check_alflow(words)


def relaxed_energy(atoms: Atoms, strain: np.ndarray) -> float:
    image = atoms.copy()
    image.set_cell(atoms.cell.array @ (np.eye(3) + strain), scale_atoms=True)
    image.calc = tersoff()
    assert BFGS(image, logfile=None).run(fmax=1e-5, steps=200)
    return float(image.get_potential_energy())


def test_stresses_give_the_elastic_constants_that_energies_give(properties: ModuleType) -> None:
    """C = (1/V) d²E/dε²; the published values of this potential are 143, 75 and 69 GPa, and 119 without relaxation."""
    found = properties.describe(bulk("Si", a=5.45), 5.45, tersoff())
    assert found.state.a == pytest.approx(5.432, abs=0.001)
    assert found.state.bulk_modulus == pytest.approx(97.8, abs=0.5)
    elastic = found.elastic
    assert elastic.bulk_modulus == pytest.approx(found.state.bulk_modulus, rel=0.01)
    assert elastic.c44_clamped == pytest.approx(119, abs=1)

    atoms = bulk("Si", a=found.state.a)

    def curvature(strain: list[list[float]]) -> float:
        h = 0.005
        up, rest, down = (relaxed_energy(atoms, s * np.array(strain)) for s in (h, 0.0, -h))
        return float((up - 2 * rest + down) / h**2 / atoms.get_volume() / GPa)

    c11 = curvature([[1, 0, 0], [0, 0, 0], [0, 0, 0]])
    c11_and_c12 = curvature([[1, 0, 0], [0, 1, 0], [0, 0, 0]]) / 2
    c44 = curvature([[0, 0, 0], [0, 0, 1], [0, 1, 0]]) / 4
    assert (elastic.c11, elastic.c12, elastic.c44) == pytest.approx((c11, c11_and_c12 - c11, c44), rel=0.01)
    assert (c11, c44) == pytest.approx((143, 69), abs=1)


def test_the_fit_is_that_of_ase(properties: ModuleType) -> None:
    images = properties.scan(bulk("Cu", a=3.6))
    volumes = np.array([image.get_volume() for image in images])
    energies = []
    for image in images:
        image.calc = EMT()
        energies.append(image.get_potential_energy())
    v0, _, modulus = EquationOfState(volumes, energies, eos="birchmurnaghan").fit()
    assert properties.at_rest(volumes, np.array(energies)) == pytest.approx((v0, modulus), rel=1e-4)


def test_a_scan_without_a_minimum_is_refused(properties: ModuleType) -> None:
    with pytest.raises(UserError, match="no minimum"):
        properties.at_rest(np.linspace(10, 12, 9), np.linspace(-1, -2, 9))


@pytest.fixture
def campaign(tmp_path: Path, properties: ModuleType) -> Path:
    """A campaign on copper in which one structure of the scan around 3.58 Å is labelled as training data."""
    write(tmp_path / "given.extxyz", properties.scan(bulk("Cu", a=3.58))[3], format="extxyz")
    path = tmp_path / "campaign.yaml"
    settings: dict[str, Any] = {
        "name": "copper",
        "elements": ["Cu"],
        "theory": {"labeler": "emt"},
        "round0": {
            "prototypes": ["fcc"],
            "reference_volumes": [0.9, 1.0, 1.1],
            "parents": ["fcc"],
            "n_spread": 12,
            "n_pool": 1,
            "max_atoms": 4,
        },
        "sources": [{"kind": "files", "paths": ["given.extxyz"]}, {"kind": "perturb", "n": 6, "min_atoms": 2}],
        "committee": {"n_members": 2, "channels": 4, "n_layers": 1, "l_max": 2},
        "training": {"steps": 150, "warm_steps": 50},
        "budget": {"labels": 18},
    }
    path.write_text(yaml.safe_dump(settings))
    return path


def test_the_comparison_pays_once_and_holds_out_what_it_pays(
    campaign: Path, properties: ModuleType, capsys: pytest.CaptureFixture[str]
) -> None:
    with pytest.raises(NotFoundError, match="alflow run"):
        properties.compare(campaign, bulk("Cu", a=3.6), 3.6)
    ctx = open_campaign(campaign)
    run(ctx)
    labels = {label.id for label in ctx.ledger.labels.accepted(ctx.theory.id, ctx.campaign_id)}
    ctx.ledger.close()

    output = campaign.parent / "output"
    words = [str(campaign), "--output", str(output), "--element", "Cu", "--structure", "fcc", "--a", "3.6"]
    first = properties.main(words)
    exact = properties.describe(bulk("Cu", "fcc", a=3.6), 3.6, EMT())
    assert first.theory.numbers() == pytest.approx(exact.numbers(), rel=1e-6)
    assert first.committee.numbers()["a"] == pytest.approx(exact.numbers()["a"], abs=0.1)
    assert len(first.members) == 2
    assert first.paid == first.labels == 12, "nine volumes, two stretches, one shear that needs no relaxation"
    assert (output / "properties.png").stat().st_size > 10_000
    assert "C44" in capsys.readouterr().out

    again = properties.main(words)
    assert again.paid == 0
    assert again.rows() == first.rows()
    with open_ledger(f"sqlite:///{campaign.parent / 'campaign.db'}") as ledger:
        theory = ledger.theories.list()[0].id
        reference = {label.id for label in ledger.labels.accepted(theory, ledger.campaigns.get("copper-reference").id)}
        assert len(reference) == 12
        assert not reference & labels
        assert {label.id for label in ledger.labels.accepted(theory, ledger.campaigns.get("copper").id)} == labels
        assert ledger.check() == []

    with pytest.raises(UserError, match="training data"):
        properties.compare(campaign, bulk("Cu", a=3.58), 3.58)
