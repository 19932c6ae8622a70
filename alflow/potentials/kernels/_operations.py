r"""The kernels as operations of torch: each knows its adjoint, and those of the training pass carry tangents along.

A training needs dL/dw of a loss L(E, F, W) of energies, forces and virials. With v the displacement of the edge vectors
that dL/dF and dL/dW make, it is :math:`\nabla_w [\sum_k \bar E_k E_k + D_v E]`: one pass over values and their
tangents along v, and one ordinary backward pass. No second derivative of any operation is needed.

Features are (K, components, rows, C); rows are the N atoms, or N values followed by their N tangents.
"""

from __future__ import annotations

import ctypes
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any

import torch

_P, _I = ctypes.c_void_p, ctypes.c_longlong


@dataclass(frozen=True, kw_only=True, eq=False)
class EdgeTensors:
    """Edges of a batch, sorted by centre and then by the species of the neighbour.

    Parameters
    ----------
    first
        (N + 1,) where the edges of each centre begin
    rows
        (R + 1,) where the edges of each row of the density begin
    neighbour
        (E,)
    radial, radial_slope
        (E, n_radial)
    angular, angular_slope
        (E, S), (E, 3, S)
    direction
        (E, 3)
    """

    first: torch.Tensor
    rows: torch.Tensor
    neighbour: torch.Tensor
    radial: torch.Tensor
    radial_slope: torch.Tensor
    angular: torch.Tensor
    angular_slope: torch.Tensor
    direction: torch.Tensor

    @property
    def n_atoms(self) -> int:
        """N."""
        return len(self.first) - 1

    @property
    def n_edges(self) -> int:
        """E."""
        return len(self.neighbour)

    @property
    def n_rows(self) -> int:
        """R."""
        return len(self.rows) - 1


class _Edges(ctypes.Structure):
    _fields_ = [
        ("n_atoms", _I),
        ("n_edges", _I),
        *[(name, _P) for name in ("first", "neighbour", "radial", "radial_slope")],
        *[(name, _P) for name in ("angular", "angular_slope", "direction")],
    ]

    @classmethod
    def of(cls, e: EdgeTensors) -> _Edges:
        if e.first.dtype != torch.int64 or e.neighbour.dtype != torch.int64:
            raise ValueError(f"a kernel reads indices of 64 bits, not {e.first.dtype} and {e.neighbour.dtype}")
        names = ("first", "neighbour", "radial", "radial_slope", "angular", "angular_slope", "direction")
        return cls(n_atoms=e.n_atoms, n_edges=e.n_edges, **{name: _address(getattr(e, name)) for name in names})


class _Message(ctypes.Structure):
    _fields_ = [
        ("edges", ctypes.POINTER(_Edges)),
        *[(name, _I) for name in ("members", "rows", "channels")],
        *[(name, _P) for name in ("scalars", "tensors", "weights", "out", "displacement")],
        *[(f"{name}_gradient", _P) for name in ("scalars", "tensors", "weights", "displacement")],
    ]


_Pointers = ctypes.POINTER(_P)


class _Product(ctypes.Structure):
    _fields_ = [
        *[(name, _I) for name in ("members", "atoms", "channels")],
        *[(name, ctypes.c_int) for name in ("with_tangents", "adjoint")],
        ("density", _P),
        *[(name, _Pointers) for name in ("mix", "out")],
        *[(name, _P) for name in ("mixed", "features", "density_gradient")],
        *[(name, _Pointers) for name in ("mix_gradient", "out_gradient")],
    ]


def _address(tensor: torch.Tensor) -> int:
    if not tensor.is_contiguous():
        raise ValueError(f"a kernel reads contiguous memory, not strides {tensor.stride()}")
    return tensor.data_ptr()


def _addresses(tensors: Sequence[torch.Tensor]) -> Any:
    return (_P * len(tensors))(*[_address(t) for t in tensors])


class _Output(ctypes.Structure):
    _fields_ = [(name, _P) for name in ("radial", "radial_slope", "angular", "angular_slope", "direction")]


def edge_functions(
    vectors: torch.Tensor, inner: torch.Tensor, r_max: float, n_radial: int, l_max: int, kernels: ctypes.CDLL
) -> dict[str, torch.Tensor]:
    """Functions of edges by name, as :class:`EdgeTensors` holds them.

    Parameters
    ----------
    vectors
        (E, 3), Å
    inner
        (E,), Å, where the distance begins to saturate
    r_max
        cutoff, Å
    n_radial, l_max
        as the kernels were compiled for
    """
    n, size = len(vectors), (l_max + 1) ** 2
    shapes = {
        "radial": (n, n_radial),
        "radial_slope": (n, n_radial),
        "angular": (n, size),
        "angular_slope": (n, 3, size),
        "direction": (n, 3),
    }
    found = {name: vectors.new_empty(shape) for name, shape in shapes.items()}
    if len(inner) != n or inner.dtype != vectors.dtype:
        raise ValueError(f"{n} edges of {vectors.dtype} have {len(inner)} inner lengths of {inner.dtype}")
    c = _Output(**{name: _address(tensor) for name, tensor in found.items()})
    kernels.edge_functions(_I(n), _P(_address(vectors)), _P(_address(inner)), ctypes.c_double(r_max), ctypes.byref(c))
    return found


class Density(torch.autograd.Function):
    """Displacement (K, E, 3) → density (K, S, R, n_radial), the same whatever the displacement holds."""

    @staticmethod
    def forward(ctx: Any, displacement: torch.Tensor, edges: EdgeTensors, kernels: ctypes.CDLL) -> torch.Tensor:
        ctx.edges, ctx.kernels, ctx.shape = edges, kernels, displacement.shape
        value = density(edges, kernels)
        return value.expand(len(displacement), *value.shape[1:]).contiguous()

    @staticmethod
    def backward(ctx: Any, *gradients: torch.Tensor) -> tuple[torch.Tensor | None, ...]:
        edges, gradient = ctx.edges, gradients[0].contiguous()
        out = gradient.new_zeros(ctx.shape)
        c = _Edges.of(edges)
        ctx.kernels.density_adjoint(
            ctypes.byref(c), _P(_address(edges.rows)), _I(edges.n_rows), _P(_address(gradient)), _P(_address(out)),
            _I(len(out)),
        )  # fmt: skip
        return out, None, None


def density(edges: EdgeTensors, kernels: ctypes.CDLL) -> torch.Tensor:
    """Density (1, S, R, n_radial), which all members share."""
    n_radial, size = edges.radial.shape[1], edges.angular.shape[1]
    value = edges.radial.new_empty(1, size, edges.n_rows, n_radial)
    c = _Edges.of(edges)
    kernels.density_value(ctypes.byref(c), _P(_address(edges.rows)), _I(edges.n_rows), _P(_address(value)))
    return value


def density_tangent(edges: EdgeTensors, displacement: torch.Tensor, kernels: ctypes.CDLL) -> torch.Tensor:
    """Change of the density along a displacement (K, E, 3): (K, S, R, n_radial)."""
    members, n_radial, size = len(displacement), edges.radial.shape[1], edges.angular.shape[1]
    out = displacement.new_empty(members, size, edges.n_rows, n_radial)
    c = _Edges.of(edges)
    kernels.density_tangent(
        ctypes.byref(c), _P(_address(edges.rows)), _I(edges.n_rows), _P(_address(displacement)), _P(_address(out)),
        _I(members),
    )  # fmt: skip
    return out


def collect(
    pull: torch.Tensor,
    edges: EdgeTensors,
    vectors: torch.Tensor,
    structure: torch.Tensor,
    n_structures: int,
    kernels: ctypes.CDLL,
) -> tuple[torch.Tensor, torch.Tensor]:
    """What pulls at the edges (K, E, 3) as forces (K, N, 3) and virials (K, n, 6 Voigt), with `vectors` (E, 3), Å."""
    members = len(pull)
    forces = pull.new_zeros(members, edges.n_atoms, 3)
    virial = pull.new_zeros(members, n_structures, 6)
    _by_structure(
        kernels.collect, edges, vectors, structure, n_structures, (pull.contiguous(), forces, virial), members
    )
    return forces, virial


def displace(
    forces: torch.Tensor,
    virial: torch.Tensor,
    edges: EdgeTensors,
    vectors: torch.Tensor,
    structure: torch.Tensor,
    kernels: ctypes.CDLL,
) -> torch.Tensor:
    """The adjoint of :func:`collect`: displacements (K, E, 3) of the edges for those of forces and virials."""
    moved = forces.new_empty(len(forces), edges.n_edges, 3)
    given = (forces.contiguous(), virial.contiguous(), moved)
    _by_structure(kernels.displace, edges, vectors, structure, virial.shape[1], given, len(forces))
    return moved


def _by_structure(
    kernel: Callable[..., Any],
    edges: EdgeTensors,
    vectors: torch.Tensor,
    structure: torch.Tensor,
    n_structures: int,
    tensors: Sequence[torch.Tensor],
    members: int,
) -> None:
    if structure.dtype != torch.int64:
        raise ValueError(f"a kernel reads indices of 64 bits, not {structure.dtype}")
    c = _Edges.of(edges)
    kernel(
        ctypes.byref(c), _P(_address(structure)), _I(n_structures), _P(_address(vectors)),
        *(_P(_address(t)) for t in tensors), _I(members),
    )  # fmt: skip


def _message(
    edges: _Edges, scalars: torch.Tensor, tensors: torch.Tensor, weights: torch.Tensor, out: torch.Tensor, **more: Any
) -> _Message:
    return _Message(
        edges=ctypes.pointer(edges),
        members=scalars.shape[0],
        rows=scalars.shape[1],
        channels=scalars.shape[2],
        scalars=_address(scalars),
        tensors=_address(tensors),
        weights=_address(weights),
        out=_address(out),
        **{name: _address(value) for name, value in more.items()},
    )


def _send(
    kernel: Callable[[Any], Any],
    edges: EdgeTensors,
    scalars: torch.Tensor,
    tensors: torch.Tensor,
    own: torch.Tensor,
    weights: torch.Tensor,
    **more: torch.Tensor,
) -> torch.Tensor:
    members, rows, channels = scalars.shape
    out = scalars.new_empty(members, edges.angular.shape[1], rows, channels)
    kernel(ctypes.byref(_message(_Edges.of(edges), scalars, tensors, weights, out, **more)))
    out[:, : own.shape[1]] += own
    return out


class Message(torch.autograd.Function):
    """Scalars (K, N, C), tensors (K, H, N, C), weights (K, n_radial, NR, C) → (K, S, N, C).

    `own` (K, 1 + H, N, C) is what an atom sends to itself, added to the first components. The adjoint gives gradients
    by the displacement (K, E, 3), the scalars, the tensors and `own`; the weights are constants.
    """

    @staticmethod
    def forward(
        ctx: Any,
        displacement: torch.Tensor,
        scalars: torch.Tensor,
        tensors: torch.Tensor,
        own: torch.Tensor,
        weights: torch.Tensor,
        edges: EdgeTensors,
        kernels: ctypes.CDLL,
    ) -> torch.Tensor:
        ctx.edges, ctx.kernels, ctx.shape = edges, kernels, displacement.shape
        ctx.save_for_backward(scalars, tensors, weights)
        ctx.n_own = own.shape[1]
        return _send(kernels.message_value, edges, scalars, tensors, own, weights)

    @staticmethod
    def backward(ctx: Any, *gradients: torch.Tensor) -> tuple[torch.Tensor | None, ...]:
        scalars, tensors, weights = ctx.saved_tensors
        moved = scalars.new_zeros(ctx.shape)
        by_scalars, by_tensors = torch.zeros_like(scalars), torch.zeros_like(tensors)
        given = gradients[0].contiguous()
        call = _message(
            _Edges.of(ctx.edges), scalars, tensors, weights, given,
            scalars_gradient=by_scalars, tensors_gradient=by_tensors, displacement_gradient=moved,
        )  # fmt: skip
        ctx.kernels.message_adjoint(ctypes.byref(call))
        return moved, by_scalars, by_tensors, given[:, : ctx.n_own], None, None, None


class MessageTangent(torch.autograd.Function):
    """The message with its tangent along a constant displacement: rows are N values and N tangents."""

    @staticmethod
    def forward(
        ctx: Any,
        displacement: torch.Tensor,
        scalars: torch.Tensor,
        tensors: torch.Tensor,
        own: torch.Tensor,
        weights: torch.Tensor,
        edges: EdgeTensors,
        kernels: ctypes.CDLL,
    ) -> torch.Tensor:
        ctx.edges, ctx.kernels = edges, kernels
        ctx.save_for_backward(displacement, scalars, tensors, weights)
        ctx.n_own = own.shape[1]
        return _send(kernels.message_tangent, edges, scalars, tensors, own, weights, displacement=displacement)

    @staticmethod
    def backward(ctx: Any, *gradients: torch.Tensor) -> tuple[torch.Tensor | None, ...]:
        displacement, scalars, tensors, weights = ctx.saved_tensors
        out = [torch.zeros_like(t) for t in (scalars, tensors, weights)]
        given = gradients[0].contiguous()
        call = _message(
            _Edges.of(ctx.edges), scalars, tensors, weights, given, displacement=displacement,
            scalars_gradient=out[0], tensors_gradient=out[1], weights_gradient=out[2],
        )  # fmt: skip
        ctx.kernels.message_tangent_adjoint(ctypes.byref(call))
        return None, out[0], out[1], given[:, : ctx.n_own], out[2], None, None


class Products(torch.autograd.Function):
    """The products of a layer: density (K, S, rows, C) → features (K, (top + 1)², rows, C).

    Weights are (K, paths · C, C), those between the products for every degree up to l_product, then those of the
    features up to `top`. Without tangents only the density gets a gradient.
    """

    @staticmethod
    def forward(
        ctx: Any, given: torch.Tensor, tangents: bool, top: int, kernels: ctypes.CDLL, *weights: torch.Tensor
    ) -> torch.Tensor:
        ctx.tangents, ctx.top, ctx.kernels = tangents, top, kernels
        members, _, rows, channels = given.shape
        l_kept = len(weights) - top - 2
        mixed = given.new_empty(members, (l_kept + 1) ** 2, rows, channels)
        features = given.new_empty(members, (top + 1) ** 2, rows, channels)
        ctx.save_for_backward(given, mixed, *weights)
        Products._call(ctx, given, mixed, weights, features)
        return features

    @staticmethod
    def _call(
        ctx: Any,
        given: torch.Tensor,
        mixed: torch.Tensor,
        weights: Sequence[torch.Tensor],
        features: torch.Tensor,
        gradient: torch.Tensor | None = None,
        weight_gradients: Sequence[torch.Tensor] = (),
    ) -> None:
        members, _, rows, channels = given.shape
        split = len(weights) - ctx.top - 1
        call = _Product(
            members=members,
            atoms=rows // 2 if ctx.tangents else rows,
            channels=channels,
            with_tangents=ctx.tangents,
            adjoint=gradient is not None,
            density=_address(given),
            mix=_addresses(weights[:split]),
            out=_addresses(weights[split:]),
            mixed=_address(mixed),
            features=_address(features),
            density_gradient=None if gradient is None else _address(gradient),
            mix_gradient=_addresses(weight_gradients[:split]) if weight_gradients else None,
            out_gradient=_addresses(weight_gradients[split:]) if weight_gradients else None,
        )
        getattr(ctx.kernels, f"product{ctx.top}")(ctypes.byref(call))

    @staticmethod
    def backward(ctx: Any, *gradients: torch.Tensor) -> tuple[torch.Tensor | None, ...]:
        given, mixed, *weights = ctx.saved_tensors
        by_density = torch.empty_like(given)
        by_weights: list[torch.Tensor] = [torch.zeros_like(w) for w in weights] if ctx.tangents else []
        by_features = gradients[0].contiguous()
        Products._call(ctx, given, mixed, weights, by_features, by_density, by_weights)
        return (by_density, None, None, None, *(by_weights if ctx.tangents else [None] * len(weights)))
