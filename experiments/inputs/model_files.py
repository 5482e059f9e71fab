"""Where a model's files are, and which of them are loaded. Imports no torch, so that the plan can ask.

A model is a folder here, or a hub id at a revision. A revision is a name that can move; it is resolved to its commit
once, when the sweep is planned, and every job loads that commit's files. `from_pretrained` is always given a folder:
for a hub id it would look for adapters and for conversions of the weights under other revisions.
"""

from __future__ import annotations

import json
import re
from pathlib import Path
from typing import Any

from experiments.errors import InputError

CONFIG, WEIGHTS, INDEX = "config.json", "model.safetensors", "model.safetensors.index.json"
ADAPTER = "adapter_config.json"
LOADED_KINDS = (  # what transformers reads beside weights: configuration, tokenizer, chat templates
    ".bpe", ".codes", ".jinja", ".json", ".model", ".spm", ".tiktoken", ".tokenizer", ".txt", ".vocab",
)  # fmt: skip
MORE_TEMPLATES = "additional_chat_templates"
OF_A_TOKENIZER = re.compile(r"token|vocab|merges|piece|spm|bpe|\.(model|tiktoken)$")
PLACE = re.compile(r"(?P<hub_id>[\w-][\w.-]*(?:/[\w.-]+)?)(?:@(?P<revision>[\w./-]+))?")
COMMIT = re.compile(r"[0-9a-f]{40}")
LARGEST_HEADER = 100_000_000  # bytes, of a safetensors file: the format's own limit
LARGEST_JSON = 50_000_000  # bytes; the index of a model of a terabyte has some 5 MB


def pinned(path: str, revision: str | None, key: str) -> tuple[str, str | None]:
    """A hub id and the commit that its revision means now; of a folder, nothing changes.

    Args:
        path: a folder, or a hub id, which may end in ``@revision``.
        revision: branch, tag or commit of a hub id; None means the one in `path`, or the default branch.
        key: the configuration's, for messages.

    Raises:
        InputError: neither a folder nor a hub id that can be resolved, or a revision of a folder.
    """
    hub_id, asked = _hub_place(path, revision, key)
    if hub_id is None:
        return path, None
    return hub_id, asked if asked and COMMIT.fullmatch(asked) else _hub_commit(hub_id, asked, key)


def pinned_path(path: str, key: str) -> str:
    """As `pinned`, for keys without a revision beside them: a folder as it is, or ``hub_id@commit``."""
    hub_id, commit = pinned(path, None, key)
    return f"{hub_id}@{commit}" if commit else path


def is_place(path: str) -> bool:
    """Whether a path is a folder or file here, or could be a hub id."""
    return Path(path).expanduser().exists() or PLACE.fullmatch(path) is not None


def local_folder(path: str, key: str, revision: str | None = None) -> Path:
    """The folder of a model's files; those of a hub id are downloaded, or are in the hub's cache already.

    Raises:
        InputError: neither a folder nor a hub id, or it cannot be downloaded.
    """
    hub_id, commit = pinned(path, revision, key)
    if commit is None:
        return Path(hub_id).expanduser()
    try:
        return _download(hub_id, commit)
    except Exception as error:  # the http client's own errors have no common base that is public
        raise InputError(f"{key}={path}: commit {commit} cannot be downloaded: {first_line(error)}") from error


def loaded_files(folder: Path, where: str) -> list[Path]:
    """Every file that loading a folder's model and tokenizer may read, in a fixed order.

    Args:
        folder: of one model.
        where: key and value of the configuration, for messages.

    Raises:
        InputError: a file is missing or damaged, or its model is of a kind that is not loaded.
    """
    if not (folder / CONFIG).is_file():
        adapter = f"; {ADAPTER} is there, but an adapter alone is no model" if (folder / ADAPTER).exists() else ""
        raise InputError(
            f"{where}: no config.json there{adapter}; a model folder has config.json, *.safetensors and a tokenizer"
        )
    config = read_object(folder / CONFIG, where)
    weights = _weights(folder, config, where)
    beside = [file for file in folder.iterdir() if file.suffix in LOADED_KINDS and file.is_file()]
    if not any(OF_A_TOKENIZER.search(file.name) for file in beside if file.name != INDEX):
        raise InputError(f"{where}: no tokenizer files there")
    _refuse_unsupported(folder, config, where)
    for file in weights:
        refuse_damaged(file, where)
    return sorted([*beside, *(folder / MORE_TEMPLATES).glob("*.jinja"), *weights])


def read_object(path: Path, where: str) -> dict[str, Any]:
    """A JSON object. Raises InputError for anything else."""
    try:
        if path.stat().st_size > LARGEST_JSON:
            raise InputError(f"{where}: {path.name} has more than {LARGEST_JSON} bytes")
        content = json.loads(path.read_text(encoding="utf-8"))
    except (OSError, ValueError, RecursionError) as error:
        raise InputError(f"{where}: {path.name} cannot be read: {first_line(error)}") from None
    if not isinstance(content, dict):
        raise InputError(f"{where}: {path.name} holds no JSON object")
    return content


def first_line(error: BaseException) -> str:
    """What an error says, as far as it fits into a sentence."""
    return (str(error).strip().splitlines() or [type(error).__name__])[0][:300]


def _hub_place(path: str, revision: str | None, key: str) -> tuple[str | None, str | None]:
    """The hub id and the revision that are asked for; of a folder both are None."""
    if Path(path).expanduser().exists():
        if revision is not None:
            raise InputError(f"{key}={path} is a folder, which has no revision {revision}; leave the revision out")
        return None, None
    place = PLACE.fullmatch(path)
    if place is None:
        raise InputError(f"{key}={path}: there is no such folder, and it is no hub id (organisation/name)")
    return place["hub_id"], revision or place["revision"]


def _hub_commit(hub_id: str, revision: str | None, key: str) -> str:
    """The commit that a hub id means now; where the hub cannot be reached, the one in the local hub cache."""
    from huggingface_hub import HfApi, snapshot_download
    from huggingface_hub.errors import HfHubHTTPError

    try:
        commit = HfApi().model_info(hub_id, revision=revision, timeout=10).sha
        if commit:
            return commit
        reason = "the hub names no commit"
    except HfHubHTTPError as error:
        reason = first_line(error)
    except Exception as error:  # the http client's own errors have no common base that is public
        reason = f"the hub cannot be reached ({type(error).__name__})"
    try:
        return Path(snapshot_download(hub_id, revision=revision, local_files_only=True, allow_patterns=[CONFIG])).name
    except OSError:
        at = f" at revision {revision}" if revision else ""
        raise InputError(f"{key}={hub_id}: no such folder here, not in the local hub cache{at}, and {reason}") from None


def _download(hub_id: str, commit: str) -> Path:
    """The files of one commit, small ones first: the index says which weights there are."""
    from huggingface_hub import snapshot_download

    kinds = [f"*{kind}" for kind in LOADED_KINDS]
    folder = Path(snapshot_download(hub_id, revision=commit, allow_patterns=kinds, ignore_patterns=["*/*"]))
    named = _named_weights(folder, read_object(folder / CONFIG, hub_id)) if (folder / CONFIG).is_file() else []
    snapshot_download(hub_id, revision=commit, allow_patterns=[WEIGHTS, *named])
    return folder


def _named_weights(folder: Path, config: dict[str, Any]) -> list[str]:
    """The files of weights by name, as transformers chooses them."""
    explicit = config.get("transformers_weights")
    if explicit is None and (folder / WEIGHTS).is_file():
        return [WEIGHTS]
    name = str(explicit or INDEX)
    if not name.endswith(".index.json"):
        return [name]
    if not (folder / name).is_file():
        return []
    shards = read_object(folder / name, str(folder)).get("weight_map")
    return sorted({str(shard) for shard in shards.values()}) if isinstance(shards, dict) else []


def _weights(folder: Path, config: dict[str, Any], where: str) -> list[Path]:
    names = _named_weights(folder, config)
    if not names:
        raise InputError(
            f"{where}: no *.safetensors there by a name that is loaded ({WEIGHTS}, or {INDEX} and the files that it "
            "names); pickled weights are not loaded, convert them first"
        )
    for name in names:
        if Path(name).name != name or not name.endswith(".safetensors"):
            raise InputError(
                f"{where}: its index or configuration names the weights {name}; only *.safetensors files beside it "
                "are loaded, convert pickled weights first"
            )
        if not (folder / name).is_file():
            raise InputError(f"{where}: the weights in {name} are missing; copy or download that file again")
    return [folder / name for name in names]


def _refuse_unsupported(folder: Path, config: dict[str, Any], where: str) -> None:
    if (folder / ADAPTER).exists():
        raise InputError(
            f"{where}: {ADAPTER} lies beside the model's own weights, so that transformers would add an adapter to "
            "them when sampling and not when training; remove it, or merge the adapter into the weights"
        )
    method = config.get("quantization_config") or config.get("compression_config")
    if method:
        name = method.get("quant_method", "unknown") if isinstance(method, dict) else method
        raise InputError(
            f"{where}: config.json says that the weights are quantised ({name}), which is not supported; "
            "use the model with weights in bfloat16 or float32"
        )


def refuse_damaged(file: Path, where: str) -> None:
    """Refuse a file that is not all there: it begins with its header's length, which says where each tensor ends.

    Raises:
        InputError: names the file.
    """
    again = "copy or download it again"
    size = file.stat().st_size
    with file.open("rb") as stream:
        length = int.from_bytes(stream.read(8), "little")
        if size < 8 or length > min(LARGEST_HEADER, size - 8):
            raise InputError(f"{where}: {file.name} is cut off or no safetensors file ({size} bytes); {again}")
        header = stream.read(length)
    try:
        tensors = {name: entry for name, entry in json.loads(header).items() if name != "__metadata__"}
        expected = 8 + length + max((int(entry["data_offsets"][1]) for entry in tensors.values()), default=0)
    except (ValueError, TypeError, KeyError, IndexError, AttributeError, RecursionError):
        raise InputError(f"{where}: the header of {file.name} is damaged; {again}") from None
    if size != expected:
        raise InputError(f"{where}: {file.name} has {size} bytes instead of {expected}; {again}")
