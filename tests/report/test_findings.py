"""Every rule speaks when it should, and is silent when it should be."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import replace

import pytest

from alflow.errors import FailureKind
from alflow.ledger import CandidateState, FailureCount, Ledger, Stream
from alflow.potentials import Kind
from alflow.report import _findings as rules
from alflow.report._data import Fate, HullPoint, Judged, ReasonCount, ReportData, SourceFlow
from alflow.report._findings import Severity, with_findings
from alflow.report._gather import gather


@pytest.fixture(scope="module")
def data(ledger: Ledger) -> ReportData:
    return gather(ledger, "ni-pt")


@pytest.fixture
def quiet(data: ReportData) -> ReportData:
    """The same campaign without anything remarkable."""
    return replace(data, judged=(), rounds=(), flows=(), reasons=(), failures=(), n_reused=0, n_uncertain=0)


def test_targets_below_the_noise(data: ReportData) -> None:
    assert titles(rules.targets_below_noise, data) == []
    noisy = replace(data, below_noise=("the target energy is too small",))
    [finding] = rules.targets_below_noise(noisy)
    assert finding.severity == Severity.WARNING
    assert finding.text == "The target energy is too small."


def titles(rule: rules.Rule, data: ReportData) -> list[str]:
    return [finding.title for finding in rule(data)]


def judged(error: float, interval: float = 1.0, n: int = 30, stream: Stream = Stream.RANDOM) -> tuple[Judged, ...]:
    row = Judged(
        structure_id=1,
        round_index=3,
        stream=stream,
        n_labels=10,
        sigma={Kind.ENERGY: interval},
        interval={Kind.ENERGY: interval},
        error={Kind.ENERGY: error},
    )
    return (row,) * n


def test_nothing_stands_out(quiet: ReportData) -> None:
    [finding] = with_findings(quiet).findings
    assert finding.title == "Nothing stands out"


def test_warnings_come_first(data: ReportData) -> None:
    severities = [Severity(f.severity) for f in with_findings(data).findings]
    assert severities == sorted(severities, key=list(Severity).index)
    assert len(severities) > 2


def test_unconfirmed_compounds(quiet: ReportData) -> None:
    assert titles(rules.unconfirmed_compounds, quiet) == []
    assert quiet.hull is not None
    compounds = tuple(replace(c, confirmed=False, remark="not relaxed") for c in quiet.hull.compounds)
    loud = replace(quiet, hull=replace(quiet.hull, compounds=compounds))
    [finding] = rules.unconfirmed_compounds(loud)
    assert finding.severity == Severity.WARNING
    assert "Ni₃Pt (not relaxed)" in finding.text
    assert titles(rules.unconfirmed_references, loud) == ["An elemental reference is not relaxed"]


def test_missing_reference(quiet: ReportData) -> None:
    assert quiet.hull is not None
    loud = replace(quiet, hull=replace(quiet.hull, missing_references=("Pt",)))
    assert titles(rules.unconfirmed_references, loud) == ["No labelled reference of Pt"]


@pytest.mark.parametrize(("error", "severity"), [(0.001, Severity.WARNING), (0.05, Severity.ADVICE)])
def test_promising_candidates(quiet: ReportData, error: float, severity: Severity) -> None:
    assert quiet.hull is not None
    point = HullPoint(
        candidate_id=7,
        formula="Ni5Pt",
        fractions=(5 / 6, 1 / 6),
        formation=-0.1,
        e_hull=-0.01,
        error=error,
        state=CandidateState.POOLED,
        has_label=False,
    )
    [finding] = rules.promising_candidates(replace(quiet, hull=replace(quiet.hull, promising=(point,))))
    assert finding.severity == severity
    assert "candidate 7 (Ni₅Pt), 10.0 ±" in finding.text


@pytest.mark.parametrize(
    ("rows", "expected"),
    [
        (judged(2.0), ["Stated errors of energies are too small"]),
        (judged(0.5, n=60), ["Stated errors of energies are larger than needed"]),
        (judged(0.5, n=27) + judged(2.0, n=3), []),
        (judged(2.0, n=10), []),  # too few to say
    ],
)
def test_calibration_drift(quiet: ReportData, rows: Sequence[Judged], expected: list[str]) -> None:
    assert titles(rules.calibration_drift, replace(quiet, judged=tuple(rows))) == expected


def test_overconfident_members(data: ReportData, quiet: ReportData) -> None:
    [finding] = rules.overconfident_members(data)  # a = 4 for the stress
    assert "stresses × 4.0" in finding.text
    assert "energies" not in finding.text
    assert titles(rules.overconfident_members, quiet) == []


@pytest.mark.parametrize(
    ("rows", "title"),
    [
        (judged(0.02), "The targets are not reached yet"),
        (judged(0.002), "The targets are reached on ordinary candidates"),
    ],
)
def test_targets(quiet: ReportData, rows: tuple[Judged, ...], title: str) -> None:
    assert titles(rules.errors_above_target, replace(quiet, judged=rows)) == [title]


def test_targets_are_judged_on_the_random_stream_alone(quiet: ReportData) -> None:
    loud = replace(quiet, judged=judged(0.02, stream=Stream.ACTIVE))
    assert titles(rules.errors_above_target, loud) == []


@pytest.mark.parametrize(
    ("reason", "remedy"),
    [("minimum distance", "Softer moves"), ("too large a volume", "come apart"), ("odd", "alflow ls")],
)
def test_many_rejected(quiet: ReportData, reason: str, remedy: str) -> None:
    loud = replace(
        quiet,
        flows=(SourceFlow(source="dynamics", fates={Fate.REJECTED: 50, Fate.POOLED: 50}),),
        reasons=(ReasonCount(fate=Fate.REJECTED, reason=reason, count=50),),
    )
    [finding] = rules.many_rejected(loud)
    assert finding.title == "50 % of what dynamics proposes is rejected"
    assert remedy in finding.suggestion


@pytest.mark.parametrize(
    ("fates", "speaks"),
    [
        ({Fate.DUPLICATE: 95, Fate.POOLED: 5}, True),
        ({Fate.DUPLICATE: 50, Fate.POOLED: 50}, False),
        ({Fate.DUPLICATE: 10}, False),  # too few to say
    ],
)
def test_exhausted_sources(quiet: ReportData, fates: dict[Fate, int], speaks: bool) -> None:
    loud = replace(quiet, flows=(SourceFlow(source="relax", fates=fates),))
    assert bool(titles(rules.exhausted_sources, loud)) is speaks


@pytest.mark.parametrize(
    "change",
    [lambda d: replace(d, n_set_aside=50), lambda d: replace(d, n_uncertain=1)],
)
def test_left_in_pool(quiet: ReportData, change: Callable[[ReportData], ReportData]) -> None:
    assert titles(rules.left_in_pool, quiet) == []
    assert len(titles(rules.left_in_pool, change(quiet))) == 1


@pytest.mark.parametrize(("kind", "advice"), [("not_converged", "Ease convergence"), ("novel", "alflow queue ls")])
def test_failures(quiet: ReportData, kind: str, advice: str) -> None:
    loud = replace(quiet, failures=(FailureCount(kind=kind, count=1, example="60 steps"),))
    [finding] = rules.failures(loud)
    assert advice in finding.suggestion
    assert "60 steps" in finding.text


@pytest.mark.parametrize("kind", FailureKind)
def test_every_cause_of_failure_has_a_suggestion_of_its_own(quiet: ReportData, kind: FailureKind) -> None:
    [finding] = rules.failures(replace(quiet, failures=(FailureCount(kind=kind.value, count=1, example=""),)))
    assert finding.suggestion == kind.suggestion
    assert finding.suggestion.endswith(".")
    assert [other for other in FailureKind if other.suggestion == kind.suggestion] == [kind]


def test_every_rule_is_in_the_list_and_on_the_documentation_page(data: ReportData) -> None:
    named = {name for name, thing in vars(rules).items() if callable(thing) and name.islower() and name[0] != "_"}
    own = {name for name in named if getattr(rules, name).__module__ == rules.__name__} - {"with_findings"}
    assert {rule.__name__ for rule in rules.RULES} == own
