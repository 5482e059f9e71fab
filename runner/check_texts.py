"""``python -m runner.check_texts NUM_RANKING_PROMPTS NUM_EVALUATION_PROMPTS < DATA``: do the texts yield these prompts?

A process of its own, because the runner waits for hours beside the jobs, and pandas with all texts would take a quarter
of a gigabyte there. ``DATA`` is the configuration's ``data`` as JSON. Exit codes: 0 they do, 2 they do not.
"""

from __future__ import annotations

import subprocess
import sys

from experiments.errors import InputError
from experiments.spec import Data

BAD_INPUT = 2


def check_texts(data: Data, num_ranking_prompts: int, num_evaluation_prompts: int) -> None:
    """Start the check and wait for it.

    Raises:
        InputError: names what is missing.
        RuntimeError: the check itself failed.
    """
    command = [sys.executable, "-m", "runner.check_texts", str(num_ranking_prompts), str(num_evaluation_prompts)]
    done = subprocess.run(command, input=data.model_dump_json(), capture_output=True, text=True, check=False)
    if done.returncode == BAD_INPUT:
        raise InputError(done.stderr.strip())
    if done.returncode:
        raise RuntimeError(f"{' '.join(command)} ended with exit code {done.returncode}:\n{done.stderr}")


def main() -> int:
    """The check itself."""
    from experiments.inputs import texts

    try:
        texts.check_texts(Data.model_validate_json(sys.stdin.read()), int(sys.argv[1]), int(sys.argv[2]))
    except InputError as error:
        print(error, file=sys.stderr)
        return BAD_INPUT
    return 0


if __name__ == "__main__":
    sys.exit(main())
