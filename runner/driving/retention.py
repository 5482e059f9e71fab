"""Which adapters a finished arm keeps (`keep_adapters`). Weights are nearly all that a sweep leaves on the disk.

With "final", those of earlier points are removed when every job of the sweep that reads them has finished and its files
were checked. An arm that others start from keeps what they begin with. `adapters/removed.json` lists what was removed.
It is no part of the ledger, so removing weights changes no signed record.
"""

from __future__ import annotations

import shutil
from collections import defaultdict
from collections.abc import Collection, Iterable
from typing import Literal

from experiments.records import ADAPTER_FOLDER
from experiments.spec import ArmJobSpec, start_of, start_point
from runner.ledger.files import timestamp, write_json
from runner.ledger.reader import REMOVED_ADAPTERS, is_finished, removed_points
from runner.planning.graph import Job
from runner.planning.plan import Plan
from runner.planning.problems import Problem, refuse


class Retention:
    """The arms of one sweep and the jobs that read their adapters."""

    def __init__(self, jobs: Iterable[Job], keep: Literal["all", "final"]) -> None:
        self.keep = keep
        self._arms: dict[str, Job] = {}
        self._readers: dict[str, list[Job]] = defaultdict(list)
        for job in jobs:
            if job.kind == "arm":
                self._arms[job.label] = job
            for need in job.needs.values():
                self._readers[need].append(job)

    def prune(self, done: Collection[str], touching: Job | None = None) -> dict[str, list[int]]:
        """Remove what nobody needs any more.

        Args:
            done: labels of the jobs that have finished and whose files are whole.
            touching: look only at the arms that this job is or reads.

        Returns:
            Label of an arm → the points whose adapters were removed just now.

        Raises:
            OSError: something could not be removed, or be noted as removed.
        """
        if self.keep == "all":
            return {}
        labels = self._arms if touching is None else [touching.label, *touching.needs.values()]
        arms = [self._arms[label] for label in labels if label in self._arms]
        whole = [arm for arm in arms if {arm.label, *(job.label for job in self._readers[arm.label])}.issubset(done)]
        found = {arm.label: _remove_all_but(arm, self.kept_points(arm)) for arm in whole}
        return {label: points for label, points in found.items() if points}

    def kept_points(self, arm: Job) -> set[int]:
        """The last, and those up to a checkpoint that another arm starts from, which begins with copies of them."""
        starts = [_start_point(job) for job in self._readers[arm.label]]
        return {_spec(arm).num_points - 1, *range(1, max(starts, default=0) + 1)}

    def lacks_adapters(self, arm: Job) -> bool:
        """Whether an arm's evaluation has to be made again, but not all of the adapters that it reads are left."""
        return bool(removed_points(arm.folder)) and not all(
            is_finished(job.folder, job.identity) for job in self._readers[arm.label] if job.kind == "evaluation"
        )


def check_starts(plan: Plan) -> None:
    """Make sure that the arms still to be trained have what they start from.

    Raises:
        InputError: an earlier `keep_adapters=final` has removed it.
    """
    jobs = {job.label: job for job in plan.jobs}
    problems = []
    for job in (job for job in plan.jobs if _start_point(job)):
        first = jobs[job.needs["start"]]
        gone = sorted(point for point in removed_points(first.folder) if point <= _start_point(job))
        if gone and is_finished(first.folder, first.identity) and not is_finished(job.folder, job.identity):
            what = (
                f"it starts from {first.label}, but keep_adapters=final has removed that arm's adapters of the points "
                f"{', '.join(map(str, gone))}; name=… chooses another folder, or remove {first.folder} to train "
                f"{first.label} again"
            )
            problems.append(Problem(job.label, what))
    refuse(problems)


def _remove_all_but(arm: Job, kept: set[int]) -> list[int]:
    """Note the others as removed, then remove them. A file that is gone without a note would count as lost."""
    others = set(range(1, _spec(arm).num_points)) - kept
    there = sorted(point for point in others if (arm.folder / ADAPTER_FOLDER.format(point=point)).is_dir())
    if there:
        points = sorted(removed_points(arm.folder) | set(there))
        note = {"points": points, "because": "keep_adapters=final", "time": timestamp()}
        write_json(arm.folder / REMOVED_ADAPTERS, note)
    for point in there:
        shutil.rmtree(arm.folder / ADAPTER_FOLDER.format(point=point))
    return there


def _start_point(job: Job) -> int:
    """The point of another arm that an arm begins with; 0 for any other job."""
    spec = job.file.spec
    start = start_of(spec.arm) if isinstance(spec, ArmJobSpec) else None
    return start_point(start, _spec(job).num_points) if start else 0


def _spec(arm: Job) -> ArmJobSpec:
    if not isinstance(arm.file.spec, ArmJobSpec):
        raise TypeError(f"{arm.label} is no arm")
    return arm.file.spec
