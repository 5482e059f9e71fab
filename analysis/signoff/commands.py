"""``python -m analysis sign`` and ``verify``: options, and what people read."""

from __future__ import annotations

import argparse
import re
import sys
from pathlib import Path
from typing import Any

from analysis.report.files import HTML
from analysis.report.pdf import write_pdf
from analysis.report.signatures import DECISIONS, RECORD, Signature
from analysis.signoff import Verdict, sign, verify
from analysis.text import visible
from runner.ledger.reader import newest_report

OK, CHANGED, UNSIGNED, NO_LEDGER = 0, 1, 3, 4  # exit codes of verify; 2 is bad input, as everywhere
MAX_PROBLEMS = 200  # lines that are printed; the rest is counted
PROOF = (
    f"This proves that report, ledger and record agree with the hashes in {RECORD}. It does not prove that the record "
    "is the one people made: whoever can write this folder can also write another record. For that, compare with the "
    "hash of the last entry as it was kept elsewhere: --kept-hash HASH."
)
PROOF_WITH_COPY = (
    f"This proves that report, ledger and record agree with the hashes in {RECORD}, and that the entries up to the one "
    "whose hash was kept elsewhere are the ones from which the copy was taken. Who typed a name, it does not prove."
)


def add_commands(commands: Any) -> None:
    """Add both subcommands to the parser's ``add_subparsers()``."""
    _add_sign(commands)
    _add_verify(commands)


def _add_sign(commands: Any) -> None:
    parser = commands.add_parser("sign", help="record who accepts or rejects a report")
    _add_folders(parser)
    parser.add_argument("--name", required=True, help="who signs")
    parser.add_argument("--role", required=True, help="as what, for example: head of safety")
    parser.add_argument("--decision", required=True, choices=DECISIONS)
    parser.add_argument("--note", default="", help="reasons or dissent; the condition of a conditional decision")
    parser.add_argument(
        "--without-ledger", action="store_true",
        help="sign although the ledger is gone, so that nobody can tell whether the report follows from it",
    )  # fmt: skip
    parser.set_defaults(run=_sign)


def _add_verify(commands: Any) -> None:
    parser = commands.add_parser(
        "verify",
        help="tell whether a signed report, its ledger and its record are as they were signed",
        epilog="exit codes: 0 all agrees, 1 something was changed, 2 bad input, 3 nobody has signed, 4 what is here "
        "agrees, but the ledger is gone. The first line says AS SIGNED, NOT REBUILT if another version of this "
        "program signed: it may come to other last digits, so it does not build the report again",
    )
    _add_folders(parser)
    parser.add_argument(
        "--kept-hash", action="append", default=[], type=_hash, metavar="HASH",
        help="SHA-256 of an entry, of which a copy was kept elsewhere; may be repeated",
    )  # fmt: skip
    parser.add_argument(
        "--rebuild", action="store_true",
        help="build the report from the ledger again and compare every value also if another version signed",
    )  # fmt: skip
    parser.set_defaults(run=_verify)


def _add_folders(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("report_dir", type=Path, metavar="REPORT_DIR", help="the folder with report.json")
    parser.add_argument(
        "--ledger", type=Path, metavar="RUNS_DIR", help="the sweep's folder, if the report does not lie in it"
    )


def _hash(text: str) -> str:
    if not re.fullmatch(r"[0-9a-f]{64}", text.lower()):
        raise argparse.ArgumentTypeError("a SHA-256 has 64 hexadecimal digits")
    return text.lower()


def _sign(options: argparse.Namespace) -> int:
    fields = {key: getattr(options, key) for key in ("name", "role", "decision", "note")}
    _say_progress()
    signature = sign(options.report_dir, options.ledger, options.without_ledger, **fields)
    if not signature.rebuilt:
        _say("The ledger is not here, so nobody can tell whether the report follows from it; the entry says so.")
    _say(f"signed as {signature.words}, {signature.time}")
    _say(f"SHA-256 of the entry: {signature.sha256}")
    _say("Keep this hash elsewhere too (a ticket, a mail): only such a copy shows that nobody wrote the record anew.")
    page = options.report_dir / HTML
    if page.with_suffix(".pdf").exists():
        write_pdf(page)  # it was the page without this signature
    _say_if_older(options.report_dir)
    return OK


def _verify(options: argparse.Namespace) -> int:
    _say_progress()
    verdict = verify(options.report_dir, options.ledger, options.kept_hash, options.rebuild)
    if verdict.problems:
        return _say_changed(options.report_dir, verdict)
    if not verdict.signatures:
        _say(f"NOT SIGNED: nobody has signed {options.report_dir}, so there is nothing to verify")
        return UNSIGNED
    gap = ", NOT REBUILT" if verdict.has_ledger else ", THE LEDGER IS GONE"
    _say(f"AS SIGNED{'' if verdict.was_rebuilt else gap}: {options.report_dir}")
    for line in verdict.agreements:
        _say(f"- {line}")
    _say_signatures(verdict.signatures)
    _say(PROOF_WITH_COPY if options.kept_hash else PROOF)
    _say_if_older(options.report_dir)
    return OK if verdict.has_ledger else NO_LEDGER


def _say_changed(folder: Path, verdict: Verdict) -> int:
    signed = bool(verdict.signatures)
    _say(f"NOT AS SIGNED: {folder}" if signed else f"NOT CONSISTENT: {folder}, which has no readable signature")
    for line in verdict.problems[:MAX_PROBLEMS]:
        _say(line if line.startswith(" ") else f"- {line}")
    if len(verdict.problems) > MAX_PROBLEMS:
        _say(f"- and {len(verdict.problems) - MAX_PROBLEMS} more")
    for line in verdict.gaps:
        _say(f"- {line}")
    _say_signatures(verdict.signatures)
    return CHANGED


def _say_progress() -> None:
    """To people who wait at a terminal; what is read by programs stays as it is."""
    if sys.stderr.isatty():
        print("comparing hashes and building the report from its ledger again, a few seconds …", file=sys.stderr)


def _say_signatures(signatures: tuple[Signature, ...]) -> None:
    for entry in signatures:
        _say(f"{entry.words}, {entry.time}")


def _say_if_older(folder: Path) -> None:
    newest = newest_report(folder.resolve().parent)
    if newest.name != folder.resolve().name and (newest / "report.json").is_file():
        _say(f"Note: {newest} is a newer report of this sweep.")


def _say(line: str) -> None:
    """One line; whatever a file or a name holds stays on it and can be seen."""
    print(visible(line.replace("\n", " ")))
