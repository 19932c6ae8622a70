"""The report in short: Markdown that renders, and an image."""

from __future__ import annotations

import io
import re

from PIL import Image

from alflow.ledger import Ledger
from alflow.report import summarise
from alflow.report._summary import _plain


def test_the_findings_are_markdown_with_whole_tables(ledger: Ledger) -> None:
    found = summarise(ledger, "ni-pt").findings
    assert found.startswith("# ni-pt: ")
    for title in ("## Stable compounds", "## What it cost", "## Are its intervals honest?"):
        assert title in found
    assert re.search(r"\| NiPt? ?", found) or "Ni₃Pt" in found or "NiPt" in found
    for block in re.findall(r"(?:^\|.*\n)+", found, re.MULTILINE):
        widths = {line.replace("\\|", "").count("|") for line in block.splitlines()}
        assert len(widths) == 1, block


def test_the_learning_curve_is_an_image(ledger: Ledger) -> None:
    png = summarise(ledger, "ni-pt").learning_curve
    assert png is not None
    with Image.open(io.BytesIO(png)) as image:
        assert image.format == "PNG"
        assert image.width > 600
        assert len(set(image.convert("L").resize((60, 40)).tobytes())) > 10, "something is drawn"


def test_texts_cannot_write_markup() -> None:
    assert _plain("a | b <script> [x](y) *z*") == "a \\| b \\<script\\> \\[x\\](y) \\*z\\*"
    assert _plain("run `alflow pin_it` now_or") == "run `alflow pin_it` now\\_or"
