"""report.json -> Markdown that reads well in a pull request. Texts are escaped or fenced: they may hold any markup."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from typing import Any

from analysis.report.cells import Cell, Table
from analysis.report.render import environment, view
from analysis.report.signatures import Signature
from analysis.text import markdown_fence, markdown_inline


def render_markdown(report: Mapping[str, Any], signed: Sequence[Signature] = ()) -> str:
    """The Markdown twin of report.json and the signatures under it."""
    engine = environment(autoescape=False, md=markdown_inline, fence=markdown_fence, table=table)
    return engine.get_template("report.md.j2").render(**view(report, signed))


def table(content: Table) -> str:
    """A GitHub table; the caption stands above it."""
    rows = [_line([content.corner, *content.columns]), _line(["---"] * (len(content.columns) + 1), escaped=False)]
    rows += [
        _line([_label(row.label, row.meaning), *(_cell(item) for item in row.cells)], escaped=False)
        for row in content.rows
    ]
    return f"*{markdown_inline(content.caption)}*\n\n" + "\n".join(rows)


def _line(cells: Iterable[str], escaped: bool = True) -> str:
    return "| " + " | ".join(markdown_inline(cell) if escaped else cell for cell in cells) + " |"


def _label(label: str, meaning: str) -> str:
    return f"**{markdown_inline(label)}**" + (f"<br>{markdown_inline(meaning)}" if meaning else "")


def _cell(cell: Cell) -> str:
    parts = [cell.main, f"[{cell.interval}]" if cell.interval else "", cell.remark]
    return "<br>".join(markdown_inline(part) for part in parts if part.strip())
