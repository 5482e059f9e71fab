"""A small part of `make chaos`: a sweep that is struck at random until it ends, and ends as if nothing had happened."""

from __future__ import annotations

import re
import subprocess
import sys
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[2]


@pytest.mark.skipif(sys.platform != "linux", reason="needs Linux: processes are held by descriptors (pidfd)")
@pytest.mark.timeout(900)
def test_interrupted_at_random_it_loses_nothing_and_its_numbers_are_those_of_an_undisturbed_sweep(
    finished_sweep: Path,
) -> None:
    """In a process of its own: it forks, and this one may have threads by now.

    The project must not change meanwhile: the report names its commit, and is compared whole.
    """
    command = [sys.executable, "-m", "tests.chaos", "--interruptions", "12", "--seed", "7"]
    command += ["--undisturbed", str(finished_sweep)]
    done = subprocess.run(command, cwd=ROOT, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stdout + done.stderr
    (interruptions,) = re.findall(r"^(\d+) interruptions in", done.stdout, re.MULTILINE)
    assert int(interruptions) >= 12
