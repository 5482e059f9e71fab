"""An arm that is cut off after any update and started again ends as if nothing had happened, to the last bit."""

from __future__ import annotations

import json
import math
from pathlib import Path
from typing import Any

import pytest
import torch

from experiments.arms import resume
from experiments.arms.resume import Checkpoints, State
from experiments.spec import DPO, PPO, AdaptiveKL, ArmJobSpec
from experiments.stages import run_stage

NOT_COMPARED = {"wall_seconds", "device_seconds", "peak_memory_bytes"}


class Killed(BaseException):
    """Not an Exception, so that nothing on the way handles it."""


@pytest.fixture(autouse=True)
def write_every_checkpoint(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(resume, "MAX_SHARE_OF_TIME", math.inf)


@pytest.fixture
def run(artifacts: dict[str, Path], cache_dir: Path, tmp_path: Path, make_recorder: Any) -> Any:
    def run(spec: ArmJobSpec, name: str, kill_after: int | None = None, recorder: Any = None) -> Any:
        folder = tmp_path / name
        folder.mkdir(exist_ok=True)
        recorder = recorder or make_recorder()
        if kill_after is not None:
            recorder.progress = lambda stage, done, *_: (_ for _ in ()).throw(Killed) if done > kill_after else None
            with pytest.raises(Killed):
                run_stage("arm", spec, artifacts, folder, cache_dir, recorder)
            del recorder.progress
        else:
            run_stage("arm", spec, artifacts, folder, cache_dir, recorder)
        return recorder

    return run


def comparable(recorder: Any) -> list[Any]:
    return [
        (values, {name: value for name, value in vars(axes).items() if name not in NOT_COMPARED})
        for _, values, axes, _ in recorder.rows
    ]


def adapters(folder: Path) -> dict[str, bytes]:
    return {str(p.relative_to(folder)): p.read_bytes() for p in sorted(folder.rglob("adapter_model.safetensors"))}


@pytest.fixture(scope="module", params=["ppo", "dpo"])
def spec(request: pytest.FixtureRequest, ppo_arm: PPO, dpo_arm: DPO, arm_job: Any) -> ArmJobSpec:
    controlled = ppo_arm.model_copy(update={"adaptive_kl": AdaptiveKL(target=0.01, horizon_prompts=20)})
    return arm_job(controlled if request.param == "ppo" else dpo_arm, num_prompts=40)  # type: ignore[no-any-return]


@pytest.fixture(scope="module")
def whole(
    spec: ArmJobSpec,
    artifacts: dict[str, Path],
    cache_dir: Path,
    tmp_path_factory: pytest.TempPathFactory,
    make_recorder: Any,
) -> tuple[Path, Any]:
    """The folder of an arm that nobody disturbs, and what it says."""
    folder, recorder = tmp_path_factory.mktemp("whole"), make_recorder()
    run_stage("arm", spec, artifacts, folder, cache_dir, recorder)
    return folder, recorder


def test_cut_off_after_any_update_it_ends_the_same(
    spec: ArmJobSpec, run: Any, whole: tuple[Path, Any], tmp_path: Path
) -> None:
    folder, undisturbed = whole
    assert len(undisturbed.rows) == 5
    recorder = None
    for kill_after in range(5):  # each life begins where the one before was cut off
        recorder = run(spec, "killed", kill_after, recorder)
        assert len(recorder.rows) == kill_after + 1  # the row of update kill_after + 1 is written already
    run(spec, "killed", recorder=recorder)
    assert comparable(recorder) == comparable(undisturbed)
    assert adapters(tmp_path / "killed") == adapters(folder)
    assert not (tmp_path / "killed" / "resume").exists()


def test_killed_after_its_last_update_it_only_has_to_end(
    spec: ArmJobSpec, run: Any, whole: tuple[Path, Any], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(Checkpoints, "remove", lambda self: (_ for _ in ()).throw(Killed))
    recorder = run(spec, "killed", kill_after=10**6)
    monkeypatch.undo()
    run(spec, "killed", recorder=recorder)
    assert len(recorder.rows) == 5
    assert adapters(tmp_path / "killed") == adapters(whole[0])


def test_time_and_memory_count_on(spec: ArmJobSpec, run: Any, tmp_path: Path) -> None:
    recorder = run(spec, "arm", kill_after=3)
    before = recorder.rows[2][2].wall_seconds
    run(spec, "arm", recorder=recorder)
    assert recorder.rows[3][2].wall_seconds > before


def test_the_controllers_state_is_in_the_checkpoint(ppo_arm: PPO, arm_job: Any, run: Any, tmp_path: Path) -> None:
    arm = ppo_arm.model_copy(update={"adaptive_kl": AdaptiveKL(target=0.01, horizon_prompts=20)})
    run(arm_job(arm, num_prompts=40), "arm", kill_after=3)
    numbers = json.loads((tmp_path / "arm" / "resume" / "state.json").read_text())["numbers"]
    assert numbers["update"] == 3
    assert numbers["kl_coefficient"] != 0.05


class TestCheckpoints:
    state = State({"a": torch.arange(3.0)}, {"update": 2})

    def test_what_was_saved_is_loaded(self, spec: ArmJobSpec, tmp_path: Path) -> None:
        Checkpoints(tmp_path, spec).save_if_due(lambda: self.state)
        loaded = Checkpoints(tmp_path, spec).load()
        assert loaded is not None
        assert loaded.numbers == {"update": 2}
        assert torch.equal(loaded.tensors["a"], self.state.tensors["a"])

    @pytest.mark.parametrize("damage", ["tensors", "numbers", "missing"])
    def test_a_damaged_checkpoint_is_never_trusted(self, spec: ArmJobSpec, tmp_path: Path, damage: str) -> None:
        Checkpoints(tmp_path, spec).save_if_due(lambda: self.state)
        tensors, numbers = (tmp_path / "resume" / name for name in ("state.safetensors", "state.json"))
        if damage == "tensors":
            content = bytearray(tensors.read_bytes())
            content[-1] ^= 1
            tensors.write_bytes(content)
        elif damage == "numbers":
            numbers.write_text(numbers.read_text()[:-5])
        else:
            tensors.unlink()
        assert Checkpoints(tmp_path, spec).load() is None

    @pytest.mark.parametrize("content", [None, b"", b"other weights"])
    def test_an_adapter_that_is_no_longer_what_was_kept_ends_the_trust(
        self, spec: ArmJobSpec, tmp_path: Path, content: bytes | None
    ) -> None:
        """Going on, the arm would not write it again, and its evaluation would believe it."""
        kept = tmp_path / "adapters" / "point_1" / "adapter_model.safetensors"
        kept.parent.mkdir(parents=True)
        kept.write_bytes(b"weights")
        Checkpoints(tmp_path, spec).save_if_due(lambda: self.state)
        assert Checkpoints(tmp_path, spec).load() is not None
        kept.unlink() if content is None else kept.write_bytes(content)
        assert Checkpoints(tmp_path, spec).load() is None

    def test_killed_between_the_two_renames_the_old_one_is_there(self, spec: ArmJobSpec, tmp_path: Path) -> None:
        Checkpoints(tmp_path, spec).save_if_due(lambda: self.state)
        (tmp_path / "resume").rename(tmp_path / ".resume.old")
        loaded = Checkpoints(tmp_path, spec).load()
        assert loaded is not None
        assert loaded.numbers == {"update": 2}

    def test_that_of_another_specification_is_ignored(self, spec: ArmJobSpec, tmp_path: Path) -> None:
        Checkpoints(tmp_path, spec).save_if_due(lambda: self.state)
        assert Checkpoints(tmp_path, spec.model_copy(update={"seed": 9})).load() is None

    def test_costly_checkpoints_are_written_rarely(
        self, spec: ArmJobSpec, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        monkeypatch.setattr(resume, "MAX_SHARE_OF_TIME", 1e-9)
        checkpoints = Checkpoints(tmp_path, spec)
        checkpoints.save_if_due(lambda: self.state)
        checkpoints.save_if_due(lambda: State(self.state.tensors, {"update": 3}))
        loaded = checkpoints.load()
        assert loaded is not None
        assert loaded.numbers == {"update": 2}
