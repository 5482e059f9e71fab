"""From ledger to decision, and from comparisons judged elsewhere to win rates.

``python -m analysis report RUNS_DIR`` writes the report of a finished sweep into ``RUNS_DIR/report/``.
``python -m analysis winrate FILE... --format alpaca_eval`` prints raw and length-controlled win rates of each file.
"""

from __future__ import annotations

import argparse
import json
import os
import sys
from collections.abc import Sequence
from pathlib import Path

from analysis.annotations import FORMATS, AnnotationError
from analysis.elsewhere import render_table, win_rates
from analysis.load import LedgerError, load_ledger
from analysis.report.build import build_report
from analysis.report.markdown import render_markdown
from analysis.report.pdf import write_pdf
from analysis.report.render import render_html

BAD_INPUT = 2


def main(arguments: Sequence[str] | None = None) -> int:
    """Run one subcommand; returns the exit code (2 with one line on stderr for bad input)."""
    parser = argparse.ArgumentParser(
        prog="python -m analysis", description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    commands = parser.add_subparsers(required=True, metavar="COMMAND")
    report = commands.add_parser("report", help="write report.html, report.md and report.json of a sweep")
    report.add_argument("runs_dir", type=Path, metavar="RUNS_DIR", help="the sweep's folder, the one with plan.json")
    report.add_argument("--pdf", action="store_true", help="write report.pdf too (needs the extra `pdf`)")
    report.set_defaults(run=lambda options: write_report(options.runs_dir, options.pdf))
    winrate = commands.add_parser("winrate", help="win rates of comparisons that another tool judged")
    winrate.add_argument("files", type=Path, nargs="+", metavar="FILE", help="annotations, JSON or JSON packed by gzip")
    winrate.add_argument("--format", required=True, metavar="NAME", help=f"of the files: {', '.join(FORMATS)}")
    winrate.add_argument("--json", action="store_true", help="print a JSON list, one object a file, rates in percent")
    winrate.set_defaults(run=lambda options: print_win_rates(options.files, options.format, options.json))
    options = parser.parse_args(arguments)
    try:
        options.run(options)
    except (LedgerError, AnnotationError, OSError) as error:
        print(f"error: {' '.join(str(error).split())}", file=sys.stderr)
        return BAD_INPUT
    return 0


def write_report(runs_dir: Path, with_pdf: bool = False) -> None:
    """Write the three files, and the PDF where it is asked for, and print where they are and what they say.

    Raises:
        LedgerError: the sweep cannot be reported on.
    """
    report = build_report(load_ledger(runs_dir))
    files = {
        "report.json": json.dumps(report, indent=1, ensure_ascii=False, allow_nan=False) + "\n",
        "report.md": render_markdown(report),
        "report.html": render_html(report),
    }
    folder = runs_dir / "report"
    folder.mkdir(exist_ok=True)
    for name, text in files.items():
        _replace(folder / name, text)
        print(folder / name)
    if with_pdf:
        write_pdf(folder)
    print(report["headline"])


def print_win_rates(files: Sequence[Path], format_name: str, as_json: bool) -> None:
    """Print one row per file.

    Raises:
        AnnotationError: a file cannot be used.
    """
    results = win_rates(files, format_name)
    if as_json:
        print(json.dumps([result.as_dict() for result in results], indent=1, allow_nan=False))
    else:
        print(render_table(results))


def _replace(path: Path, text: str) -> None:
    """Write atomically: a reader sees the old file or the new one."""
    temporary = path.with_name(f".{path.name}.{os.getpid()}")
    temporary.write_text(text, encoding="utf-8", newline="\n")
    temporary.replace(path)


if __name__ == "__main__":
    sys.exit(main())
