"""Python commands, forked from one process that has imported everything: ``python -m tests.chaos.serve SOCKET``.

`ask.py` beside this file stands for ``python``: it hands its arguments, environment, folder and open files to this
process, which forks. Start and imports are left out, one to ten seconds of processor time a command; what runs is a
process of its own with the given code, session, signals and exit code. It ends when nobody holds its standard input.
"""

from __future__ import annotations

import contextlib
import gc
import json
import os
import select
import signal
import socket
import sys
import traceback
from collections.abc import Sequence
from importlib.util import find_spec
from pathlib import Path
from types import ModuleType

from runner.engines import PARENT_VARIABLE
from tests.chaos import forked


def serve(listener: socket.socket) -> None:
    """Fork a process for every connection, tell its end to who asked, and kill it when who asked is gone."""
    wake, woken = os.pipe()  # written to whenever a child ends
    for end in (wake, woken):
        os.set_blocking(end, False)
    signal.set_wakeup_fd(woken)
    signal.signal(signal.SIGCHLD, lambda *_: None)
    children: dict[int, socket.socket] = {}
    while True:
        ready, _, _ = select.select([0, wake, listener, *children.values()], [], [])
        if 0 in ready:
            break
        if wake in ready:
            with contextlib.suppress(BlockingIOError):
                os.read(wake, 65536)
            _tell_ends(children)
        for pid, asker in list(children.items()):
            if asker in ready and asker.fileno() >= 0:
                os.kill(pid, signal.SIGKILL)
        if listener in ready:
            pid, asker = _start(listener.accept()[0])
            children[pid] = asker
    for pid in children:
        os.kill(pid, signal.SIGKILL)


def _tell_ends(children: dict[int, socket.socket]) -> None:
    for pid in list(children):
        ended, status = os.waitpid(pid, os.WNOHANG)
        if ended:
            with children.pop(pid) as asker, contextlib.suppress(OSError):
                asker.sendall(b"%d\n" % os.waitstatus_to_exitcode(status))


def _start(asker: socket.socket) -> tuple[int, socket.socket]:
    first, streams, _, _ = socket.recv_fds(asker, 65536, 3)
    parts = [first]
    while not parts[-1].endswith(b"\n"):
        parts.append(asker.recv(65536))
    asked = json.loads(b"".join(parts))

    def work() -> int:
        signal.set_wakeup_fd(-1)
        signal.signal(signal.SIGCHLD, signal.SIG_DFL)
        os.chdir(asked["folder"])
        if PARENT_VARIABLE in os.environ:  # whoever asked; this process is killed when that one is gone
            os.environ[PARENT_VARIABLE] = str(os.getppid())
        for stream in (sys.stdout, sys.stderr):
            stream.reconfigure(line_buffering=stream.isatty())  # type: ignore[union-attr]
        try:
            return run_python(asked["arguments"])
        except KeyboardInterrupt:
            signal.signal(signal.SIGINT, signal.SIG_DFL)
            os.kill(os.getpid(), signal.SIGINT)
        except Exception:  # the end of the process, as Python's own
            traceback.print_exc()
        return 1

    pid = forked.fork(work, streams, session=True, environment=asked["environment"])
    for stream in streams:
        os.close(stream)
    asker.sendall(b"%d\n" % pid)
    return pid, asker


def run_python(arguments: Sequence[str]) -> int:
    """``python ARGUMENTS``: ``-m`` and a module, ``-c`` and code, or a file. Returns the exit code."""
    option, *rest = [argument for argument in arguments if argument != "-u"]
    path = option
    if option == "-m":
        path = _file_of(rest.pop(0))
        if path == forked.DRIVER:
            forked.fork_jobs()
    code = rest.pop(0) if option == "-c" else Path(path).read_text(encoding="utf-8")
    if option == path:  # a file
        sys.path.insert(0, str(Path(path).parent))
    sys.argv = [path, *rest]
    main = sys.modules["__main__"] = ModuleType("__main__")
    main.__file__ = path
    try:
        exec(compile(code, path, "exec"), main.__dict__)  # noqa: S102
    except SystemExit as end:
        return end.code if isinstance(end.code, int) else int(end.code is not None)
    return 0


def _file_of(module: str) -> str:
    spec = find_spec(module)
    if spec and spec.submodule_search_locations:
        spec = find_spec(f"{module}.__main__")
    assert spec
    return str(spec.origin)


if __name__ == "__main__":
    forked.load()
    gc.freeze()
    with socket.socket(socket.AF_UNIX) as there:
        there.bind(sys.argv[1])
        there.listen(64)
        print("ready", flush=True)
        serve(there)
