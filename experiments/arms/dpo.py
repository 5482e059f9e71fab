"""DPO: TRL's trainer and losses on token ids, with our forward pass, order of pairs, reference log-probs and resume.

The reference is the policy at the start of training. That is the base, whose log-probs are stored with the ranking
data, or the checkpoint that a staged arm starts from. It is never loaded again from disk.
"""

from __future__ import annotations

import math
import tempfile
from collections.abc import Callable, Mapping, Sequence
from dataclasses import asdict, dataclass, field, replace
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import torch
from datasets import Dataset
from torch import Tensor
from torch.utils.data import Sampler, SequentialSampler
from transformers import TrainerCallback
from trl import DPOConfig, DPOTrainer

from experiments.algorithms.token_logprobs import token_logprobs
from experiments.arms.pathologies import TrainingFlags
from experiments.arms.resume import Checkpoints, State, load_training_tensors, training_tensors
from experiments.artifacts.ranking import DPO_TEMPERATURE, RankedPrompt, load_spent
from experiments.artifacts.ranking import load as load_ranking
from experiments.artifacts.same_base import NUM_RESPONSES, TOLERANCE, distance_now
from experiments.catalogue import PairSettings
from experiments.errors import DivergedError, InputError
from experiments.inputs import adapters as checkpoints
from experiments.inputs.lora import lora_config
from experiments.inputs.models import adapter_seed, decoder_of, language_head, load_base, takes_any_mask, trl_arguments
from experiments.inputs.tokens import Tokens
from experiments.meter import Meter
from experiments.passes import recompute_in_backward
from experiments.records import Axes, Recorder
from experiments.sampling.batch import PAD_ID, make_batches, tokens_per_pass
from experiments.sampling.logprobs import total_logprobs
from experiments.seeding import presentation_order
from experiments.spec import ArmJobSpec, DPOSettings, PPOThenDPO, evaluation_updates, start_point
from experiments.tasks import task_of
from experiments.training_signs import DPO_SIGNS, Sign


def logged(algorithm: str) -> dict[str, str]:
    """TRL's name of each logged metric -> ours."""
    return {
        "loss": "train/loss",
        "grad_norm": "train/gradient_norm",
        "learning_rate": "train/learning_rate",
        "entropy": f"{algorithm}/entropy",
        "rewards/margins": f"{algorithm}/reward_margin",
        "rewards/accuracies": f"{algorithm}/accuracy",
        "rewards/chosen": f"{algorithm}/chosen_reward",
        "rewards/rejected": f"{algorithm}/rejected_reward",
        "logps/chosen": f"{algorithm}/chosen_logp",
        "logps/rejected": f"{algorithm}/rejected_logp",
    }


def train(spec: ArmJobSpec, ranking_folder: Path, folder: Path, cache_dir: Path, recorder: Recorder) -> None:
    """Train one DPO arm on the ranking data's comparisons; resume from its last checkpoint if there is one.

    Raises:
        InputError: the ranking data has no comparison, or the policy is not its reference before the first step.
        DivergedError: more than `max_skipped_steps` optimizer steps had no finite gradient.
    """
    train_pairs(METHOD, spec, Stage(Meter()), ranking_folder, folder, cache_dir, recorder)


def train_staged(
    spec: ArmJobSpec, start_folder: Path, pairs_folder: Path, folder: Path, cache_dir: Path, recorder: Recorder
) -> None:
    """Train the DPO stage of an arm that starts from another arm's checkpoint, with the rest of the budget.

    Its first points and their cost are the other arm's. The cost of sampling the pairs is added.

    Raises:
        InputError: the pairs have no comparison, or the policy is not its reference before the first step.
        DivergedError: more than `max_skipped_steps` optimizer steps had no finite gradient.
    """
    assert isinstance(spec.arm, PPOThenDPO)
    meter, point = Meter(), start_point(spec.arm.start, spec.num_points)
    spent = checkpoints.inherit(folder, start_folder, point)
    stage = Stage(meter, point, spent.then(load_spent(pairs_folder)), checkpoints.weights_file(start_folder, point))
    rest = {"num_prompts": spec.num_prompts - spent.prompts_seen, "num_points": spec.num_points - point}
    train_pairs(METHOD, spec.model_copy(update=rest), stage, pairs_folder, folder, cache_dir, recorder)


@dataclass(frozen=True)
class Stage:
    """Where DPO starts: by default at the base, with nothing spent.

    Attributes:
        meter: started before anything is loaded, because loading counts, as it does for PPO.
        point: evaluation point of the checkpoint.
        spent: before DPO started.
        start: weights of the checkpoint; None for the base.
    """

    meter: Meter
    point: int = 0
    spent: Axes = field(default_factory=Axes)
    start: Path | None = None


@dataclass(frozen=True)
class Method:
    """What differs between the algorithms that train on pairs.

    Attributes:
        name: for people.
        make_trainer: see `make_trainer`.
        responses: some prompts, responses and reference log-probs of the trainer's dataset, to check its start.
        logged: TRL's name of each logged metric -> ours.
        signs: those that its training may raise.
    """

    name: str
    make_trainer: Callable[..., Any]
    responses: Responses
    logged: Mapping[str, str]
    signs: Sequence[Sign]


def train_pairs(
    method: Method, spec: ArmJobSpec, stage: Stage, ranking_folder: Path, folder: Path, cache_dir: Path,
    recorder: Recorder,
) -> None:  # fmt: skip
    """Train on pairs; resume from the last checkpoint if there is one. `spec` holds this stage's budget only."""
    assert isinstance(spec.arm, PairSettings)
    resume = Checkpoints(folder, spec, stage.start)
    state = resume.load()
    done = int(state.numbers["step"]) if state else 0
    recorder.rewind(done)
    if done * spec.arm.pairs_per_step < spec.num_prompts:
        with tempfile.TemporaryDirectory() as scratch:
            trainer = method.make_trainer(
                spec, load_ranking(ranking_folder), cache_dir, Path(scratch), done, stage.start
            )
            _check_start(spec, trainer, method.responses)
            trainer.add_callback(_Ledger(method, spec, stage, folder, recorder, resume, state))
            trainer.train()
    resume.remove()


def make_trainer(
    spec: ArmJobSpec,
    ranked: Sequence[RankedPrompt],
    cache_dir: Path,
    scratch: Path,
    steps_done: int = 0,
    start: Path | None = None,
) -> FastDPOTrainer:
    """The trainer of one arm.

    Args:
        spec: of the arm.
        ranked: the ranking data.
        cache_dir: folder of converted models.
        scratch: a folder for temporary files.
        steps_done: optimizer steps of an earlier attempt; training resumes with the pair after them.
        start: adapter weights to start from, which are then also the reference; None starts from the base.

    Raises:
        InputError: the ranking data has no comparison (all samples tie).
    """
    arm = spec.arm
    assert isinstance(arm, DPOSettings)
    arguments = DPOConfig(
        loss_type=list(arm.losses),
        loss_weights=list(arm.loss_weights),
        beta=arm.beta,
        label_smoothing=arm.label_smoothing,
        per_device_train_batch_size=arm.pairs_per_microbatch,
        **shared_arguments(spec, arm, scratch, steps_done),
    )
    trainer = FastDPOTrainer(
        **shared_parts(spec, cache_dir), args=arguments, train_dataset=pairs_from(spec, ranked, steps_done)
    )
    if start is not None:
        checkpoints.load(trainer.model, start)
        trainer.train_dataset = pairs_from(spec, _with_policy_as_reference(spec, ranked, trainer), steps_done)
    return trainer


Responses = Callable[[Dataset], tuple[list[list[int]], list[list[int]], list[float]]]


def first_pairs(dataset: Dataset) -> tuple[list[list[int]], list[list[int]], list[float]]:
    """Prompts, responses and reference log-probs of the first pairs."""
    rows = dataset[: NUM_RESPONSES // 2]
    texts = [*rows["chosen_ids"], *rows["rejected_ids"]]
    return [*rows["prompt_ids"]] * 2, texts, [*rows["ref_chosen_logps"], *rows["ref_rejected_logps"]]


def _check_start(spec: ArmJobSpec, trainer: Any, responses: Responses) -> None:
    """Check in training mode that the policy is the reference: the log-probs of the first pairs agree.

    Raises:
        InputError: they do not agree.
    """
    prompts, texts, recorded = responses(trainer.train_dataset)
    found = distance_now(trainer.model.train(), prompts, texts, recorded)
    if not found <= TOLERANCE[spec.model.dtype]:
        raise InputError(
            f"arm {spec.arm.name}: before its first step the policy is {found:.3g} nats a token off its reference, and "
            f"rounding explains {TOLERANCE[spec.model.dtype]}: model.path={spec.model.path} computes something else in "
            "training mode, such as a dropout that this program does not know"
        )


class OnSampledTokens:
    """Makes a TRL trainer use the sampled token ids, in the given order, with the given reference log-probs.

    TRL would tokenise the text again, which can move the boundary between prompt and response. It would append an
    end-of-sequence token to every response, which would teach the model to stop wherever a sample was cut. And it would
    score the reference in each step, or cache it under a hash that includes the adapter's random initialisation.
    """

    train_dataset: Any
    _tr_loss: Any

    def __init__(self, *args: Any, **kwargs: Any) -> None:
        super().__init__(*args, **kwargs)
        self.precompute_ref_logps = True  # they are columns of the dataset

    def _prepare_dataset(self, dataset: Dataset, *_: Any) -> Dataset:
        return dataset

    def _get_train_sampler(self, train_dataset: Dataset | None = None) -> Sampler[int]:
        return SequentialSampler(self.train_dataset if train_dataset is None else train_dataset)

    def log(self, logs: dict[str, float], start_time: float | None = None) -> None:
        """Log as TRL does; then clear a loss that is not finite from the running sum, which would stay NaN."""
        super().log(logs, start_time)  # type: ignore[misc]
        self._tr_loss.nan_to_num_(0.0, 0.0, 0.0)

    def _compute_loss(self, model: Any, inputs: dict[str, Tensor], return_outputs: bool) -> Any:
        return super()._compute_loss(_Forward(model), inputs, return_outputs)  # type: ignore[misc]


class FastDPOTrainer(OnSampledTokens, DPOTrainer):  # type: ignore[misc]
    """DPOTrainer on sampled tokens."""


class _Forward:
    """The model that TRL's loss calls, with our forward pass: each prompt once per pair, only responses to the head."""

    def __init__(self, model: Any) -> None:
        self._model = model

    def __call__(
        self, *, input_ids: Tensor, attention_mask: Tensor, labels: Tensor, use_cache: bool, fused_lm_head: bool
    ) -> SimpleNamespace:
        """Statistics [B, L - 1] of each token that has a label; 0 elsewhere."""
        assert fused_lm_head
        assert not use_cache
        decoder, device, trained_BL = decoder_of(self._model), labels.device, labels[:, 1:] != -100
        starts, ends = (labels != -100).int().argmax(dim=1).tolist(), attention_mask.sum(dim=1).tolist()
        texts = (
            [ids[:start] for ids, start in zip(input_ids.tolist(), starts, strict=True)],
            [ids[start:end] for ids, start, end in zip(input_ids.tolist(), starts, ends, strict=True)],
        )
        batches = make_batches(*texts, tokens_per_pass(device), PAD_ID, device, packed=takes_any_mask(self._model))
        hidden, tokens = [], []
        for _, batch in batches:
            real_BT = batch.response_mask.bool()
            hidden.append(recompute_in_backward(batch.hidden_states)(decoder)[batch.states[:, :-1][real_BT]])
            tokens.append(batch.response_ids[real_BT])
        logp_N, entropy_N = token_logprobs(torch.cat(hidden), torch.cat(tokens), language_head(self._model), 1.0)
        order = torch.tensor([row for rows, _ in batches for row in rows], device=device)
        shape = trained_BL.shape
        nothing = torch.zeros(shape, dtype=logp_N.dtype, device=device)

        def as_rows(x_N: Tensor) -> Tensor:
            return nothing.masked_scatter(trained_BL[order], x_N)[order.argsort()]

        # TRL logs means of `mean_logits` and `is_top1`; the ledger does not.
        return SimpleNamespace(
            log_probs=as_rows(logp_N),
            entropy=as_rows(entropy_N),
            mean_logits=nothing,
            is_top1=torch.zeros(shape, dtype=torch.bool, device=device),
            aux_loss=None,
        )


def shared_parts(spec: ArmJobSpec, cache_dir: Path) -> dict[str, Any]:
    """What every TRL trainer of pairs is given alike, besides its arguments."""
    return dict(
        model=load_base(spec.model, cache_dir),
        processing_class=Tokens.load(spec.model, cache_dir).tokenizer,
        peft_config=lora_config(spec.model.lora),
    )


def shared_arguments(spec: ArmJobSpec, arm: PairSettings, scratch: Path, steps_done: int) -> dict[str, Any]:
    """TRL's arguments that are the same for every algorithm on pairs."""
    return dict(
        **trl_arguments(str(scratch)),
        learning_rate=arm.learning_rate,
        lr_scheduler_type="constant",
        max_steps=spec.num_prompts // arm.pairs_per_step - steps_done,
        gradient_accumulation_steps=arm.pairs_per_step // arm.pairs_per_microbatch,
        max_grad_norm=arm.max_gradient_norm,
        max_length=None,
        seed=adapter_seed(spec.seed),  # TRL seeds the adapter's initialisation with it; nothing else is random
        precompute_ref_log_probs=False,
        router_aux_loss_coef=0.0,
        logging_nan_inf_filter=False,  # a loss that is not finite must not be logged as 0
    )


def pairs_from(spec: ArmJobSpec, ranked: Sequence[RankedPrompt], steps_done: int) -> Dataset:
    """The pairs after the first `steps_done` steps, in the order of presentation."""
    return Dataset.from_list([_row(*pair) for pair in presented_pairs(spec, ranked, steps_done)])


def presented_pairs(
    spec: ArmJobSpec, ranked: Sequence[RankedPrompt], steps_done: int
) -> list[tuple[RankedPrompt, int, int]]:
    """Each pair after the first `steps_done` steps: its prompt and the indices of the chosen and rejected response.

    Raises:
        InputError: the ranking data has no comparison (all samples tie).
    """
    pairs = [(prompt, *pair) for prompt in ranked for pair in prompt.comparisons(spec.comparisons)]
    if not pairs:
        raise InputError(
            f"arm {spec.arm.name}: the ranking data has no comparison, because {task_of(spec.data).measure} ties all "
            "samples of every prompt"
        )
    seen = steps_done * spec.arm.prompts_per_step
    order = presentation_order(spec.seed, "pairs", len(pairs), seen, spec.num_prompts - seen)
    return [pairs[index] for index in order]


def _row(prompt: RankedPrompt, winner: int, loser: int) -> dict[str, Any]:
    return {
        "prompt_ids": prompt.prompt_ids,
        "chosen_ids": prompt.response_ids[winner],
        "rejected_ids": prompt.response_ids[loser],
        "ref_chosen_logps": prompt.reference_logp[winner],
        "ref_rejected_logps": prompt.reference_logp[loser],
    }


def _with_policy_as_reference(
    spec: ArmJobSpec, ranked: Sequence[RankedPrompt], trainer: DPOTrainer
) -> list[RankedPrompt]:
    """The same prompts, with reference log-probs of their compared responses under the current policy.

    All of them are computed, even when training resumes: in another batch a log-prob differs in its last digits.
    """
    rows = [
        (place, index)
        for place, prompt in enumerate(ranked)
        for index in sorted({side for pair in prompt.comparisons(spec.comparisons) for side in pair})
    ]
    values = total_logprobs(
        trainer.model,
        [ranked[place].prompt_ids for place, _ in rows],
        [ranked[place].response_ids[index] for place, index in rows],
        temperature=DPO_TEMPERATURE,
        pad_id=PAD_ID,
    )
    logps = [[math.nan] * len(prompt.response_ids) for prompt in ranked]
    for (place, index), value in zip(rows, values, strict=True):
        logps[place][index] = value
    return [replace(prompt, reference_logp=logp) for prompt, logp in zip(ranked, logps, strict=True)]


class _Ledger(TrainerCallback):
    """Writes rows, progress, adapters and checkpoints on the trainer's events."""

    def __init__(
        self,
        method: Method,
        spec: ArmJobSpec,
        stage: Stage,
        folder: Path,
        recorder: Recorder,
        resume: Checkpoints,
        state: State | None,
    ) -> None:
        assert isinstance(spec.arm, PairSettings)
        self.method = method
        self.arm, self.folder, self.recorder, self.resume = spec.arm, folder, recorder, resume
        self.stage, self.meter = stage, stage.meter
        self.num_steps = spec.num_prompts // spec.arm.pairs_per_step
        self.points = evaluation_updates(self.num_steps, spec.num_points)
        self.flags, self.state = TrainingFlags(method.signs), state
        self.steps_done = self.num_skipped_steps = 0
        self.meter.resume_from(Axes(**state.numbers["axes"]) if state else stage.spent)
        self.tokens_done = self.meter.tokens_trained
        if state is not None:
            self.flags.rows = state.numbers["rows"]
            self.steps_done, self.num_skipped_steps = state.numbers["step"], state.numbers["num_skipped_steps"]

    def on_train_begin(self, args: Any, state: Any, control: Any, **kwargs: Any) -> None:
        """Load the adapter and the optimizer state of an earlier attempt."""
        if self.state is not None:
            load_training_tensors(self.state.tensors, {"policy": kwargs["model"]}, kwargs["optimizer"])

    def on_pre_optimizer_step(self, args: Any, state: Any, control: Any, **kwargs: Any) -> None:
        """Skip a step whose gradient is not finite: an optimizer does not change parameters without a gradient."""
        gradients = [p.grad for p in kwargs["model"].parameters() if p.grad is not None]
        if bool(torch.stack([gradient.isfinite().all() for gradient in gradients]).all()):
            return
        kwargs["model"].zero_grad(set_to_none=True)
        self.num_skipped_steps += 1
        DivergedError.if_too_many(self.arm.name, self.num_skipped_steps, self.arm.max_skipped_steps)

    def on_log(self, args: Any, state: Any, control: Any, logs: dict[str, float] | None = None, **kwargs: Any) -> None:
        """After each optimizer step."""
        if not logs or "loss" not in logs:
            return
        step, before = self.steps_done + state.global_step, self.stage.spent
        self.meter.optimizer_steps = before.optimizer_steps + step
        self.meter.prompts_seen = before.prompts_seen + step * self.arm.pairs_per_step
        self.meter.tokens_trained = self.tokens_done + int(logs["num_tokens"])
        values = {ours: float(logs[theirs]) for theirs, ours in self.method.logged.items() if theirs in logs}
        values["train/skipped_steps"] = float(self.num_skipped_steps)
        self.recorder.metrics("train", self.flags.with_flags(values), self.meter.axes())
        self.recorder.progress(self.method.name, step, self.num_steps, "steps")
        if step in self.points:
            point = self.stage.point + self.points.index(step) + 1
            checkpoints.save(kwargs["model"], self.folder, point, self.meter.axes())
        numbers = {
            "step": step,
            "num_skipped_steps": self.num_skipped_steps,
            "axes": asdict(self.meter.axes()),
            "rows": self.flags.rows,
        }
        modules, optimizer = {"policy": kwargs["model"]}, kwargs["optimizer"]
        self.resume.save_if_due(lambda: State(training_tensors(modules, optimizer), numbers))


METHOD = Method("DPO", make_trainer, first_pairs, logged("dpo"), DPO_SIGNS)
