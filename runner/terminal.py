"""What all commands of the runner share: exit codes, help, version, plain errors, and output that nobody reads."""

from __future__ import annotations

import os
import sys
from collections.abc import Callable, Sequence
from types import FrameType

from experiments.foreign import clean_lines
from runner.ledger.provenance import project_version

OK, FAILED, BAD_INPUT, STOPPED, INTERRUPTED = 0, 1, 2, 3, 130  # exit codes of all commands
UNREAD = 141  # exit code of a command whose output nobody read to its end, as of one that SIGPIPE ended


def complain(error: object) -> None:
    """Print what is wrong. It may quote a foreign file."""
    print(clean_lines(error), file=sys.stderr)


def raise_interrupt(number: int, frame: FrameType | None) -> None:
    """Handle a signal as Ctrl-C."""
    raise KeyboardInterrupt


def run_command(main: Callable[[Sequence[str]], int], description: str | None) -> int:
    """Run a command on this process's arguments. Returns the exit code.

    Args:
        main: the command.
        description: what ``--help`` prints; None if the command has a help of its own.
    """
    arguments = sys.argv[1:]
    try:
        try:
            code = _answer(arguments, description)
            code = main(arguments) if code is None else code
        finally:
            sys.stdout.flush()  # also if Hydra ends the process, as after its help
    except BrokenPipeError:
        # Python would say so once more when it flushes at its end.
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
        return UNREAD
    return code


def _answer(arguments: Sequence[str], description: str | None) -> int | None:
    """Answer ``--version`` and ``--help``; None if neither was asked for."""
    if "--version" in arguments:
        print(project_version())
    elif description and {"--help", "-h"} & set(arguments):
        print(description.strip())
    else:
        return None
    return 0
