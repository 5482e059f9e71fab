"""One command in a session of its own, on whatever machine this is: started, watched, ended, with a time limit.

The local engine keeps many of these; on Ray and Slurm each worker keeps one.
"""

from __future__ import annotations

import contextlib
import os
import signal
import subprocess
import time
from collections.abc import Collection, Mapping
from pathlib import Path

from experiments.foreign import append_plain
from runner.engines import PARENT_VARIABLE, Cause, Outcome, Task

GRACE_SECONDS = 10.0  # between the request to end and SIGKILL
POLL_SECONDS = 0.1
THREAD_VARIABLES = (
    "OMP_NUM_THREADS",
    "MKL_NUM_THREADS",
    "OPENBLAS_NUM_THREADS",
    "NUMEXPR_NUM_THREADS",
    "VECLIB_MAXIMUM_THREADS",
)
# Threads of GNU OpenMP wait for each other actively, by default for milliseconds. Where another program takes a core,
# they do so while the one that they wait for has none; after a short wait their core is free for it.
SHORT_WAIT = {"GOMP_SPINCOUNT": "1000"}
WAIT_VARIABLES = {*SHORT_WAIT, "OMP_WAIT_POLICY"}


class Process:
    """A task that has started."""

    def __init__(
        self,
        task: Task,
        environment: Mapping[str, str],
        folder: str | None = None,
        inherited: Collection[int] = (),  # open files that stay open in it
    ) -> None:
        self._task = task
        self._began = time.monotonic()
        self._cause: Cause = "exited"
        self._kills_before = kernel_oom_kills()
        self._kill_at: float | None = None
        task.log.parent.mkdir(parents=True, exist_ok=True)
        with append_plain(task.log) as log:
            self._process = subprocess.Popen(
                task.command,
                cwd=folder,
                env={**environment, PARENT_VARIABLE: str(os.getpid())},
                stdin=subprocess.DEVNULL,
                stdout=log,
                stderr=subprocess.STDOUT,
                start_new_session=True,
                pass_fds=inherited,
            )

    def poll(self) -> Outcome | None:
        """How it ended, if it has; also enforces the time limit and the end of the grace."""
        code = self._process.poll()
        if code is not None:
            self.kill()  # what a killed job may have left behind
            return Outcome(self._task.name, code, self._explained(code))
        now, limit = time.monotonic(), self._task.time_limit_seconds
        if limit is not None and now - self._began > limit:
            self.end("time_limit")
        if self._kill_at is not None and now > self._kill_at:
            self.kill()
        return None

    def end(self, cause: Cause) -> None:
        """Ask it to end; `poll` kills it after the grace. Only the first request counts."""
        if self._kill_at is None and self._process.poll() is None:
            self._cause = cause
            self._kill_at = time.monotonic() + GRACE_SECONDS
            self._signal(signal.SIGTERM)

    def _explained(self, code: int) -> Cause:
        """A SIGKILL that nobody here sent, while the kernel killed for want of memory: that was probably this one."""
        killed = code == -signal.SIGKILL and self._cause == "exited"
        return "out_of_memory" if killed and kernel_oom_kills() > self._kills_before else self._cause

    def kill(self) -> None:
        """End the whole session at once."""
        self._signal(signal.SIGKILL)

    def wait(self) -> Outcome:
        """Wait for its end."""
        while (outcome := self.poll()) is None:
            time.sleep(POLL_SECONDS)
        return outcome

    def _signal(self, number: signal.Signals) -> None:
        with contextlib.suppress(ProcessLookupError, PermissionError):
            os.killpg(self._process.pid, number)


def kernel_oom_kills() -> int:
    """How many processes the kernel has killed for want of memory since it started; 0 where it does not say."""
    try:
        lines = Path("/proc/vmstat").read_text(encoding="ascii").splitlines()
        return next(int(line.split()[1]) for line in lines if line.startswith("oom_kill "))
    except (OSError, StopIteration):
        return 0


def slot_environment(inherited: Mapping[str, str], device: str, threads: int) -> dict[str, str]:
    """What a process finds in its environment: `inherited`, with its own device and threads.

    How long threads wait for each other actively is the user's where `inherited` says it.
    """
    wait = {} if inherited.keys() & WAIT_VARIABLES else SHORT_WAIT
    return {**inherited, **wait, "CUDA_VISIBLE_DEVICES": device, **dict.fromkeys(THREAD_VARIABLES, str(threads))}
