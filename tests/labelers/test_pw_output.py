"""Outputs of pw.x 6.7, recorded and shortened: two crystals, and everything that a run can leave unsaid."""

from __future__ import annotations

import shutil
from pathlib import Path

import numpy as np
import pytest
from ase import Atoms
from ase.units import Bohr, Hartree, Rydberg

from alflow.errors import FailureKind, LabelFailure
from alflow.labelers._pw_output import read_numbers, read_text, version_in, version_numbers
from alflow.structures import Structure

RECORDED = Path(__file__).parent / "pw"
SILICON = Structure.from_atoms(
    Atoms(
        "Si2",
        cell=[[0, 2.7, 2.7], [2.7, 0, 2.7], [2.7, 2.7, 0]],
        positions=[[0.1, 0, 0.05], [1.35, 1.35, 1.35]],
        pbc=True,
    )
)
NICKEL = Structure.from_atoms(
    Atoms("Ni2", cell=[2.5, 2.5, 3.5], positions=[[0.1, 0, 0], [1.25, 1.25, 1.75]], magmoms=[2, 1], pbc=True)
)
ERROR = """
 %%%%%%%%%%%%%%%%%%%%%%%%%%%%%%%%%%%%%%%%%%%%%%%%%%%%%%%%%%%%%%%%%%%%%%%%%%%%%%
     Error in routine {routine} (1):
     {message}
 %%%%%%%%%%%%%%%%%%%%%%%%%%%%%%%%%%%%%%%%%%%%%%%%%%%%%%%%%%%%%%%%%%%%%%%%%%%%%%

     stopping ...
"""


def run_folder(folder: Path, name: str) -> Path:
    (folder / "out").mkdir(parents=True)
    shutil.copy(RECORDED / f"{name}.out", folder / "pw.out")
    shutil.copy(RECORDED / f"{name}.xml", folder / "out" / "pwscf.xml")
    return folder


def test_the_text_of_a_good_run() -> None:
    text = read_text(RECORDED / "si.out")
    assert (text.version, text.iterations, text.energy, text.done) == ("6.7MaX", 9, -15.65210736, True)
    assert text.failure is None
    assert text.moments is None
    assert text.md5 == {"a974d1b8727157e37210f3f86afb6210"}
    assert text.scf_correction == pytest.approx(4e-6 * Rydberg / Bohr)


def test_moments_are_read_per_atom() -> None:
    moments = read_text(RECORDED / "ni.out").moments
    assert moments is not None
    assert moments.tolist() == [0.8643, 0.8642]


def test_moments_as_later_versions_print_them(tmp_path: Path) -> None:
    lines = "     Magnetic moment per site  (integrated on atomic sphere of radius R)\n"
    lines += (
        "     atom   1 (R=0.357)  charge=  7.4945  magn=  2.9102\n     atom   2 (R=0.357)  charge=  7.5  magn= -2.91\n"
    )
    (tmp_path / "pw.out").write_text(lines + "\n     total energy\n")
    moments = read_text(tmp_path / "pw.out").moments
    assert moments is not None
    assert moments.tolist() == [2.9102, -2.91]


def test_the_numbers_are_in_our_units_and_signs(tmp_path: Path) -> None:
    numbers = read_numbers(run_folder(tmp_path, "si"), SILICON)
    assert numbers.converged
    assert numbers.iterations == 9
    assert numbers.energy == pytest.approx(-15.65210736 * Rydberg, abs=2e-7)
    assert numbers.smearing == pytest.approx(-0.00218737 * Rydberg, abs=2e-7)
    assert np.abs(numbers.structure.positions - SILICON.positions).max() < 1e-8
    assert np.abs(numbers.structure.cell - SILICON.cell).max() < 1e-8
    assert numbers.structure.numbers.tolist() == [14, 14]
    assert numbers.forces is not None
    assert np.sqrt((numbers.forces**2).sum()) == pytest.approx(0.040468 * Rydberg / Bohr, abs=2e-5)
    # The atoms are too near to each other, 2.25 Å in place of 2.35: they push apart, and along the short bond.
    bond = SILICON.positions[1] - SILICON.positions[0]
    assert numbers.forces[0] @ bond < 0 < numbers.forces[1] @ bond
    assert numbers.stress is not None
    assert numbers.total_moment is None


def test_species_with_a_digit_are_elements_again(tmp_path: Path) -> None:
    numbers = read_numbers(run_folder(tmp_path, "ni"), NICKEL)
    assert numbers.structure.numbers.tolist() == [28, 28]
    assert numbers.total_moment == pytest.approx(1.5579, abs=1e-4)
    assert numbers.stress is not None
    # Compressed: it wants to grow, which is a negative stress here and a positive one in pw.x.
    assert (np.diag(numbers.stress) < 0).all()
    assert numbers.stress[2, 2] == pytest.approx(-5.757155873330616e-4 * Hartree / Bohr**3)


def test_atoms_come_in_the_order_of_their_index(tmp_path: Path) -> None:
    folder = run_folder(tmp_path, "ni")
    path = folder / "out" / "pwscf.xml"
    lines = path.read_text().splitlines()
    atoms = [i for i, line in enumerate(lines) if "<atom " in line]
    lines[atoms[0]], lines[atoms[1]] = lines[atoms[1]], lines[atoms[0]]
    path.write_text("\n".join(lines))
    assert np.abs(read_numbers(folder, NICKEL).structure.positions - NICKEL.positions).max() < 1e-8


def test_later_versions_leave_out_what_does_not_apply(tmp_path: Path) -> None:
    folder = run_folder(tmp_path, "si")
    path = folder / "out" / "pwscf.xml"
    text = path.read_text()
    start, end = text.index("<magnetization>"), text.index("</magnetization>")
    text = text[:start] + "<magnetization><do_magnetization>false</do_magnetization>" + text[end:]
    path.write_text("\n".join(line for line in text.splitlines() if "<demet>" not in line))
    numbers = read_numbers(folder, SILICON)
    assert numbers.total_moment is None
    assert numbers.smearing == 0.0


def test_a_copy_of_the_numbers_will_do(tmp_path: Path) -> None:
    folder = run_folder(tmp_path, "si")
    (folder / "out" / "pwscf.save").mkdir()
    (folder / "out" / "pwscf.xml").rename(folder / "out" / "pwscf.save" / "data-file-schema.xml")
    assert read_numbers(folder, SILICON).converged


@pytest.mark.parametrize("share", [0.0, 0.3, 0.6, 0.95])
def test_numbers_that_were_cut_off_are_none(tmp_path: Path, share: float) -> None:
    folder = run_folder(tmp_path, "si")
    path = folder / "out" / "pwscf.xml"
    text = path.read_text()
    path.write_text(text[: int(share * len(text))])
    with pytest.raises(LabelFailure, match="damaged") as caught:
        read_numbers(folder, SILICON)
    assert caught.value.kind is FailureKind.TRUNCATED


@pytest.mark.parametrize("gone", ["<etot>", "<n_scf_steps>", "<a2>", "<functional>"])
def test_numbers_without_a_part_are_none(tmp_path: Path, gone: str) -> None:
    folder = run_folder(tmp_path, "si")
    path = folder / "out" / "pwscf.xml"
    path.write_text("\n".join(line for line in path.read_text().splitlines() if gone not in line))
    with pytest.raises(LabelFailure, match=f"it has no .*{gone[1:-1]}") as caught:
        read_numbers(folder, SILICON)
    assert caught.value.kind is FailureKind.TRUNCATED


def test_no_numbers_at_all(tmp_path: Path) -> None:
    with pytest.raises(LabelFailure, match=r"wrote no out/pwscf\.xml"):
        read_numbers(tmp_path, SILICON)


@pytest.mark.parametrize(
    ("routine", "message", "kind"),
    [
        ("readpp", "file ./pseudo/Si.UPF not found", FailureKind.MISSING_FILE),
        ("c_bands", "too many bands are not converged", FailureKind.NOT_CONVERGED),
        ("laxlib_cdiaghg", "S matrix not positive definite", FailureKind.NOT_CONVERGED),
        ("sym_rho_init_shell", "lone vector", FailureKind.NOT_CONVERGED),
        ("check_atoms", "atoms #   1 and #   2 overlap!", FailureKind.CRASHED),
    ],
)
def test_errors_are_typed(tmp_path: Path, routine: str, message: str, kind: FailureKind) -> None:
    (tmp_path / "pw.out").write_text(
        "     Program PWSCF v.7.3.1 starts\n" + ERROR.format(routine=routine, message=message)
    )
    failure = read_text(tmp_path / "pw.out").failure
    assert failure is not None
    assert failure.kind is kind
    assert message in failure.message
    assert routine in failure.message


def test_job_done_is_no_evidence(tmp_path: Path) -> None:
    text = (RECORDED / "si.out").read_text()
    without = text.replace(
        "convergence has been achieved in   9 iterations", "convergence NOT achieved after   9 iterations: stopping"
    )
    (tmp_path / "pw.out").write_text(without)
    read = read_text(tmp_path / "pw.out")
    assert read.done
    assert read.iterations is None
    assert read.failure is not None
    assert read.failure.kind is FailureKind.NOT_CONVERGED


def test_a_missing_text_says_nothing(tmp_path: Path) -> None:
    text = read_text(tmp_path / "pw.out")
    assert (text.version, text.iterations, text.energy, text.done, text.failure) == (None, None, None, False, None)


def test_versions() -> None:
    assert version_in("     Program PWSCF v.6.7MaX starts on 26Nov2026") == "6.7MaX"
    assert version_in("     Program PWSCF v.7.3.1 starts on  1Jan2024") == "7.3.1"
    assert version_in("Segmentation fault") is None
    assert version_numbers("6.7MaX") == version_numbers("v.6.7") == (6, 7)
    assert version_numbers("7.3.1") == (7, 3, 1)
    assert version_numbers("seven") == ()
