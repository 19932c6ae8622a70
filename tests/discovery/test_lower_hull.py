import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from alflow.discovery import hull_energies, lower_envelope, phase_diagram


def random_entries(
    rng: np.random.Generator, n_elements: int, n: int
) -> tuple[list[dict[str, int]], np.ndarray, np.ndarray]:
    """Compositions with all elements present, their fractions, and energies per atom with a deep offset."""
    symbols = ["Al", "Cu", "Ni", "Pt", "Zr"][:n_elements]
    counts = np.vstack([np.eye(n_elements, dtype=int) * 2, rng.integers(0, 5, (n - n_elements, n_elements))])
    counts[counts.sum(axis=1) == 0, 0] = 1
    fractions = counts / counts.sum(axis=1, keepdims=True)
    energy = fractions @ rng.normal(-1000, 300, n_elements) - 0.5 * (1 - (fractions**2).sum(axis=1)) * rng.random(n)
    compositions = [{s: int(c) for s, c in zip(symbols, row, strict=True) if c} for row in counts]
    return compositions, fractions, energy


@pytest.mark.parametrize("n_elements", [1, 2, 3, 4, 5])
def test_hull_energies_agree_with_pymatgen(n_elements: int) -> None:
    rng = np.random.default_rng(n_elements)
    compositions, fractions, energy = random_entries(rng, n_elements, 60)
    n_atoms = np.array([sum(c.values()) for c in compositions])
    diagram = phase_diagram(compositions, energy * n_atoms)
    reference = [diagram.get_e_above_hull(entry) for entry in diagram.all_entries]
    ours = energy - hull_energies(fractions, energy)[0]
    # pymatgen sorts its entries: match by composition and energy
    expected = {
        (e.composition.formula, round(e.energy, 6)): v for e, v in zip(diagram.all_entries, reference, strict=True)
    }
    from pymatgen.core.composition import Composition

    theirs = [
        expected[Composition(c).formula, round(float(e * m), 6)]
        for c, e, m in zip(compositions, energy, n_atoms, strict=True)
    ]
    np.testing.assert_allclose(ours, theirs, atol=1e-7)
    assert (ours <= 1e-9).sum() >= n_elements


@given(st.lists(st.tuples(st.integers(0, 12), st.floats(-2, 2, allow_subnormal=False)), min_size=2, max_size=40))
@settings(max_examples=60, deadline=None)
def test_lower_envelope_is_convex_and_below_all_points(points: list[tuple[int, float]]) -> None:
    x = np.array([p[0] / 12 for p in points])
    e = np.array([p[1] for p in points])
    vertices = lower_envelope(x, e)
    xv, ev = x[vertices], e[vertices]
    assert (np.diff(xv) > 0).all()
    assert xv[0] == x.min()
    assert xv[-1] == x.max()
    assert (np.interp(x, xv, ev) <= e + 1e-9).all()
    if len(xv) > 2:
        assert (np.diff(np.diff(ev) / np.diff(xv)) > -1e-9).all()


def test_a_point_on_a_tie_line_is_no_vertex_and_polymorphs_count_once() -> None:
    x = np.array([0.0, 0.5, 1.0, 0.5, 0.25])
    e = np.array([0.0, -1.0, 0.0, -0.8, -0.5])
    assert lower_envelope(x, e).tolist() == [0, 1, 2]
    assert hull_energies(np.column_stack([1 - x, x]), e)[0].tolist() == pytest.approx([0.0, -1.0, 0.0, -1.0, -0.5])


@given(st.integers(0, 2**32 - 1), st.integers(2, 4))
@settings(max_examples=25, deadline=None)
def test_a_plane_added_to_the_energies_moves_the_hull_with_it(seed: int, n_elements: int) -> None:
    rng = np.random.default_rng(seed)
    _, fractions, energy = random_entries(rng, n_elements, 25)
    potentials = rng.normal(0, 5, n_elements)
    before = energy - hull_energies(fractions, energy)[0]
    after = energy + fractions @ potentials - hull_energies(fractions, energy + fractions @ potentials)[0]
    np.testing.assert_allclose(after, before, atol=1e-7)
    assert (before >= -1e-12).all()


def test_a_missing_element_and_a_flat_energy_are_no_problem() -> None:
    fractions = np.array([[0.5, 0.5, 0.0], [0.5, 0.0, 0.5], [0.5, 0.25, 0.25]])
    np.testing.assert_allclose(hull_energies(fractions, [0.0, 0.0, 1.0]), [[0.0, 0.0, 0.0]], atol=1e-12)
    flat = np.eye(3)
    np.testing.assert_allclose(hull_energies(flat, [3.0, 3.0, 3.0]), [[3.0, 3.0, 3.0]], atol=1e-12)


def test_members_are_independent() -> None:
    rng = np.random.default_rng(1)
    _, fractions, energy = random_entries(rng, 3, 40)
    members = np.stack([energy, energy + 0.1 * rng.normal(size=40)])
    both = hull_energies(fractions, members)
    np.testing.assert_array_equal(both[1], hull_energies(fractions, members[1])[0])
