"""A job reads what was planned, or ends: files exchanged, touched, copied back, or written while they are read."""

from __future__ import annotations

import os
import shutil
from pathlib import Path
from typing import Any

import pytest
import torch
from safetensors.torch import load_file, save_file

from experiments.errors import InputError
from experiments.inputs import planned
from experiments.inputs.fingerprint import data_fingerprint, model_fingerprint
from experiments.inputs.models import load_base, prepare_model
from experiments.model_spec import Model
from experiments.spec import ArmJobSpec, MeasureJobSpec
from experiments.tasks.sentiment import Gold, SentimentMeasure, texts
from experiments.tasks.sentiment.texts import row_counts

TEXTS = "text,label\n" + "".join(f"number {i} of these films was warm and long,{i % 2}\n" for i in range(60))


@pytest.fixture
def path(tmp_path: Path) -> Path:
    path = tmp_path / "texts.csv"
    path.write_text(TEXTS)
    return path


def spec(path: Path) -> MeasureJobSpec:
    gold = Gold(num_texts=100, analyzer="char", max_ngram=1)
    return MeasureJobSpec(measure=SentimentMeasure(task="sentiment", path=str(path), seed=0, split_words=4, gold=gold))


def test_a_file_that_changes_while_it_is_read_ends_the_job(path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    was, read = data_fingerprint(str(path)), texts._read_texts

    def read_slowly(*arguments: str) -> object:
        path.write_text(TEXTS + "one more film,1\n")
        return read(*arguments)  # type: ignore[arg-type]

    monkeypatch.setattr(texts, "_read_texts", read_slowly)
    with pytest.raises(InputError) as refused, planned.inputs({"data": was}, spec(path)):
        row_counts(str(path))
    assert f"data.path={path} has changed since the sweep was planned" in str(refused.value)
    assert f"it was {was} and is {data_fingerprint(str(path))}" in str(refused.value)


def test_a_file_that_is_touched_or_copied_back_is_the_same(path: Path) -> None:
    was = data_fingerprint(str(path))
    with planned.inputs({"data": was}, spec(path)):
        os.utime(path)
        row_counts(str(path))
        copy = path.with_name("copy.csv")
        copy.write_bytes(path.read_bytes())
        copy.replace(path)
        assert row_counts(str(path)).total == 60


def test_outside_of_a_job_nothing_was_planned(path: Path) -> None:
    with planned.inputs({"data": data_fingerprint(str(path))}, spec(path)):
        pass
    path.write_text(TEXTS + "one more film,1\n")
    assert row_counts(str(path)).total == 61


class TestModel:
    @pytest.fixture
    def model(self, tiny: Model, cache_dir: Path, tmp_path: Path) -> Model:
        shutil.copytree(prepare_model(tiny, cache_dir), tmp_path / "model")
        return tiny.model_copy(update={"path": str(tmp_path / "model")})

    @staticmethod
    def exchange(model: Model) -> None:
        file = Path(model.path, "model.safetensors")
        save_file({name: tensor + 1 for name, tensor in load_file(file).items()}, file, metadata={"format": "pt"})

    def test_weights_exchanged_between_two_jobs_end_the_second(
        self, model: Model, arm_job: Any, dpo_arm: Any, tmp_path: Path
    ) -> None:
        spec: ArmJobSpec = arm_job(dpo_arm, model=model)
        was = model_fingerprint(model)
        with planned.inputs({"base_model": was}, spec):
            load_base(model, tmp_path)
        self.exchange(model)
        said = f"model.path={model.path} has changed since the sweep was planned: it was {was} and is sha256:"
        with pytest.raises(InputError, match=said), planned.inputs({"base_model": was}, spec):
            raise AssertionError("nothing may begin")

    def test_weights_exchanged_after_the_job_began_are_found_when_they_are_loaded(
        self, model: Model, arm_job: Any, dpo_arm: Any, tmp_path: Path
    ) -> None:
        with planned.inputs({"base_model": model_fingerprint(model)}, arm_job(dpo_arm, model=model)):
            self.exchange(model)
            with pytest.raises(InputError, match="has changed since the sweep was planned"):
                load_base(model, tmp_path)

    def test_weights_that_are_only_touched_are_the_same(
        self, model: Model, arm_job: Any, dpo_arm: Any, tmp_path: Path
    ) -> None:
        with planned.inputs({"base_model": model_fingerprint(model)}, arm_job(dpo_arm, model=model)):
            os.utime(Path(model.path, "model.safetensors"))
            load_base(model, tmp_path)

    def test_a_file_written_over_later_does_not_reach_a_loaded_model(self, model: Model, tmp_path: Path) -> None:
        base: Any = load_base(model, tmp_path)
        before = {name: tensor.clone() for name, tensor in base.state_dict().items()}
        file = Path(model.path, "model.safetensors")
        size = file.stat().st_size
        with file.open("r+b") as stream:
            stream.seek(size // 2)
            stream.write(bytes(size - size // 2))
        assert all(torch.equal(before[name], tensor) for name, tensor in base.state_dict().items())
