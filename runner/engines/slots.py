"""Slots for processes on this machine, and who has them.

A device belongs to one runner at a time, which may start several jobs on it (`slots_per_device`). The owner holds an
exclusive `flock` on a file named after the device. Its jobs inherit the open file, and the kernel frees the lock when
the last of them has ended: a runner that is killed can neither leave a device locked for ever, nor free it while one of
its jobs still works there.
"""

from __future__ import annotations

import contextlib
import errno
import fcntl
import os
import re
import stat
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from pathlib import Path

from experiments.errors import InputError
from runner.engines import GIB

FOLDER_VARIABLE = "RUNNER_DEVICE_LOCKS"
DEFAULT_FOLDER = "/tmp/ppo-dpo-runner-devices"  # noqa: S108  for all users of the machine; nothing is ever read from it

FreeBytes = Callable[[str], int | None]  # of a device by its key ("" is main memory); None where nobody knows


@dataclass(frozen=True)
class Slot:
    """Room for one process."""

    device: str  # a token of CUDA_VISIBLE_DEVICES, or "" for the CPU
    threads: int
    key: str = ""  # what the device's lock is named after; the token where none is given

    @property
    def owner_key(self) -> str:
        """The same for all slots of one device, in all runners; "" for the CPU, which nobody owns."""
        return self.key or self.device


@dataclass(frozen=True)
class Lease:
    """What one task has been given."""

    slots: tuple[Slot, ...]
    needed_bytes: int  # what the task says it needs, 0 where it does not know
    lock: int | None  # the device's open file, for the task's process to inherit


@dataclass
class _Owned:
    """A device with tasks of this runner on it."""

    lock: int | None
    free_bytes: int | None  # when it was taken
    leases: list[Lease] = field(default_factory=list)


class SlotPool:
    """Hands out slots of devices that are ours or nobody's, where there is enough memory.

    Args:
        slots: all there are.
        free_bytes: asks how much memory a device has left.
        say: tells a person what is waited for.
    """

    def __init__(
        self,
        slots: Sequence[Slot],
        free_bytes: FreeBytes = lambda key: None,
        say: Callable[[str], None] = lambda text: None,
    ) -> None:
        self._slots, self._free = tuple(slots), list(slots)
        self._free_bytes, self._say = free_bytes, say
        self._owned: dict[str, _Owned] = {}
        self._waiting_for: list[str] = []

    def take(self, name: str, needed_bytes: int = 0, everything: bool = False) -> Lease | None:
        """The first free slot that has room, or all slots; None where there is none now.

        A task that finds no device with enough memory waits while any other task of this runner works. Once none does,
        nothing of ours is left to wait for: it is started where most is free, and a person is told.

        Args:
            name: of the task, for what is said.
            needed_bytes: memory it will take; 0 where that is not known.
            everything: whether it wants all slots (of the CPU, which is one device).
        """
        candidates, others = self._candidates(everything), []
        for slots in candidates:
            if not self._own(slots[0]):
                others.append(slots[0].device)
            elif self._fits(slots[0].owner_key, needed_bytes):
                return self._lease(slots, needed_bytes)
        ours = [slots for slots in candidates if slots[0].owner_key in self._owned]
        if ours and not any(owned.leases for owned in self._owned.values()):
            return self._lease_anyway(name, ours, needed_bytes)
        self._let_go()
        self._tell(others)
        return None

    def give_back(self, lease: Lease) -> None:
        """The task has ended; a device without further tasks becomes anybody's."""
        self._owned[lease.slots[0].owner_key].leases.remove(lease)
        self._free = sorted([*self._free, *lease.slots], key=self._slots.index)
        self._let_go()

    def _candidates(self, everything: bool) -> list[tuple[Slot, ...]]:
        """Of each device the first free slot, in the order of the devices."""
        if everything:
            return [self._slots] if len(self._free) == len(self._slots) else []
        first: dict[str, tuple[Slot, ...]] = {}
        for slot in self._free:
            first.setdefault(slot.owner_key, (slot,))
        return list(first.values())

    def _own(self, slot: Slot) -> bool:
        """Whether the slot's device is this runner's, or has just become so."""
        key = slot.owner_key
        if key not in self._owned:
            lock = _lock(key) if key else None
            if key and lock is None:
                return False
            self._owned[key] = _Owned(lock, self._free_bytes(key))
        return True

    def _let_go(self) -> None:
        """Of every device without a task."""
        for key in [key for key, owned in self._owned.items() if not owned.leases]:
            lock = self._owned.pop(key).lock
            if lock is not None:
                os.close(lock)

    def _fits(self, key: str, needed: int) -> bool:
        """Whether the device has that much left, now and once the tasks on it have taken all that they need."""
        owned = self._owned[key]
        now = self._free_bytes(key) if needed else None
        if now is None or owned.free_bytes is None:
            return True
        return needed <= min(now, owned.free_bytes - sum(lease.needed_bytes for lease in owned.leases))

    def _lease(self, slots: tuple[Slot, ...], needed: int) -> Lease:
        owned = self._owned[slots[0].owner_key]
        lease = Lease(slots, needed, owned.lock)
        owned.leases.append(lease)
        for slot in slots:
            self._free.remove(slot)
        self._waiting_for = []
        self._let_go()
        return lease

    def _lease_anyway(self, name: str, candidates: Sequence[tuple[Slot, ...]], needed: int) -> Lease:
        free = {slots: self._free_bytes(slots[0].owner_key) or 0 for slots in candidates}
        slots = max(candidates, key=lambda slots: free[slots])
        self._say(
            f"{name} is started although such jobs have needed {needed / GIB:.1f} GiB and {free[slots] / GIB:.1f} GiB "
            f"are free on {slots[0].device or 'this machine'}: nothing else runs here that could be waited for"
        )
        return self._lease(slots, needed)

    def _tell(self, others: list[str]) -> None:
        """Say once, and not at every look, which devices are somebody else's."""
        if others and others != self._waiting_for:
            self._say(f"waiting: another runner works on {', '.join(others)}")
        self._waiting_for = others


def lock_folder() -> Path:
    """Where the locks of all runners on this machine lie; RUNNER_DEVICE_LOCKS chooses another folder for all."""
    return Path(os.environ.get(FOLDER_VARIABLE) or DEFAULT_FOLDER)


def _lock(key: str) -> int | None:
    """The open, locked file of a device, or None where another process has it.

    Raises:
        InputError: there can be no lock in that folder.
    """
    path = lock_folder() / (re.sub(r"[^A-Za-z0-9.-]", "_", key)[:200] + ".lock")
    try:
        _make_folder(path.parent)
        return _locked(path)
    except OSError as error:
        raise InputError(
            f"{path}: cannot be opened to lock the device ({error.strerror}); "
            f"{FOLDER_VARIABLE} names another folder, the same for all runners on this machine"
        ) from None


def _make_folder(path: Path) -> None:
    """Make the folder of the locks where it is missing. It may be no link: anybody could have put that there.

    Only a folder that was made here gets its mode, and through the open folder, not through its name.

    Raises:
        OSError: there can be no such folder, or something else is there.
    """
    path.parent.mkdir(parents=True, exist_ok=True)
    try:
        path.mkdir()
        mode = 0o1777
    except FileExistsError:
        mode = None
    folder = os.open(path, os.O_RDONLY | os.O_DIRECTORY | os.O_NOFOLLOW | os.O_CLOEXEC)
    try:
        if mode is not None:
            os.fchmod(folder, mode)
    finally:
        os.close(folder)


def _locked(path: Path) -> int | None:
    """The file, open and locked; None where another process has it."""
    file = _open(path)
    try:
        fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except BlockingIOError:
        os.close(file)
        return None
    with contextlib.suppress(OSError):
        os.utime(file)  # whatever tidies /tmp takes files that nobody has touched for days
        if path.lstat().st_ino == os.fstat(file).st_ino:
            return file
    os.close(file)  # it was removed between opening and locking, and somebody else may have a new one
    return None


def _open(path: Path) -> int:
    """The file, made where it is missing, so that every user of the machine can lock it.

    An existing one is opened without O_CREAT: in a folder like /tmp Linux refuses that for a file of somebody else. It
    may be anything that somebody put there, so opening it must not wait, and it has to be a plain file.

    Raises:
        OSError: it cannot be opened, or is no plain file.
    """
    flags = os.O_CLOEXEC | os.O_NOFOLLOW | os.O_NONBLOCK
    with contextlib.suppress(FileExistsError):
        file = os.open(path, os.O_RDWR | flags | os.O_CREAT | os.O_EXCL, 0o666)
        os.fchmod(file, 0o666)  # whatever the umask
        return file
    try:
        file = os.open(path, os.O_RDWR | flags)
    except PermissionError:
        file = os.open(path, os.O_RDONLY | flags)
    if not stat.S_ISREG(os.fstat(file).st_mode):
        os.close(file)
        raise OSError(errno.EINVAL, "it is no plain file")
    return file
