"""The runner's processes, forked from one that has imported everything instead of started anew.

What runs is the runner's own code in real processes, with sessions, signals, exit codes and open files as after an
exec; only Python's start and its imports are left out, ten seconds each. Every process computes with one thread.
"""

from __future__ import annotations

import importlib
import os
import signal
import sys
import traceback
from collections.abc import Callable, Collection, Mapping, Sequence
from tempfile import TemporaryFile
from types import SimpleNamespace
from typing import BinaryIO

import analysis.__main__
import runner.__main__
from experiments.collector import gc_disabled
from runner import job
from runner.engines import process
from runner.planning import checks
from runner.working import work
from tests.chaos.strikes import Orders

HEAVY = (  # what the stages import
    "experiments.arms.dpo",
    "experiments.arms.ppo",
    "experiments.tasks.sentiment.work",
    "experiments.artifacts.ranking",
    "experiments.artifacts.reward_model",
    "experiments.evaluation.evaluate",
    "experiments.stages",
    "matplotlib.backends.backend_agg",
)
DRIVER = runner.__main__.__file__
Streams = Sequence[int | None]
BROKEN = 70  # exit code of a process whose code let an exception through


class _Driver:
    """What this process is to do to its jobs, if it is a driver."""

    orders: Orders


def load() -> None:
    """Import what jobs import, before any thread exists."""
    with gc_disabled():
        for name in HEAVY:
            importlib.import_module(name)
    sys.modules["torch"].set_num_threads(1)


def fork_jobs() -> None:
    """Let the runner fork where it would start Python."""
    _Driver.orders = Orders(None, "", os.open(os.devnull, os.O_WRONLY), {})
    process.subprocess = SimpleNamespace(Popen=Job, DEVNULL=None, STDOUT=None)  # type: ignore[assignment]
    work.subprocess = SimpleNamespace(run=_analysis)  # type: ignore[assignment]
    checks.subprocess = SimpleNamespace(run=_checks)  # type: ignore[assignment]


def start_driver(overrides: Sequence[str], log: BinaryIO, orders: Orders) -> int:
    """Fork ``python -m runner``; returns its pid."""

    def work() -> int:
        _Driver.orders = orders
        order = orders.begin_driver()
        code = runner.__main__.main(list(overrides))
        signal.signal(signal.SIGINT, signal.SIG_IGN)  # it has ended, and is no longer there to be interrupted
        orders.end(order)
        return code

    return fork(work, _logged(log), {orders.pipe}, session=True)


class Job:
    """What `runner.engines.process` uses of `subprocess.Popen`, for ``python -m runner.job``."""

    def __init__(
        self,
        command: Sequence[str],
        *,
        env: Mapping[str, str],
        stdout: BinaryIO,
        pass_fds: Collection[int] = (),
        **_: object,
    ) -> None:
        folders = list(command[command.index("runner.job") + 1 :])
        orders = _Driver.orders
        order = orders.draw(folders[0])

        def work() -> int:
            orders.begin_job(order)
            code = job.main(folders)
            orders.end(order)
            return code

        self.pid = fork(work, _logged(stdout), {*pass_fds, orders.pipe}, session=True, environment=env)
        self._code: int | None = None
        self._alive = orders.jobs
        self._alive.add(self.pid)

    def poll(self) -> int | None:
        """Its exit code, negative for a signal, or None while it runs."""
        if self._code is None:
            pid, status = os.waitpid(self.pid, os.WNOHANG)
            if pid:
                self._code = os.waitstatus_to_exitcode(status)
                self._alive.discard(pid)
        return self._code


def _analysis(command: Sequence[str], check: bool) -> SimpleNamespace:
    """``python -m analysis …``, as `subprocess.run` would: the child is killed where the wait is interrupted."""
    arguments = list(command[command.index("analysis") + 1 :])
    pid = fork(lambda: analysis.__main__.main(arguments), (0, 1, 2), {_Driver.orders.pipe})
    try:
        _, status = os.waitpid(pid, 0)
    except BaseException:
        os.kill(pid, signal.SIGKILL)
        os.waitpid(pid, 0)
        raise
    return SimpleNamespace(returncode=os.waitstatus_to_exitcode(status))


def _checks(command: Sequence[str], input: str, **_: object) -> SimpleNamespace:
    """``python -m runner.planning.checks …``, as `subprocess.run` would."""
    with TemporaryFile("w+") as question, TemporaryFile("w+") as answer, TemporaryFile("w+") as log:
        question.write(input)
        question.seek(0)

        def work() -> int:
            sys.argv = list(command[command.index("runner.planning.checks") :])
            return checks.main()

        pid = fork(work, (question.fileno(), answer.fileno(), log.fileno()), {_Driver.orders.pipe})
        _, status = os.waitpid(pid, 0)
        for stream in (answer, log):
            stream.seek(0)
        return SimpleNamespace(returncode=os.waitstatus_to_exitcode(status), stdout=answer.read(), stderr=log.read())


def fork(
    work: Callable[[], int],
    streams: Streams,
    keep: Collection[int] = (),
    session: bool = False,
    environment: Mapping[str, str] | None = None,
) -> int:
    """Start ``work`` in a process as an exec would leave it: no other open files, no handlers. Returns its pid.

    ``streams``: what it reads and writes as standard input, output and errors; None for nothing to read.
    """
    sys.stdout.flush()
    sys.stderr.flush()
    if pid := os.fork():
        return pid
    code = BROKEN
    try:
        if session:
            os.setsid()
        _as_after_exec(streams, keep, environment)
        code = work()
    except BaseException:  # the end of the process: nothing may run on in the parent's frames
        traceback.print_exc()
    finally:
        sys.stdout.flush()
        sys.stderr.flush()
        os._exit(code)


def _logged(output: BinaryIO) -> tuple[None, int, int]:
    return None, output.fileno(), output.fileno()


def _as_after_exec(streams: Streams, keep: Collection[int], environment: Mapping[str, str] | None) -> None:
    for number, stream in enumerate(streams):
        os.dup2(os.open(os.devnull, os.O_RDONLY) if stream is None else stream, number)
    first = 3
    for kept in [*sorted(keep), os.sysconf("SC_OPEN_MAX")]:
        os.closerange(first, min(kept, 4096))
        first = kept + 1
    for number in (signal.SIGTERM, signal.SIGHUP):
        signal.signal(number, signal.SIG_DFL)
    signal.signal(signal.SIGINT, signal.default_int_handler)
    if environment is not None:
        os.environ.clear()
        os.environ.update(environment)


def main(overrides: Sequence[str]) -> int:
    """``python -m runner``, whose jobs are forked: for a checkout other than the one that `serve.py` has imported."""
    load()
    fork_jobs()
    return runner.__main__.main(list(overrides))


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
