"""``python -m runner.stop RUNS_DIR [ARM]``: end a sweep, or an arm or one seed of it, from any terminal or machine.

It leaves request files, which the sweep's driver and its jobs obey within seconds. Jobs end as after Ctrl-C: their
ledger is whole, and arms keep their last checkpoint. So the same sweep command resumes later. Exit codes: 0 asked, or
nothing to end; 1 a request could not be left, since the disk is full or the folder cannot be written; 2 bad input.
"""

from __future__ import annotations

import sys
from collections.abc import Iterator, Sequence
from pathlib import Path

from experiments.errors import InputError
from experiments.foreign import clean_lines
from runner.driving.execute import belongs
from runner.ledger.command import as_typed
from runner.ledger.driver import read_driver
from runner.ledger.plan_file import PlanFile, read_plan
from runner.ledger.reader import read_status
from runner.ledger.requests import ask_driver, ask_job
from runner.status import driver_sign, job_signs, running_jobs, working_folders
from runner.terminal import complain, run_command

USAGE = "usage: python -m runner.stop RUNS_DIR [ARM]"


def main(arguments: Sequence[str]) -> int:
    """Ask for an end. Returns the exit code."""
    try:
        if len(arguments) not in {1, 2} or any(argument.startswith("-") for argument in arguments):
            raise InputError(USAGE)
        runs_dir = Path(arguments[0])
        plan = read_plan(runs_dir)
        arm = known_arm(plan, arguments[1]) if len(arguments) == 2 else None
        reached = False
        for whom in ask(runs_dir, plan, arm):
            reached = True
            print(clean_lines(whom))
    except InputError as error:
        complain(error)
        return 2
    except BrokenPipeError:
        raise
    except OSError as error:
        complain(
            f"{runs_dir} cannot be written ({error.strerror}), so nobody else is asked to end; make room and repeat"
        )
        return 1
    if reached:
        print(f"they end within seconds: python -m runner.status {as_typed([str(runs_dir)])}")
    else:
        print(f"nothing runs in {runs_dir}" + (f" of {arm}" if arm else ""))
    return 0


def known_arm(plan: PlanFile, arm: str) -> str:
    """An arm of the plan, or one seed of it.

    Raises:
        InputError: there is none of this name. The message lists all that exist.
    """
    arm = arm.rstrip("/")
    names = dict.fromkeys([*(one.arm for one in plan.arms), *(one.folder for one in plan.arms)])
    if arm not in names:
        raise InputError(f"{arm}: there is no such arm in this sweep; valid are {', '.join(names)}")
    return arm


def ask(runs_dir: Path, plan: PlanFile, arm: str | None) -> Iterator[str]:
    """Leave the requests, and yield whom they reach. The driver is asked first, so that it starts nothing meanwhile."""
    driver = read_driver(runs_dir)
    sign = driver_sign(runs_dir, driver)
    if driver is not None and sign is not None and sign.alive:
        ask_driver(runs_dir, str(driver.get("attempt")), arm)
        yield f"asked the driver to stop {arm or 'the sweep'} ({sign.how})"
        return
    running = running_jobs(working_folders(runs_dir, plan, driver))
    for label, job_sign in job_signs(running).items():
        if job_sign.alive and (arm is None or belongs(label, arm)):
            ask_job(running[label], str((read_status(running[label]) or {}).get("attempt")))
            yield f"asked {label} to end, which runs without a driver ({job_sign.how})"


if __name__ == "__main__":
    sys.exit(run_command(main, __doc__))
