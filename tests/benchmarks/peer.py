"""The environment of TRL 1.12, made once: it needs another trl than ours, so it cannot share our environment."""

from __future__ import annotations

import subprocess
import sys
from collections.abc import Callable
from importlib.metadata import version
from pathlib import Path

from tests.benchmarks.processes import MeasurementError

REQUIREMENTS = Path(__file__).parent / "peers" / "requirements.txt"


def python_of(folder: Path, say: Callable[[str], None]) -> Path:
    """The interpreter in `folder`; the environment is made where it is missing or was made for something else.

    Raises:
        MeasurementError: pip could not make it.
    """
    torch_pin = f"torch=={version('torch').partition('+')[0]}"  # pip matches any build of the release
    wanted = f"{torch_pin}\n{REQUIREMENTS.read_text()}"
    made, python = folder / "made_from.txt", folder / "bin" / "python"
    if made.exists() and made.read_text() == wanted:
        return python
    say(f"make {folder}: {torch_pin}, then {REQUIREMENTS.name} (about a minute and 1.5 GB)")
    pip = [str(python), "-m", "pip", "install", "--quiet", "--disable-pip-version-check", torch_pin]
    try:
        subprocess.run([sys.executable, "-m", "venv", "--clear", folder], check=True)
        subprocess.run(pip, check=True)
        subprocess.run([*pip, "-r", REQUIREMENTS], check=True)
    except subprocess.CalledProcessError as failure:
        raise MeasurementError(f"no environment for TRL 1.12: {failure}") from failure
    made.write_text(wanted)
    return python
