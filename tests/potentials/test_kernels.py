"""Compiled kernels: operation by operation, and as a whole, the same as plain torch."""

from __future__ import annotations

import ctypes
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from typing import Any

import numpy as np
import pytest
import torch
from ase import Atoms
from ase.build import bulk

from alflow.equivariant import ChannelwiseProduct, mix_channels, squared_norms
from alflow.potentials import CommitteeSpec, compute_threads
from alflow.potentials._engine import (
    KernelEngine,
    PlainEngine,
)
from alflow.potentials._geometry import VOIGT, EdgeList
from alflow.potentials._kernel_batch import KernelBatch
from alflow.potentials._kernel_network import kernel_shape
from alflow.potentials._network import CommitteeNetwork, Constants, NetworkOutput
from alflow.potentials.kernels import (
    Density,
    KernelShape,
    Message,
    MessageTangent,
    Products,
    collect,
    density,
    density_tangent,
    displace,
    find_compiler,
    load_kernels,
)
from alflow.structures import Structure
from tests.potentials.conftest import cells, odd_ones

needs_compiler = pytest.mark.skipif(find_compiler() is None, reason="no C++ compiler here: plain torch does the work")
SHAPE = KernelShape(l_max=2, l_product=1, l_hidden=1, n_radial=3, single=False)
F64 = torch.float64


@dataclass(frozen=True, kw_only=True, eq=False)
class Case:
    """A network on some structures, by both engines."""

    network: CommitteeNetwork
    numbers: np.ndarray
    edges: list[EdgeList]

    @classmethod
    def of(cls, structures: list[Atoms], spec: CommitteeSpec, elements: list[int]) -> Case:
        rng, numbers = np.random.default_rng(0), np.array(elements)
        constants = Constants(
            scale=1.3,
            neighbours=40.0,
            coordination=5.0,
            cohesion=tuple(float(x) for x in rng.normal(size=len(elements))),
            density=tuple(
                tuple(float(x) for x in row) for row in 0.1 * rng.normal(size=(len(elements), spec.n_radial))
            ),
        )
        edges = [EdgeList.of(Structure.from_atoms(a), numbers, spec.r_max) for a in structures]
        return cls(network=CommitteeNetwork(spec, len(elements), constants), numbers=numbers, edges=edges)

    def weights(self, dtype: torch.dtype = F64) -> torch.Tensor:
        return self.network.layout.initial(self.network.spec.n_members, 0, dtype)

    def compare(self, dtype: torch.dtype = F64) -> Iterator[tuple[str, torch.Tensor, torch.Tensor]]:
        """Energies, forces, virials, features, and gradients by the weights, of the kernels and of plain torch."""
        matrix = self.weights(dtype)
        engines = [make(self.network, self.numbers, dtype) for make in (KernelEngine, PlainEngine)]
        every = np.arange(len(self.edges))
        values: list[NetworkOutput] = []
        gradients = []
        for engine in engines:
            values.append(engine.evaluate(matrix, engine.batch(EdgeList.join(self.edges))))
            leaf = matrix.clone().requires_grad_()
            out = engine.evaluate(leaf, engine.geometry(self.edges).batch(every), training=True)
            noise = torch.Generator().manual_seed(3)
            assert out.forces is not None
            assert out.virial is not None
            loss = torch.stack(
                [
                    (t**2 * torch.randn(t.shape, generator=noise, dtype=dtype)).sum()
                    for t in (out.energy, out.forces, out.virial)
                ]
            ).sum()
            gradients.append(torch.autograd.grad(loss, leaf)[0])
        for name in ("energy", "forces", "virial", "features"):
            yield name, getattr(values[0], name), getattr(values[1], name)
        yield "gradient", gradients[0], gradients[1]


NI_PT = [28, 78]
SHAPES = {
    "default": (CommitteeSpec(), NI_PT),
    "odd sizes": (CommitteeSpec(channels=5, n_members=3, n_radial=3, hidden=7), NI_PT),
    "one layer": (CommitteeSpec(channels=8, n_layers=1), NI_PT),
    "low degrees": (CommitteeSpec(channels=4, l_max=1, l_product=0, n_members=2), NI_PT),
    "high degrees": (CommitteeSpec(channels=8, l_max=4, l_product=3, n_members=2), NI_PT),
    "isotropic": (CommitteeSpec(channels=8, l_max=0, n_members=2), NI_PT),
    "scalar messages": (CommitteeSpec(channels=8, l_max=2, l_hidden=0, n_members=2), NI_PT),
    "second-degree messages": (CommitteeSpec(channels=8, l_max=3, l_product=1, l_hidden=2, n_members=2), NI_PT),
    "many elements": (CommitteeSpec(channels=8, l_max=2, n_members=2), [13, 28, 29, 46, 47, 78, 79]),
}


@needs_compiler
@pytest.mark.parametrize("name", SHAPES)
def test_same_as_plain_torch(name: str) -> None:
    spec, elements = SHAPES[name]
    for what, found, expected in Case.of([*odd_ones(), *cells(5)], spec, elements).compare():
        difference = float((found - expected).abs().max())
        assert difference <= 1e-12 * max(1.0, float(expected.abs().max())), what


@needs_compiler
def test_one_element_and_single_precision() -> None:
    crystals = [bulk("Ni", a=3.4 + 0.1 * k, cubic=True) for k in range(3)]
    for atoms in crystals:
        atoms.positions += np.random.default_rng(len(atoms)).normal(size=(4, 3)) * 0.1
    case = Case.of(crystals, CommitteeSpec(channels=16), [28])
    for what, found, expected in case.compare(torch.float32):
        assert found.dtype == torch.float32
        difference = float((found - expected).abs().max())
        assert difference <= 1e-5 * max(1.0, float(expected.abs().max())), what


@needs_compiler
@pytest.mark.parametrize("threads", [2, 3, 9])
def test_threads_share_the_members(threads: int) -> None:
    case = Case.of(odd_ones(), CommitteeSpec(channels=8, n_members=3), NI_PT)
    engine = KernelEngine(case.network, case.numbers, F64)
    batch, matrix = engine.batch(EdgeList.join(case.edges)), case.weights()

    def everything() -> list[torch.Tensor]:
        leaf = matrix.clone().requires_grad_()
        out = engine.evaluate(leaf, batch, training=True)
        assert out.forces is not None
        assert out.virial is not None
        loss = (out.energy**2).sum() + (out.forces**2).sum() + (out.virial**2).sum()
        only_energy = engine.evaluate(matrix, batch, derivatives=False)
        assert only_energy.forces is None
        return [out.energy, out.forces, out.virial, torch.autograd.grad(loss, leaf)[0], only_energy.energy]

    with compute_threads(1):
        alone = everything()
    with compute_threads(threads):
        shared = everything()
    for one, other in zip(alone, shared, strict=True):
        close(other.detach(), one.detach())


# -- operation by operation --------------------------------------------------------------------------------------------


@pytest.fixture(scope="module")
def small() -> tuple[KernelBatch, CommitteeNetwork, ctypes.CDLL]:
    if find_compiler() is None:
        pytest.skip("no C++ compiler here")
    spec = CommitteeSpec(channels=16, n_members=2, l_max=2, l_product=1, n_radial=3, r_max=3.2)
    case = Case.of([cells(3)[2], odd_ones()[2]], spec, NI_PT)
    batch = KernelBatch.of(EdgeList.join(case.edges), case.numbers, case.network, F64)
    return batch, case.network, load_kernels(kernel_shape(spec, F64))


def random(*shape: int, seed: int = 0) -> torch.Tensor:
    return torch.randn(*shape, generator=torch.Generator().manual_seed(seed), dtype=F64)


def apply(operation: Any, *arguments: Any) -> torch.Tensor:
    result: torch.Tensor = operation.apply(*arguments)
    return result


def with_tangent(function: Callable[..., torch.Tensor], start: Any, turn: Any) -> tuple[torch.Tensor, torch.Tensor]:
    """Value and directional derivative, both differentiable."""
    jvp: Any = torch.autograd.functional.jvp
    value, tangent = jvp(function, start, turn, create_graph=True)
    return value, tangent


def moved(batch: KernelBatch, displacement: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor]:
    """Radial (K, E, n) and angular functions (K, E, S) of displaced edges, to first order."""
    e = batch.edges
    along = (displacement * e.direction).sum(2, keepdim=True)
    return e.radial + along * e.radial_slope, e.angular + (displacement.unsqueeze(2) @ e.angular_slope).squeeze(2)


def centres(batch: KernelBatch) -> torch.Tensor:
    return torch.repeat_interleave(torch.arange(batch.n_atoms), batch.edges.first.diff())


def plain_density(batch: KernelBatch, displacement: torch.Tensor) -> torch.Tensor:
    radial, angular = moved(batch, displacement)
    row = torch.repeat_interleave(torch.arange(batch.edges.n_rows), batch.edges.rows.diff())
    terms = angular.unsqueeze(3) * radial.unsqueeze(2)
    total = terms.new_zeros(len(terms), batch.edges.n_rows, *terms.shape[2:])
    return total.index_add(1, row, terms).transpose(1, 2)


def plain_message(
    batch: KernelBatch,
    displacement: torch.Tensor,
    scalars: torch.Tensor,
    tensors: torch.Tensor,
    own: torch.Tensor,
    weights: torch.Tensor,
) -> torch.Tensor:
    e, (radial, angular), centre = batch.edges, moved(batch, displacement), centres(batch)
    functions = torch.einsum("ken,knlc->kelc", radial, weights)
    degree = torch.tensor([0, 1, 1, 1, 2, 2, 2, 2, 2])
    sent = functions[:, :, degree] * angular.unsqueeze(3) * scalars[:, e.neighbour].unsqueeze(2)
    carried = functions[:, :, 3:4] * tensors[:, :, e.neighbour].transpose(1, 2)
    total = sent.new_zeros(len(sent), batch.n_atoms, *sent.shape[2:]).index_add(1, centre, sent)
    total[:, :, 1:4] += total.new_zeros(len(sent), batch.n_atoms, 3, sent.shape[3]).index_add(1, centre, carried)
    result = total.transpose(1, 2).contiguous()
    result[:, :4] += own
    return result


def message_arguments(batch: KernelBatch, rows: int) -> list[torch.Tensor]:
    c = 16
    return [
        random(2, rows, c, seed=1),
        random(2, 3, rows, c, seed=2),
        random(2, 4, rows, c, seed=3),
        random(2, 3, 4, c, seed=4),
    ]


def close(found: torch.Tensor, expected: torch.Tensor) -> None:
    torch.testing.assert_close(found, expected, rtol=1e-11, atol=1e-11)


@needs_compiler
@pytest.mark.parametrize("l_max", [0, 1, 2, 4, 6])
@pytest.mark.parametrize(("dtype", "least"), [(F64, 1e-13), (torch.float32, 2e-6)])
def test_functions_of_edges(l_max: int, dtype: torch.dtype, least: float) -> None:
    spec = CommitteeSpec(channels=16, n_members=1, l_max=l_max, l_product=min(2, l_max), l_hidden=min(1, l_max))
    shape = kernel_shape(spec, dtype)
    kernels = load_kernels(shape)
    rng = np.random.default_rng(1)
    atoms = bulk("Ni", a=3.6, cubic=True) * (2, 2, 2)
    atoms.symbols[::3] = "Pt"
    atoms.positions += rng.normal(size=atoms.positions.shape) * 0.3
    atoms.positions[1] = atoms.positions[0] + [0.3, 0.0, 0.0]  # distances saturate, and a direction along an axis
    case = Case.of([atoms], spec, NI_PT)
    exact = KernelBatch.of(case.edges[0], case.numbers, case.network, F64).edges
    found = KernelBatch.of(case.edges[0], case.numbers, case.network, dtype, kernels).edges
    assert found.n_edges % 16 != 0, "the last register is not full"
    for name in ("radial", "radial_slope", "angular", "angular_slope", "direction"):
        one, other = getattr(found, name).double(), getattr(exact, name)
        assert one.shape == other.shape
        assert (one - other).abs().max() <= least * max(1.0, float(other.abs().max())), name


def test_forces_and_virials_of_edges_and_the_adjoint(
    small: tuple[KernelBatch, CommitteeNetwork, ctypes.CDLL],
) -> None:
    batch, _, kernels = small
    e, r, centre = batch.edges, batch.vectors, centres(batch)
    assert batch.n_structures == 2
    pull = random(2, e.n_edges, 3)
    forces, virial = collect(pull, e, r, batch.structure, 2, kernels)
    total = torch.zeros(2, batch.n_atoms, 3, dtype=F64)
    close(forces, total.index_add(1, centre, pull).index_add(1, e.neighbour, pull, alpha=-1))
    outer = torch.einsum("ea,keb->keab", r, pull)
    by_structure = torch.zeros(2, 2, 3, 3, dtype=F64).index_add(1, batch.structure[centre], outer)
    close(virial, torch.stack([by_structure[..., a, b] for a, b in VOIGT], dim=2))

    given, strain = random(2, batch.n_atoms, 3, seed=1), random(2, 2, 6, seed=2)
    moved = displace(given, strain, e, r, batch.structure, kernels)
    assert moved.abs().max() > 0.1
    close((moved * pull).sum(), (given * forces).sum() + (strain * virial).sum())
    with pytest.raises(ValueError, match="64 bits"):
        collect(pull, e, r, batch.structure.int(), 2, kernels)


def test_density_and_its_adjoint(small: tuple[KernelBatch, CommitteeNetwork, ctypes.CDLL]) -> None:
    batch, _, kernels = small
    zero = torch.zeros(2, batch.edges.n_edges, 3, dtype=F64)
    weights = random(2, 9, batch.edges.n_rows, 3)
    results = []
    functions: list[Callable[[torch.Tensor], torch.Tensor]] = [
        lambda v: apply(Density, v, batch.edges, kernels),
        lambda v: plain_density(batch, v),
    ]
    for function in functions:
        v = zero.clone().requires_grad_()
        value = function(v)
        results.append((value.detach(), torch.autograd.grad((value * weights).sum(), v)[0]))
    for found, expected in zip(*results, strict=True):
        close(found, expected)


def test_density_tangent(small: tuple[KernelBatch, CommitteeNetwork, ctypes.CDLL]) -> None:
    batch, _, kernels = small
    v = random(2, batch.edges.n_edges, 3)
    expected = with_tangent(lambda x: plain_density(batch, x), (torch.zeros_like(v),), (v,))[1]
    close(density_tangent(batch.edges, v, kernels), expected.contiguous())
    close(density(batch.edges, kernels), plain_density(batch, torch.zeros_like(v))[:1])


def test_message_and_its_adjoint(small: tuple[KernelBatch, CommitteeNetwork, ctypes.CDLL]) -> None:
    batch, _, kernels = small
    scalars, tensors, own, weights = message_arguments(batch, batch.n_atoms)
    given = random(2, 9, batch.n_atoms, 16, seed=5)
    results = []
    for kind in ("kernel", "plain"):
        leaves = [
            t.clone().requires_grad_()
            for t in (torch.zeros(2, batch.edges.n_edges, 3, dtype=F64), scalars, tensors, own)
        ]
        if kind == "kernel":
            value = apply(Message, *leaves, weights, batch.edges, kernels)
        else:
            v, s, h, o = leaves
            value = plain_message(batch, v, s, h, o, weights)
        results.append((value.detach(), *torch.autograd.grad((value * given).sum(), leaves)))
    for found, expected in zip(*results, strict=True):
        close(found, expected)


def test_message_with_tangents_and_its_adjoint(small: tuple[KernelBatch, CommitteeNetwork, ctypes.CDLL]) -> None:
    batch, _, kernels = small
    n = batch.n_atoms
    v = random(2, batch.edges.n_edges, 3)
    arguments, given = message_arguments(batch, 2 * n), random(2, 9, 2 * n, 16, seed=5)

    def plain(scalars: torch.Tensor, tensors: torch.Tensor, own: torch.Tensor, weights: torch.Tensor) -> torch.Tensor:
        def of(v: torch.Tensor, s: torch.Tensor, h: torch.Tensor, o: torch.Tensor) -> torch.Tensor:
            return plain_message(batch, v, s, h, o, weights)

        start = (torch.zeros_like(v), scalars[:, :n], tensors[:, :, :n], own[:, :, :n])
        turn = (v, scalars[:, n:], tensors[:, :, n:], own[:, :, n:])
        return torch.cat(with_tangent(of, start, turn), dim=2)

    results = []
    for function in (lambda *a: apply(MessageTangent, v, *a, batch.edges, kernels), plain):
        leaves = [t.clone().requires_grad_() for t in arguments]
        value = function(*leaves)
        results.append((value.detach(), *torch.autograd.grad((value * given).sum(), leaves)))
    for found, expected in zip(*results, strict=True):
        close(found, expected)


def plain_products(given: torch.Tensor, mix: list[torch.Tensor], out: list[torch.Tensor], top: int) -> torch.Tensor:
    """The products of the plain network, (K, S, N, C) → (K, (top + 1)², N, C)."""
    x = given.transpose(2, 3)
    square, cube = ChannelwiseProduct(2, 2, 1, symmetric=True), ChannelwiseProduct(1, 2, top)
    second = square(x, x)
    mixed = torch.cat([mix_channels(s, w.mT) for s, w in zip(second, mix, strict=True)], dim=1)
    third = cube(mixed, x)
    results = []
    for d in range(top + 1):
        parts = [x[:, d * d : (d + 1) ** 2], second[d], third[d]]
        parts += [squared_norms(mixed, 1).unsqueeze(1)] if d == 0 else []
        results.append(mix_channels(torch.cat(parts, dim=2), out[d].mT))
    return torch.cat(results, dim=1).transpose(2, 3)


@needs_compiler
@pytest.mark.parametrize("top", [0, 1])
@pytest.mark.parametrize("n", [1, 5, 61])
def test_products(top: int, n: int) -> None:
    kernels, c, members = load_kernels(SHAPE), 16, 2
    square, cube = ChannelwiseProduct(2, 2, 1, symmetric=True), ChannelwiseProduct(1, 2, top)
    mix = [random(members, k * c, c, seed=d) for d, k in enumerate(square.n_paths)]
    paths = [1 + square.n_paths[d] + cube.n_paths[d] + (2 if d == 0 else 0) for d in range(top + 1)]
    out = [random(members, k * c, c, seed=9 + d) for d, k in enumerate(paths)]
    weights = [*mix, *out]

    value, tangent = random(members, 9, n, c, seed=20), random(members, 9, n, c, seed=21)
    leaf, other = value.clone().requires_grad_(), value.clone().requires_grad_()
    given = random(members, (top + 1) ** 2, n, c, seed=22)
    results = [apply(Products, leaf, False, top, kernels, *weights), plain_products(other, mix, out, top)]
    close(results[0].detach(), results[1].detach())
    close(*(torch.autograd.grad((r * given).sum(), x)[0] for r, x in zip(results, (leaf, other), strict=True)))

    rows, both = torch.cat([value, tangent], dim=2), random(members, (top + 1) ** 2, 2 * n, c, seed=23)
    found = [t.clone().requires_grad_() for t in (rows, *weights)]
    expected = [t.clone().requires_grad_() for t in (rows, *weights)]
    a = apply(Products, found[0], True, top, kernels, *found[1:])
    start, turn = expected[0].chunk(2, dim=2)
    b = torch.cat(with_tangent(lambda x: plain_products(x, expected[1:3], expected[3:], top), (start,), (turn,)), dim=2)
    close(a.detach(), b.detach())
    gradients = [torch.autograd.grad((r * both).sum(), leaves) for r, leaves in ((a, found), (b, expected))]
    for one, two in zip(*gradients, strict=True):
        torch.testing.assert_close(one, two, rtol=1e-10, atol=1e-9)
