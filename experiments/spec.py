"""The schema of ``conf/``: what a person may choose, and the part of it that each job receives.

There are two layers. `RunSpec` is one composed arm x seed, with exactly the keys of the YAML files. A `*JobSpec` is
what one job receives: only the fields that its result depends on. So the hash of a job's specification *is* its
identity, and changing any other setting trains nothing again. Imports no torch: planning takes about a second.
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

SHARE_TOLERANCE = 0.01  # of one evaluation step, so that 0.333 is accepted as a third

if TYPE_CHECKING:
    Arm = ArmSettings
else:  # the union of all settings in the catalogue
    Arm = one_of((record.settings for record in CATALOGUE.values()), "algorithm")


# --------------------------------------------------------------------------------------- what can be chosen
class Evaluation(Strict):
    """The shared evaluation: everything here is part of its fingerprint."""

    seed: int = Field(ge=0, description="of the common random numbers")
    rows_per_batch: int = Field(ge=1, description="fixed, because in bfloat16 the batch size changes the samples")
    embedder: str | None = Field(
        description="folder or hub id (hub_id@revision) of a sentence encoder, for the semantic shift; null: the "
        "report uses word statistics"
    )


class Budget(Strict):
    """Amounts of data and training, the same for all arms of a sweep."""

    num_ranking_prompts: int = Field(ge=2, description="training prompts: ranked for the pairs, rolled out by PPO")
    num_prompts: int = Field(ge=1, description="prompt presentations in each arm's training")
    num_evaluation_points: int = Field(
        ge=2, description="evaluations along an arm, the base first and the final model last"
    )
    num_evaluation_prompts: int = Field(ge=2, description="held-out prompts")
    samples_per_evaluation_prompt: int = Field(ge=1)
    further_base_samples_per_prompt: int = Field(
        ge=0,
        description="further samples of the base per evaluation prompt, for best-of-n, which needs "
        "2 × samples_per_evaluation_prompt + this ≥ rules.readiness.best_of",
    )


class EngineSettings(Strict):
    """Settings of every engine."""

    artifacts_in_one_process: bool = Field(description="saves start-up time if the artifacts are tiny")
    time_limit_minutes: float | None = Field(
        gt=0, description="of one process's work; a process that takes longer is ended, and fails"
    )


class LocalEngine(EngineSettings):
    """Processes on this machine, in slots: on each visible GPU, or CPU slots that share the cores."""

    kind: Literal["local"]
    slots_per_device: int = Field(ge=1, description="jobs that share one GPU")
    cpu_slots: int = Field(ge=1, description="jobs at a time if there is no GPU")


class ClusterEngine(EngineSettings):
    """Settings of every cluster. All its nodes must see the same run folders and cache."""

    max_jobs: int = Field(
        ge=1, description="jobs submitted to the cluster at a time; its scheduler decides when each starts"
    )
    max_restarts: int = Field(
        ge=0, description="times that a job resumes elsewhere after its node was lost or preempted"
    )
    cpus_per_job: int = Field(ge=1, description="also the number of threads")
    memory_gib_per_job: int | None = Field(
        ge=1, description="main memory requested for each job; null: estimated from earlier jobs of its kind"
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
    account: str | None = Field(description="null means your default account")
    qos: str | None = Field(description="quality of service; null means your default")
    memory_gib_at_first: int = Field(
        ge=1, description="requested if memory_gib_per_job is null and the job's kind has not been measured yet"
    )
    allocation_minutes: int = Field(ge=1, description="requested of Slurm; a longer job is requeued and resumes")
    poll_seconds: float = Field(gt=0, description="time between two queries of the queue")


class NoTracker(Strict):
    """The ledger only."""

    kind: Literal["none"]


class WandbTracker(Strict):
    """Weights & Biases."""

    kind: Literal["wandb"]
    project: Name
    entity: str | None = Field(description="team or user; null means the key's default")
    mode: Literal["auto", "online", "offline"] = Field(description="'auto' is online if a key is configured")
    send_samples_online: bool = Field(description="prompts and responses leave this machine only if this is true")
    init_timeout_seconds: int = Field(ge=1)


Engine = Annotated[LocalEngine | RayEngine | SlurmEngine, Field(discriminator="kind")]
Tracker = Annotated[NoTracker | WandbTracker, Field(discriminator="kind")]


class Contest(Strict):
    """Two sides to compare. A side is the name of an arm, or algorithm:NAME for every arm of that algorithm."""

    arm: str = Field(min_length=1)
    opponent: str = Field(min_length=1)


class RunSpec(Strict):
    """One arm x seed as Hydra composed it."""

    name: Name = Field(description="of the sweep, and of its folder under runs_dir")
    runs_dir: str = Field(min_length=1)
    cache_dir: str = Field(min_length=1, description="converted models and shared artifacts, reused by later sweeps")
    keep_adapters: Literal["all", "final"] = Field(
        description="'all': those of every evaluation point; 'final': once an arm is evaluated, only the last one and "
        "those that other arms start from. Changing it changes no result and trains nothing again"
    )
    seed: int = Field(ge=0, description="of the arm: adapter initialisation, data order, rollouts")
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
        """Cards of all scores and verdicts on this sweep's responses: the task's, then the judges'."""
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
            return self  # its remaining budget depends on the arm that it starts from: runner/planning/starts.py
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


# --------------------------------------------------------------------------------------- what a job receives
class BaseModelJobSpec(Strict):
    """Convert a base model that comes in a package."""

    model: Model


class MeasureJobSpec(Strict):
    """Build what the task's measure needs, such as its trained scorers."""

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
    """The evaluation of the base. It takes more samples than an arm's, to show what the untrained base can reach."""

    further_samples_per_prompt: int


class ArmJobSpec(Strict):
    """Train one arm; its adapter is saved at `num_points - 1` evenly spaced points, the end included."""

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
        """Key of its evaluation in the job's `needs`, if it finished."""
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
    """The checkpoint of another arm that an arm starts from; None if it starts from the base."""
    start: Start | None = getattr(arm, "start", None)
    return start


def start_point(start: Start, num_points: int) -> int:
    """The evaluation point of the other arm that an arm starts from."""
    return round(start.share * (num_points - 1))


def evaluation_updates(num_updates: int, num_points: int) -> list[int]:
    """The updates after which an arm is evaluated: evenly spaced, with the last one, without the base (update 0).

    Args:
        num_updates: optimizer updates of the arm.
        num_points: evaluation points including the base, at most ``num_updates + 1``.
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
