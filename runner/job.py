"""The one process that every engine starts: ``python -m runner.job RUN_DIR [RUN_DIR …]``. It runs by hand as well.

Each folder's ``spec.json`` says what to do. A folder that has finished is left alone; an arm that was interrupted goes
on from its last checkpoint, any other job starts over. Output goes to the folder's ``log.txt``, or to the terminal
where there is one. Exit codes: 0 finished, 1 failed, 2 bad input, 130 interrupted.
"""

from __future__ import annotations

import contextlib
import gc
import os
import signal
import subprocess
import sys
import time
import traceback
from collections.abc import Iterator, Sequence
from pathlib import Path
from types import FrameType

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
from runner.terminal import complain, run_command
from runner.trackers import make_tracker
from runner.working.folder import alone, clear, is_readable, logged
from runner.working.life import CHECK_SECONDS, STOPPED, alive, watch_parent
from runner.working.report import make_report

OK, FAILED, BAD_INPUT, INTERRUPTED = 0, 1, 2, 130
QUIET = {  # no library sends usage data, draws progress bars into a log, or warns about its own threads
    "DO_NOT_TRACK": "1",
    "HF_HUB_DISABLE_PROGRESS_BARS": "1",
    "HF_HUB_DISABLE_TELEMETRY": "1",
    "TOKENIZERS_PARALLELISM": "false",
    "TQDM_DISABLE": "1",
    "TRACKIO_DISABLE_TELEMETRY": "1",
    "WANDB_ERROR_REPORTING": "false",
}
PREPARE = (sys.executable, "-m", "runner.prepare")


def main(arguments: Sequence[str]) -> int:
    """Work on each folder in turn; the first that does not finish ends the process.

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
        signal.signal(number, _interrupt)
    watch_parent()
    folders = [Path(argument) for argument in arguments]
    with _model_prepared_beside(folders):
        for folder in folders:
            code = run_job(folder)
            if code != OK:
                return code
            gc.collect()  # trainers are full of cycles, and the next folder's models need the room
    return OK


@contextlib.contextmanager
def _model_prepared_beside(folders: list[Path]) -> Iterator[None]:
    """While gold is fitted, which takes one core and no model, convert that of the job that follows on another core."""
    process = None
    with contextlib.suppress(InputError, OSError):  # what is wrong with a folder, its own job says
        if len(folders) > 1 and read_job_file(folders[0]).kind == "gold" and _converts(read_job_file(folders[1])):
            process = subprocess.Popen((*PREPARE, folders[1]))
    try:
        yield
    finally:
        if process:
            process.terminate()
            process.wait()


def _converts(job: JobFile) -> bool:
    """Whether a job's model takes long to convert, where that has not been done."""
    model = getattr(job.spec, "model", None)
    return model is not None and str(model.path).startswith("package:")


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
    """What is to be done, with its needs checked: again and again where another machine's files may show up late."""
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


def _attempt(job: JobFile, folder: Path, can_go_on: bool = True) -> int:
    """One attempt: its beginning, its work and its end are all in the ledger. ``can_go_on``: from a checkpoint."""
    print(f"--- {timestamp()} {job.label} starts, process {os.getpid()}", flush=True)
    goes_on = not clear(folder, can_go_on=can_go_on and is_readable(folder))
    earlier = earlier_starts(folder) if goes_on else []
    retry = read_retry(folder, job.identity) or {}
    status = StatusFile(folder, job.identity, retry.get("pass_divisor", 1))
    tracker = Tracker()
    code = FAILED
    try:
        origin = provenance()
        hashes = {
            "identity": job.identity,
            "inputs": job.inputs,
            "needs": {role: need.identity for role, need in job.needs.items()},
            "retry": {key: retry[key] for key in ("pass_divisor", "because", "time") if key in retry} or None,
        }
        write_json(folder / PROVENANCE, {"time": timestamp()} | origin | hashes | {"earlier_starts": earlier})
        tracker = make_tracker(job, folder, (origin["git"] or {}).get("commit"))
        with alive(folder, status), passes.divided(retry.get("pass_divisor", 1)):
            _work(job, folder, LedgerRecorder(folder, status, tracker), tracker)
        files = {} if job.kind == "report" else fingerprints(folder)  # a report is signed and written again
        status.finish(files, _peak_memory())
        code = OK
    except TornLedgerError as error:
        print(f"{error}; it starts over", flush=True)
        tracker.close(FAILED)
        return _attempt(job, folder, can_go_on=False)
    except KeyboardInterrupt:
        code = INTERRUPTED
        with contextlib.suppress(OSError):  # the disk may be full
            status.end(*(STOPPED if is_asked_to_end(folder, status.attempt) else ("interrupted",)))
    except Exception as error:  # the boundary of the process: everything becomes a status, a log entry and an exit code
        code = BAD_INPUT if isinstance(error, InputError) else FAILED
        _report_failure(folder, error, status)
    tracker.close(code)  # last: an upload may take long, and what counts is on disk
    return code


def _work(job: JobFile, folder: Path, recorder: LedgerRecorder, tracker: Tracker) -> None:
    if job.spec is None:
        make_report(folder, tracker)
        return
    from experiments.inputs import planned
    from experiments.stages import run_stage

    needs = {role: Path(need.folder) for role, need in job.needs.items()}
    with planned.inputs(job.inputs, job.spec):
        run_stage(job.kind, job.spec, needs, folder, Path(job.cache_dir), recorder)


def _report_failure(folder: Path, error: Exception, status: StatusFile) -> None:
    """Traceback to the output and, where that is a terminal, to the log as well; one line to the status."""
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
    """What the process took of its device; a job that never loaded torch is too small to matter."""
    if "torch" not in sys.modules:
        return None
    from experiments.meter import peak_memory

    return peak_memory()


def _interrupt(number: int, frame: FrameType | None) -> None:
    raise KeyboardInterrupt


if __name__ == "__main__":
    sys.exit(run_command(main, __doc__))
