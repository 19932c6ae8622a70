r"""C++ source of the kernels of one network shape: sizes, and the products of components written out.

A channelwise product is a set of quadratic forms :math:`z_r = \sum_{pq} c_{rpq}\, x_p x_q` in the components x of its
factors, with Clebsch-Gordan coefficients c of which most are zero. Written out term by term it needs no index and no
zero. Four functions come of each; a dot is a tangent, a bar the gradient of what follows:

=================  ====================================================================================================
value              :math:`z_r = \sum c_{rpq} x_p x_q`
tangent            also :math:`\dot z_r = \sum c_{rpq} (\dot x_p x_q + x_p \dot x_q)`
adjoint            :math:`\bar x_p = \sum c_{rpq} \bar z_r x_q`, and the same for q
tangent_adjoint    of both: :math:`\bar x_p = \sum c_{rpq} (\bar z_r x_q + \bar{\dot z}_r \dot x_q)` and
                   :math:`\bar{\dot x}_p = \sum c_{rpq} \bar{\dot z}_r x_q`, and the same for q
=================  ====================================================================================================
"""

from __future__ import annotations

import ctypes
from collections import defaultdict
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from functools import cache
from importlib.resources import files

from alflow.equivariant import ChannelwiseProduct, clebsch_gordan, harmonic_polynomial, n_components
from alflow.native import load_library
from alflow.potentials._radial import CUTOFF_POWER

KINDS = ("value", "adjoint", "tangent", "tangent_adjoint")


@dataclass(frozen=True, kw_only=True)
class KernelShape:
    """What the source depends on.

    Parameters
    ----------
    l_max, l_product, l_hidden
        highest degrees of the density, of what is kept between two products, and of the features in a message
    n_radial
        radial functions
    single
        True for float32, False for float64
    """

    l_max: int
    l_product: int
    l_hidden: int
    n_radial: int
    single: bool


@cache
def load_kernels(shape: KernelShape) -> ctypes.CDLL:
    """Load the kernels of a shape; raises KernelsUnavailableError as :func:`alflow.native.load_library` does."""
    return load_library(source(shape))


@dataclass(frozen=True, kw_only=True)
class Term:
    """One term c x_p x_q of component m of one path of one degree."""

    degree: int
    m: int
    path: int
    p: int
    q: int
    coefficient: float


def source(shape: KernelShape) -> str:
    """The whole source of a shape."""
    square = ChannelwiseProduct(shape.l_max, shape.l_max, shape.l_product, symmetric=True)
    kept = max(shape.l_product, shape.l_hidden)  # degrees beyond l_product have no path, and are zero
    sizes = {
        "L": shape.l_max,
        "S": n_components(shape.l_max),
        "LP": kept,
        "SP": n_components(kept),
        "LH": shape.l_hidden,
        "H": n_components(shape.l_hidden) - 1,
        "NB": shape.n_radial,
        "NR": shape.l_max + 1 + shape.l_hidden,
        "CUTOFF": CUTOFF_POWER,
    }
    lines = [
        f"typedef {'float' if shape.single else 'double'} real;",
        f"enum {{ {', '.join(f'{name} = {value}' for name, value in sizes.items())} }};",
        _file("vectors.cpp"),
        _file("edges.cpp"),
        harmonics_function(shape.l_max),
        _file("functions.cpp"),
        _array("N2", [*square.n_paths, *[0] * (kept - shape.l_product)]),
        product_functions("square", list(product_terms(square)), square.n_paths, [shape.l_max]),
        _file("products.cpp"),
    ]
    for top in sorted({0, shape.l_hidden}):
        cube = ChannelwiseProduct(shape.l_product, shape.l_max, top)
        terms = [*product_terms(cube, n_components(kept)), *norm_terms(shape.l_product, cube.n_paths[0])]
        n_paths = (cube.n_paths[0] + shape.l_product + 1, *cube.n_paths[1:])
        lines += [
            _array(f"N3_{top}", n_paths),
            product_functions(f"cube{top}", terms, n_paths, [kept, shape.l_max]),
            f'extern "C" void product{top}(const Product *q) {{ product(*q, {top}, N3_{top}, cube{top}); }}',
        ]
    return "\n".join(lines)


def _file(name: str) -> str:
    return (files("alflow.potentials.kernels") / name).read_text(encoding="utf-8")


def _array(name: str, values: Sequence[int]) -> str:
    return f"static const i64 {name}[] = {{{', '.join(map(str, values))}}};"


def harmonics_function(l_max: int) -> str:
    r"""Damped harmonics and their partial derivatives at a unit vector (x, y, z), statement by statement.

    :math:`Y_{l,\pm m} = Q_{lm}(z)\, \{A_m, B_m\}` with :math:`A_m + i B_m = (x + iy)^m` and a polynomial Q of z; its
    derivative by x is :math:`m Q \{A_{m-1}, B_{m-1}\}` and that by y :math:`m Q \{-B_{m-1}, A_{m-1}\}`.
    """
    body = ["const V A0 = one, B0 = zero;"]
    body += [
        f"const V A{m} = x * A{m - 1} - y * B{m - 1}, B{m} = x * B{m - 1} + y * A{m - 1};" for m in range(1, l_max + 1)
    ]
    for degree in range(l_max + 1):
        for m in range(degree + 1):
            terms = {c: v for (a, b, c), v in harmonic_polynomial(degree, m).items() if (a, b) == (m, 0)}
            q = [terms.get(power, 0.0) / (degree + 1) for power in range(degree - m + 1)]
            slope = [power * value for power, value in enumerate(q)][1:]
            parts = [(degree * degree + degree + m, f"A{m}", f"A{m - 1}", f"-B{m - 1}")]
            if m > 0:
                parts.append((degree * degree + degree - m, f"B{m}", f"B{m - 1}", f"A{m - 1}"))
            body.append(f"{{ const V q = {_horner(q)}, dq = {_horner(slope)};")
            for i, own, by_x, by_y in parts:
                body.append(f"value[{i}] = q * {own}; dz[{i}] = dq * {own};")
                along = f"dx[{i}] = (real){m} * q * {by_x}; dy[{i}] = (real){m} * q * {by_y};"
                body.append(along if m > 0 else f"dx[{i}] = dy[{i}] = zero;")
            body.append("}")
    lines = "\n    ".join(body)
    return f"""\
static inline void harmonics(V x, V y, V z, V *value, V *dx, V *dy, V *dz) {{
    const V zero = x - x, one = zero + (real)1;
    {lines}
}}"""


def _horner(coefficients: Sequence[float]) -> str:
    """A polynomial of z, coefficients from the constant term on."""
    text = "zero"
    for value in reversed(coefficients):
        text = f"({text} * z + (real){value!r})" if text != "zero" else f"(zero + (real){value!r})"
    return text


def product_terms(product: ChannelwiseProduct, offset: int = 0) -> Iterator[Term]:
    """Terms of a channelwise product, path by path; components of the right factor are counted from `offset`."""
    n_before: dict[int, int] = defaultdict(int)
    for l1, l2, l3 in product.paths:
        table = clebsch_gordan(l1, l2, l3)
        for m1, m2, m3 in zip(*table.nonzero(), strict=True):
            yield Term(
                degree=l3,
                m=int(m3),
                path=n_before[l3],
                p=l1 * l1 + int(m1),
                q=offset + l2 * l2 + int(m2),
                coefficient=float(table[m1, m2, m3]),
            )
        n_before[l3] += 1


def norm_terms(l_max: int, first: int) -> Iterator[Term]:
    """Terms of the invariants Σ_m x_lm² / (2l + 1), paths `first`, `first` + 1, … of degree 0."""
    for degree in range(l_max + 1):
        for m in range(2 * degree + 1):
            p = degree * degree + m
            yield Term(degree=0, m=0, path=first + degree, p=p, q=p, coefficient=1 / (2 * degree + 1))


def product_functions(name: str, terms: Sequence[Term], n_paths: Sequence[int], factors: Sequence[int]) -> str:
    """The four functions of a product and the table of them.

    Parameters
    ----------
    name
        of the table
    terms
        of the quadratic forms
    n_paths
        per degree of the product
    factors
        highest degree of each factor; their components stand side by side
    """
    functions = [_function(f"{name}_{kind}", kind, terms, n_paths, factors) for kind in KINDS]
    return "\n".join([*functions, f"static const Map {name}[] = {{{', '.join(f'{name}_{kind}' for kind in KINDS)}}};"])


def rows_of(pairs: Mapping[tuple[int, int], Mapping[int, float]], r: int) -> dict[int, dict[int, float]]:
    """Coefficients of one result by the first factor of each pair, then by the second."""
    rows: dict[int, dict[int, float]] = defaultdict(dict)
    for (p, q), coefficients in pairs.items():
        if r in coefficients:
            rows[p][q] = coefficients[r]
    return rows


def _function(name: str, kind: str, terms: Sequence[Term], n_paths: Sequence[int], factors: Sequence[int]) -> str:
    tangents, adjoint = kind.startswith("tangent"), kind.endswith("adjoint")
    inputs = [(f, m) for f, l_max in enumerate(factors) for m in range(n_components(l_max))]
    outputs = [(d, m, path) for d, n in enumerate(n_paths) for m in range(2 * d + 1) for path in range(n)]
    number = {output: r for r, output in enumerate(outputs)}
    pairs: dict[tuple[int, int], dict[int, float]] = defaultdict(lambda: defaultdict(float))
    for t in terms:
        pairs[min(t.p, t.q), max(t.p, t.q)][number[t.degree, t.m, t.path]] += t.coefficient
    pairs = dict(sorted(pairs.items()))

    def component(array: str, index: int, tangent: str = "") -> str:
        f, m = inputs[index]
        return f"{array}[{f}] + ({m} * block + {tangent}n) * C + c"

    def result(index: int, tangent: str = "") -> str:
        d, m, path = outputs[index]
        return f"z[{d}] + ({m} * block + {tangent}n) * ldz[{d}] + {path} * C + c"

    def combine(letter: str, coefficients: dict[int, float]) -> str:
        return " + ".join(f"(real){value!r} * {letter}{r}" for r, value in coefficients.items())

    body = [f"V x{i} = load({component('x', i)});" for i in range(len(inputs))]
    if tangents:
        body += [f"V dx{i} = load({component('x', i, 'atoms + ')});" for i in range(len(inputs))]
    if not adjoint:
        # result by result: only its sums are held in registers, beside the factors
        for r in range(len(outputs)):
            body.append("{ V sum = {};" + (" V dsum = {};" if tangents else ""))
            for p, row in rows_of(pairs, r).items():
                inner = " + ".join(f"(real){value!r} * x{q}" for q, value in row.items())
                body.append(f"{{ const V t = {inner}; sum += x{p} * t;")
                if tangents:
                    dinner = " + ".join(f"(real){value!r} * dx{q}" for q, value in row.items())
                    body.append(f"dsum += dx{p} * t + x{p} * ({dinner});")
                body.append("}")
            body.append(
                f"store({result(r)}, sum);" + (f" store({result(r, 'atoms + ')}, dsum);" if tangents else "") + " }"
            )
    else:
        body += [f"V z{r} = load({result(r)});" for r in range(len(outputs))]
        body += [f"V g{i} = {{}};" for i in range(len(inputs))]
        if tangents:
            body += [f"V dz{r} = load({result(r, 'atoms + ')});" for r in range(len(outputs))]
            body += [f"V dg{i} = {{}};" for i in range(len(inputs))]
        for (p, q), coefficients in pairs.items():
            if tangents:
                body.append(
                    f"{{ V t = {combine('z', coefficients)}; V dt = {combine('dz', coefficients)}; "
                    f"g{p} += x{q} * t + dx{q} * dt; g{q} += x{p} * t + dx{p} * dt; "
                    f"dg{p} += x{q} * dt; dg{q} += x{p} * dt; }}"
                )
            else:
                body.append(f"{{ V t = {combine('z', coefficients)}; g{p} += x{q} * t; g{q} += x{p} * t; }}")
        body += [f"store({component('gx', i)}, g{i});" for i in range(len(inputs))]
        if tangents:
            body += [f"store({component('gx', i, 'atoms + ')}, dg{i});" for i in range(len(inputs))]
    lines = "\n        ".join(body)
    rows = "2 * atoms" if tangents else "atoms"
    return f"""\
static void {name}(const real *const *x, real *const *z, const i64 *ldz, real *const *gx, i64 atoms, i64 C) {{
    const i64 block = {rows};
    for (i64 n = 0; n < atoms; n++) for (i64 c = 0; c < C; c += VL) {{
        {lines}
    }}
}}"""
