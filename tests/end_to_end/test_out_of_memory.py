"""An arm that runs out of memory, by a real limit of its process, finishes in a second attempt with the same result."""

from __future__ import annotations

import io
import shutil
import sys
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

import pytest
import torch
from rich.console import Console
from safetensors.torch import load_file

from runner.__main__ import compose
from runner.driving.execute import Scheduler
from runner.engines.local import LocalEngine
from runner.engines.slots import Slot
from runner.ledger.driver import DriverFile
from runner.ledger.files import write_json
from runner.ledger.reader import read_json, read_metrics
from runner.planning.graph import Job
from runner.planning.plan import Plan, make_plan
from runner.watching.display import Display

ROOT = Path(__file__).parents[2]
# `runner.job`, which may take the bytes of address space that stand in `limit` beside its folder, and writes its peak.
JOB = """
import resource, sys
from pathlib import Path
from runner.job import main
folder = Path(sys.argv[1])
if (folder / "limit").exists():
    resource.setrlimit(resource.RLIMIT_AS, (int((folder / "limit").read_text()),) * 2)
code = main(sys.argv[1:])
peak = next(line for line in Path("/proc/self/status").read_text().splitlines() if line.startswith("VmPeak"))
(folder / "peak").write_text(str(int(peak.split()[1]) * 1024))
sys.exit(code)
"""
SETTINGS = {  # one update of 2048 rollouts is far larger than everything else this job holds
    "++arm.prompts_per_update": 2048,
    "++arm.tokens_per_microbatch": 10**6,
    "++arm.num_minibatches": 1,
    "budget.num_prompts": 2048,
    "budget.num_evaluation_points": 2,
    "data.max_new_tokens": 32,
}
Walked = Callable[..., tuple[Job, str]]


@pytest.fixture(scope="module")
def walked(tmp_path_factory: pytest.TempPathFactory, finished_sweep: Path) -> Walked:
    """Trains the PPO arm in a sweep of this name; the artifacts are built once. Returns the arm and what was said."""
    folder = tmp_path_factory.mktemp("sweeps")
    shutil.copytree(finished_sweep / "cache", folder / "cache")  # the gold scorer is that of all smoke sweeps
    (folder / "job.py").write_text(JOB)

    def run(name: str, limit: int | None = None, divisor: int = 1) -> tuple[Job, str]:
        plan = arm_alone(folder, name)
        arm = plan.jobs[-1]
        arm.folder.mkdir(parents=True)
        if limit:
            (arm.folder / "limit").write_text(str(limit))
        if divisor > 1:
            write_json(arm.folder / "retry.json", {"identity": arm.identity, "pass_divisor": divisor})
        output = io.StringIO()
        display = Display(Console(file=output, width=300, highlight=False, markup=False))
        engine = LocalEngine([Slot("", 1)], num_cores=1)
        driver = DriverFile(plan.folder, "", "")
        Scheduler(plan, engine, display, driver, (sys.executable, str(folder / "job.py"))).run()
        return arm, output.getvalue()

    return run


def arm_alone(folder: Path, name: str) -> Plan:
    folders = {"name": name, "runs_dir": folder / "runs", "cache_dir": folder / "cache", "tracker": "none"}
    settings = [f"{key}={value}" for key, value in {**folders, **SETTINGS}.items()]
    plan = make_plan(compose(["+sweep=smoke", "+arm=ppo", *settings]))
    kinds = ("measure", "ranking_data", "reward_model", "arm")
    return replace(plan, jobs=tuple(job for kind in kinds for job in plan.jobs if job.kind == kind))


@pytest.mark.skipif(
    sys.platform != "linux", reason="needs Linux: the lack of memory is a limit on the address space, measured in /proc"
)
@pytest.mark.timeout(600)
def test_a_real_lack_of_memory_changes_how_much_is_done_at_a_time_and_nothing_else(
    walked: Walked, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("PYTHONPATH", str(ROOT))
    monkeypatch.setenv("MALLOC_ARENA_MAX", "1")  # or the address space depends on which thread asks for memory first
    whole, said = walked("whole")
    assert "ppo/seed0" in said
    assert "once more" not in said
    cut, _ = walked("cut", divisor=4)
    peaks = [int((arm.folder / "peak").read_text()) for arm in (whole, cut)]
    assert peaks[0] - peaks[1] > 50e6, "the two attempts must differ by more than the noise"

    tight, said = walked("tight", limit=sum(peaks) // 2)
    assert "DefaultCPUAllocator: can't allocate memory" in said
    assert "it starts once more, with passes that are 4 times smaller" in said
    assert "finished with passes that are 4 times smaller, after it had run out of memory" in said
    assert tight.identity == whole.identity
    status, provenance = (read_json(tight.folder / f"{name}.json") for name in ("status", "provenance"))
    assert (status["state"], status["pass_divisor"]) == ("finished", 4)
    assert provenance["retry"]["pass_divisor"] == 4
    assert "can't allocate memory" in provenance["retry"]["because"]
    assert read_json(whole.folder / "provenance.json")["retry"] is None

    rows, expected = read_metrics(tight.folder), read_metrics(whole.folder)
    assert [row["train/loss"] for row in rows] == pytest.approx([row["train/loss"] for row in expected], rel=1e-4)
    adapters = [load_file(arm.folder / "adapters/point_1/adapter_model.safetensors") for arm in (tight, whole)]
    assert adapters[0].keys() == adapters[1].keys()
    for name, tensor in adapters[1].items():
        torch.testing.assert_close(adapters[0][name], tensor, rtol=1e-3, atol=1e-5)
    assert any(bool(tensor.any()) for name, tensor in adapters[1].items() if "lora_B" in name)
