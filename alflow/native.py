"""C++ that the machine's own compiler turns into a library, once, where it has one.

Whatever is written in C++ also exists in plain Python, which defines its meaning and does the work where there is no
compiler; nobody needs one for a right result.
"""

from __future__ import annotations

import atexit
import contextlib
import ctypes
import hashlib
import os
import platform
import shutil
import subprocess
import tempfile
from functools import cache
from pathlib import Path

from alflow.errors import UserError

SWITCH = "ALFLOW_KERNELS"
"""Environment variable: ``auto`` (the default) or ``off``."""
COMPILERS = ("c++", "g++", "clang++")
FLAGS = ("-O3", "-ffp-contract=fast", "-fno-math-errno", "-fopenmp-simd", "-std=c++17", "-shared", "-fPIC", "-w")
SECONDS = 300
"""A compiler that takes longer hangs; our sources need about five."""


class KernelsUnavailableError(Exception):
    """There are no kernels, and why; plain Python does the work."""


def kernels_wanted() -> bool:
    """Whether ``ALFLOW_KERNELS`` allows compiled code; raises UserError where it has no meaning."""
    wanted = os.environ.get(SWITCH, "auto")
    if wanted not in {"auto", "off"}:
        raise UserError(f"{SWITCH} is {wanted!r}; write auto (kernels where possible) or off (plain Python)")
    return wanted == "auto"


def find_compiler() -> str | None:
    """Path of a C++ compiler: ``$CXX`` if it is set, else the first of the usual names; None if there is none."""
    wanted = os.environ.get("CXX")
    return next((path for name in ([wanted] if wanted else COMPILERS) if (path := shutil.which(name))), None)


@cache
def load_library(text: str) -> ctypes.CDLL:
    """Load the library of a source text, compiled now if it is not in the cache.

    The cache is ``alflow/kernels`` below ``$XDG_CACHE_HOME`` or ``~/.cache``; its files are named by a hash of source,
    flags, compiler and processor, and appear complete or not at all, so processes may share it. Where it cannot be
    written, what lies there is used, and the rest is compiled for this process alone.

    Raises
    ------
    KernelsUnavailableError
        if there is no compiler, or it fails
    """
    compiler = find_compiler()
    if compiler is None:
        wanted = os.environ.get("CXX")
        named = (
            f"the variable CXX names {wanted!r}, which is no program here" if wanted else "no C++ compiler was found"
        )
        raise KernelsUnavailableError(f"{named} (install g++, or name a compiler in the variable CXX)")
    flags = [*FLAGS, "-mcpu=native" if platform.machine() in {"aarch64", "arm64"} else "-march=native"]
    identity = "\n".join([text, *flags, _version(compiler), _processor()])
    name = hashlib.sha256(identity.encode()).hexdigest()[:20]
    folder = cache_folder()
    for library in (_shared_folder() / f"{name}.so", folder / f"{name}.so"):
        if _trusted(library):
            with contextlib.suppress(OSError):  # damaged: compiled again
                return ctypes.CDLL(str(library))
    _compile(compiler, flags, text, library)
    try:
        return ctypes.CDLL(str(library))
    except OSError as error:
        raise KernelsUnavailableError(f"what {compiler} compiled cannot be loaded: {error}") from error


def cache_folder() -> Path:
    """Folder to compile kernels into; where the user's cache cannot be written, a private one of this process."""
    with contextlib.suppress(OSError):
        folder = _shared_folder()
        folder.mkdir(parents=True, exist_ok=True, mode=0o700)
        if os.access(folder, os.W_OK) and folder.stat().st_uid == os.getuid():
            return folder
    return _private_folder()


def _shared_folder() -> Path:
    """The user's cache, which may be one that can only be read."""
    try:
        return Path(os.environ.get("XDG_CACHE_HOME") or Path.home() / ".cache") / "alflow" / "kernels"
    except RuntimeError:  # there is no home
        return _private_folder()


def _trusted(library: Path) -> bool:
    """Whether a library is there and nobody but this user, or root, can have put it there."""
    try:
        return all(path.stat().st_uid in {0, os.getuid()} for path in (library, library.parent))
    except OSError:
        return False


@cache
def _private_folder() -> Path:
    folder, process = Path(tempfile.mkdtemp(prefix="alflow-kernels-")), os.getpid()

    def remove() -> None:
        if os.getpid() == process:  # and not in a child that was forked from it
            shutil.rmtree(folder, ignore_errors=True)

    atexit.register(remove)
    return folder


def _compile(compiler: str, flags: list[str], text: str, library: Path) -> None:
    try:
        with tempfile.TemporaryDirectory(prefix=".compiling-", dir=library.parent) as name:
            cpp, so = Path(name) / "kernels.cpp", Path(name) / "kernels.so"
            cpp.write_text(text, encoding="utf-8")
            done = subprocess.run(  # noqa: S603  our own source, the user's compiler
                [compiler, *flags, str(cpp), "-o", str(so)],
                capture_output=True,
                text=True,
                errors="replace",
                check=False,
                timeout=SECONDS,
            )
            if done.returncode != 0:
                said = next((line for line in done.stderr.splitlines() if "error" in line), done.stderr.strip()[:200])
                raise KernelsUnavailableError(f"{compiler} failed: {said}")
            so.replace(library)
    except (OSError, subprocess.TimeoutExpired) as error:  # no such program, a full disk
        raise KernelsUnavailableError(f"{compiler} could not compile in {library.parent}: {error}") from error


@cache
def _version(compiler: str) -> str:
    try:
        done = subprocess.run(  # noqa: S603  asks a compiler for its name
            [compiler, "--version"], capture_output=True, text=True, errors="replace", check=False, timeout=SECONDS
        )
    except (OSError, subprocess.TimeoutExpired) as error:
        raise KernelsUnavailableError(f"{compiler} could not be run: {error}") from error
    return done.stdout


@cache
def _processor() -> str:
    """What ``native`` means here: two machines that share a home folder must not share kernels."""
    try:
        lines = Path("/proc/cpuinfo").read_text(encoding="utf-8", errors="replace").splitlines()
    except OSError:
        return f"{platform.machine()} {platform.processor()} {platform.node()}"
    kept = {line for line in lines if line.split(":")[0].strip() in {"model name", "flags", "Features", "CPU part"}}
    return "\n".join([platform.machine(), *sorted(kept)])
