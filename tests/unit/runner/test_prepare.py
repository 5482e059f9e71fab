"""The base model that is converted beside gold."""

import sys
import time
from collections.abc import Callable
from pathlib import Path

import pytest

from runner import job as job_module
from runner import prepare
from runner.job import _model_prepared_beside
from runner.planning.graph import Job
from runner.planning.plan import Plan


def written(plan: Plan, *kinds: str) -> list[Path]:
    jobs: list[Job] = [next(job for job in plan.jobs if job.kind == kind) for kind in kinds]
    for job in jobs:
        job.file.write(job.folder)
    return [job.folder for job in jobs]


def test_the_model_of_a_job_is_prepared_where_it_has_one(planned: Callable[..., Plan]) -> None:
    plan = planned()
    gold, ranking = written(plan, "gold", "ranking_data")
    models = Path(plan.jobs[0].file.cache_dir) / "models"

    prepare.main(gold)
    assert not models.exists()
    prepare.main(ranking)
    assert [path.name for path in models.glob("llama-*/model.safetensors")] == ["model.safetensors"]


@pytest.mark.parametrize(
    ("model", "kinds", "starts"),
    [
        ("smollm2_135m", ("gold", "ranking_data"), True),
        ("smollm2_135m", ("gold",), False),
        ("smollm2_135m", ("arm", "evaluation"), False),  # it loads its model itself
        ("tiny_llama", ("gold", "ranking_data"), False),  # made in an instant
    ],
)
def test_it_is_prepared_beside_gold_if_that_takes_long(
    planned: Callable[..., Plan],
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    model: str,
    kinds: tuple[str, ...],
    starts: bool,
) -> None:
    pytest.importorskip("gguf")
    told = tmp_path / "told"
    script = f"import sys; open({str(told)!r}, 'w').write(sys.argv[1])"
    monkeypatch.setattr(job_module, "PREPARE", (sys.executable, "-c", script))
    folders = written(planned(f"model={model}"), *kinds)

    with _model_prepared_beside(folders):
        deadline = time.monotonic() + (30 if starts else 0.5)
        while not (told.exists() and told.read_text()) and time.monotonic() < deadline:
            time.sleep(0.01)
    assert (told.exists() and told.read_text() == str(folders[-1])) == starts


def test_it_ends_with_the_process_that_started_it(
    planned: Callable[..., Plan], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    pytest.importorskip("gguf")
    late = tmp_path / "late"
    script = f"import time; time.sleep(60); open({str(late)!r}, 'w')"
    monkeypatch.setattr(job_module, "PREPARE", (sys.executable, "-c", script))
    began = time.monotonic()
    with _model_prepared_beside(written(planned("model=smollm2_135m"), "gold", "ranking_data")):
        pass
    assert time.monotonic() - began < 30
    assert not late.exists()


def test_a_folder_that_is_no_job_is_left_to_the_job_to_report(tmp_path: Path) -> None:
    with _model_prepared_beside([tmp_path / "nothing", tmp_path / "nothing_either"]):
        pass
