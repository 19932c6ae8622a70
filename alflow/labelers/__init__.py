"""Labelers compute energy, forces and stress at one theory, and judge whether the result can be trusted.

A labeler gets a directory and settings; it knows no database, no campaign and no committee. `emt`, `ase` and `replay`
live here; others are found through the entry points `alflow.labelers`. A calculation without positive evidence of
success is a typed :class:`~alflow.errors.LabelFailure`, never a number.
"""

from alflow.labelers._ase import AseLabeler, AseSettings
from alflow.labelers._command import CommandLabeler
from alflow.labelers._command_settings import CommandSettings, TemplateSettings
from alflow.labelers._conformance import check_labeler
from alflow.labelers._converge import ConvergencePoint
from alflow.labelers._converge import compare as compare_convergence
from alflow.labelers._converge import converge as converge_labeler
from alflow.labelers._emt import EMT_ELEMENTS, EmtLabeler, EmtSettings
from alflow.labelers._espresso import EspressoLabeler
from alflow.labelers._espresso_settings import EspressoSettings
from alflow.labelers._examine import Examined, examine_labeler
from alflow.labelers._foreign import ForeignKind, ForeignSource, find_foreign, read_foreign
from alflow.labelers._foreign_frame import ForeignFrame, ForeignSettings, FoundSetting, one_theory
from alflow.labelers._gpaw import GpawLabeler
from alflow.labelers._gpaw_settings import GpawSettings
from alflow.labelers._in_process import InProcessLabeler
from alflow.labelers._noise import Difference, Noise, below_noise, measure_noise, small_crystal
from alflow.labelers._program import Ended, Invocation, ProgramLabeler, logs_in, programs_left
from alflow.labelers._protocol import Labeler, RunHandle, RunState
from alflow.labelers._record import read_input
from alflow.labelers._registry import get_labeler, labeler_for_theory, labeler_names, labeler_type
from alflow.labelers._replay import ReplayLabeler, ReplaySettings
from alflow.labelers._result import LabelResult, RawOutcome
from alflow.labelers._theory import Capabilities, Moments, TheorySpec
from alflow.labelers._vasp import VaspLabeler
from alflow.labelers._vasp_outputs import read_vasp_run
from alflow.labelers._vasp_run import VaspRun, VaspStep
from alflow.labelers._vasp_settings import VaspSettings
from alflow.labelers._worker import (
    CalculatorSettings,
    OutputSettings,
    ProgramSettings,
    RetrySettings,
    WorkerConfig,
    load_worker_config,
)

__all__ = [
    "EMT_ELEMENTS",
    "AseLabeler",
    "AseSettings",
    "CalculatorSettings",
    "Capabilities",
    "CommandLabeler",
    "CommandSettings",
    "ConvergencePoint",
    "Difference",
    "EmtLabeler",
    "EmtSettings",
    "Ended",
    "EspressoLabeler",
    "EspressoSettings",
    "Examined",
    "ForeignFrame",
    "ForeignKind",
    "ForeignSettings",
    "ForeignSource",
    "FoundSetting",
    "GpawLabeler",
    "GpawSettings",
    "InProcessLabeler",
    "Invocation",
    "LabelResult",
    "Labeler",
    "Moments",
    "Noise",
    "OutputSettings",
    "ProgramLabeler",
    "ProgramSettings",
    "RawOutcome",
    "ReplayLabeler",
    "ReplaySettings",
    "RetrySettings",
    "RunHandle",
    "RunState",
    "TemplateSettings",
    "TheorySpec",
    "VaspLabeler",
    "VaspRun",
    "VaspSettings",
    "VaspStep",
    "WorkerConfig",
    "below_noise",
    "check_labeler",
    "compare_convergence",
    "converge_labeler",
    "examine_labeler",
    "find_foreign",
    "get_labeler",
    "labeler_for_theory",
    "labeler_names",
    "labeler_type",
    "load_worker_config",
    "logs_in",
    "measure_noise",
    "one_theory",
    "programs_left",
    "read_foreign",
    "read_input",
    "read_vasp_run",
    "small_crystal",
]
