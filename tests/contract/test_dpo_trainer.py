"""What we rely on in TRL's trainers, each with the trap it guards against."""

from __future__ import annotations

import math
from pathlib import Path
from typing import Any

import pytest
import torch
from datasets import Dataset
from safetensors.torch import load_file
from torch.utils.data import SequentialSampler
from trl import DPOConfig, DPOTrainer

from experiments.algorithms.dpo import dpo_loss
from experiments.arms import dpo
from experiments.arms.ppo import PPOTrainer
from experiments.artifacts import ranking
from experiments.artifacts.ranking import RankedPrompt
from experiments.errors import DivergedError, InputError
from experiments.inputs import models
from experiments.inputs.lora import lora_config
from experiments.inputs.models import load_base, reference, with_policy
from experiments.inputs.tokens import Tokens
from experiments.meter import Meter
from experiments.model_spec import Model
from experiments.sampling.logprobs import total_logprobs
from experiments.spec import DPO, PPO, SMOOTHED, DPOLoss
from experiments.stages import run_stage


@pytest.fixture
def ranked(artifacts: dict[str, Path]) -> list[RankedPrompt]:
    return ranking.load(artifacts["ranking_data"])


@pytest.fixture
def make_trainer(arm_job: Any, ranked: list[RankedPrompt], cache_dir: Path, tmp_path: Path) -> Any:
    def make(arm: DPO, **changes: Any) -> Any:
        start = changes.pop("start", None)
        return dpo.make_trainer(arm_job(arm, **changes), ranked, cache_dir, tmp_path, start=start)

    return make


def losses(trainer: Any) -> list[float]:
    trainer.train()
    return [row["loss"] for row in trainer.state.log_history if "loss" in row]


class StockTrainer(DPOTrainer):  # type: ignore[misc]
    """TRL's trainer as it comes, but for token ids and the order of the pairs."""

    def _prepare_dataset(self, dataset: Dataset, *_: Any) -> Dataset:
        return dataset

    def _get_train_sampler(self, train_dataset: Dataset | None = None) -> Any:
        return SequentialSampler(self.train_dataset)


def stock_trainer(ours: Any, model: Model, cache_dir: Path, scratch: Path) -> StockTrainer:
    """With plain PEFT layers, gradient checkpointing, and the reference scored in each step."""
    base = load_base(model, cache_dir)
    torch.manual_seed(5)
    config = lora_config(model.lora)
    config._custom_modules = None
    trainer = StockTrainer(
        model=base,
        args=DPOConfig(
            **{
                key: getattr(ours.args, key)
                for key in (
                    "loss_type", "loss_weights", "beta", "label_smoothing", "learning_rate", "lr_scheduler_type",
                    "max_steps", "per_device_train_batch_size", "gradient_accumulation_steps", "max_grad_norm",
                    "max_length", "seed", "bf16", "use_cpu", "remove_unused_columns", "save_strategy", "logging_steps",
                    "report_to", "disable_tqdm",
                )
            },
            output_dir=str(scratch),
        ),
        train_dataset=ours.train_dataset.remove_columns(["ref_chosen_logps", "ref_rejected_logps"]),
        processing_class=Tokens.load(model, cache_dir).tokenizer,
        peft_config=config,
    )  # fmt: skip
    adapter = {name: p for name, p in ours.model.named_parameters() if p.requires_grad}
    for name, parameter in trainer.model.named_parameters():
        if parameter.requires_grad:
            parameter.data.copy_(adapter[name])
    return trainer


class TestAgainstTheStockTrainer:
    @pytest.mark.parametrize("weights", [{"sigmoid": 1.0}, {"ipo": 1.0}, {"robust": 1.0}, {"sigmoid": 1.0, "sft": 0.5}])
    def test_the_loss_trace_is_the_same(
        self, make_trainer: Any, dpo_arm: DPO, tiny: Model, cache_dir: Path, tmp_path: Path, weights: Any
    ) -> None:
        arm = dpo_arm.model_copy(
            update={
                "losses": tuple(weights),
                "loss_weights": tuple(weights.values()),
                "learning_rate": 1e-2,
                "label_smoothing": 0.1 if "robust" in weights else 0.0,
                "pairs_per_microbatch": 8 if "sft" in weights else 4,
            }
        )
        model = tiny.model_copy(update={"dtype": "float64"})
        ours = make_trainer(arm, model=model, num_prompts=48)
        stock = stock_trainer(ours, model, cache_dir, tmp_path)
        mine, theirs = losses(ours), losses(stock)
        assert len(mine) == 6
        assert mine == pytest.approx(theirs, rel=1e-5)  # TRL's collator keeps the given reference in float32
        assert abs(mine[-1] - mine[0]) > 1e-3


class TestStep:
    def gradients(self, trainer: Any, batches: list[Any]) -> list[torch.Tensor]:
        for batch in batches:
            (trainer.compute_loss(trainer.model, batch) / len(batches)).backward()
        return [p.grad for p in trainer.model.parameters() if p.grad is not None]

    @pytest.mark.parametrize(("pairs", "tokens"), [(4, 10**6), (2, 10**6), (8, 60)])
    def test_the_gradient_does_not_depend_on_micro_batches_or_length_groups(
        self, make_trainer: Any, dpo_arm: DPO, tiny: Model, monkeypatch: pytest.MonkeyPatch, pairs: int, tokens: int
    ) -> None:
        model = tiny.model_copy(update={"dtype": "float64"})
        found = []
        for size, budget in ((8, 10**6), (pairs, tokens)):
            monkeypatch.setattr(dpo, "tokens_per_pass", lambda device, budget=budget: budget)
            trainer = make_trainer(
                dpo_arm.model_copy(update={"pairs_per_microbatch": size}), model=model, num_prompts=8
            )
            generator = torch.Generator().manual_seed(0)
            for parameter in trainer.model.parameters():
                if parameter.requires_grad:
                    parameter.data += 0.1 * torch.randn(parameter.shape, generator=generator, dtype=torch.float64)
            found.append(self.gradients(trainer, list(trainer.get_train_dataloader())))
        for whole, cut in zip(*found, strict=True):
            torch.testing.assert_close(cut, whole, rtol=1e-12, atol=1e-12 * float(whole.abs().max()))

    def test_a_step_without_a_finite_gradient_changes_nothing_is_counted_and_ends_the_arm_in_time(
        self, arm_job: Any, dpo_arm: DPO, artifacts: dict[str, Path], cache_dir: Path, tmp_path: Path, recorder: Any,
        monkeypatch: pytest.MonkeyPatch,
    ) -> None:  # fmt: skip
        original, calls = dpo.FastDPOTrainer.compute_loss, iter(range(1000))

        def sick(self: Any, *args: Any, **kwargs: Any) -> torch.Tensor:
            loss: torch.Tensor = original(self, *args, **kwargs)
            return loss * math.nan if next(calls) in (2, 7) else loss  # of the second and the fourth step

        monkeypatch.setattr(dpo.FastDPOTrainer, "compute_loss", sick)
        arm = dpo_arm.model_copy(update={"max_skipped_steps": 1})
        with pytest.raises(DivergedError, match=r"arm dpo: 2 optimizer steps .*max_skipped_steps=1"):
            run_stage("arm", arm_job(arm, num_prompts=40, num_points=3), artifacts, tmp_path, cache_dir, recorder)
        assert recorder.values("train/skipped_steps") == [0.0, 1.0, 1.0]
        assert recorder.values("flag/non_finite_gradient") == [0.0, 1.0, 0.0]
        assert [math.isnan(loss) for loss in recorder.values("train/loss")] == [False, True, False]
        weights = load_file(tmp_path / "adapters" / "point_1" / "adapter_model.safetensors")
        assert all(bool(tensor.isfinite().all()) for tensor in weights.values())


class TestStart:
    @pytest.mark.parametrize(("loss", "expected"), [("sigmoid", math.log(2)), ("ipo", 25.0), ("robust", math.log(2))])
    def test_the_first_loss_is_known(self, make_trainer: Any, dpo_arm: DPO, loss: DPOLoss, expected: float) -> None:
        trainer = make_trainer(
            dpo_arm.model_copy(update={"losses": (loss,), "label_smoothing": 0.1 if loss == "robust" else 0.0})
        )
        assert losses(trainer)[0] == pytest.approx(expected, rel=1e-5)
        first = trainer.state.log_history[0]
        assert first["rewards/margins"] == pytest.approx(0, abs=1e-5)
        assert first["rewards/chosen"] == pytest.approx(0, abs=1e-5)

    def test_rows_axes_and_adapters(
        self, arm_job: Any, dpo_arm: DPO, artifacts: dict[str, Path], cache_dir: Path, tmp_path: Path, recorder: Any
    ) -> None:
        run_stage("arm", arm_job(dpo_arm), artifacts, tmp_path, cache_dir, recorder)
        assert recorder.values("train/loss")[0] == pytest.approx(math.log(2), abs=1e-5)
        assert recorder.values("dpo/reward_margin")[-1] > 0
        assert [axes.prompts_seen for _, _, axes, _ in recorder.rows] == [8, 16]
        assert sorted(p.name for p in (tmp_path / "adapters").iterdir()) == ["point_1", "point_2"]
        assert set(recorder.values("flag/likelihood_displacement")) == {0.0}

    @pytest.mark.parametrize("loss", DPOLoss.__args__)
    def test_every_loss_of_trl_trains(self, make_trainer: Any, dpo_arm: DPO, loss: DPOLoss) -> None:
        arm = dpo_arm.model_copy(
            update={
                "losses": (loss,),
                "label_smoothing": 0.1 if loss in SMOOTHED else 0.0,
                "pairs_per_microbatch": 8,
            }
        )
        assert all(map(math.isfinite, losses(make_trainer(arm))))

    def test_a_staged_start_is_its_own_reference(
        self, make_trainer: Any, dpo_arm: DPO, tiny: Model, cache_dir: Path, tmp_path: Path
    ) -> None:
        """Margins are 0 at first although the policy is not the base; a reload from disk would make them large."""
        policy = with_policy(load_base(tiny, cache_dir), tiny.lora, seed=3)
        for name, parameter in policy.named_parameters():
            if "lora_B" in name:
                torch.nn.init.normal_(parameter, std=0.3)
        policy.save_pretrained(tmp_path / "start")
        trainer = make_trainer(dpo_arm, start=tmp_path / "start" / "adapter_model.safetensors")
        far = [
            abs(a - b)
            for a, b in zip(trainer.train_dataset["ref_chosen_logps"], base_logps(make_trainer(dpo_arm)), strict=True)
        ]
        assert min(far) > 1e-3
        assert losses(trainer)[0] == pytest.approx(math.log(2), abs=1e-5)


def base_logps(trainer: Any) -> list[float]:
    return list(trainer.train_dataset["ref_chosen_logps"])


class TestReference:
    def test_is_that_of_the_base_whatever_the_adapters_random_start(
        self, make_trainer: Any, dpo_arm: DPO, tiny: Model, cache_dir: Path
    ) -> None:
        columns = []
        for seed in (0, 1):
            data = make_trainer(dpo_arm, seed=seed).train_dataset
            columns.append(
                {tuple(ids): value for ids, value in zip(data["chosen_ids"], data["ref_chosen_logps"], strict=True)}
            )
        shared = set(columns[0]) & set(columns[1])
        assert shared
        assert all(columns[0][ids] == columns[1][ids] for ids in shared)
        row = make_trainer(dpo_arm).train_dataset[0]
        fresh = total_logprobs(
            load_base(tiny, cache_dir), [row["prompt_ids"]], [row["chosen_ids"]], temperature=1.0, pad_id=0
        )
        assert row["ref_chosen_logps"] == pytest.approx(fresh[0], abs=1e-4)

    def test_the_order_of_the_pairs_does_not_depend_on_where_the_reference_comes_from(
        self, make_trainer: Any, dpo_arm: DPO, tiny: Model, cache_dir: Path, tmp_path: Path
    ) -> None:
        """In TRL scoring the reference beforehand moves the global generator, and with it the order."""
        with_policy(load_base(tiny, cache_dir), tiny.lora, seed=3).save_pretrained(tmp_path / "start")
        cached = make_trainer(dpo_arm, num_prompts=40)
        scored = make_trainer(dpo_arm, num_prompts=40, start=tmp_path / "start" / "adapter_model.safetensors")
        batches = [[row["input_ids"].tolist() for row in t.get_train_dataloader()] for t in (cached, scored)]
        assert batches[0] == batches[1]
        rows = [tuple(ids) for ids in cached.train_dataset["chosen_ids"]]
        assert len(set(rows[:12])) == len(set(rows[12:24])) == 12  # each pair once before any comes again
        assert rows[:12] != rows[12:24]

    def test_the_loss_is_our_formula_on_our_log_probs(
        self, make_trainer: Any, dpo_arm: DPO, ranked: list[RankedPrompt]
    ) -> None:
        """After a step the reference must still be the base, and TRL's numbers those of the pure function."""
        trainer = make_trainer(dpo_arm)
        trainer.train()
        policy = trainer.model.eval()
        pairs = [(p, *p.comparisons("best_worst")[0]) for p in ranked[:4]]
        with torch.no_grad():
            theirs = trainer.compute_loss(policy, trainer.data_collator([dpo._row(*pair) for pair in pairs])).item()

        def logps(index: int) -> torch.Tensor:
            responses = [pair[0].response_ids[pair[index]] for pair in pairs]
            prompts = [pair[0].prompt_ids for pair in pairs]
            return torch.tensor(total_logprobs(policy, prompts, responses, temperature=1.0, pad_id=0))

        chosen, rejected = logps(1), logps(2)
        with reference(policy):
            ref_chosen, ref_rejected = logps(1), logps(2)
        assert not torch.equal(chosen, ref_chosen)
        assert theirs == pytest.approx(dpo_loss(chosen, rejected, ref_chosen, ref_rejected, 0.1).item(), abs=1e-5)


def test_token_ids_reach_the_loss_untouched_and_no_end_is_taught_where_a_sample_was_cut(
    arm_job: Any, dpo_arm: DPO, cache_dir: Path, tmp_path: Path, tiny: Model
) -> None:
    (eos_id,) = Tokens.load(tiny, cache_dir).eos_ids
    ranked = [
        RankedPrompt(str(i), "p", [1, 2], [[10, 11, 12], [20, eos_id]], [False, True], [0.9, 0.1], [-9.0, -9.0])
        for i in range(8)
    ]
    trainer = dpo.make_trainer(arm_job(dpo_arm), ranked, cache_dir, tmp_path)
    batch = next(iter(trainer.get_train_dataloader()))
    completions = [
        ids[mask.bool()].tolist() for ids, mask in zip(batch["input_ids"], batch["completion_mask"], strict=True)
    ]
    assert completions[0] == [10, 11, 12]
    assert completions[-1] == [20, eos_id]  # pad = eos here, and the sampled end is still trained on


def test_only_the_adapter_trains_in_float32_and_nearly_all_of_it_moves(
    arm_job: Any,
    dpo_arm: DPO,
    artifacts: dict[str, Path],
    cache_dir: Path,
    tmp_path: Path,
    tiny: Model,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr(models, "arithmetic", lambda model: torch.bfloat16)
    model = tiny.model_copy(update={"dtype": "bfloat16"})
    spec = arm_job(dpo_arm, model=model)
    trainer = dpo.make_trainer(spec, ranking.load(artifacts["ranking_data"]), cache_dir, tmp_path)
    before = {name: p.detach().clone() for name, p in trainer.model.named_parameters()}
    trainer.train()
    after = dict(trainer.model.named_parameters())
    trainable = [name for name, p in after.items() if p.requires_grad]
    assert all("lora_" in name and after[name].dtype == torch.float32 for name in trainable)
    changed = {name for name in after if not torch.equal(after[name], before[name])}
    assert changed <= set(trainable)
    assert len(changed) > 0.99 * len(trainable)


def test_the_same_seed_gives_the_same_adapter(
    arm_job: Any, dpo_arm: DPO, artifacts: dict[str, Path], cache_dir: Path, tmp_path: Path, recorder: Any
) -> None:
    for name, seed in (("a", 0), ("b", 0), ("c", 1)):
        (tmp_path / name).mkdir()
        run_stage("arm", arm_job(dpo_arm, seed=seed), artifacts, tmp_path / name, cache_dir, recorder)
    weights = [(tmp_path / name / "adapters/point_2/adapter_model.safetensors").read_bytes() for name in "abc"]
    assert weights[0] == weights[1] != weights[2]


def test_ppo_and_dpo_of_one_seed_start_from_the_same_adapter(
    make_trainer: Any, dpo_arm: DPO, ppo_arm: PPO, arm_job: Any, artifacts: dict[str, Path], cache_dir: Path
) -> None:
    ppo = PPOTrainer(
        arm_job(ppo_arm), ppo_arm, artifacts["ranking_data"], artifacts["reward_model"], cache_dir, Meter()
    )
    mine = dict(make_trainer(dpo_arm).model.named_parameters())
    assert all(torch.equal(p, mine[name]) for name, p in ppo.policy.named_parameters() if p.requires_grad)


def test_ranking_data_without_a_comparison_is_refused(
    arm_job: Any, dpo_arm: DPO, cache_dir: Path, tmp_path: Path
) -> None:
    tied = [RankedPrompt("id", "p", [1], [[2], [3]], [False, False], [0.5, 0.5], [-1.0, -1.0])]
    with pytest.raises(InputError, match="no comparison"):
        dpo.make_trainer(arm_job(dpo_arm), tied, cache_dir, tmp_path)
