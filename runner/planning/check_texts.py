"""``python -m runner.planning.check_texts < QUESTION``: do the texts yield the prompts and labels that are asked for?

A process of its own, because the runner waits for hours beside the jobs, and pandas with all texts would take a quarter
of a gigabyte there. ``QUESTION`` is a `Question` as JSON. Exit codes: 0 they do, and the output says how many rows are
used; 2 they do not. A good answer is kept in the cache, since the same file gives it again.
"""

from __future__ import annotations

import contextlib
import json
import subprocess
import sys
from pathlib import Path

import experiments
from experiments.errors import InputError
from experiments.inputs import fingerprint
from experiments.strict import Strict
from experiments.tasks import Data, task_of
from runner.ledger.files import write_json
from runner.ledger.jobfile import digest

BAD_INPUT = 2
READERS = ("inputs/rows.py", "tasks/**/*.py")  # in experiments/: an answer is as old as they are


class Question(Strict):
    """What a sweep asks of its texts."""

    data: Data
    fingerprint: str
    num_ranking_prompts: int
    num_evaluation_prompts: int


def check_texts(question: Question, cache_dir: Path) -> str:
    """Start the check and wait for it, unless the cache knows the answer.

    Returns:
        How many rows are used and why others are not, in a sentence.

    Raises:
        InputError: names what is wrong with the file, or missing in it.
        RuntimeError: the check itself failed.
    """
    files = sorted(file for pattern in READERS for file in Path(experiments.__file__).parent.glob(pattern))
    code = list(map(fingerprint.sha256_of_file, files))
    kept = cache_dir / "text_checks" / f"{digest([question.model_dump(mode='json'), code])}.json"
    with contextlib.suppress(OSError, ValueError, KeyError, TypeError):
        return str(json.loads(kept.read_text(encoding="utf-8"))["answer"])
    answer = _ask(question)
    with contextlib.suppress(OSError):  # a cache that cannot be written costs time only
        kept.parent.mkdir(parents=True, exist_ok=True)
        write_json(kept, {"answer": answer})
    return answer


def _ask(question: Question) -> str:
    command = [sys.executable, "-m", "runner.planning.check_texts"]
    done = subprocess.run(command, input=question.model_dump_json(), capture_output=True, text=True, check=False)
    if done.returncode == BAD_INPUT:
        raise InputError(done.stderr.strip())
    if done.returncode:
        raise RuntimeError(f"{' '.join(command)} ended with exit code {done.returncode}:\n{done.stderr}")
    return str(done.stdout.strip())


def main() -> int:
    """The check itself."""
    from experiments.inputs import planned

    question = Question.model_validate_json(sys.stdin.read())
    try:
        with planned.inputs({"data": question.fingerprint}, question):
            print(
                task_of(question.data).work.check(
                    question.data, question.num_ranking_prompts, question.num_evaluation_prompts
                )
            )
    except InputError as error:
        print(error, file=sys.stderr)
        return BAD_INPUT
    return 0


if __name__ == "__main__":
    sys.exit(main())
