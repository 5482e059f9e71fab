"""The one process that every engine starts: ``python -m runner.job RUN_DIR [RUN_DIR …]``. It runs by hand as well.

Each folder's ``spec.json`` says what to do. A folder that has finished is left alone. An arm that was interrupted
resumes from its last checkpoint, and any other job starts over. Output goes to the terminal if there is one, and
otherwise to the folder's ``log.txt``. Exit codes: 0 finished, 1 failed, 2 bad input, 130 interrupted.
"""

from __future__ import annotations

import contextlib
import gc
import os
import signal
import sys
import time
import traceback
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from experiments import passes
from experiments.errors import InputError, is_out_of_memory
from experiments.foreign import append_plain
from runner.driving.retry import read_retry
from runner.engines import PATIENCE_VARIABLE
from runner.ledger.files import timestamp, write_json
from runner.ledger.integrity import fingerprints
from runner.ledger.jobfile import JobFile, read_job_file
from runner.ledger.provenance import PROVENANCE, earlier_starts, provenance
from runner.ledger.reader import is_finished
from runner.ledger.requests import is_asked_to_end
from runner.ledger.tracker import Tracker
from runner.ledger.writer import LedgerRecorder, StatusFile, TornLedgerError
from runner.terminal import BAD_INPUT, FAILED, INTERRUPTED, OK, complain, raise_interrupt, run_command
from runner.trackers import make_tracker
from runner.working.folder import alone, clear, has_checkpoint, is_readable, logged
from runner.working.life import CHECK_SECONDS, STOPPED, alive, watch_parent
from runner.working.work import work

QUIET = {  # no library sends usage data, draws progress bars into a log, or warns about its own threads
    "DO_NOT_TRACK": "1",
    "HF_HUB_DISABLE_PROGRESS_BARS": "1",
    "HF_HUB_DISABLE_TELEMETRY": "1",
    "TOKENIZERS_PARALLELISM": "false",
    "TQDM_DISABLE": "1",
    "TRACKIO_DISABLE_TELEMETRY": "1",
    "WANDB_ERROR_REPORTING": "false",
}


def main(arguments: Sequence[str]) -> int:
    """Work on each folder in turn. The first that does not finish ends the process.

    Args:
        arguments: the folders.

    Returns:
        The exit code.
    """
    if not arguments or any(argument.startswith("-") for argument in arguments):
        print("usage: python -m runner.job RUN_DIR [RUN_DIR …]", file=sys.stderr)
        return BAD_INPUT
    os.environ.update(QUIET)
    for number in (signal.SIGINT, signal.SIGTERM):
        signal.signal(number, raise_interrupt)
    watch_parent()
    for folder in map(Path, arguments):
        code = run_job(folder)
        if code != OK:
            return code
        gc.collect()  # trainers are full of cycles, and the next folder's models need the room
    return OK


def run_job(folder: Path) -> int:
    """Do the work of one folder, unless it has finished already.

    Returns:
        The exit code: 0, 1, 2 or 130.
    """
    try:
        job = _read_job(folder)
        with logged(folder), alone(folder):
            if is_finished(folder, job.identity):
                return OK
            return _attempt(job, folder)
    except InputError as error:
        complain(error)
        return BAD_INPUT
    except OSError as error:  # before there is a status to say so in: the log, the lock or the status itself
        complain(f"{folder} cannot be worked in: {error}")
        return FAILED
    except KeyboardInterrupt:
        return INTERRUPTED


def _read_job(folder: Path) -> JobFile:
    """What is to be done, with its needs checked. If files of another machine may show up late, it looks repeatedly."""
    deadline = time.monotonic() + float(os.environ.get(PATIENCE_VARIABLE, 0))
    while True:
        try:
            job = read_job_file(folder)
            check_needs(job)
        except InputError:
            if time.monotonic() >= deadline:
                raise
            time.sleep(CHECK_SECONDS)
        else:
            return job


def check_needs(job: JobFile) -> None:
    """Make sure that everything the job builds on is there and is what was planned.

    Raises:
        InputError: names each need that has not finished with the planned identity.
    """
    missing = [
        f"{role} in {need.folder}"
        for role, need in job.needs.items()
        if not is_finished(Path(need.folder), need.identity)
    ]
    if missing:
        raise InputError(f"{job.label} cannot start: not finished, or finished as something else: {'; '.join(missing)}")


def _attempt(job: JobFile, folder: Path, may_resume: bool = True) -> int:
    """One attempt: its beginning, its work and its end are all in the ledger. ``may_resume``: from a checkpoint."""
    print(f"--- {timestamp()} {job.label} starts, process {os.getpid()}", flush=True)
    resumes = has_checkpoint(folder) and may_resume and is_readable(folder)
    if not resumes:
        clear(folder)
    retry = read_retry(folder, job.identity) or {}
    divisor = retry.get("pass_divisor", 1)
    status = StatusFile(folder, job.identity, divisor)
    tracker = Tracker()
    code = FAILED
    try:
        commit = _record_provenance(job, folder, retry, earlier_starts(folder) if resumes else [])
        tracker = make_tracker(job, folder, commit)
        with alive(folder, status), passes.divided(divisor):
            work(job, folder, LedgerRecorder(folder, status, tracker))
        status.finish(fingerprints(folder), _peak_memory())
        code = OK
    except TornLedgerError as error:
        print(f"{error}; it starts over", flush=True)
        tracker.close(FAILED)
        return _attempt(job, folder, may_resume=False)
    except KeyboardInterrupt:
        code = INTERRUPTED
        with contextlib.suppress(OSError):  # the disk may be full
            status.end(*(STOPPED if is_asked_to_end(folder, status.attempt) else ("interrupted",)))
    except Exception as error:  # the boundary of the process: everything becomes a status, a log entry and an exit code
        code = BAD_INPUT if isinstance(error, InputError) else FAILED
        _report_failure(folder, error, status)
    tracker.close(code)  # last: an upload may take long, and what counts is on disk
    return code


def _record_provenance(
    job: JobFile, folder: Path, retry: Mapping[str, Any], earlier: Sequence[Mapping[str, Any]]
) -> str | None:
    """Write where the attempt's results come from. Returns the commit of the code, if there is one."""
    origin = provenance()
    hashes = {
        "identity": job.identity,
        "inputs": job.inputs,
        "needs": {role: need.identity for role, need in job.needs.items()},
        "retry": {key: retry[key] for key in ("pass_divisor", "because", "time") if key in retry} or None,
    }
    write_json(folder / PROVENANCE, {"time": timestamp()} | origin | hashes | {"earlier_starts": earlier})
    return (origin["git"] or {}).get("commit")


def _report_failure(folder: Path, error: Exception, status: StatusFile) -> None:
    """Write one line to the status and the traceback to the output. If that is a terminal, the log gets it as well."""
    traceback.clear_frames(error.__traceback__)  # what they hold may be all the memory there is
    text = str(error) if isinstance(error, InputError) else traceback.format_exc()
    lines = str(error).splitlines() or [""]
    reason = lines[0] if isinstance(error, InputError) else f"{type(error).__name__}: {lines[0]}"
    with contextlib.suppress(OSError):  # what failed may be the disk, which is full; the status matters most
        status.end("failed", reason, out_of_memory=is_out_of_memory(error))
    with contextlib.suppress(OSError):
        complain(text)
        if sys.stdout.isatty():
            with append_plain(folder / "log.txt") as log:
                log.write(f"{text}\n".encode())


def _peak_memory() -> dict[str, int] | None:
    """The most that the process took of its device. A job that never loaded torch is too small to matter."""
    if "torch" not in sys.modules:
        return None
    from experiments.meter import peak_memory

    return peak_memory()


if __name__ == "__main__":
    sys.exit(run_command(main, __doc__))
