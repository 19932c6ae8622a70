"""The committee network through compiled kernels: the same function as the plain one, several times faster on a CPU."""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from typing import TYPE_CHECKING, Any

import torch

from alflow.equivariant import degree_of_component
from alflow.potentials._kernel_batch import KernelBatch
from alflow.potentials._network import FADE, CommitteeNetwork, NetworkOutput
from alflow.potentials._threads import in_threads, n_threads
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
    load_kernels,
)

if TYPE_CHECKING:
    from alflow.potentials._limits import EnergyLimits
    from alflow.potentials._spec import CommitteeSpec

Packed = dict[str, torch.Tensor]


def kernel_shape(spec: CommitteeSpec, dtype: torch.dtype) -> KernelShape:
    """What is compiled for a network of this shape."""
    return KernelShape(
        l_max=spec.l_max,
        l_product=min(spec.l_product, spec.l_max),
        l_hidden=min(spec.l_hidden, spec.l_max) if spec.n_layers == 2 else 0,
        n_radial=spec.n_radial,
        single=dtype == torch.float32,
    )


class KernelNetwork:
    """Evaluates a :class:`CommitteeNetwork` through kernels.

    Parameters
    ----------
    plain
        the network: sizes and constants
    dtype
        of weights and features

    Raises
    ------
    KernelsUnavailableError
        if there are no kernels for it on this machine
    """

    def __init__(self, plain: CommitteeNetwork, dtype: torch.dtype) -> None:
        self.plain, self.spec = plain, plain.spec
        self.shape = kernel_shape(plain.spec, dtype)
        self.kernels = load_kernels(self.shape)
        length = int(self.kernels.vector_length())
        #: channels, filled up with zeros to whole vector registers
        self.channels = -(-plain.spec.channels // length) * length
        self.degree = torch.tensor(degree_of_component(plain.spec.l_max))
        density = torch.tensor(plain.constants.density, dtype=dtype)
        self.mean_density, self.total_density = density, density.sum(0)
        self.cohesion = torch.tensor(plain.constants.cohesion, dtype=dtype)
        self._last: tuple[torch.Tensor, int, int, list[Packed]] | None = None

    # -- weights -------------------------------------------------------------------------------------------------------

    def pack(self, matrix: torch.Tensor) -> Packed:
        """Weights (K, P) as the kernels read them, channels last and filled up; differentiable."""
        spec, views = self.spec, self.plain.layout.split(matrix)
        scale = 1 / math.sqrt(self.plain.constants.neighbours)
        packed: Packed = {"density": self._fill(views["density"].mT).index_select(1, self.degree)}
        for name in ("element.bias", "element.gain"):
            if name in views:
                packed[name] = self._fill(views[name])
        if "element.channels" in views:
            packed["element.channels"] = views["element.channels"]
        for name, weight in views.items():
            kind = name.split(".")[-1]
            if kind.startswith(("mix", "out", "send", "keep")):
                packed[name] = self._paths(weight)
            elif kind in {"linear", "w1"}:
                packed[name] = self._fill(weight).mT
            elif kind in {"b1", "w2"}:
                packed[name] = weight.mT
        if spec.n_layers == 2:
            packed["update.w2"] = self._fill(packed["update.w2"])
            radial = torch.cat([views["message"], *[views[n] for n in ("message.tensor",) if n in views]], dim=2)
            packed["message"] = (self._fill(radial) * scale).contiguous()
            common = (views["message"][:, :, 0] * self.total_density[:, None]).sum(1)
            packed["message.common"] = self._fill(common).unsqueeze(1)
        return packed

    def _fill(self, weight: torch.Tensor) -> torch.Tensor:
        missing = self.channels - self.spec.channels
        return torch.nn.functional.pad(weight, (0, missing)) if missing else weight

    def _paths(self, weight: torch.Tensor) -> torch.Tensor:
        """(K, C, paths · C) → (K, paths · C, C), both filled up."""
        members, channels, columns = weight.shape
        by_path = weight.view(members, channels, columns // channels, channels).permute(0, 2, 3, 1)
        filled = self._fill(self._fill(by_path).mT).mT
        return filled.reshape(members, -1, self.channels).contiguous()

    # -- evaluation ----------------------------------------------------------------------------------------------------

    def evaluate(
        self, matrix: torch.Tensor, batch: KernelBatch, *, training: bool = False, derivatives: bool = True
    ) -> NetworkOutput:
        """Energies, forces and virials of all members; see :meth:`CommitteeNetwork.evaluate`.

        With several threads (:func:`torch.set_num_threads`) each works on some of the members; sums may
        then round otherwise.
        """
        if training:
            energy, forces, virial, features = _Evaluate.apply(matrix, self, batch)  # type: ignore[no-untyped-call]
            return NetworkOutput(energy=energy, forces=forces, virial=virial, features=features)

        def values(packed: Packed) -> NetworkOutput:
            with torch.no_grad():
                return self._values(packed, batch, derivatives=derivatives)

        return _joined(in_threads(values, self._packed(matrix)))

    def _packed(self, matrix: torch.Tensor) -> list[Packed]:
        """Packed weights of the members of each thread, kept for the next evaluation with the same ones."""
        threads = n_threads(len(matrix))
        if self._last is None or self._last[0] is not matrix or self._last[1:3] != (matrix._version, threads):
            with torch.no_grad():
                packed = [self.pack(part) for part in matrix.tensor_split(threads)]
            self._last = (matrix, matrix._version, threads, packed)
        return self._last[3]

    def _values(self, packed: Packed, batch: KernelBatch, *, derivatives: bool) -> NetworkOutput:
        """The first pass: values, and forces by one backward pass to the displacements of the edges."""
        edges, members = batch.edges, len(packed["density"])
        displacement = edges.radial.new_zeros(members, edges.n_edges, 3)
        with torch.set_grad_enabled(derivatives):
            displacement.requires_grad_(derivatives)
            basis: torch.Tensor = Density.apply(displacement, edges, self.kernels)  # type: ignore[no-untyped-call]

            def send(scalars: torch.Tensor, tensors: torch.Tensor, own: torch.Tensor) -> torch.Tensor:
                result: torch.Tensor = Message.apply(  # type: ignore[no-untyped-call]
                    displacement, scalars, tensors, own, packed["message"], edges, self.kernels
                )
                return result

            atomic, features = self._atomic_energies(packed, basis, send, batch, tangents=False)
            if batch.owned is not None:
                atomic = atomic * batch.owned
            forces = virial = None
            if derivatives:
                (pull,) = torch.autograd.grad(atomic.sum(), displacement)
                forces, virial = collect(pull, edges, batch.vectors, batch.structure, batch.n_structures, self.kernels)
        energy = batch.sum_structures(atomic.detach())
        return NetworkOutput(energy=energy, forces=forces, virial=virial, features=features)

    def _gradient(
        self, packed: Packed, batch: KernelBatch, energy: torch.Tensor, forces: torch.Tensor, virial: torch.Tensor
    ) -> torch.Tensor:
        """A number whose gradient by the weights is that of energy · E + forces · F + virial · W."""
        edges = batch.edges
        moved = displace(forces, virial, edges, batch.vectors, batch.structure, self.kernels)
        value = density(edges, self.kernels).expand(len(moved), -1, -1, -1)
        basis = torch.cat([value, density_tangent(edges, moved, self.kernels)], dim=2)

        def send(scalars: torch.Tensor, tensors: torch.Tensor, own: torch.Tensor) -> torch.Tensor:
            result: torch.Tensor = MessageTangent.apply(  # type: ignore[no-untyped-call]
                moved, scalars, tensors, own, packed["message"], edges, self.kernels
            )
            return result

        atomic, _ = self._atomic_energies(packed, basis, send, batch, tangents=True)
        values, tangents = atomic.chunk(2, dim=1)
        return (values * energy.index_select(1, batch.structure)).sum() + tangents.sum()

    # -- the network on rows: N values, or N values and N tangents -----------------------------------------------------

    def _atomic_energies(
        self,
        packed: Packed,
        basis: torch.Tensor,
        send: Callable[[torch.Tensor, torch.Tensor, torch.Tensor], torch.Tensor],
        batch: KernelBatch,
        *,
        tangents: bool,
    ) -> tuple[torch.Tensor, torch.Tensor]:
        """Atomic energies (K, rows) and scalar features (K, N, d) from the density (K, S, R or 2 R, n_radial)."""
        rows = _Rows(tangents=tangents)
        per_atom, coordination = self._by_atom(packed, basis, batch, rows)
        features = self._products(packed, 0, self._density(packed, per_atom, batch, rows), rows)
        scalar, tensors = torch.split(features, [1, features.shape[1] - 1], dim=1)
        scalars = rows.shift(scalar[:, 0], packed["element.bias"].index_select(1, batch.species))
        energy = self._read_out(packed, 0, scalars, rows)
        described = [rows.values(scalars)]
        if self.spec.n_layers == 2:
            scalars = scalars + self._perceptron(packed, "update", scalars, rows)
            sent = torch.bmm(scalars, packed["send0"])
            own = torch.bmm(scalars, packed["keep0"]) - sent * packed["message.common"]
            kept = self._by_degree(packed, "keep", tensors)
            moved = self._by_degree(packed, "send", tensors)
            message = send(sent, moved, torch.cat([own.unsqueeze(1), kept], dim=1))
            second = self._products(packed, 1, message, rows)[:, 0]
            energy = energy + self._read_out(packed, 1, second, rows)
            described.append(rows.values(second))
        energy = rows.limit(self.plain.constants.scale * energy, self.plain.limits)
        faded = rows.fade(
            coordination / (FADE * self.plain.constants.coordination),
            rows.shift(energy, self.cohesion[batch.species]),
        )
        return faded, torch.cat([d[..., : self.spec.channels] for d in described], dim=2).detach()

    def _by_degree(self, packed: Packed, name: str, tensors: torch.Tensor) -> torch.Tensor:
        """Mix the channels of every degree from 1 on, (K, H, rows, C)."""
        degrees = range(1, self.shape.l_hidden + 1)
        parts = torch.split(tensors, [2 * d + 1 for d in degrees], dim=1)
        mixed = [torch.matmul(x, packed[f"{name}{d}"].unsqueeze(1)) for d, x in zip(degrees, parts, strict=True)]
        return torch.cat(mixed, dim=1) if mixed else tensors

    def _by_atom(
        self, packed: Packed, basis: torch.Tensor, batch: KernelBatch, rows: _Rows
    ) -> tuple[torch.Tensor, torch.Tensor]:
        """Density by species channel (K, S, rows, species · n_radial), and the coordination (K, rows)."""
        members, size = basis.shape[:2]
        n_rows = batch.n_atoms * rows.sets
        if self.plain.one_hot:
            by_species = basis.view(members, size, n_rows, -1)
            return by_species, basis[:, 0, :, 0].reshape(members, n_rows, -1).sum(2)
        atom = rows.repeat(batch.row_atom, batch.n_atoms)
        channels = rows.repeat(packed["element.channels"].index_select(1, batch.row_species), dim=1)
        spread = channels.unsqueeze(1).unsqueeze(4) * basis.unsqueeze(3)
        total = spread.new_zeros(members, size, n_rows, *spread.shape[3:]).index_add(2, atom, spread)
        coordination = basis.new_zeros(members, n_rows).index_add(1, atom, basis[:, 0, :, 0])
        return total.view(members, size, n_rows, -1), coordination

    def _density(self, packed: Packed, by_species: torch.Tensor, batch: KernelBatch, rows: _Rows) -> torch.Tensor:
        by_species = by_species * (1 / math.sqrt(self.plain.constants.neighbours))
        if self.plain.one_hot:
            mean = self.mean_density.view(1, 1, -1)
        else:
            mean = torch.matmul(packed["element.channels"].mT, self.mean_density).flatten(1).unsqueeze(1)
        isotropic, rest = torch.split(by_species, [1, by_species.shape[1] - 1], dim=1)
        by_species = torch.cat([rows.shift(isotropic[:, 0], -mean).unsqueeze(1), rest], dim=1)
        result = torch.matmul(by_species, packed["density"])
        if "element.gain" in packed:
            gain = packed["element.gain"].index_select(1, batch.species).permute(0, 2, 1, 3)
            result = result * rows.repeat(gain, dim=2).index_select(1, self.degree)
        return result

    def _products(self, packed: Packed, layer: int, given: torch.Tensor, rows: _Rows) -> torch.Tensor:
        top = self.plain.cube[layer].l_out
        mix = [packed[f"{layer}.mix{d}"] for d in range(self.shape.l_product + 1)]
        empty = given.new_zeros(len(given), 0, self.channels)
        mix += [empty] * (max(self.shape.l_hidden, self.shape.l_product) - self.shape.l_product)
        out = [packed[f"{layer}.out{d}"] for d in range(top + 1)]
        result: torch.Tensor = Products.apply(  # type: ignore[no-untyped-call]
            given.contiguous(), rows.sets == 2, top, self.kernels, *mix, *out
        )
        return result

    def _read_out(self, packed: Packed, layer: int, x: torch.Tensor, rows: _Rows) -> torch.Tensor:
        linear = torch.bmm(x, packed[f"{layer}.linear"])
        return (linear + self._perceptron(packed, f"{layer}.readout", x, rows))[..., 0]

    @staticmethod
    def _perceptron(packed: Packed, name: str, x: torch.Tensor, rows: _Rows) -> torch.Tensor:
        inner = rows.shift(torch.bmm(x, packed[f"{name}.w1"]), packed[f"{name}.b1"])
        return torch.bmm(rows.silu(inner), packed[f"{name}.w2"])


class _Rows:
    """What is not linear, on rows (K, N or 2 N, ...): a constant shifts values only, a function turns tangents too."""

    def __init__(self, *, tangents: bool) -> None:
        self.sets = 2 if tangents else 1

    def values(self, x: torch.Tensor) -> torch.Tensor:
        """The rows of values."""
        return x if self.sets == 1 else x.chunk(2, dim=1)[0]

    def repeat(self, x: torch.Tensor, offset: int = 0, dim: int = 0) -> torch.Tensor:
        """The same for the tangents, indices moved by `offset`."""
        return x if self.sets == 1 else torch.cat([x, x + offset if offset else x], dim=dim)

    def shift(self, x: torch.Tensor, constant: torch.Tensor) -> torch.Tensor:
        """Add what does not move."""
        if self.sets == 1:
            return x + constant
        value, tangent = x.chunk(2, dim=1)
        return torch.cat([value + constant, tangent], dim=1)

    def silu(self, x: torch.Tensor) -> torch.Tensor:
        """Sigmoid linear unit x σ(x), with slope σ (1 + x (1 - σ))."""
        if self.sets == 1:
            return torch.nn.functional.silu(x)
        value, tangent = x.chunk(2, dim=1)
        sigmoid = torch.sigmoid(value)
        result = value * sigmoid
        return torch.cat([result, tangent * (sigmoid + result * (1 - sigmoid))], dim=1)

    def limit(self, energy: torch.Tensor, limits: EnergyLimits) -> torch.Tensor:
        """Energies within their limits."""
        if self.sets == 1:
            return limits.value(energy)
        value, tangent = energy.chunk(2, dim=1)
        return torch.cat([limits.value(value), tangent * limits.slope(value)], dim=1)

    def fade(self, x: torch.Tensor, energy: torch.Tensor) -> torch.Tensor:
        """(1 - exp(-x²)) · energy."""
        if self.sets == 1:
            return (1 - torch.exp(-x * x)) * energy
        (x, dx), (value, tangent) = x.chunk(2, dim=1), energy.chunk(2, dim=1)
        rest = torch.exp(-x * x)
        return torch.cat([(1 - rest) * value, (1 - rest) * tangent + 2 * x * dx * rest * value], dim=1)


class _Evaluate(torch.autograd.Function):
    """Weights (K, P) → energies, forces, virials; its adjoint is the second pass."""

    @staticmethod
    def forward(ctx: Any, matrix: torch.Tensor, network: KernelNetwork, batch: KernelBatch) -> tuple[torch.Tensor, ...]:
        leaves = [part.detach().requires_grad_() for part in matrix.tensor_split(n_threads(len(matrix)))]
        with torch.enable_grad():
            packed = [network.pack(leaf) for leaf in leaves]

        def values(weights: Packed) -> NetworkOutput:
            constant = {name: weight.detach() for name, weight in weights.items()}
            with torch.no_grad():
                return network._values(constant, batch, derivatives=True)

        out = _joined(in_threads(values, packed))
        ctx.network, ctx.batch, ctx.leaves, ctx.packed = network, batch, leaves, packed
        ctx.mark_non_differentiable(out.features)
        assert out.forces is not None
        assert out.virial is not None
        return out.energy, out.forces, out.virial, out.features

    @staticmethod
    @torch.autograd.function.once_differentiable
    def backward(ctx: Any, *gradients: torch.Tensor) -> tuple[torch.Tensor | None, ...]:
        def gradient(part: tuple[torch.Tensor, Packed, tuple[torch.Tensor, ...]]) -> torch.Tensor:
            leaf, packed, given = part
            with torch.enable_grad():
                number = ctx.network._gradient(packed, ctx.batch, *given)
                (result,) = torch.autograd.grad(number, leaf)
            return result

        given = zip(*(g.tensor_split(len(ctx.leaves)) for g in gradients[:3]), strict=True)
        return torch.cat(in_threads(gradient, list(zip(ctx.leaves, ctx.packed, given, strict=True)))), None, None


def _joined(parts: Sequence[NetworkOutput]) -> NetworkOutput:
    """Put the members of several outputs together."""
    if len(parts) == 1:
        return parts[0]

    def along_members(values: Sequence[torch.Tensor | None]) -> torch.Tensor | None:
        known = [v for v in values if v is not None]
        return torch.cat(known) if known else None

    return NetworkOutput(
        energy=torch.cat([p.energy for p in parts]),
        forces=along_members([p.forces for p in parts]),
        virial=along_members([p.virial for p in parts]),
        features=torch.cat([p.features for p in parts]),
    )
