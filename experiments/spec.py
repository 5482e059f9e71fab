"""The schema of ``conf/``: what a person may choose, and the part of it that each job is given.

Two layers. `RunSpec` is one composed arm x seed, exactly the keys of the YAML files. The `*JobSpec` classes are what
one job receives: only the fields its result depends on, so that the hash of a job's specification *is* its identity,
and a knob that does not change a result cannot force anybody to train again. Imports no torch: planning takes about a
second.
"""

from __future__ import annotations

from dataclasses import replace
from typing import TYPE_CHECKING, Annotated, Literal

from pydantic import Field, model_validator

from experiments.catalogue import CATALOGUE, ArmSettings
from experiments.catalogue import DPO as DPO
from experiments.catalogue import PPO as PPO
from experiments.catalogue import SMOOTHED as SMOOTHED
from experiments.catalogue import AdaptiveKL as AdaptiveKL
from experiments.catalogue import DPOLoss as DPOLoss
from experiments.catalogue import DPOSettings as DPOSettings
from experiments.catalogue import Interpolation as Interpolation
from experiments.catalogue import PPOThenDPO as PPOThenDPO
from experiments.catalogue import Start as Start
from experiments.judge_spec import AnyJudge, Judges
from experiments.model_spec import Model
from experiments.records import ScoreCard
from experiments.rewards import REWARDS, AnyReward
from experiments.rewards.trained import RewardModel as RewardModel
from experiments.rules import Rules
from experiments.strict import Name, Strict, one_of
from experiments.tasks import AnyMeasure, Data, task_of
from experiments.tasks.task import TRAINING_REWARD

SHARE_TOLERANCE = 0.01  # of one evaluation step, so that 0.333 may stand for a third

if TYPE_CHECKING:
    Arm = ArmSettings
else:  # the catalogue says which there are
    Arm = one_of((record.settings for record in CATALOGUE.values()), "algorithm")


# --------------------------------------------------------------------------------------- what can be chosen
class Evaluation(Strict):
    """The shared evaluation: everything here is part of its fingerprint."""

    seed: int = Field(ge=0, description="of the common random numbers")
    rows_per_batch: int = Field(ge=1, description="fixed, because in bfloat16 the batch composition changes samples")
    embedder: str | None = Field(
        description="folder or hub id (hub_id@revision) of a sentence encoder, for the semantic shift; null: the "
        "report uses word statistics"
    )


class Budget(Strict):
    """How much of everything. Equal for all arms of a sweep."""

    num_ranking_prompts: int = Field(ge=2, description="training prompts: ranked for the pairs, rolled out by PPO")
    num_prompts: int = Field(ge=1, description="prompt presentations in each arm's training")
    num_evaluation_points: int = Field(
        ge=2, description="evaluations along an arm, the base first and the final model last"
    )
    num_evaluation_prompts: int = Field(ge=2, description="held-out prompts")
    samples_per_evaluation_prompt: int = Field(ge=1)
    further_base_samples_per_prompt: int = Field(
        ge=0,
        description="samples of the base on each evaluation prompt beyond its two evaluations, for best-of-n; where "
        "they and twice samples_per_evaluation_prompt are fewer than rules.readiness.best_of, it is not assessed",
    )


class EngineSettings(Strict):
    """What every engine is told."""

    artifacts_in_one_process: bool = Field(description="saves start-up time where the artifacts are tiny")
    time_limit_minutes: float | None = Field(
        gt=0, description="of one process's work; a longer one is ended, and fails"
    )


class LocalEngine(EngineSettings):
    """Processes on this machine: one slot per visible GPU, or a few CPU slots that divide the cores."""

    kind: Literal["local"]
    slots_per_device: int = Field(ge=1, description="jobs that share one GPU")
    cpu_slots: int = Field(ge=1, description="jobs at a time where there is no GPU")


class ClusterEngine(EngineSettings):
    """What every cluster is told. The run folders and the cache must be the same on all its nodes."""

    max_jobs: int = Field(
        ge=1, description="jobs handed to the cluster at a time; its scheduler decides when each starts"
    )
    max_restarts: int = Field(
        ge=0, description="times that a job goes on elsewhere after its node was lost or taken away"
    )
    cpus_per_job: int = Field(ge=1, description="and threads")
    memory_gib_per_job: int | None = Field(
        ge=1, description="main memory asked for each job; null: what earlier jobs of its kind have shown to be needed"
    )


class RayEngine(ClusterEngine):
    """Tasks of a Ray cluster."""

    kind: Literal["ray"]
    gpus_per_job: float = Field(ge=0, le=1, description="a job uses one GPU; 0.25 packs four jobs on each")
    address: str | None = Field(
        pattern=r"^(auto|[^/]+:\d+)$", description="HOST:PORT, or auto for this node's cluster; null starts one here"
    )


class SlurmEngine(ClusterEngine):
    """Job arrays of Slurm, through submitit."""

    kind: Literal["slurm"]
    gpus_per_job: int = Field(ge=0, le=1, description="a job uses one GPU or none")
    partition: str | None = Field(description="null means the cluster's default")
    account: str | None = Field(description="null means yours by default")
    qos: str | None = Field(description="quality of service; null means yours by default")
    memory_gib_at_first: int = Field(
        ge=1, description="asked for a job whose kind has not been measured yet, where memory_gib_per_job is null"
    )
    allocation_minutes: int = Field(ge=1, description="asked of Slurm; a job that needs longer is requeued and goes on")
    poll_seconds: float = Field(gt=0, description="between two looks at the queue")


class NoTracker(Strict):
    """The ledger only."""

    kind: Literal["none"]


class WandbTracker(Strict):
    """Weights & Biases."""

    kind: Literal["wandb"]
    project: Name
    entity: str | None = Field(description="team or user; null means the key's default")
    mode: Literal["auto", "online", "offline"] = Field(description="'auto' is online where a key is configured")
    send_samples_online: bool = Field(description="prompts and responses leave this machine only with this set")
    init_timeout_seconds: int = Field(ge=1)


Engine = Annotated[LocalEngine | RayEngine | SlurmEngine, Field(discriminator="kind")]
Tracker = Annotated[NoTracker | WandbTracker, Field(discriminator="kind")]


class Contest(Strict):
    """Two sides that are compared: an arm by its name, or every arm of an algorithm as algorithm:NAME."""

    arm: str = Field(min_length=1)
    opponent: str = Field(min_length=1)


class RunSpec(Strict):
    """One arm x seed as Hydra composed it."""

    name: Name = Field(description="of the sweep, and of its folder under runs_dir")
    runs_dir: str = Field(min_length=1)
    cache_dir: str = Field(min_length=1, description="converted models and shared artifacts, reused by later sweeps")
    keep_adapters: Literal["all", "final"] = Field(
        description="'all': those of every evaluation point; 'final': once an arm is evaluated, the last one and those "
        "that other arms start from. Changes no result, and nothing is trained again for it"
    )
    seed: int = Field(ge=0, description="of the arm: adapter, data order, rollouts")
    model: Model
    data: Data
    reward_model: AnyReward
    evaluation: Evaluation
    budget: Budget
    judge: Judges
    rules: Rules
    engine: Engine
    tracker: Tracker
    contests: tuple[Contest, ...] | None = Field(
        description="which arms are compared with each other, besides each with the base; null: those of every "
        "algorithm with those of every other, and staged arms with all of them"
    )
    arm: Arm

    @property
    def scores(self) -> tuple[ScoreCard, ...]:
        """Cards of everything that scores or compares this sweep's responses: the task's, then the judges'."""
        reward = REWARDS[self.reward_model.kind]
        cards = task_of(self.data).scores
        meant = (replace(card, meaning=reward.meaning) if card == TRAINING_REWARD else card for card in cards)
        return (*meant, *self.judge.cards)

    @model_validator(mode="after")
    def _primary_judge_can_decide(self) -> RunSpec:
        name, cards = self.rules.win_rate.primary_judge, {card.name: card for card in self.scores}
        choices = ", ".join(card.name for card in self.scores if card.role != "training_reward")
        if name not in cards:
            raise ValueError(
                f"rules.win_rate.primary_judge={name} is no judge of this sweep; there are {choices}, "
                "and judge=endpoint or judge=reward_model adds another"
            )
        if cards[name].role == "training_reward":
            raise ValueError(
                f"rules.win_rate.primary_judge={name} is the training reward, which must not decide who is better; "
                f"there are {choices}"
            )
        return self

    @model_validator(mode="after")
    def _starts_at_an_evaluation_point(self) -> RunSpec:
        start, steps = start_of(self.arm), self.budget.num_evaluation_points - 1
        if start is None:
            return self
        point = start_point(start, self.budget.num_evaluation_points)
        if not 0 < point < steps or abs(start.share * steps - point) > SHARE_TOLERANCE:
            valid = ", ".join(f"{k / steps:.4g}" for k in range(1, steps)) or "none, as there is no point in between"
            raise ValueError(
                f"arm.start.share={start.share:g}: arm {start.arm} keeps a checkpoint at each of the "
                f"budget.num_evaluation_points={steps + 1} evaluation points only; valid shares are {valid}"
            )
        return self

    @model_validator(mode="after")
    def _budget_fits_arm(self) -> RunSpec:
        if start_of(self.arm) is not None:
            return self  # what is left for it depends on the arm that it starts from: runner/planning/starts.py
        if self.budget.num_prompts % self.arm.prompts_per_step:
            raise ValueError(
                f"budget.num_prompts={self.budget.num_prompts} is not a multiple of the "
                f"{self.arm.prompts_per_step} prompts that one update of arm {self.arm.name} takes"
            )
        updates = self.budget.num_prompts // self.arm.prompts_per_step
        if self.budget.num_evaluation_points - 1 > updates:
            raise ValueError(
                f"budget.num_evaluation_points={self.budget.num_evaluation_points} needs at least "
                f"{self.budget.num_evaluation_points - 1} updates after the base, "
                f"but arm {self.arm.name} makes {updates}"
            )
        return self


# --------------------------------------------------------------------------------------- what a job is given
class BaseModelJobSpec(Strict):
    """Convert a base model that comes in a package."""

    model: Model


class MeasureJobSpec(Strict):
    """Make what the task's measure needs."""

    measure: AnyMeasure


class RankingJobSpec(Strict):
    """Sample the base and rank the samples by the measure."""

    model: Model
    data: Data
    num_ranking_prompts: int


class FreshPairsJobSpec(RankingJobSpec):
    """Sample an arm's checkpoint, the one at evaluation point `start_point`, and rank the samples by the measure."""

    start_point: int
    seed: int


class RewardModelJobSpec(Strict):
    """Train the reward, or find its scale."""

    task: str
    model: Model
    reward_model: AnyReward
    comparisons: Literal["all", "best_worst"]
    seed: int


class EvaluationJobSpec(Strict):
    """Sample and score a model on the shared evaluation set. The same values for the base and for every arm."""

    model: Model
    data: Data
    evaluation: Evaluation
    num_prompts: int
    samples_per_prompt: int


class BaseEvaluationJobSpec(EvaluationJobSpec):
    """The evaluation of the base, sampled more often than an arm: it also shows what was in reach untrained."""

    further_samples_per_prompt: int


class ArmJobSpec(Strict):
    """Train one arm; its adapter is kept at `num_points - 1` evenly spread points, the last one included."""

    model: Model
    data: Data
    arm: Arm
    comparisons: Literal["all", "best_worst", "none"]
    seed: int
    num_prompts: int
    num_points: int


class JudgedRun(Strict):
    """An arm x seed whose final samples are judged."""

    arm: Name
    seed: int

    @property
    def role(self) -> str:
        """Under which its evaluation is among the job's needs, if it finished."""
        return f"{self.arm}/seed{self.seed}/evaluation"


class JudgementJobSpec(Strict):
    """Ask one judge about the final models: each against the base, and the contests of the sweep."""

    task: str
    model: Model
    judge: AnyJudge
    runs: tuple[JudgedRun, ...]
    contests: tuple[Contest, ...] = Field(description="between arms, by name")


class ReportJobSpec(Strict):
    """Write the report of the sweep, which reads everything else from the ledger."""

    rules: Rules
    contests: tuple[Contest, ...] = Field(description="between arms, by name")


JobSpec = (
    BaseModelJobSpec
    | MeasureJobSpec
    | RankingJobSpec
    | FreshPairsJobSpec
    | RewardModelJobSpec
    | BaseEvaluationJobSpec
    | EvaluationJobSpec
    | ArmJobSpec
    | JudgementJobSpec
    | ReportJobSpec
)


def start_of(arm: ArmSettings) -> Start | None:
    """Where an arm starts, or None for the base."""
    start: Start | None = getattr(arm, "start", None)
    return start


def start_point(start: Start, num_points: int) -> int:
    """The evaluation point of the other arm that an arm starts from."""
    return round(start.share * (num_points - 1))


def evaluation_updates(num_updates: int, num_points: int) -> list[int]:
    """The updates after which an arm is evaluated: evenly spread, the last one included, the base (update 0) not.

    Args:
        num_updates: optimizer updates of the arm.
        num_points: evaluation points with the base, at most ``num_updates + 1``.
    """
    return [round(point * num_updates / (num_points - 1)) for point in range(1, num_points)]


JOB_SPECS: dict[str, type[JobSpec]] = {
    "base_model": BaseModelJobSpec,
    "measure": MeasureJobSpec,
    "ranking_data": RankingJobSpec,
    "fresh_pairs": FreshPairsJobSpec,
    "reward_model": RewardModelJobSpec,
    "base_evaluation": BaseEvaluationJobSpec,
    "arm": ArmJobSpec,
    "evaluation": EvaluationJobSpec,
    "judgement": JudgementJobSpec,
    "report": ReportJobSpec,
}
