import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from safetensors.numpy import save_file

from experiments.errors import InputError
from experiments.spec import ArmJobSpec, EvaluationJobSpec, JudgementJobSpec, RewardModelJobSpec, RunSpec
from runner.ledger.reader import read_json
from runner.planning.graph import Job, with_needs
from runner.planning.plan import Plan, check_folder, check_keys, make_plan

Composed = Callable[..., list[RunSpec]]
Planned = Callable[..., Plan]


def job(plan: Plan, label: str) -> Job:
    return next(job for job in plan.jobs if job.label == label)


def changed(run: RunSpec, **changes: Any) -> RunSpec:
    """A run with other values, given as group={key: value}."""
    content = run.model_dump()
    for key, value in changes.items():
        content[key] = content[key] | value if isinstance(value, dict) else value
    return RunSpec.model_validate(content)


def test_jobs_come_in_the_order_that_holds_others_up_least(planned: Planned) -> None:
    assert [job.label for job in planned().jobs] == [
        "measure",
        "ranking_data",
        "reward_model",
        "dpo/seed0",
        "ppo/seed0",
        "ppo/seed0/evaluation",
        "dpo/seed0/evaluation",
        "base_evaluation",
        "report",
    ]


def test_a_packaged_base_is_converted_before_it_is_sampled(planned: Planned) -> None:
    pytest.importorskip("gguf")
    plan, tiny = planned("model=smollm2_135m"), planned()

    assert plan.jobs[0].label == "base_model"
    assert {job.label for job in plan.jobs} - {job.label for job in tiny.jobs} == {"base_model"}
    assert job(plan, "ranking_data").needs == {"measure": "measure", "base_model": "base_model"}
    entry = next(entry for entry in plan.content()["jobs"] if entry["label"] == "base_model")
    assert entry["folder"] == "shared/base_model"


def test_converting_the_base_is_in_no_identity_but_its_own(planned: Planned) -> None:
    """The package's hash is in all of them, so a sweep that finished before stays finished."""
    pytest.importorskip("gguf")
    plan = planned("model=smollm2_135m")

    assert not any("base_model" in entry.file.needs for entry in plan.jobs)
    assert job(plan, "base_model").file.inputs == {"base_model": job(plan, "ranking_data").file.inputs["base_model"]}


def test_every_need_stands_before_its_job(planned: Planned) -> None:
    labels = [job.label for job in planned("seed=0,1,2").jobs]

    for position, entry in enumerate(planned("seed=0,1,2").jobs):
        assert set(entry.needs.values()) <= set(labels[:position])


def test_every_job_that_loads_the_base_has_the_samples_to_check_it_by(planned: Planned) -> None:
    loading = {"reward_model", "arm", "base_evaluation", "evaluation", "fresh_pairs"}
    jobs = [job for job in planned(staged=True).jobs if job.kind in loading]

    assert {job.kind for job in jobs} == loading
    assert all(job.needs["ranking_data"] == "ranking_data" for job in jobs)


def test_three_seeds_share_what_depends_on_the_data_seed_only(planned: Planned) -> None:
    kinds = [job.kind for job in planned("seed=0,1,2").jobs]

    assert {kind: kinds.count(kind) for kind in set(kinds)} == {
        "measure": 1,
        "ranking_data": 1,
        "reward_model": 1,
        "base_evaluation": 1,
        "arm": 6,
        "evaluation": 6,
        "report": 1,
    }


def test_dpo_needs_no_reward_model_to_train(planned: Planned) -> None:
    plan = planned()

    assert set(job(plan, "dpo/seed0").needs) == {"ranking_data"}
    assert set(job(plan, "ppo/seed0").needs) == {"ranking_data", "reward_model", "measure"}


def test_base_and_arms_are_evaluated_by_the_same_specification(planned: Planned) -> None:
    plan = planned()
    specs = [job.file.spec for job in plan.jobs if isinstance(job.file.spec, EvaluationJobSpec)]
    shared = [spec.model_dump(include=set(EvaluationJobSpec.model_fields)) for spec in specs]

    assert len(specs) == 3
    assert all(values == shared[0] for values in shared)


def test_further_samples_of_the_base_leave_the_arms_evaluations_as_they_are(planned: Planned) -> None:
    few, many = planned("budget.further_base_samples_per_prompt=0"), planned("budget.further_base_samples_per_prompt=6")
    tokens = job(many, "base_evaluation").work.sampled - job(few, "base_evaluation").work.sampled

    assert tokens == 16 * 6 * 12
    assert job(few, "base_evaluation").identity != job(many, "base_evaluation").identity
    for label in ("ppo/seed0", "ppo/seed0/evaluation", "dpo/seed0/evaluation"):
        assert job(few, label).identity == job(many, label).identity


@pytest.mark.parametrize(
    ("comparisons", "reward_model", "dpo"),
    [("per_arm", "all", "best_worst"), ("all", "all", "all"), ("best_worst", "best_worst", "best_worst")],
)
def test_comparisons_are_resolved(planned: Planned, comparisons: str, reward_model: str, dpo: str) -> None:
    plan = planned(f"data.comparisons={comparisons}")
    reward_spec, dpo_spec = job(plan, "reward_model").file.spec, job(plan, "dpo/seed0").file.spec

    assert isinstance(reward_spec, RewardModelJobSpec)
    assert isinstance(dpo_spec, ArmJobSpec)
    assert (reward_spec.comparisons, dpo_spec.comparisons) == (reward_model, dpo)


@pytest.mark.parametrize(
    ("override", "unchanged"),
    [
        ("tracker=wandb", {"measure", "ranking_data", "reward_model", "ppo/seed0", "ppo/seed0/evaluation"}),
        ("name=other", {"measure", "ranking_data", "reward_model", "ppo/seed0", "ppo/seed0/evaluation"}),
        ("engine.cpu_slots=1", {"measure", "ranking_data", "reward_model", "ppo/seed0", "ppo/seed0/evaluation"}),
        ("keep_adapters=final", {"measure", "ranking_data", "reward_model", "ppo/seed0", "ppo/seed0/evaluation"}),
        ("data.seed=1", set()),
        ("budget.num_ranking_prompts=32", {"measure"}),  # no setting of an arm: through the ranking data's own identity
        ("budget.num_prompts=128", {"measure", "ranking_data", "reward_model", "base_evaluation"}),
        ("evaluation.seed=1", {"measure", "ranking_data", "reward_model", "ppo/seed0", "dpo/seed0"}),
        ("reward_model.num_epochs=2", {"measure", "ranking_data", "dpo/seed0"}),
        ("++arm.learning_rate=1e-3", {"measure", "ranking_data", "reward_model", "base_evaluation"}),
        ("data.gold.max_ngram=1", set()),
    ],
)
def test_identity_depends_on_what_the_result_depends_on(planned: Planned, override: str, unchanged: set[str]) -> None:
    before = {job.label: job.identity for job in planned().jobs if job.kind != "report"}
    after = {job.label: job.identity for job in planned(override).jobs}
    same = {label for label, identity in before.items() if after[label] == identity}
    watched = {
        "measure",
        "ranking_data",
        "reward_model",
        "base_evaluation",
        "ppo/seed0",
        "dpo/seed0",
        "ppo/seed0/evaluation",
    }

    if override.startswith(("tracker", "name", "engine", "keep_adapters")):
        assert same == set(before)
    else:
        assert same & watched == unchanged


def test_identity_knows_no_folder(composed: Composed) -> None:
    elsewhere = [changed(run, runs_dir="/elsewhere/runs", cache_dir="/elsewhere/cache") for run in composed()]

    assert [job.identity for job in make_plan(elsewhere).jobs] == [job.identity for job in make_plan(composed()).jobs]


def test_a_fair_sweep_says_what_is_equal(planned: Planned) -> None:
    checks = {check.check: check for check in planned("seed=0,1").fairness}

    assert all(check.ok for check in checks.values())
    assert checks["prompt presentations"].value == "64"
    assert checks["seeds"].value == "0, 1"
    assert checks["base model"].value.startswith("tiny:llama, float32")


@pytest.mark.parametrize(
    ("changes", "expected"),
    [
        (
            {"budget": {"num_prompts": 128}},
            "prompt presentations: budget.num_prompts is 64 (ppo/seed0), 128 (dpo/seed0)",
        ),
        ({"data": {"seed": 7}}, "ranking data: data.seed is 0 (ppo/seed0), 7 (dpo/seed0)"),
        ({"evaluation": {"seed": 7}}, "shared evaluation: evaluation.seed is 20261123 (ppo/seed0), 7 (dpo/seed0)"),
        ({"model": {"dtype": "bfloat16"}}, "base model: model.dtype is float32 (ppo/seed0), bfloat16 (dpo/seed0)"),
        ({"reward_model": {"num_epochs": 9}}, "reward model: reward_model.num_epochs is"),
        (
            {"budget": {"num_evaluation_points": 2}},
            "evaluation points: budget.num_evaluation_points is 3 (ppo/seed0), 2",
        ),
        ({"seed": 1}, "seeds: seed is 0 (ppo), 1 (dpo)"),
    ],
)
def test_an_unfair_sweep_is_refused_with_arms_and_values(
    composed: Composed, changes: dict[str, Any], expected: str
) -> None:
    ppo, dpo = composed()

    with pytest.raises(InputError) as caught:
        make_plan([ppo, changed(dpo, **changes)])
    assert expected in str(caught.value)


def test_all_unfairness_is_listed_at_once(composed: Composed) -> None:
    ppo, dpo = composed()
    unfair = changed(dpo, budget={"num_prompts": 128}, evaluation={"seed": 7})

    with pytest.raises(InputError) as caught:
        make_plan([ppo, unfair])
    assert "budget.num_prompts" in str(caught.value)
    assert "evaluation.seed" in str(caught.value)


def test_arms_of_two_sweeps_do_not_mix(composed: Composed) -> None:
    ppo, dpo = composed()

    with pytest.raises(InputError, match=r"name is smoke \(ppo/seed0\), other \(dpo/seed0\)"):
        make_plan([ppo, changed(dpo, name="other")])


@pytest.mark.parametrize("name", ["base", "shared", "report", "report-2", "report-10"])
def test_an_arm_cannot_take_a_name_that_the_folder_uses(composed: Composed, name: str) -> None:
    ppo, _ = composed()

    with pytest.raises(InputError, match=f"arm.name={name}"):
        make_plan([changed(ppo, arm={"name": name})])


def test_plan_json_holds_what_a_reader_needs(planned: Planned) -> None:
    plan = planned()
    plan.write()
    content = read_json(plan.folder / "plan.json")

    assert (content["schema"], content["sweep"]) == (3, "smoke")
    assert content["arms"][1]["evaluation"] == "dpo/seed0/evaluation"
    assert content["arms"][1]["knobs"]["beta"] == 0.1
    assert content["shared"]["base_evaluation"] == "shared/base_evaluation"
    assert content["settings"]["budget"]["num_prompts"] == 64
    roles = {card["name"]: card["role"] for card in content["scores"]}
    assert roles == {"gold": "measure", "proxy": "training_reward", "vader": "secondary"}
    assert {"check": "seeds", "value": "0", "ok": True} in content["fairness"]
    by_label = {entry["label"]: entry for entry in content["jobs"]}
    assert by_label["ppo/seed0"]["identity"] == job(plan, "ppo/seed0").identity
    assert by_label["reward_model"] | {"identity": ""} == {
        "label": "reward_model",
        "kind": "reward_model",
        "folder": "shared/reward_model",
        "identity": "",
        "needs": ["ranking_data"],
    }


def test_the_folder_of_the_same_specification_is_accepted_and_keeps_its_date(planned: Planned) -> None:
    planned().write()
    created = read_json(planned().folder / "plan.json")["created"]

    check_folder(planned())
    planned().write()
    assert read_json(planned().folder / "plan.json")["created"] == created


def test_rules_changed_later_are_kept_beside_those_registered_and_only_the_report_is_made_again(
    planned: Planned,
) -> None:
    before, after = planned(), planned("rules.confidence.min_seeds_for_high=8")
    before.write()
    check_folder(after)
    after.write()
    content = read_json(after.folder / "plan.json")

    assert content["registered_rules"]["values"]["confidence"]["min_seeds_for_high"] == 5
    assert content["rules"]["confidence"]["min_seeds_for_high"] == 8
    changed_jobs = {one.label for one, two in zip(before.jobs, after.jobs, strict=True) if one.identity != two.identity}
    assert changed_jobs == {"report"}


def test_more_seeds_and_other_arms_may_join_a_folder(planned: Planned) -> None:
    planned().write()

    check_folder(planned("seed=0,1"))
    check_folder(planned("+arm=dpo_high_beta"))


def test_contests_are_not_chosen_after_the_results(planned: Planned) -> None:
    """Whoever meets whom is planned before training; arms that join may meet those that are there."""
    planned("contests=[{arm: ppo, opponent: dpo}]").write()
    check_folder(planned("contests=[{arm: dpo, opponent: ppo}]"))  # the same two
    with pytest.raises(InputError, match="contests is dpo against ppo there, none now"):
        check_folder(planned("contests=[]"))


@pytest.mark.parametrize(
    ("override", "expected"),
    [
        ("budget.num_prompts=128", "budget.num_prompts is 64 there, 128 now"),
        ("data.temperature=0.5", "data.temperature is 1.0 there, 0.5 now"),
        ("++arm.learning_rate=1e-3", "dpo/seed0: arm.learning_rate is 0.0005 there, 0.001 now"),
    ],
)
def test_the_folder_of_another_specification_is_refused(planned: Planned, override: str, expected: str) -> None:
    planned().write()

    with pytest.raises(InputError) as caught:
        check_folder(planned(override))
    assert expected in str(caught.value)
    assert "name=… chooses another folder" in str(caught.value)


def test_other_files_behind_the_same_paths_are_noticed(composed: Composed, tmp_path: Path) -> None:
    texts = tmp_path / "texts.csv"
    texts.write_text("text,label\ngood film,1\n")
    runs = composed(f"data.path={texts}")
    make_plan(runs).write()
    texts.write_text("text,label\nbad film,0\n")

    with pytest.raises(InputError, match="the files behind"):
        check_folder(make_plan(runs))


@pytest.mark.parametrize("content", ["{}", '{"schema": 2, "arms": [', "", "\x00" * 40])
def test_a_foreign_or_torn_plan_file_is_named(planned: Planned, content: str) -> None:
    plan = planned()
    plan.folder.mkdir(parents=True)
    (plan.folder / "plan.json").write_text(content)

    with pytest.raises(InputError, match=r"is no plan of this program.*remove it"):
        check_folder(plan)


def test_a_report_over_fewer_arms_is_another_report(planned: Planned) -> None:
    plan = planned()
    report = job(plan, "report")
    fewer = with_needs(report, {label: job(plan, label) for label in ("base_evaluation", "dpo/seed0/evaluation")})

    assert set(fewer.needs) == set(fewer.file.needs) == {"base_evaluation", "dpo/seed0/evaluation"}
    assert fewer.identity != report.identity
    assert fewer.file.computed_identity() == fewer.identity


def test_work_is_counted_in_response_tokens(planned: Planned) -> None:
    plan = planned()
    tokens = 12

    assert job(plan, "ranking_data").work.sampled == 16 * 4 * tokens
    assert job(plan, "reward_model").work.trained == 14 * 4 * tokens  # 2 of 16 prompts are held out
    assert (job(plan, "ppo/seed0").work.sampled, job(plan, "ppo/seed0").work.trained) == (64 * tokens, 64 * tokens * 2)
    assert (job(plan, "dpo/seed0").work.sampled, job(plan, "dpo/seed0").work.trained) == (0, 64 * 2 * tokens)
    assert job(plan, "base_evaluation").work.sampled == 16 * (2 * 2 + 4) * tokens
    assert job(plan, "ppo/seed0/evaluation").work.sampled == 16 * 2 * tokens * 2


# ----------------------------------------------------------------------------------------------------------- judges
ENDPOINT = (
    "judge=endpoint",
    "judge.endpoint.base_url=http://127.0.0.1:1/v1",
    "judge.endpoint.model=judge",
    "judge.endpoint.prompt_price=1",
    "judge.endpoint.completion_price=4",
)


def test_without_a_judge_nothing_is_judged_and_a_judge_changes_no_other_job(planned: Planned) -> None:
    plain, judged = planned(), planned(*ENDPOINT)

    assert not [entry for entry in plain.jobs if entry.kind == "judgement"]
    assert [entry.label for entry in judged.jobs][-2:] == ["judges/endpoint", "report"]
    identities = {entry.label: entry.identity for entry in judged.jobs}
    assert {entry.label for entry in plain.jobs if identities[entry.label] != entry.identity} == {"report"}


def test_a_judge_needs_all_evaluations_and_the_reward_it_is_compared_with(planned: Planned) -> None:
    judge = job(planned("seed=0,1", *ENDPOINT), "judges/endpoint")

    assert set(judge.needs) == {
        "base_evaluation",
        "reward_model",
        *(f"{arm}/seed{seed}/evaluation" for arm in ("ppo", "dpo") for seed in (0, 1)),
    }
    spec = judge.file.spec
    assert isinstance(spec, JudgementJobSpec)
    assert {run.role for run in spec.runs} == {role for role in judge.needs if role.endswith("/evaluation")}
    assert "judges/endpoint" in job(planned(*ENDPOINT), "report").needs


def test_a_judge_over_fewer_arms_is_another_judgement_and_another_report(planned: Planned) -> None:
    plan = planned(*ENDPOINT)
    there = {entry.label: entry for entry in plan.jobs if not entry.label.startswith("ppo")}
    judge = with_needs(job(plan, "judges/endpoint"), there)
    report = with_needs(job(plan, "report"), there | {judge.label: judge})

    assert "ppo/seed0/evaluation" not in judge.needs
    assert judge.identity != job(plan, "judges/endpoint").identity
    assert report.file.needs["judges/endpoint"].identity == judge.identity


def test_a_judge_may_join_and_change_in_a_finished_folder(planned: Planned) -> None:
    planned().write()
    check_folder(planned(*ENDPOINT))
    planned(*ENDPOINT).write()

    check_folder(planned(*ENDPOINT, "judge.endpoint.max_cost=20"))
    check_folder(planned())


def test_a_missing_key_is_missed_before_anything_is_trained(planned: Planned, monkeypatch: pytest.MonkeyPatch) -> None:
    plan = planned(*ENDPOINT, "judge.endpoint.api_key_variable=NO_SUCH_KEY")
    with pytest.raises(InputError, match=r"judge\.endpoint\.api_key_variable: there is no such environment variable"):
        check_keys(plan)

    monkeypatch.setenv("NO_SUCH_KEY", "sk-secret")
    check_keys(plan)
    plan.write()
    assert "sk-secret" not in (plan.folder / "plan.json").read_text()
    assert all("sk-secret" not in str(entry.file.content()) for entry in plan.jobs)


def test_a_reward_model_that_is_not_there_is_missed_by_the_plan(planned: Planned) -> None:
    with pytest.raises(InputError, match=r"judge.reward_model.path=/none: there is no such folder"):
        planned("judge=reward_model", "judge.reward_model.path=/none")


def write_reward_model(folder: Path, weights: bytes, job: Job) -> None:
    """What the plan looks at in a reward model of ours, as that job would leave it."""
    (folder / "adapter").mkdir(parents=True)
    (folder / "head.safetensors").write_bytes(weights)
    (folder / "scale.json").write_text("{}")
    assert job.file.spec
    (folder / "spec.json").write_text(json.dumps({"spec": job.file.spec.model_dump(mode="json")}))


def test_two_judges_are_two_jobs(planned: Planned, tmp_path: Path) -> None:
    write_reward_model(tmp_path / "rm", b"1", job(planned(), "reward_model"))
    choice = ("judge=[endpoint,reward_model]", *ENDPOINT[1:], f"judge.reward_model.path={tmp_path / 'rm'}")
    first = planned(*choice)
    (tmp_path / "rm" / "head.safetensors").write_bytes(b"2")
    second = planned(*choice)

    labels = [entry.label for entry in first.jobs if entry.kind == "judgement"]
    assert labels == ["judges/endpoint", "judges/reward_model"]
    assert job(first, labels[0]).identity == job(second, labels[0]).identity
    assert job(first, labels[1]).identity != job(second, labels[1]).identity


def test_the_training_reward_in_the_cache_cannot_be_the_judge_that_decides(planned: Planned, tmp_path: Path) -> None:
    trained = job(planned(), "reward_model")
    other = job(planned("reward_model.learning_rate=1e-3"), "reward_model")
    write_reward_model(trained.folder, b"trained", trained)
    write_reward_model(tmp_path / "same", b"trained", other)  # a copy beside another specification
    write_reward_model(tmp_path / "other", b"other", trained)

    def decides(name: str) -> Plan:
        judge = ("judge=reward_model", f"judge.reward_model.path={tmp_path / name}")
        return planned(*judge, "rules.win_rate.primary_judge=reward_model")

    assert job(decides("other"), "judges/reward_model")
    with pytest.raises(InputError, match="holds the training reward's weights, which must not decide"):
        decides("same")


def test_an_embedder_is_an_input_of_the_evaluations_alone(planned: Planned, tmp_path: Path) -> None:
    for name in ("config.json", "tokenizer.json"):
        (tmp_path / name).write_text("{}")
    save_file({"weight": np.zeros(1, np.float32)}, tmp_path / "model.safetensors")
    plain, plan = planned(staged=True), planned(f"evaluation.embedder={tmp_path}", staged=True)

    for label in ("ppo/seed0/evaluation", "ppo_then_dpo/seed0/evaluation", "base_evaluation"):
        assert job(plan, label).file.inputs["embedder"].startswith("sha256:")
        assert job(plan, label).identity != job(plain, label).identity
    staged = ("ppo_then_dpo/seed0", "ppo_then_dpo/seed0/fresh_pairs")
    for label in ("ppo/seed0", "dpo/seed0", "ranking_data", "measure", "reward_model", *staged):
        assert job(plan, label).identity == job(plain, label).identity


def test_an_embedder_that_is_not_there_is_refused_before_anything_runs(planned: Planned) -> None:
    with pytest.raises(InputError, match=r"evaluation\.embedder=/nowhere/mini: there is no such folder"):
        planned("evaluation.embedder=/nowhere/mini")
