"""Equation of state and elastic constants of a cubic crystal, of any ASE calculator."""

from __future__ import annotations

from dataclasses import asdict, dataclass
from typing import TYPE_CHECKING

import numpy as np
from ase.optimize import BFGS
from ase.units import GPa
from scipy.optimize import brentq

from alflow.errors import UserError

if TYPE_CHECKING:
    from ase import Atoms
    from ase.calculators.calculator import Calculator
    from numpy.typing import NDArray

VOLUMES = np.linspace(0.92, 1.08, 9)
"""Of the equation of state, as factors on the volume of the crystal that is given."""
STRETCH = 0.01
"""Strain along one cubic axis, both ways."""
SHEAR = 0.01
"""Tensor component yz of the shear; the engineering strain is twice as much."""
F_MAX = 0.001
"""Largest force on an atom that counts as relaxed, eV/Å; ten times as much leaves C44 uncertain by more than 1 GPa."""


@dataclass(frozen=True, kw_only=True)
class EquationOfState:
    """Birch-Murnaghan fit of third order: lattice parameter in Å, bulk modulus in GPa."""

    a: float
    bulk_modulus: float


@dataclass(frozen=True, kw_only=True)
class Elastic:
    """Elastic constants of a cubic crystal, GPa; ``c44_clamped`` is C44 with the atoms moved by the strain alone."""

    c11: float
    c12: float
    c44: float
    c44_clamped: float

    @property
    def bulk_modulus(self) -> float:
        """(C11 + 2 C12) / 3, GPa: the equation of state should agree."""
        return (self.c11 + 2 * self.c12) / 3


@dataclass(frozen=True, kw_only=True, eq=False)
class Crystal:
    """What one calculator says about a cubic crystal; energies in eV/atom at the volumes of :func:`scan`."""

    energies: NDArray[np.float64]
    state: EquationOfState
    elastic: Elastic

    def numbers(self) -> dict[str, float]:
        """All numbers by name, Å and GPa."""
        elastic = {**asdict(self.elastic), "bulk_modulus": self.elastic.bulk_modulus}
        return {"a": self.state.a, "bulk_modulus_eos": self.state.bulk_modulus, **elastic}


def scan(atoms: Atoms) -> list[Atoms]:
    """The crystal at the volumes of the equation of state."""
    return [scaled(atoms, factor ** (1 / 3)) for factor in VOLUMES]


def scaled(atoms: Atoms, factor: float) -> Atoms:
    """A copy whose lengths are multiplied by a factor."""
    return deformed(atoms, (factor - 1) * np.eye(3))


def deformed(atoms: Atoms, strain: NDArray[np.float64]) -> Atoms:
    """A copy with cell → cell @ (1 + strain), the atoms with it."""
    copy = atoms.copy()
    copy.set_cell(atoms.cell.array @ (np.eye(3) + strain), scale_atoms=True)
    return copy


def birch_murnaghan(volumes: NDArray[np.float64], energies: NDArray[np.float64]) -> np.polynomial.Polynomial:
    """Fit of energies as a cubic polynomial in x = V^(-2/3): the third order of the Eulerian strain.

    F. Birch, Phys. Rev. 71, 809 (1947).
    """
    return np.polynomial.Polynomial.fit(volumes ** (-2 / 3), energies, 3)


def at_rest(volumes: NDArray[np.float64], energies: NDArray[np.float64]) -> tuple[float, float]:
    """Volume of lowest energy and bulk modulus V d²E/dV² there, in the units given.

    Raises
    ------
    UserError
        if the lowest energy lies at an end of the range, so that there is nothing to fit
    """
    if int(np.argmin(energies)) in {0, len(energies) - 1}:
        raise UserError("the energy has no minimum between the smallest and the largest volume of the scan")
    polynomial = birch_murnaghan(volumes, energies)
    x0 = brentq(polynomial.deriv(), volumes.max() ** (-2 / 3), volumes.min() ** (-2 / 3))
    v0 = x0**-1.5
    # d²E/dV² = d²E/dx² (dx/dV)² where dE/dx = 0
    return v0, v0 * float(polynomial.deriv(2)(x0)) * (2 / 3 * v0 ** (-5 / 3)) ** 2


def equation_of_state(atoms: Atoms, a: float, energies: NDArray[np.float64]) -> EquationOfState:
    """Fit energies (eV/atom) at the volumes of :func:`scan`; ``a`` is the lattice parameter of ``atoms``, Å."""
    per_atom = atoms.get_volume() / len(atoms)
    v0, modulus = at_rest(VOLUMES * per_atom, energies)
    return EquationOfState(a=a * (v0 / per_atom) ** (1 / 3), bulk_modulus=modulus / GPa)


def elastic_constants(atoms: Atoms, calculator: Calculator) -> Elastic:
    """Elastic constants of a cubic crystal at rest whose cubic axes are x, y and z, from stresses.

    σ_ij = C_ijkl ε_kl with ASE's sign of the stress. The stretch goes both ways, so that neither a small stress of the
    crystal "at rest" nor the second order in the strain count; for the shear both ways are the same by symmetry. After
    every strain the atoms relax.
    """
    stretch = np.diag([STRETCH, 0.0, 0.0])
    up, down = (relaxed_stress(deformed(atoms, sign * stretch), calculator) for sign in (1, -1))
    slope = (up - down) / (2 * STRETCH)
    shear = np.zeros((3, 3))
    shear[1, 2] = shear[2, 1] = SHEAR
    sheared = deformed(atoms, shear)
    sheared.calc = calculator
    clamped = sheared.get_stress(voigt=False)
    relaxed = relaxed_stress(sheared, calculator)
    return Elastic(
        c11=slope[0, 0] / GPa,
        c12=(slope[1, 1] + slope[2, 2]) / 2 / GPa,
        c44=relaxed[1, 2] / (2 * SHEAR) / GPa,
        c44_clamped=clamped[1, 2] / (2 * SHEAR) / GPa,
    )


def relaxed_stress(atoms: Atoms, calculator: Calculator) -> NDArray[np.float64]:
    """(3, 3) stress, eV/Å³, after the atoms have moved to rest in their cell; raises UserError where they do not."""
    atoms.calc = calculator
    if not BFGS(atoms, logfile=None, alpha=30.0).run(fmax=F_MAX, steps=30):
        raise UserError(f"{atoms.get_chemical_formula()} did not come to rest within 30 steps of the relaxation")
    stress: NDArray[np.float64] = atoms.get_stress(voigt=False)
    return stress


def describe(atoms: Atoms, a: float, calculator: Calculator) -> Crystal:
    """Equation of state of a crystal with the lattice parameter ``a`` (Å), and elastic constants where it rests."""
    energies = []
    for image in scan(atoms):
        image.calc = calculator
        energies.append(image.get_potential_energy() / len(image))
    state = equation_of_state(atoms, a, np.array(energies))
    return Crystal(
        energies=np.array(energies),
        state=state,
        elastic=elastic_constants(scaled(atoms, state.a / a), calculator),
    )
