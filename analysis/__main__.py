"""From ledger to decision, and from comparisons judged elsewhere to win rates.

``python -m analysis report RUNS_DIR`` writes the report of a finished sweep into ``RUNS_DIR/report/``.
``python -m analysis report --from-json REPORT_JSON`` writes the HTML and Markdown of a report.json again.
``python -m analysis winrate FILE... --format alpaca_eval`` prints raw and length-controlled win rates of each file.
``python -m analysis sign REPORT_DIR …`` records who accepts a report, ``… verify REPORT_DIR`` whether it is unchanged.
``python -m analysis compare OUTPUTS_A OUTPUTS_B --base OUTPUTS_BASE`` prints how far the style of two files of texts
moved from a base's.
"""

from __future__ import annotations

import argparse
import json
import signal
import sys
from collections.abc import Sequence
from dataclasses import asdict
from pathlib import Path
from typing import Any

from threadpoolctl import threadpool_limits

from analysis.elsewhere.annotations import FORMATS, AnnotationError
from analysis.elsewhere.compare import compare, render_comparison
from analysis.elsewhere.outputs import OutputsError
from analysis.elsewhere.win_rates import render_table, win_rates
from analysis.ledger import LedgerError
from analysis.ledger.load import load_ledger
from analysis.report.files import HTML, JSON, MARKDOWN, ReportError, render_again, write_report
from analysis.report.pdf import write_pdf
from analysis.report.signatures import SignoffError
from analysis.signoff.commands import add_commands
from analysis.text import visible
from runner.ledger.provenance import project_version

BAD_INPUT = 2
RULES = Path(__file__).parents[1] / "conf/rules/preregistered.yaml"


def main(arguments: Sequence[str] | None = None) -> int:
    """Run one subcommand; returns its exit code, or 2 with one line on stderr for bad input."""
    parser = argparse.ArgumentParser(
        prog="python -m analysis", description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--version", action="version", version=project_version())
    commands = parser.add_subparsers(required=True, metavar="COMMAND")
    _add_report(commands)
    winrate = commands.add_parser("winrate", help="win rates of comparisons that another tool judged")
    winrate.add_argument("files", type=Path, nargs="+", metavar="FILE", help="annotations, JSON or JSON packed by gzip")
    winrate.add_argument("--format", required=True, metavar="NAME", help=f"of the files: {', '.join(FORMATS)}")
    winrate.add_argument("--json", action="store_true", help="print a JSON list, one object a file, rates in percent")
    winrate.set_defaults(run=lambda options: print_win_rates(options.files, options.format, options.json))
    _add_compare(commands)
    add_commands(commands)
    options = parser.parse_args(arguments)
    try:
        with threadpool_limits(1):  # the products are small: threads only wait, and their number would move last digits
            return options.run(options) or 0
    except (LedgerError, AnnotationError, OutputsError, ReportError, SignoffError, OSError) as error:
        print(f"error: {visible(' '.join(str(error).split()))}", file=sys.stderr)
        return BAD_INPUT


def _add_compare(commands: Any) -> None:
    parser = commands.add_parser("compare", help="style drift and diversity of texts that another tool generated")
    files = "JSON or JSON lines of prompt (or instruction) and output (or response), also packed by gzip"
    parser.add_argument("outputs", type=Path, nargs=2, metavar="OUTPUTS", help=f"two files: {files}")
    parser.add_argument("--base", type=Path, required=True, metavar="FILE", help="what both are measured from")
    parser.add_argument(
        "--base-again", type=Path, metavar="FILE", help="the base under other random numbers, for the noise floor"
    )
    parser.add_argument(
        "--rules", type=Path, metavar="FILE", default=RULES, help="from when on style counts as drifted (%(default)s)"
    )
    parser.add_argument("--json", action="store_true", help="print JSON with the keys of report.json")
    parser.set_defaults(
        run=lambda options: print_comparison(
            options.outputs, options.base, options.base_again, options.rules, options.json
        )
    )


def _add_report(commands: Any) -> None:
    parser = commands.add_parser("report", help="write report.html, report.md and report.json of a sweep")
    source = parser.add_mutually_exclusive_group(required=True)
    source.add_argument(
        "runs_dir", type=Path, nargs="?", metavar="RUNS_DIR", help="the sweep's folder, the one with plan.json"
    )
    source.add_argument(
        "--from-json", type=Path, metavar="REPORT_JSON", help="write only HTML and Markdown anew, from this file"
    )
    parser.add_argument("--pdf", action="store_true", help="write report.pdf too (needs the extra `pdf`)")
    parser.set_defaults(run=lambda options: _report(options.runs_dir, options.from_json, options.pdf))


def _report(runs_dir: Path, report_json: Path | None, with_pdf: bool) -> None:
    """Write a report, as PDF too if it is asked for, and print its place and what it says.

    Raises:
        LedgerError: the sweep cannot be reported on.
        ReportError: the file holds no report.
        SignoffError: signatures there are damaged, or files are links.
    """
    if report_json is not None:
        pages = render_again(report_json)
        print(*pages, sep="\n")
        if with_pdf:
            write_pdf(next(page for page in pages if page.suffix == ".html"))
        return
    written = write_report(load_ledger(runs_dir))
    if written.remark:
        print(written.remark)
    print(*(written.folder / name for name in (JSON, MARKDOWN, HTML)), sep="\n")
    if with_pdf:
        write_pdf(written.folder / HTML)
    print(written.headline)


def print_win_rates(files: Sequence[Path], format_name: str, as_json: bool) -> None:
    """Print one row per file.

    Raises:
        AnnotationError: a file cannot be used.
    """
    results = win_rates(files, format_name)
    if as_json:
        print(json.dumps([asdict(result) for result in results], indent=1, allow_nan=False))
    else:
        print(render_table(results))


def print_comparison(outputs: Sequence[Path], base: Path, base_again: Path | None, rules: Path, as_json: bool) -> None:
    """Print how far two files' style moved from the base's.

    Raises:
        OutputsError: a file cannot be used.
    """
    content = compare(outputs[0], outputs[1], base, base_again, rules)
    print(json.dumps(content, indent=1, allow_nan=False) if as_json else render_comparison(content))


if __name__ == "__main__":
    signal.signal(signal.SIGPIPE, signal.SIG_DFL)  # in a pipe to `head`, end as silently as other commands do
    sys.exit(main())
