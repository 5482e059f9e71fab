"""report.html -> PDF, by WeasyPrint (the extra `pdf`). It needs Pango, a system library."""

from __future__ import annotations

import re
import sys
from pathlib import Path

from analysis.report.render import TEMPLATES
from runner.ledger.files import replacing


class PdfError(Exception):
    """No PDF can be made here. The message says what is missing, for people."""


def write_pdf(page: Path) -> None:
    """Print a report's HTML page to PDF beside it, or say why not: HTML and Markdown stand without it."""
    target = page.with_suffix(".pdf")
    try:
        content = pdf(page.read_text(encoding="utf-8"))
    except PdfError as error:
        print(f"no {target.name}: {error}", file=sys.stderr)
        return
    with replacing(target) as temporary:
        temporary.write_bytes(content)
    print(target)


def pdf(html: str) -> bytes:
    """The report as it prints, appendices open. The same page gives the same bytes.

    Raises:
        PdfError: WeasyPrint or a library that it loads is not installed.
    """
    try:
        from weasyprint import HTML
        from weasyprint.urls import URLFetcher
    except ImportError:
        raise PdfError("WeasyPrint is not installed (pip install 'ppo-dpo-runner[pdf]')") from None
    except OSError as error:  # raised if Pango is not found
        raise PdfError(f"WeasyPrint cannot load Pango, a system library (Debian: libpango-1.0-0): {error}") from None
    nothing = URLFetcher(allowed_protocols=())  # the page refers to nothing; if it did, it would not be fetched
    content: bytes = HTML(string=with_fixed_ink(html), url_fetcher=nothing).write_pdf()
    return content


def with_fixed_ink(html: str) -> str:
    """WeasyPrint draws SVG without the page's variables, so the figures are given the colours of print."""
    print_rules = (TEMPLATES / "style.css").read_text(encoding="utf-8").partition("@media print")[2]
    inks = dict(re.findall(r"(--[\w-]+): (#\w+);", print_rules)) | {"--sans": "sans-serif"}
    head, rest = html.split("</style>", 1)  # the style sheet before it keeps its variables
    rest = re.sub(r"var\((--[\w-]+)\)", lambda match: inks[match[1]], rest)
    return f"{head}</style>{rest.replace('currentColor', inks['--ink'])}"
