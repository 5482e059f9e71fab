"""The algorithms: what a person may choose of each, and what the rest of the program has to know of it.

This is the one list of algorithms. A new one is a settings class and a record here, its training in `experiments.arms`,
and a file in ``conf/arm/``. The jobs, the plan, the estimate and the trackers read the records; plan.json carries what
a report needs of them, so that a report reads no code of an algorithm. Imports no torch.
"""

from __future__ import annotations

from abc import abstractmethod
from collections.abc import Callable, Mapping
from dataclasses import asdict, dataclass, field
from typing import Annotated, Any, Literal

from pydantic import Field, model_validator

from experiments.strict import Name, Strict


class ArmSettings(Strict):
    """What the settings of every algorithm have."""

    algorithm: str
    name: Name

    @property
    @abstractmethod
    def prompts_per_step(self) -> int:
        """Prompt presentations between two possible evaluation points."""


class AdaptiveKL(Strict):
    """A controller that moves the KL coefficient towards a KL (Ziegler et al. 2019, arXiv:1909.08593, section 2.2)."""

    target: float = Field(gt=0, description="KL to the base to hold, nats a response")
    horizon_prompts: int = Field(ge=1, description="prompts over which the coefficient changes by at most a fifth")


class PPO(ArmSettings):
    """Proximal policy optimisation from a reward model (Schulman et al. 2017; Stiennon et al. 2020)."""

    algorithm: Literal["ppo"]
    kl_coefficient: float = Field(
        ge=0, description="beta: price of one nat of KL to the base, in reward units (base SD of the proxy)"
    )
    adaptive_kl: AdaptiveKL | None = Field(description="null keeps kl_coefficient; otherwise it is where it starts")
    learning_rate: float = Field(gt=0, description="of the policy's adapter; constant")
    value_learning_rate: float = Field(gt=0)
    prompts_per_update: int = Field(ge=2, description="rollouts in one update")
    num_epochs: int = Field(ge=1, description="passes over each batch of rollouts")
    num_minibatches: int = Field(ge=1, description="optimizer steps in one pass")
    tokens_per_microbatch: int = Field(
        ge=1, description="tokens in one forward and backward pass, padding included; changes memory, not the gradient"
    )
    clip_range: float = Field(gt=0, description="epsilon of the clipped policy ratio")
    value_clip_range: float = Field(gt=0, description="in reward units")
    discount: float = Field(gt=0, le=1, description="gamma")
    gae_lambda: float = Field(ge=0, le=1)
    truncation: Literal["terminal", "penalty", "bootstrap", "mask"] = Field(
        description="a response cut at the length limit counts as finished, has truncation_score for its score, is "
        "continued by the critic's value in place of a score, or is left out of the losses"
    )
    truncation_score: float | None = Field(description="reward units; for truncation=penalty, null otherwise")
    max_gradient_norm: float = Field(gt=0)
    max_skipped_steps: int = Field(
        ge=0, description="optimizer steps without a finite gradient before the arm gives up"
    )

    @model_validator(mode="after")
    def _a_prompt_for_each_minibatch(self) -> PPO:
        if self.num_minibatches > self.prompts_per_update:
            raise ValueError(
                f"num_minibatches={self.num_minibatches} exceeds prompts_per_update={self.prompts_per_update}"
            )
        return self

    @model_validator(mode="after")
    def _truncation_score_is_used(self) -> PPO:
        if (self.truncation == "penalty") != (self.truncation_score is not None):
            raise ValueError(
                f"truncation={self.truncation} with truncation_score={self.truncation_score}: "
                "penalty needs a score, and the others have no use for one (null)"
            )
        return self

    @model_validator(mode="after")
    def _controller_can_work(self) -> PPO:
        if self.adaptive_kl is None:
            return self
        if not self.kl_coefficient:
            raise ValueError("adaptive_kl multiplies kl_coefficient, which must be above 0 to begin with")
        if self.adaptive_kl.horizon_prompts < self.prompts_per_update:
            raise ValueError(
                f"adaptive_kl.horizon_prompts={self.adaptive_kl.horizon_prompts} must be at least "
                f"prompts_per_update={self.prompts_per_update}, or one update could change the coefficient's sign"
            )
        return self

    @property
    def prompts_per_step(self) -> int:
        """Prompt presentations between two possible evaluation points."""
        return self.prompts_per_update


class PairSettings(ArmSettings):
    """What every algorithm has that trains on pairs of responses."""

    learning_rate: float = Field(gt=0, description="of the adapter; constant")
    pairs_per_step: int = Field(ge=1, description="pairs in one optimizer step")
    pairs_per_microbatch: int = Field(
        ge=1, description="pairs in one forward and backward pass; changes memory, not the gradient"
    )
    max_gradient_norm: float = Field(gt=0)
    max_skipped_steps: int = Field(
        ge=0, description="optimizer steps without a finite gradient before the arm gives up"
    )

    @model_validator(mode="after")
    def _microbatches_divide(self) -> PairSettings:
        if self.pairs_per_step % self.pairs_per_microbatch:
            raise ValueError(
                f"pairs_per_microbatch={self.pairs_per_microbatch} must divide pairs_per_step={self.pairs_per_step}"
            )
        return self

    @property
    def prompts_per_step(self) -> int:
        """Prompt presentations between two possible evaluation points."""
        return self.pairs_per_step


DPOLoss = Literal[
    "sigmoid", "hinge", "ipo", "exo_pair", "nca_pair", "robust", "bco_pair", "sppo_hard", "aot", "aot_unpaired",
    "apo_zero", "apo_down", "discopop", "sft", "sigmoid_norm",
]  # fmt: skip
SMOOTHED = {"robust", "exo_pair", "aot", "aot_unpaired"}  # the losses that read label_smoothing
WHOLE_STEP = {"aot", "aot_unpaired", "sft"}  # those that sort the pairs, or average over all their tokens


class DPOSettings(PairSettings):
    """Direct preference optimisation (Rafailov et al. 2023, arXiv:2305.18290) and the losses that TRL knows."""

    losses: tuple[DPOLoss, ...] = Field(
        min_length=1, description="TRL's loss types; [sigmoid] is DPO, [sigmoid, sft] RPO (arXiv:2404.19733)"
    )
    loss_weights: tuple[Annotated[float, Field(gt=0)], ...] = Field(description="one for each of the losses")
    beta: float = Field(gt=0, description="strength of the pull to the reference")
    label_smoothing: float = Field(ge=0, lt=0.5, description="share of labels taken to be wrong")

    @model_validator(mode="after")
    def _losses_have_what_they_need(self) -> DPOSettings:
        if len(self.losses) != len(self.loss_weights) or len(set(self.losses)) != len(self.losses):
            raise ValueError(
                f"losses={list(self.losses)} and loss_weights={list(self.loss_weights)}: "
                "there must be one weight for each loss, and no loss twice"
            )
        if "exo_pair" in self.losses and not self.label_smoothing:
            raise ValueError("losses=[exo_pair] needs label_smoothing > 0 (TRL's own default is 0.001)")
        if self.label_smoothing and not SMOOTHED & set(self.losses):
            raise ValueError(
                f"label_smoothing={self.label_smoothing} has no effect on losses={list(self.losses)}; "
                f"it is for {', '.join(sorted(SMOOTHED))}"
            )
        if WHOLE_STEP & set(self.losses) and self.pairs_per_microbatch != self.pairs_per_step:
            raise ValueError(
                f"losses={list(self.losses)}: {', '.join(sorted(WHOLE_STEP & set(self.losses)))} looks at all pairs of "
                f"a step together: set pairs_per_microbatch to pairs_per_step={self.pairs_per_step}"
            )
        return self


class DPO(DPOSettings):
    """DPO from the base, on the shared ranking data."""

    algorithm: Literal["dpo"]


class KTO(PairSettings):
    """Kahneman-Tversky optimisation (Ethayarajh et al. 2024, arXiv:2402.01306), on the pairs that DPO learns from."""

    algorithm: Literal["kto"]
    beta: float = Field(gt=0, description="strength of the pull to the reference")
    desirable_weight: float = Field(gt=0, description="lambda_D: of the loss of a desirable response")
    undesirable_weight: float = Field(gt=0, description="lambda_U: of the loss of an undesirable one")
    pairs_per_microbatch: int = Field(
        ge=2, description="pairs in one pass; the KL term is estimated within them, so it changes the gradient"
    )


class Start(Strict):
    """The checkpoint of another arm, of the same sweep and seed, that an arm starts from."""

    arm: Name = Field(description="its arm.name; one that is itself trained from the base")
    share: float = Field(gt=0, lt=1, description="of budget.num_prompts spent there; a multiple of one evaluation step")


class PPOThenDPO(DPOSettings):
    """A PPO arm up to a checkpoint, then DPO on pairs sampled from it, with it as the reference."""

    algorithm: Literal["ppo_then_dpo"]
    start: Start


class Interpolation(ArmSettings):
    """A checkpoint's weights drawn back towards the base, without training (Wortsman et al. 2022, arXiv:2109.01903).

    The evaluation points after the checkpoint lie evenly between it and the final weight.
    """

    algorithm: Literal["interpolation"]
    start: Start
    weight: float = Field(
        gt=0, lt=1, description="of the checkpoint in the final model: 1 is the checkpoint, 0 the base"
    )

    @property
    def prompts_per_step(self) -> int:
        """It takes no step, so that a point may lie anywhere."""
        return 1


# ---------------------------------------------------------------------------------------------------------- the records
@dataclass(frozen=True)
class Described:
    """What a report needs to know of an algorithm; plan.json carries it.

    Attributes:
        label: for people.
        learns: how, in words.
        staged: whether it starts from another arm's checkpoint.
        health: metric of its training -> what it is, and its unit.
    """

    label: str
    learns: str
    staged: bool = False
    health: Mapping[str, tuple[str, str]] = field(default_factory=dict)


@dataclass(frozen=True)
class Algorithm:
    """One algorithm. What is not given is as for DPO: it trains on the ranking data, best against worst.

    Attributes:
        settings: what a person may choose.
        train: dotted name of a function ``(spec, *folders of needs, folder, cache_dir, recorder)``.
        described: for a report.
        needs: the finished jobs whose folders `train` is given, in its order: shared artifacts, "start" (the other
            arm) or "fresh_pairs" (sampled from the other arm's checkpoint).
        passes: how often a presentation's response tokens go through a backward pass.
        pairs: which comparisons it learns from where `data.comparisons` leaves that to the arm.
        samples: whether training samples responses.
        scored: passes that score each sampled token.
        contends: whether it is compared with other arms; one that trains nothing is compared with the base alone.
    """

    settings: type[ArmSettings]
    train: str
    described: Described
    needs: tuple[str, ...] = ("ranking_data",)
    passes: Callable[[Any], int] = lambda _: 2  # both responses of a pair
    pairs: Literal["all", "best_worst"] = "best_worst"
    samples: bool = False
    scored: float = 0.0
    contends: bool = True


# In the order in which a report compares them: each with those after it. The report's question is about the first two.
CATALOGUE: dict[str, Algorithm] = {
    "ppo": Algorithm(
        settings=PPO,
        train="experiments.arms.ppo.train",
        needs=("ranking_data", "reward_model", "measure"),
        passes=lambda arm: int(arm.num_epochs),
        pairs="all",
        described=Described(
            "PPO",
            "through the reward model",
            health={
                "ppo/clip_fraction": ("tokens whose ratio was clipped", "share"),
                "ppo/approx_kl": ("KL of one update, by the old policy's samples", "nats"),
                "ppo/explained_variance": (
                    "return explained by the value head (1 is all, below 0 is worse than none)", "plain",
                ),
                "ppo/entropy": ("entropy of the policy per token", "nats"),
                "ppo/kl": ("KL to the base per response, on rollouts", "nats"),
                "ppo/eos_fraction": ("rollouts that ended by themselves", "share"),
            },
        ),
        samples=True,
        scored=3.0,  # base, reward model and critic
    ),
    "dpo": Algorithm(
        settings=DPO,
        train="experiments.arms.dpo.train",
        described=Described(
            "DPO",
            "directly",
            health={
                "dpo/accuracy": ("pairs that the policy ranks right, by implicit reward", "share"),
                "dpo/reward_margin": ("implicit reward, chosen minus rejected", "nats"),
                "dpo/chosen_logp": ("log-probability of the chosen response", "nats"),
            },
        ),
    ),
    "kto": Algorithm(
        settings=KTO,
        train="experiments.arms.kto.train",
        described=Described(
            "KTO",
            "as one desirable and one undesirable response each",
            health={
                "kto/kl": ("KL to the base that the loss is held against, per response", "nats"),
                "kto/reward_margin": ("implicit reward, desirable minus undesirable", "nats"),
                "kto/chosen_logp": ("log-probability of the desirable response", "nats"),
            },
        ),
    ),
    "ppo_then_dpo": Algorithm(
        settings=PPOThenDPO,
        train="experiments.arms.dpo.train_staged",
        described=Described("PPO then DPO", "directly", staged=True),
        needs=("start", "fresh_pairs"),
    ),
    "interpolation": Algorithm(
        settings=Interpolation,
        train="experiments.arms.interpolation.build",
        described=Described("interpolation", "nothing", staged=True),
        needs=("start",),
        passes=lambda _: 0,
        contends=False,
    ),
}  # fmt: skip
METRICS = tuple(dict.fromkeys(name.partition("/")[0] for one in CATALOGUE.values() for name in one.described.health))


def described(algorithm: str) -> dict[str, Any]:
    """What plan.json says of an algorithm."""
    return asdict(CATALOGUE[algorithm].described)
