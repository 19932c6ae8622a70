"""Who evaluates the network: plain torch, or compiled kernels where this machine has them and they agree."""

from __future__ import annotations

import logging
from collections.abc import Sequence
from functools import cache
from typing import TYPE_CHECKING, Protocol, TypeAlias

import numpy as np
import torch

from alflow.equivariant import n_components
from alflow.native import SWITCH, KernelsUnavailableError, find_compiler, kernels_wanted
from alflow.potentials._device import spare_bytes, wanted_device, warn_of_tf32
from alflow.potentials._geometry import (
    AtomTable,
    EdgeBatch,
    EdgeFunctions,
    EdgeList,
    PairTable,
    SummedBatch,
    n_features,
)
from alflow.potentials._kernel_batch import KernelBatch
from alflow.potentials._kernel_network import KernelNetwork
from alflow.potentials._network import CommitteeNetwork, Constants, NetworkOutput

if TYPE_CHECKING:
    from numpy.typing import NDArray

    from alflow.potentials._spec import CommitteeSpec

KEPT_BYTES = 2**30
"""Up to this much memory the geometry of all training structures is kept."""
AGREEMENT = {torch.float32: 1e-4, torch.float64: 1e-9}
"""Largest difference from the plain network, of the largest magnitude, with which kernels are used."""

DTYPES = {"float32": torch.float32, "float64": torch.float64}

log = logging.getLogger("alflow.potentials")

Batch: TypeAlias = "SummedBatch | EdgeBatch | KernelBatch"


class Geometry(Protocol):
    """Structures made ready for many batches."""

    def batch(self, indices: NDArray[np.int64]) -> Batch:
        """The given structures side by side."""
        ...


class Engine(Protocol):
    """Evaluates one network for weights (K, P)."""

    @property
    def chunk_atoms(self) -> int:
        """Atoms that are best evaluated together."""
        ...

    @property
    def edge_bytes(self) -> int:
        """Rough bound of the memory that one edge takes."""
        ...

    @property
    def spare_bytes(self) -> int | None:
        """Memory that one evaluation may take on a GPU; None on a CPU."""
        ...

    def batch(self, edges: EdgeList) -> Batch:
        """Structures made ready for one evaluation."""
        ...

    def geometry(self, edges: Sequence[EdgeList]) -> Geometry:
        """Structures made ready for a training."""
        ...

    def evaluate(
        self, matrix: torch.Tensor, batch: Batch, *, training: bool = False, derivatives: bool = True
    ) -> NetworkOutput:
        """Energies, forces, virials; see :meth:`CommitteeNetwork.evaluate`."""
        ...


def choose_engine(network: CommitteeNetwork, numbers: NDArray[np.int64], dtype: torch.dtype) -> Engine:
    """Kernels where they can be had and agree with the plain network, else plain torch, with a notice why.

    Raises
    ------
    PotentialError
        if ``ALFLOW_DEVICE`` names no device, or one that is not there
    UserError
        if ``ALFLOW_KERNELS`` has no meaning
    """
    device = wanted_device()
    if device.type != "cpu" or not kernels_wanted():
        return PlainEngine(network, numbers, dtype, device)
    reason = why_no_kernels(network.spec, dtype)
    if reason is None:
        return KernelEngine(network, numbers, dtype)
    _say_once(reason)
    return PlainEngine(network, numbers, dtype)


@cache
def _say_once(reason: str) -> None:
    log.warning("training and prediction use plain torch, several times slower: %s", reason)


@cache
def why_no_kernels(spec: CommitteeSpec, dtype: torch.dtype) -> str | None:
    """Why networks of this shape are evaluated without kernels here; None if they are evaluated with them."""
    try:
        difference = compare_engines(spec, dtype)
    except KernelsUnavailableError as error:
        return str(error)
    if difference <= AGREEMENT[dtype]:
        return None
    return f"compiled kernels are off by {difference:.1g} from the plain network on this machine"


def kernel_state(spec: CommitteeSpec) -> tuple[bool, str]:
    """Whether networks of this shape use kernels on this machine, and a sentence about it; compiles them if need be.

    Raises
    ------
    PotentialError
        if ``ALFLOW_DEVICE`` names no device, or one that is not there
    UserError
        if ``ALFLOW_KERNELS`` has no meaning
    """
    device = wanted_device()
    if device.type != "cpu":
        return True, f"plain torch on {torch.cuda.get_device_name(device)}"
    if not kernels_wanted():
        return False, f"plain torch, for {SWITCH} is off"
    reason = why_no_kernels(spec, DTYPES[spec.dtype])
    if reason is None:
        return True, f"compiled kernels ({find_compiler()})"
    return False, f"plain torch, several times slower: {reason}"


def compare_engines(spec: CommitteeSpec, dtype: torch.dtype) -> float:
    """Largest difference of energies, forces, virials and weight gradients between both, of the largest magnitude.

    It is nan where one of them is no number.

    Raises
    ------
    KernelsUnavailableError
        if there are no kernels
    """
    rng = np.random.default_rng(1)
    numbers, size = np.array([6, 14]), 5
    density = tuple(tuple(float(x) for x in row) for row in rng.normal(size=(2, spec.n_radial)))
    constants = Constants(scale=1.0, neighbours=4.0, coordination=1.0, cohesion=(0.5, -0.5), density=density)
    network = CommitteeNetwork(spec.model_copy(update={"n_members": min(spec.n_members, 2)}), 2, constants)
    centres, neighbours = np.nonzero(~np.eye(size, dtype=bool))
    positions = rng.uniform(size=(size, 3)) * 0.6 * spec.r_max
    edges = EdgeList(
        atoms=AtomTable(species=np.arange(size) % 2, numbers=numbers[np.arange(size) % 2], counts=np.array([2, 3])),
        centres=centres,
        neighbours=neighbours,
        vectors=positions[neighbours] - positions[centres],
    )
    found = []
    matrix = network.layout.initial(network.spec.n_members, 0, dtype)
    for engine in (KernelEngine(network, numbers, dtype), PlainEngine(network, numbers, dtype)):
        leaf = matrix.clone().requires_grad_()
        out = engine.evaluate(leaf, engine.batch(edges), training=True)
        assert out.forces is not None
        assert out.virial is not None
        loss = (out.energy**2).sum() + (out.forces**2).sum() + (out.virial**2).sum()
        (gradient,) = torch.autograd.grad(loss, leaf)
        found.append([t.detach() for t in (out.energy, out.forces, out.virial, gradient)])
    # unlike max(), this is nan where anything is: no agreement
    return float(torch.stack([(a - b).abs().max() / b.abs().max() for a, b in zip(*found, strict=True)]).max())


class PlainEngine:
    """Plain torch: the definition of the network, on any device.

    Lists of edges are made on the CPU, everything that has to do with their vectors on the device. What comes out is
    back on the CPU, also its way for gradients.
    """

    def __init__(
        self,
        network: CommitteeNetwork,
        numbers: NDArray[np.int64],
        dtype: torch.dtype,
        device: torch.device | None = None,
    ) -> None:
        self.network, self.numbers, self.dtype = network, numbers, dtype
        self.device = device or torch.device("cpu")
        # on a CPU large enough for the matrix products and small enough for the caches
        self.chunk_atoms = 96 if self.device.type == "cpu" else 4096
        self.edge_bytes = _edge_numbers(network.spec, self.device) * dtype.itemsize
        warn_of_tf32(self.device)

    @property
    def spare_bytes(self) -> int | None:
        """Three quarters of what is free on a GPU."""
        return spare_bytes(self.device)

    def batch(self, edges: EdgeList) -> EdgeBatch:
        """Structures made ready for one evaluation."""
        pairs, edge_pair = PairTable.of(edges)
        functions = EdgeFunctions.of(edges, self.numbers, self.network.spec, self.dtype, self.device)
        return EdgeBatch(edges, pairs, edge_pair, functions)

    def geometry(self, edges: Sequence[EdgeList]) -> Geometry:
        """Structures made ready for a training."""
        return PlainGeometry(edges, self.numbers, self.network.spec, self.dtype, self.device)

    def evaluate(
        self, matrix: torch.Tensor, batch: Batch, *, training: bool = False, derivatives: bool = True
    ) -> NetworkOutput:
        """See :meth:`CommitteeNetwork.evaluate`."""
        assert not isinstance(batch, KernelBatch)
        views = self.network.layout.split(matrix.to(self.device))
        out = self.network.evaluate(views, batch, training=training, derivatives=derivatives)
        return NetworkOutput(
            energy=out.energy.cpu(),
            forces=None if out.forces is None else out.forces.cpu(),
            virial=None if out.virial is None else out.virial.cpu(),
            features=out.features.cpu(),
        )


def _edge_numbers(spec: CommitteeSpec, device: torch.device) -> int:
    """Numbers that one edge takes at most in a prediction."""
    members, features = spec.n_members, n_features(spec)
    if device.type == "cpu":
        return 4 * members * features
    # The peak of 10^5 atoms of silicon on an H200, committees of 1 and 4 members of 16 and 32 channels, is 0.6 of this:
    # functions of edges, their gradients, and for every channel the products of components of an atom with 20 edges.
    return (5 * members + 2) * features + members * spec.channels * n_components(spec.l_max) ** 2 // 10


class KernelEngine:
    """Compiled kernels on a CPU."""

    chunk_atoms = 256
    spare_bytes: int | None = None

    def __init__(self, network: CommitteeNetwork, numbers: NDArray[np.int64], dtype: torch.dtype) -> None:
        self.network, self.numbers, self.dtype = KernelNetwork(network, dtype), numbers, dtype
        functions = 4 * (network.spec.l_max + 1) ** 2 + 2 * network.spec.n_radial + 6
        self.edge_bytes = 2 * (functions + 9 * network.spec.n_members) * dtype.itemsize

    def batch(self, edges: EdgeList) -> KernelBatch:
        """Structures made ready for one evaluation."""
        return KernelBatch.of(edges, self.numbers, self.network.plain, self.dtype, self.network.kernels)

    def geometry(self, edges: Sequence[EdgeList]) -> Geometry:
        """Structures made ready for a training."""
        return KernelGeometry(self, edges)

    def evaluate(
        self, matrix: torch.Tensor, batch: Batch, *, training: bool = False, derivatives: bool = True
    ) -> NetworkOutput:
        """See :meth:`CommitteeNetwork.evaluate`."""
        assert isinstance(batch, KernelBatch)
        return self.network.evaluate(matrix, batch, training=training, derivatives=derivatives)


class PlainGeometry:
    """Pairs of every structure, with the slopes summed over images as long as these fit into memory.

    Where they do not, the functions of the edges are kept on a CPU, and evaluated again and again on a GPU.
    """

    def __init__(
        self,
        edges: Sequence[EdgeList],
        numbers: NDArray[np.int64],
        spec: CommitteeSpec,
        dtype: torch.dtype,
        device: torch.device,
    ) -> None:
        self.edges, self.tables = edges, [PairTable.of(e) for e in edges]
        self.numbers, self.spec, self.dtype, self.device = numbers, spec, dtype, device
        n_bytes = sum(len(pairs) for pairs, _ in self.tables) * n_features(spec) * 10 * dtype.itemsize
        spare = spare_bytes(device)
        self.summed = n_bytes <= (KEPT_BYTES if spare is None else spare // 2)
        self._functions: list[EdgeFunctions] = []
        self._values: list[torch.Tensor] = []
        self._slopes: list[torch.Tensor] = []
        for e, (pairs, edge_pair) in zip(edges, self.tables, strict=True):
            if self.summed:
                exact, index, vectors = self._exact(e), torch.from_numpy(edge_pair), torch.from_numpy(e.vectors)
                index, vectors = index.to(device), vectors.to(device)
                self._values.append(exact.pair_values(index, len(pairs)).to(dtype))
                self._slopes.append(exact.pair_slopes(index, len(pairs), vectors).to(dtype))
            elif device.type == "cpu":
                self._functions.append(self._exact(e).to(dtype))

    def _exact(self, edges: EdgeList) -> EdgeFunctions:
        """Functions in float64, to be rounded once: a float32 training then sees the best float32 geometry."""
        return EdgeFunctions.of(edges, self.numbers, self.spec, torch.float64, self.device)

    def batch(self, indices: NDArray[np.int64]) -> SummedBatch | EdgeBatch:
        """The given structures side by side."""
        pairs = PairTable.join([self.tables[i][0] for i in indices])
        if self.summed:
            values, slopes = ([kept[i] for i in indices] for kept in (self._values, self._slopes))
            return SummedBatch(pairs, torch.cat(values), torch.cat(slopes))
        first = np.cumsum([0] + [len(self.tables[i][0]) for i in indices])
        edge_pair = np.concatenate([self.tables[i][1] + k for i, k in zip(indices, first, strict=False)])
        joined = EdgeList.join([self.edges[i] for i in indices])
        if self._functions:
            functions = EdgeFunctions.join([self._functions[i] for i in indices])
        else:
            functions = self._exact(joined).to(self.dtype)
        return EdgeBatch(joined, pairs, edge_pair, functions)


class KernelGeometry:
    """Functions of the edges of every structure, kept as long as they fit into memory."""

    def __init__(self, engine: KernelEngine, edges: Sequence[EdgeList]) -> None:
        self.engine, self.edges = engine, edges
        keep = sum(len(e.centres) for e in edges) * engine.edge_bytes <= KEPT_BYTES
        self._kept = [self._prepare(i) for i in range(len(edges))] if keep else None

    def _prepare(self, i: int) -> KernelBatch:
        engine = self.engine
        return KernelBatch.of(self.edges[i], engine.numbers, engine.network.plain, engine.dtype)

    def batch(self, indices: NDArray[np.int64]) -> KernelBatch:
        """The given structures side by side."""
        return KernelBatch.join([self._prepare(i) if self._kept is None else self._kept[i] for i in indices])
