from collections.abc import Callable

from runner.driving.memory import CUDA_BYTES, learn, needed_bytes
from runner.ledger.files import write_json
from runner.planning.graph import Job
from runner.planning.plan import Plan

Planned = Callable[..., Plan]


def job(plan: Plan, label: str) -> Job:
    return next(job for job in plan.jobs if job.label == label)


def took(job: Job, **peak: object) -> None:
    job.folder.mkdir(parents=True, exist_ok=True)
    write_json(job.folder / "status.json", {"state": "finished", "identity": job.identity, "peak_memory": peak})
    learn(job)


def test_nobody_knows_at_first_what_a_job_needs(planned: Planned) -> None:
    plan = planned()

    assert [needed_bytes([job], "cpu") for job in plan.jobs] == [0] * len(plan.jobs)


def test_other_seeds_and_coefficients_need_as_much_and_other_sizes_or_kinds_say_nothing(planned: Planned) -> None:
    plan = planned()
    took(job(plan, "ppo/seed0"), cpu=1000)

    assert needed_bytes([job(plan, "ppo/seed0")], "cpu") == 1000
    other = planned("seed=7", "name=other", "++arm.learning_rate=0.123", "budget.num_prompts=64")
    assert needed_bytes([job(other, "ppo/seed7")], "cpu") == 1000
    assert needed_bytes([job(plan, "dpo/seed0")], "cpu") == 0
    longer = planned("data.max_new_tokens=9")
    assert needed_bytes([job(longer, "ppo/seed0")], "cpu") == 0
    larger = planned("model.lora.rank=64")
    assert needed_bytes([job(larger, "ppo/seed0")], "cpu") == 0


def test_the_most_that_any_took_counts_for_each_device(planned: Planned) -> None:
    plan = planned("seed=0,1")
    one, two = job(plan, "ppo/seed0"), job(plan, "ppo/seed1")
    took(one, cpu=1000)
    took(two, cpu=400, gpu=7)

    assert needed_bytes([two], "cpu") == 1000
    assert needed_bytes([two], "gpu") == 7 + CUDA_BYTES
    assert needed_bytes([job(plan, "dpo/seed0"), one], "cpu") == 1000


def test_records_that_make_no_sense_are_no_measurements(planned: Planned) -> None:
    plan = planned()
    first = job(plan, "ppo/seed0")
    for peak in ("much", -5, None, [1]):
        took(first, cpu=peak)
    assert needed_bytes([first], "cpu") == 0
    took(first, cpu=10)
    for record in first.folder.parents[3].glob("cache/memory/*.json"):
        record.write_text("[")

    assert needed_bytes([first], "cpu") == 0
