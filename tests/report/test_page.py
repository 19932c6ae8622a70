"""The page: complete, self-contained, safe, and readable in pieces."""

from __future__ import annotations

import os
import re
from dataclasses import replace
from html.parser import HTMLParser
from pathlib import Path

import pytest

import alflow.report
from alflow.errors import UserError
from alflow.ledger import Ledger
from alflow.report import write_report
from alflow.report._gather import gather
from alflow.report._numbers import milli, spent
from alflow.report._page import prose, render

VOID = {"meta", "link", "br", "img", "hr", "input", "use", "path", "rect"}


class Checker(HTMLParser):
    """Collects ids and outside references, and checks that tags are closed in order."""

    def __init__(self) -> None:
        super().__init__()
        self.open: list[str] = []
        self.ids: list[str] = []
        self.sections: list[str] = []
        self.outside: list[str] = []
        self.tags: set[str] = set()

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.tags.add(tag)
        values = dict(attrs)
        if values.get("id"):
            self.ids.append(values["id"] or "")
            if tag == "section":
                self.sections.append(values["id"] or "")
        for name in ("src", "href", "xlink:href", "action", "data"):
            target = values.get(name)
            if target and not target.startswith(("#", "data:")):
                self.outside.append(target)
        if tag not in VOID:
            self.open.append(tag)

    def handle_startendtag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.handle_starttag(tag, attrs)
        if tag not in VOID:
            self.open.pop()

    def handle_endtag(self, tag: str) -> None:
        if tag not in VOID:
            assert self.open.pop() == tag


def check(text: str) -> Checker:
    checker = Checker()
    checker.feed(text)
    assert not checker.open
    return checker


@pytest.fixture(scope="module")
def page(ledger: Ledger, tmp_path_factory: pytest.TempPathFactory) -> str:
    folder = tmp_path_factory.mktemp("report")
    path = write_report(ledger, "ni-pt", folder / "new" / "report.html")
    assert [p.name for p in path.parent.iterdir()] == ["report.html"]  # no draft is left behind
    return path.read_text(encoding="utf-8")


def test_every_section_is_there(page: str) -> None:
    assert check(page).sections == ["compounds", "findings", "learning", "trust", "candidates", "budget", "how"]


def test_self_contained(page: str) -> None:
    checker = check(page)
    assert checker.outside == []
    assert not checker.tags & {"script", "iframe", "object", "link", "img"}
    assert "@import" not in page
    assert not re.search(r"url\((?!#)", page)


def test_ids_are_unique_over_all_figures(page: str) -> None:
    ids = check(page).ids
    assert len(ids) == len(set(ids))
    for target in set(re.findall(r"(?:href=\"#|url\(#)([^\")]+)", page)):
        assert target in ids


def test_texts_of_the_ledger_are_escaped(page: str) -> None:
    assert "&lt;b&gt;not bold&lt;/b&gt;" in page
    assert "<b>not bold" not in page
    assert "Ni &amp; Pt" in page


def test_figures_follow_the_colour_scheme(page: str) -> None:
    figures = re.findall(r"<svg.*?</svg>", page, flags=re.DOTALL)
    assert len(figures) == 6
    for figure in figures:
        assert "var(--" in figure
        fixed = set(re.findall(r"(?:fill|stroke): (#[0-9a-f]{6})", figure))
        assert fixed <= {"#000000", "#ffffff"}, "a colour that does not follow light and dark"
    assert "prefers-color-scheme: dark" in page
    assert "@media print" in page


def test_points_say_which_candidate_they_are(page: str) -> None:
    assert re.search(r"<title>\d+: Ni₃Pt, -\d+\.\d meV/atom \(label\), labelled</title>", page)


def test_the_answer_is_on_the_page(page: str) -> None:
    text = re.sub(r"<[^>]+>", " ", page)
    assert "Ni₃Pt, NiPt, NiPt₃: on the convex hull" in text
    assert "−139.0" in text
    assert "label budget" in text
    assert "not converged" in text


def test_no_password_on_the_page(page: str) -> None:
    assert "secret" not in page


def test_a_folder_gets_a_file_named_after_the_campaign(ledger: Ledger, tmp_path: Path) -> None:
    assert write_report(ledger, "empty", tmp_path) == tmp_path / "empty.html"


def test_a_report_is_written_again_and_again(ledger: Ledger, tmp_path: Path) -> None:
    path = tmp_path / "r.html"
    path.touch()  # as mktemp leaves it
    write_report(ledger, "empty", path)
    path.write_text(path.read_text().replace(f"alflow {alflow.__version__}", "alflow 0.0.1"))
    write_report(ledger, "ni-pt", path)
    assert "alflow 0.0.1" not in path.read_text()


@pytest.mark.parametrize("content", ["4\n\nNi 0 0 0\n", "<!doctype html>\n<html><title>alflow</title></html>\n"])
def test_a_file_that_is_no_report_stays(ledger: Ledger, tmp_path: Path, content: str) -> None:
    path = tmp_path / "data.extxyz"
    path.write_text(content)
    with pytest.raises(UserError, match=r"data\.extxyz exists already and is no report of alflow"):
        write_report(ledger, "empty", path)
    assert path.read_text() == content
    assert [p.name for p in tmp_path.iterdir()] == ["data.extxyz"]


def test_what_is_no_file_is_not_replaced(ledger: Ledger, tmp_path: Path) -> None:
    os.mkfifo(tmp_path / "pipe")
    with pytest.raises(UserError, match="is no file"):
        write_report(ledger, "empty", tmp_path / "pipe")


def test_a_campaign_that_has_not_begun(ledger: Ledger, tmp_path: Path) -> None:
    text = write_report(ledger, "empty", tmp_path / "r.html").read_text()
    sections = check(text).sections
    assert "learning" in sections
    assert "compounds" not in sections
    assert "No round has judged its predictions yet" in text


def test_without_a_confirmed_compound(ledger: Ledger) -> None:
    data = gather(ledger, "ni-pt")
    assert data.hull is not None
    compounds = tuple(replace(c, confirmed=False, remark="predicted only") for c in data.hull.compounds)
    text = render(replace(data, hull=replace(data.hull, compounds=compounds)))
    assert "No compound is confirmed" in text
    assert "on the hull, not confirmed" in text


def test_more_than_three_elements_give_the_table_alone(ledger: Ledger) -> None:
    data = gather(ledger, "ni-pt")
    assert data.hull is not None
    four = replace(
        data.hull,
        elements=("Ni", "Pt", "Cu", "Au"),
        points=tuple(replace(p, fractions=(*p.fractions, 0.0, 0.0)) for p in data.hull.points),
        compounds=tuple(replace(c, fractions=(*c.fractions, 0.0, 0.0)) for c in data.hull.compounds),
    )
    text = render(replace(data, hull=four))
    assert "Formation energies and the convex hull" not in text
    assert "Ni₃Pt" in text


def test_three_elements_get_a_caption_of_their_own(ledger: Ledger) -> None:
    data = gather(ledger, "ni-pt")
    assert data.hull is not None
    three = replace(
        data.hull,
        elements=("Cu", "Ni", "Pt"),
        points=tuple(replace(p, fractions=(0.0, *p.fractions)) for p in data.hull.points),
        compounds=tuple(replace(c, fractions=(0.0, *c.fractions)) for c in data.hull.compounds),
    )
    text = render(replace(data, hull=three))
    check(text)
    assert "bluer the nearer to the hull" in text
    assert "below the green line" not in text


@pytest.mark.parametrize(("value", "text"), [(None, "–"), (float("nan"), "–"), (-0.118, "−118.0"), (-1e-9, "0.0")])
def test_milli(value: float | None, text: str) -> None:
    assert milli(value) == text


@pytest.mark.parametrize(
    ("value", "unit", "text"),
    [(53, "", "53"), (0.001, "h", "3.6 s"), (0.05, "h", "3 min"), (12.34, "h", "12.3 h"), (0.0, "h", "0 s")],
)
def test_spent(value: float, unit: str, text: str) -> None:
    assert spent(value, unit) == text


def test_prose_marks_code_and_escapes_the_rest() -> None:
    assert prose("use `alflow <x>` & wait") == "use <code>alflow &lt;x&gt;</code> &amp; wait"
    assert prose("a stray ` stays") == "a stray ` stays"


def test_exported_names() -> None:
    assert alflow.report.__all__ == ["CampaignSummary", "OpenPhase", "open_phases", "summarise", "write_report"]
    assert all(getattr(alflow.report, name).__doc__ for name in alflow.report.__all__)
    with pytest.raises(AttributeError, match="no attribute"):
        alflow.report.nothing  # noqa: B018
