"""The committee network: K members as a batch axis over one shared atomic basis."""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import dataclass

import torch

from alflow.equivariant import (
    ChannelwiseProduct,
    join_degrees,
    mix_channels,
    mix_degrees,
    n_components,
    per_component,
    squared_norms,
)
from alflow.potentials._geometry import EdgeBatch, SummedBatch
from alflow.potentials._limits import EnergyLimits
from alflow.potentials._spec import CommitteeSpec
from alflow.potentials._weights import WeightLayout, WeightShape

ONE_HOT_SPECIES = 6
"""Up to this many elements every element has its own radial channel; above, they share as many learned ones."""

Weights = Mapping[str, torch.Tensor]


@dataclass(frozen=True, kw_only=True, eq=False)
class Constants:
    """What a network is told about its data and never learns.

    Parameters
    ----------
    scale
        eV per unit of the network's output
    neighbours
        mean number of edges per atom
    coordination
        mean of the coordination that fades the energy of lonely atoms
    cohesion
        (n_elements,), eV: reference energy in matter minus that of the isolated atom
    density
        n_elements rows of n_radial: mean density of neighbours of each element in the radial functions, over the square
        root of `neighbours`. The network sees deviations from it: all atoms of a metal have nearly the same large
        density, and the stiff common direction it makes is what slows training (half the energy error of 60 cells
        after 500 steps, measured)
    """

    scale: float
    neighbours: float
    coordination: float
    cohesion: tuple[float, ...]
    density: tuple[tuple[float, ...], ...]


@dataclass(frozen=True, kw_only=True, eq=False)
class NetworkOutput:
    """Energy (K, n), forces (K, N, 3), virial (K, n, 6 Voigt) without references and repulsion; features (K, N, d)."""

    energy: torch.Tensor
    forces: torch.Tensor | None
    virial: torch.Tensor | None
    features: torch.Tensor


class CommitteeNetwork:
    r"""The function from pairs to energies; it holds no weights.

    1. Density: :math:`A_{lmc} = \sum_{z n} W^l_{c,zn} \sum_{j \in z} g_n(r_{ij}) Y_{lm}(\hat r_{ij})`, the inner sum
       shared by all members (Drautz, Phys. Rev. B 99, 014104, 2019).
    2. Products :math:`A \otimes A \to B`, :math:`B \otimes A`, :math:`|B|^2`: up to five-body terms, mixed over
       channels to hidden features of degrees up to `l_hidden`.
    3. Message passing: :math:`A'_{lmc} = \sum_j R_{lc}(r_{ij}) Y_{lm} s_{jc} + \sum_j R'_{lc}(r_{ij}) h_{jlmc}` with
       the scalar and tensor features of the neighbours, then the products again (Batatia et al., NeurIPS 2022).
    4. Scalar readouts after 2 and 3, limited far outside the data (:class:`EnergyLimits`). The energy of an atom fades
       with its coordination to exactly the reference of an isolated atom.

    Weights are per member; features have shape (K, components, C, N) with the atoms innermost.

    Parameters
    ----------
    spec
        sizes
    n_elements
        number of elements
    constants
        scales and references from the training data
    """

    def __init__(self, spec: CommitteeSpec, n_elements: int, constants: Constants) -> None:
        self.spec, self.n_elements, self.constants = spec, n_elements, constants
        self.limits = EnergyLimits.of(constants.scale)
        self.one_hot = n_elements <= ONE_HOT_SPECIES
        self.n_species = n_elements if self.one_hot else ONE_HOT_SPECIES
        self.l_product = min(spec.l_product, spec.l_max)
        self.square = ChannelwiseProduct(spec.l_max, spec.l_max, self.l_product, symmetric=True)
        #: highest degree of the node features that a message carries
        self.l_hidden = min(spec.l_hidden, spec.l_max) if spec.n_layers == 2 else 0
        degrees = [self.l_hidden, 0] if spec.n_layers == 2 else [0]
        self.cube = [ChannelwiseProduct(self.l_product, spec.l_max, degree) for degree in degrees]
        self.layout = WeightLayout(self._shapes())
        self._kept: dict[tuple[torch.dtype, torch.device], _Fixed] = {}

    def _shapes(self) -> list[WeightShape]:
        s, c = self.spec, self.spec.channels
        basis = self.n_species * s.n_radial

        def matrix(name: str, rows: int, columns: int, gain: float = 1.0) -> WeightShape:
            return WeightShape(name=name, shape=(rows, columns), spread=gain / math.sqrt(columns))

        def perceptron(name: str, width: int, out: int) -> list[WeightShape]:
            return [
                matrix(f"{name}.w1", width, c),
                WeightShape(name=f"{name}.b1", shape=(width, 1), spread=0.3),
                matrix(f"{name}.w2", out, width),
            ]

        shapes = [
            WeightShape(name="density", shape=(s.l_max + 1, c, basis), spread=1.5 / math.sqrt(basis)),
            WeightShape(name="element.bias", shape=(self.n_elements, c), spread=0.1),
        ]
        if self.n_elements > 1:
            shapes.append(
                WeightShape(name="element.gain", shape=(self.n_elements, s.l_max + 1, c), mean=1.0, spread=0.1)
            )
        if not self.one_hot:
            shapes.append(WeightShape(name="element.channels", shape=(self.n_elements, self.n_species), spread=1.0))
        for layer, cube in enumerate(self.cube):
            shapes += [matrix(f"{layer}.mix{d}", c, n * c) for d, n in enumerate(self.square.n_paths)]
            for d in range(cube.l_out + 1):
                second = self.square.n_paths[d] if d <= self.l_product else 0
                paths = 1 + second + cube.n_paths[d] + (self.l_product + 1 if d == 0 else 0)
                shapes.append(matrix(f"{layer}.out{d}", c, paths * c))
            shapes += [matrix(f"{layer}.linear", 1, c)]
            shapes += perceptron(f"{layer}.readout", s.hidden, 1)
        if s.n_layers == 2:
            shapes += perceptron("update", c, c)
            for d in range(self.l_hidden + 1):
                shapes += [matrix(f"send{d}", c, c), matrix(f"keep{d}", c, c)]
            gain = 1.5 / math.sqrt(s.n_radial)
            shapes.append(WeightShape(name="message", shape=(s.n_radial, s.l_max + 1, c), spread=gain))
            if self.l_hidden:
                shape = (s.n_radial, self.l_hidden, c)
                shapes.append(WeightShape(name="message.tensor", shape=shape, spread=gain))
        return shapes

    # -- evaluation ----------------------------------------------------------------------------------------------

    def evaluate(
        self, weights: Weights, batch: SummedBatch | EdgeBatch, *, training: bool = False, derivatives: bool = True
    ) -> NetworkOutput:
        """Energies, and forces and virials of all members by one backward pass.

        dE/dG of every member and pair comes from automatic differentiation; dG/d(positions, strain) is analytic and
        contracted with it, so that training differentiates the network only, never the geometry.

        Parameters
        ----------
        weights
            named views, see :class:`WeightLayout`
        batch
            the structures
        training
            keep the graph of forces and virials for gradients by the weights
        derivatives
            False: energies and features only
        """
        members = self.spec.n_members
        with torch.set_grad_enabled(derivatives or training):
            values = batch.values.expand(members, -1, -1, -1)
            if derivatives:
                values = values.clone().requires_grad_()
            atomic, features = self._atomic_energies(weights, values, batch)
            if batch.owned is not None:
                atomic = atomic * batch.owned
            forces = virial = None
            if derivatives:
                (gradient,) = torch.autograd.grad(atomic.sum(), values, create_graph=training)
                forces, virial = batch.contract(gradient)
            if not training:
                atomic = atomic.detach()
        return NetworkOutput(energy=batch.sum_structures(atomic), forces=forces, virial=virial, features=features)

    def _atomic_energies(
        self, weights: Weights, values: torch.Tensor, batch: SummedBatch | EdgeBatch
    ) -> tuple[torch.Tensor, torch.Tensor]:
        """Atomic energies (K, N) and scalar features (K, N, d)."""
        per_species = self._select_species(weights, values, batch)
        density = self._density(weights, per_species, batch)
        hidden = self._products(weights, 0, density)
        scalars = hidden[0][:, 0] + _columns(weights["element.bias"], batch.species)
        energy = (weights["0.linear"] @ scalars)[:, 0] + _perceptron(weights, "0.readout", scalars)[:, 0]
        features = [scalars]
        if self.spec.n_layers == 2:
            scalars = scalars + _perceptron(weights, "update", scalars)
            message = self._message(weights, values, scalars, hidden[1:], batch)
            second = self._products(weights, 1, message)[0][:, 0]
            energy = energy + (weights["1.linear"] @ second)[:, 0] + _perceptron(weights, "1.readout", second)[:, 0]
            features.append(second)
        # The first radial function is positive inside the cutoff, and Y_00 = 1: its sum is a coordination.
        lonely = values[..., 0].sum(2) / (FADE * self.constants.coordination)
        fade = 1.0 - torch.exp(-lonely * lonely)
        cohesion = self._fixed(values.dtype, values.device).cohesion[batch.species]
        energy = fade * (cohesion + self.limits.value(self.constants.scale * energy))
        return energy, torch.cat(features, dim=1).transpose(1, 2).detach()

    def _fixed(self, dtype: torch.dtype, device: torch.device) -> _Fixed:
        if (dtype, device) not in self._kept:
            cohesion, density = (
                torch.tensor(rows, dtype=dtype, device=device)
                for rows in (self.constants.cohesion, self.constants.density)
            )
            self._kept[dtype, device] = _Fixed(cohesion=cohesion, density=density)
        return self._kept[dtype, device]

    def _select_species(self, weights: Weights, values: torch.Tensor, batch: SummedBatch | EdgeBatch) -> torch.Tensor:
        """Sum the neighbours of each species channel: (K, N, M, Q) → (K, N, species, Q)."""
        if self.n_species == 1:
            return values.sum(2, keepdim=True)
        if self.one_hot:
            chosen = torch.nn.functional.one_hot(batch.neighbour_species, self.n_species).to(values.dtype)
            return torch.matmul(chosen.transpose(1, 2), values)
        chosen = weights["element.channels"].index_select(1, batch.neighbour_species.flatten())
        chosen = chosen.view(self.spec.n_members, batch.n_atoms, batch.width, self.n_species)
        return torch.matmul(chosen.transpose(2, 3), values)

    def _density(self, weights: Weights, per_species: torch.Tensor, batch: SummedBatch | EdgeBatch) -> torch.Tensor:
        spec = self.spec
        basis = per_species.view(
            spec.n_members, batch.n_atoms, self.n_species * spec.n_radial, n_components(spec.l_max)
        )
        basis = basis.permute(0, 3, 2, 1) * (1 / math.sqrt(self.constants.neighbours))
        mean = self._mean_density(weights, basis).unsqueeze(-1)
        isotropic, rest = torch.split(basis, [1, basis.shape[1] - 1], dim=1)
        density = mix_degrees(torch.cat([isotropic - mean, rest], dim=1), weights["density"], spec.l_max)
        if self.n_elements > 1:
            gain = weights["element.gain"].index_select(1, batch.species).permute(0, 2, 3, 1)
            density = density * per_component(gain, spec.l_max, dim=1)
        return density

    def _mean_density(self, weights: Weights, like: torch.Tensor) -> torch.Tensor:
        """Mean of the isotropic density in the species channels, (K or 1, 1, species · n_radial)."""
        per_element = self._fixed(like.dtype, like.device).density
        if self.one_hot:
            return per_element.view(1, 1, -1)
        return torch.matmul(weights["element.channels"].transpose(1, 2), per_element).flatten(1).unsqueeze(1)

    def _products(self, weights: Weights, layer: int, density: torch.Tensor) -> list[torch.Tensor]:
        """Node features of degree 0 … l_out of a layer, each (K, 2l + 1, C, N)."""
        cube = self.cube[layer]
        second = self.square(density, density)
        mixed = join_degrees([mix_channels(x, weights[f"{layer}.mix{d}"]) for d, x in enumerate(second)])
        third = cube(mixed, density)
        first = torch.split(density, [2 * d + 1 for d in range(self.spec.l_max + 1)], dim=1)
        hidden = []
        for d in range(cube.l_out + 1):
            parts = [first[d]]
            if d <= self.l_product:
                parts.append(second[d])
            parts.append(third[d])
            if d == 0:
                parts.append(squared_norms(mixed, self.l_product).unsqueeze(1))
            hidden.append(mix_channels(torch.cat(parts, dim=2), weights[f"{layer}.out{d}"]))
        return hidden

    def _message(
        self,
        weights: Weights,
        values: torch.Tensor,
        scalars: torch.Tensor,
        tensors: list[torch.Tensor],
        batch: SummedBatch | EdgeBatch,
    ) -> torch.Tensor:
        """Second density (K, S, C, N) from the features of the neighbours, tensors by degree from 1 on."""
        spec = self.spec
        members, n_atoms, width, channels = spec.n_members, batch.n_atoms, batch.width, spec.channels
        size = n_components(spec.l_max)
        pairs = values.reshape(members * n_atoms, width, spec.n_radial * size)
        scale = 1 / math.sqrt(self.constants.neighbours)

        def gather(features: torch.Tensor) -> torch.Tensor:  # (K, N, f) → (K N, M, f)
            return features.index_select(1, batch.neighbours).view(members * n_atoms, width, -1)

        sent_by_itself = weights["send0"] @ scalars
        sent = gather(sent_by_itself.transpose(1, 2))
        radial = per_component(weights["message"] * scale, spec.l_max, dim=2).unsqueeze(1)
        summed = torch.bmm(pairs.transpose(1, 2), sent).view(members, n_atoms, spec.n_radial, size, channels)
        message = (summed * radial).sum(2).permute(0, 2, 3, 1)

        # Deviations from the mean density here too: the mean of what the neighbours send is about what the atom sends.
        total = self._fixed(values.dtype, values.device).density.sum(0)
        common = (weights["message"][:, :, 0] * total[:, None]).sum(1).unsqueeze(2) * sent_by_itself
        low, *high = torch.split(message, [2 * d + 1 for d in range(spec.l_max + 1)], dim=1)
        result = [low + (weights["keep0"] @ scalars - common).unsqueeze(1)]
        isotropic = pairs.view(members * n_atoms, width, spec.n_radial, size)[..., 0].contiguous()
        for d, degree in enumerate(high, start=1):
            if d > self.l_hidden:
                result.append(degree)
                continue
            kept = mix_channels(tensors[d - 1], weights[f"keep{d}"])
            moved = mix_channels(tensors[d - 1], weights[f"send{d}"]).permute(0, 3, 1, 2).flatten(2)
            summed = torch.bmm(isotropic.transpose(1, 2), gather(moved))
            summed = summed.view(members, n_atoms, spec.n_radial, 2 * d + 1, channels)
            radial = weights["message.tensor"][:, :, d - 1 : d] * scale
            result.append(degree + kept + (summed * radial.unsqueeze(1)).sum(2).permute(0, 2, 3, 1))
        return torch.cat(result, dim=1)


@dataclass(frozen=True, kw_only=True, eq=False)
class _Fixed:
    """`cohesion` and `density` of :class:`Constants` as tensors where they are needed."""

    cohesion: torch.Tensor
    density: torch.Tensor


FADE = 0.02
"""Share of the mean coordination below which the energy of an atom fades to that of an isolated one."""


def _columns(per_element: torch.Tensor, species: torch.Tensor) -> torch.Tensor:
    """(K, n_elements, C) → (K, C, N)."""
    return per_element.index_select(1, species).transpose(1, 2)


def _perceptron(weights: Weights, name: str, x: torch.Tensor) -> torch.Tensor:
    """One hidden layer over channels, (K, C, N) → (K, out, N)."""
    inner = torch.nn.functional.silu(torch.baddbmm(weights[f"{name}.b1"], weights[f"{name}.w1"], x))
    return torch.bmm(weights[f"{name}.w2"], inner)
