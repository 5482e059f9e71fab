from __future__ import annotations

import shutil
import subprocess
import sys

import pytest

from analysis.__main__ import main
from analysis.report.build import build_report
from analysis.report.pdf import PdfError, pdf, with_fixed_ink
from analysis.report.render import render_html

PDFTOPPM, PDFTOTEXT = shutil.which("pdftoppm"), shutil.which("pdftotext")


def test_figures_have_the_colours_of_print(make_ledger):
    page = with_fixed_ink(render_html(build_report(make_ledger())))
    body = page.split("</style>", 1)[1]
    assert "var(" not in body
    assert "currentColor" not in body
    assert "#0072b2" in body
    assert "var(--ink)" in page.split("</style>")[0]


def test_without_weasyprint_the_rest_is_written(make_sweep, monkeypatch, capsys):
    monkeypatch.setitem(sys.modules, "weasyprint", None)
    sweep = make_sweep()
    assert main(["report", str(sweep.folder), "--pdf"]) == 0
    printed = capsys.readouterr()
    assert printed.err.startswith("no report.pdf: WeasyPrint is not installed")
    assert not (sweep.folder / "report/report.pdf").exists()
    assert (sweep.folder / "report/report.html").exists()


@pytest.fixture(scope="module")
def weasyprint():
    try:
        return pdf("<style></style><p>probe")
    except PdfError as error:
        pytest.skip(f"no PDF was made: {error}")


@pytest.mark.usefixtures("weasyprint")
def test_pdf_has_pages_with_everything_on_them(make_sweep, capsys, tmp_path):
    sweep = make_sweep()
    assert main(["report", str(sweep.folder), "--pdf"]) == 0
    made = sweep.folder / "report/report.pdf"
    assert str(made) in capsys.readouterr().out
    assert made.read_bytes() == pdf((sweep.folder / "report/report.html").read_text())  # the same bytes again
    if not PDFTOPPM or not PDFTOTEXT:
        pytest.skip("the pages were not looked at: pdftoppm and pdftotext are not on PATH (Debian: poppler-utils)")
    subprocess.run([PDFTOPPM, "-r", "40", "-png", made, tmp_path / "page"], check=True)
    pages = sorted(tmp_path.glob("page*.png"))
    assert len(pages) > 3
    assert pages[0].stat().st_size > 5_000  # not blank
    words = subprocess.run([PDFTOTEXT, made, "-"], check=True, capture_output=True, text=True).stdout
    for heading in ("The arms at a glance", "Learning curves", "What this does not prove", "Provenance"):
        assert heading in words  # appendices are open
    assert words.count("prompt presentations in training") >= 1
    assert "tokens generated and trained on" not in words  # of the curves only the first is printed
