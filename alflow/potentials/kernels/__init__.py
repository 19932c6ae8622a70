"""The committee network on a processor, fast: C++ written out for one network shape and compiled once on the machine.

The plain network in :mod:`alflow.potentials` defines what is computed; nothing here is needed for a right result. A
compiler is looked for, the result is compared with the plain network before its first use, and without either the plain
network works on its own, several times slower.
"""

from alflow.native import KernelsUnavailableError, find_compiler
from alflow.potentials.kernels._generate import KernelShape, load_kernels, source
from alflow.potentials.kernels._operations import (
    Density,
    EdgeTensors,
    Message,
    MessageTangent,
    Products,
    collect,
    density,
    density_tangent,
    displace,
    edge_functions,
)

__all__ = [
    "Density",
    "EdgeTensors",
    "KernelShape",
    "KernelsUnavailableError",
    "Message",
    "MessageTangent",
    "Products",
    "collect",
    "density",
    "density_tangent",
    "displace",
    "edge_functions",
    "find_compiler",
    "load_kernels",
    "source",
]
