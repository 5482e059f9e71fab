"""Who has which device. Other runners are real processes."""

import os
import stat
import subprocess
import sys
import time
from collections.abc import Callable
from pathlib import Path

import pytest

from experiments.errors import InputError
from runner.engines.slots import FOLDER_VARIABLE, Lease, Slot, SlotPool

GIB = 2**30
OWNER = """
import subprocess, sys
from runner.engines.slots import Slot, SlotPool
lease = SlotPool([Slot(sys.argv[1], 1, sys.argv[2])]).take("job")
if lease is None:
    print("none", flush=True)
elif sys.argv[3] == "with a job":
    job = subprocess.Popen(["sleep", "60"], pass_fds=[lease.lock])
    print(job.pid, flush=True)
else:
    print("mine", flush=True)
sys.stdin.read()
"""
Runner = Callable[..., subprocess.Popen[str]]


@pytest.fixture
def locks(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.setenv(FOLDER_VARIABLE, str(tmp_path / "locks"))
    return tmp_path / "locks"


@pytest.fixture
def other_runner(locks: Path):
    """Another process that takes a device and keeps it until its input ends."""
    processes: list[subprocess.Popen[str]] = []

    def start(token: str, key: str = "", how: str = "alone") -> subprocess.Popen[str]:
        environment = {**os.environ, "PYTHONPATH": str(Path.cwd())}
        process = subprocess.Popen(
            [sys.executable, "-c", OWNER, token, key, how],
            env=environment, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True,
        )  # fmt: skip
        processes.append(process)
        return process

    yield start
    for process in processes:
        process.kill()
        process.communicate()


def said(process: subprocess.Popen[str]) -> str:
    assert process.stdout is not None
    return process.stdout.readline().strip()


def take_in_time(pool: SlotPool, seconds: float = 20) -> Lease:
    deadline = time.monotonic() + seconds
    while (lease := pool.take("job")) is None:
        assert time.monotonic() < deadline
        time.sleep(0.02)
    return lease


class Free:
    """Free memory by key, as if measured."""

    def __init__(self, **gib: float) -> None:
        self.gib = gib

    def __call__(self, key: str) -> int | None:
        return round(self.gib[key or "cpu"] * GIB) if (key or "cpu") in self.gib else None


class TestOwners:
    def test_two_runners_never_have_one_device_whatever_they_call_it(self, other_runner: Runner) -> None:
        assert said(other_runner("0", "GPU-x")) == "mine"
        assert said(other_runner("GPU-x")) == "none"
        assert said(other_runner("1", "GPU-y")) == "mine"

    def test_a_killed_runner_leaves_its_device_free(self, other_runner: Runner) -> None:
        pool = SlotPool([Slot("0", 1)])
        owner = other_runner("0")
        assert said(owner) == "mine"
        assert pool.take("job") is None
        owner.kill()
        owner.wait()

        assert take_in_time(pool).slots == (Slot("0", 1),)

    def test_a_device_stays_taken_until_the_killed_runners_job_has_ended_too(self, other_runner: Runner) -> None:
        pool = SlotPool([Slot("0", 1)])
        owner = other_runner("0", how="with a job")
        job = int(said(owner))
        owner.kill()
        owner.wait()
        assert pool.take("job") is None
        os.kill(job, 9)

        assert take_in_time(pool)

    def test_the_runner_takes_what_the_other_leaves_and_says_what_it_waits_for(self, other_runner: Runner) -> None:
        lines: list[str] = []
        pool = SlotPool([Slot("0", 1), Slot("1", 1)], say=lines.append)
        assert said(other_runner("0")) == "mine"

        first = pool.take("job")
        assert first is not None
        assert first.slots == (Slot("1", 1),)
        assert lines == []
        assert [pool.take("job") for _ in range(3)] == [None] * 3
        assert lines == ["waiting: another runner works on 0"]

    def test_the_jobs_of_one_runner_share_a_device_and_the_last_one_frees_it(self, other_runner: Runner) -> None:
        pool = SlotPool([Slot("0", 1)] * 2)
        one, two = pool.take("one"), pool.take("two")
        assert one is not None
        assert two is not None
        assert pool.take("three") is None
        pool.give_back(one)
        assert said(other_runner("0")) == "none"
        pool.give_back(two)
        assert said(other_runner("0")) == "mine"

    def test_nobody_owns_the_processor(self, locks: Path) -> None:
        assert SlotPool([Slot("", 1)]).take("job") == Lease((Slot("", 1),), 0, None)
        assert SlotPool([Slot("", 1)]).take("job")
        assert not locks.exists()

    def test_every_user_of_the_machine_may_lock(self, locks: Path) -> None:
        before = os.umask(0o077)
        try:
            assert SlotPool([Slot("a/../b", 1)]).take("job")
        finally:
            os.umask(before)

        (file,) = locks.iterdir()
        assert file.name == "a_.._b.lock"
        assert stat.S_IMODE(file.stat().st_mode) == 0o666
        assert stat.S_IMODE(locks.stat().st_mode) == 0o1777

    def test_a_lock_file_that_can_only_be_read_is_locked_all_the_same(
        self, locks: Path, other_runner: Runner, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        """Root may write anything, so the refusal is imitated; the lock is real."""
        pool = SlotPool([Slot("0", 1)])
        lease = pool.take("job")
        assert lease is not None
        pool.give_back(lease)
        opened = os.open

        def refuse(path: Path, flags: int, *mode: int) -> int:
            if flags & os.O_RDWR and not flags & os.O_CREAT:
                raise PermissionError(13, "Permission denied")
            return opened(path, flags, *mode)

        monkeypatch.setattr("runner.engines.slots.os.open", refuse)
        assert pool.take("job")
        assert said(other_runner("0")) == "none"

    def test_a_link_in_place_of_the_file_is_not_followed(self, locks: Path, tmp_path: Path) -> None:
        locks.mkdir()
        (tmp_path / "precious").touch()
        (locks / "0.lock").symlink_to(tmp_path / "precious")

        with pytest.raises(InputError, match=rf"0.lock: cannot be opened .*{FOLDER_VARIABLE} names another folder"):
            SlotPool([Slot("0", 1)]).take("job")

    @pytest.mark.parametrize("kind", ["pipe", "link to a device", "folder"])
    def test_what_is_no_file_in_place_of_the_lock_is_refused_at_once(self, locks: Path, kind: str) -> None:
        locks.mkdir()
        {"pipe": os.mkfifo, "link to a device": lambda path: path.symlink_to("/dev/zero"), "folder": Path.mkdir}[kind](
            locks / "0.lock"
        )

        with pytest.raises(InputError, match=rf"0.lock: cannot be opened .*{FOLDER_VARIABLE} names another folder"):
            SlotPool([Slot("0", 1)]).take("job")

    def test_a_pipe_of_somebody_else_that_can_only_be_read_is_refused_at_once(
        self, locks: Path, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        """Root may write anything, so the refusal is imitated; the pipe is real."""
        locks.mkdir()
        os.mkfifo(locks / "0.lock")
        opened = os.open

        def refuse(path: Path, flags: int, *mode: int) -> int:
            if flags & os.O_RDWR and not flags & os.O_CREAT:
                raise PermissionError(13, "Permission denied")
            return opened(path, flags, *mode)

        monkeypatch.setattr("runner.engines.slots.os.open", refuse)
        with pytest.raises(InputError, match="it is no plain file"):
            SlotPool([Slot("0", 1)]).take("job")

    @pytest.mark.parametrize("is_there", [True, False], ids=["to a folder", "to nothing"])
    def test_a_link_in_place_of_the_folder_is_refused_and_its_target_keeps_its_mode(
        self, locks: Path, tmp_path: Path, is_there: bool
    ) -> None:
        home = tmp_path / "home"
        home.mkdir(mode=0o700)
        locks.symlink_to(home if is_there else home / "nothing")

        with pytest.raises(InputError, match=FOLDER_VARIABLE):
            SlotPool([Slot("0", 1)]).take("job")
        assert stat.S_IMODE(home.stat().st_mode) == 0o700
        assert list(home.iterdir()) == []

    def test_a_link_that_takes_the_folders_place_while_it_is_made_changes_no_mode(
        self, locks: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        home, make = tmp_path / "home", Path.mkdir
        home.mkdir(mode=0o700)

        def exchange(path: Path, *arguments: int, **options: bool) -> None:
            make(path, *arguments, **options)
            if path == locks:
                path.rmdir()
                path.symlink_to(home)

        monkeypatch.setattr(Path, "mkdir", exchange)
        with pytest.raises(InputError, match=FOLDER_VARIABLE):
            SlotPool([Slot("0", 1)]).take("job")
        assert stat.S_IMODE(home.stat().st_mode) == 0o700

    def test_a_folder_that_somebody_made_keeps_its_mode_and_serves(self, locks: Path) -> None:
        locks.mkdir(mode=0o750)

        assert SlotPool([Slot("0", 1)]).take("job")
        assert stat.S_IMODE(locks.stat().st_mode) == 0o750

    def test_a_folder_that_cannot_be_is_refused(self, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
        (tmp_path / "file").touch()
        monkeypatch.setenv(FOLDER_VARIABLE, str(tmp_path / "file" / "locks"))

        with pytest.raises(InputError, match=FOLDER_VARIABLE):
            SlotPool([Slot("0", 1)]).take("job")


@pytest.mark.usefixtures("locks")
class TestMemory:
    def test_jobs_share_a_device_only_as_far_as_their_needs_fit(self) -> None:
        """The first has not taken its memory yet, so all 10 GiB look free."""
        pool = SlotPool([Slot("0", 1)] * 3, Free(**{"0": 10.0}))
        first = pool.take("first", 6 * GIB)
        assert first is not None
        assert pool.take("second", 5 * GIB) is None
        assert pool.take("third", 4 * GIB)
        pool.give_back(first)
        assert pool.take("second", 5 * GIB)

    def test_what_others_use_by_now_counts(self) -> None:
        free = Free(**{"0": 10.0})
        pool = SlotPool([Slot("0", 1)] * 2, free)
        assert pool.take("first", 2 * GIB)
        free.gib["0"] = 3.0

        assert pool.take("second", 4 * GIB) is None
        assert pool.take("second", 3 * GIB)

    def test_a_job_takes_the_first_device_with_room(self) -> None:
        pool = SlotPool([Slot("0", 1), Slot("1", 1)], Free(**{"0": 10.0, "1": 40.0}))
        large = pool.take("large", 20 * GIB)
        small = pool.take("small", 5 * GIB)

        assert large is not None
        assert small is not None
        assert [lease.slots[0].device for lease in (large, small)] == ["1", "0"]

    def test_a_job_that_fits_nowhere_waits_for_the_others_and_then_starts_with_a_warning(self) -> None:
        lines: list[str] = []
        pool = SlotPool([Slot("0", 1), Slot("1", 1)], Free(**{"0": 10.0, "1": 12.0}), lines.append)
        other = pool.take("other", 1 * GIB)
        assert other is not None
        assert pool.take("huge", 50 * GIB) is None
        assert lines == []
        pool.give_back(other)

        huge = pool.take("huge", 50 * GIB)
        assert huge is not None
        assert huge.slots[0].device == "1"
        assert len(lines) == 1
        assert lines[0].startswith("huge is started although such jobs have needed 50.0 GiB and 12.0 GiB are free on 1")
        assert pool.take("small", 1 * GIB), "the other device was let go"

    def test_a_refused_device_is_nobodys(self, other_runner: Runner) -> None:
        pool = SlotPool([Slot("0", 1), Slot("1", 1)], Free(**{"0": 10.0, "1": 12.0}))
        assert pool.take("other", 11 * GIB)
        assert pool.take("large", 11 * GIB) is None

        assert said(other_runner("0")) == "mine"

    def test_unknown_needs_and_unknown_memory_hold_nobody_up(self) -> None:
        pool = SlotPool([Slot("0", 1)] * 3, Free())
        assert pool.take("unknown")
        assert pool.take("known", 50 * GIB)
        pool = SlotPool([Slot("", 1)] * 2, Free(cpu=1.0))
        assert pool.take("unknown")
        assert pool.take("unknown")

    def test_main_memory_is_shared_in_the_same_way(self) -> None:
        pool = SlotPool([Slot("", 1)] * 2, Free(cpu=8.0))
        first = pool.take("first", 5 * GIB)
        assert first is not None
        assert pool.take("second", 5 * GIB) is None
        pool.give_back(first)
        assert pool.take("wide", 5 * GIB, everything=True) == Lease((Slot("", 1),) * 2, 5 * GIB, None)
