"""Check before anything starts that a sweep's models can do what the jobs will ask of them.

Each model is loaded twice. First by transformers itself, which reports missing and unused weights; then as the jobs
load it, with another random seed. Both must compute the same: the jobs' results must follow from the files alone.
"""

from __future__ import annotations

import contextlib
from collections.abc import Callable, Iterable, Iterator, Sequence
from pathlib import Path
from typing import Any

import torch
from safetensors.torch import load_file
from torch import Tensor
from transformers import (
    MODEL_FOR_CAUSAL_LM_MAPPING,
    AutoConfig,
    AutoModel,
    AutoModelForCausalLM,
    AutoModelForSequenceClassification,
    AutoTokenizer,
)
from transformers.models.auto import modeling_auto

from experiments.errors import InputError
from experiments.evaluation.embedder import MAX_TOKENS, SentenceEncoder
from experiments.inputs.fingerprint import EMBEDDER, JUDGE, is_made_here, is_our_reward_model, our_reward_model_base
from experiments.inputs.model_files import first_line, loaded_files, local_folder, refuse_damaged
from experiments.inputs.models import (
    arithmetic,
    decoder_of,
    language_head,
    load_base,
    num_positions,
    prepare_model,
    takes_any_mask,
    with_policy,
)
from experiments.inputs.tokens import Tokens
from experiments.judge_spec import RewardModelJudge
from experiments.model_spec import Model
from experiments.positions import all_prompts
from experiments.sampling.batch import make_batch
from experiments.sampling.decoders import make_decoder
from experiments.spec import RunSpec
from experiments.tasks import task_of
from experiments.tasks.task import Task

BASE = "model.path"
SEEDS = (1, 2)  # of weights that are drawn at random while loading: two jobs would draw different numbers
PROBES = ([0.1, 0.5, 0.3], [0.9, 0.2, 0.7, 0.4, 0.6, 0.8])  # prompts, as shares of the vocabulary; the last is sampled
TOLERANCE = {torch.float64: 1e-6, torch.float32: 2e-3, torch.bfloat16: 0.15}  # relative length of a difference
MOST_NAMES = 5  # of tensors in one sentence


# ----------------------------------------------------------------------------------------------------------- the checks
def check(name: str, run: RunSpec) -> None:
    """Run one of the checks of a sweep's models: "positions", "base", "judge" or "embedder".

    Raises:
        InputError: one sentence that names the model's key and says what cannot work.
    """
    cache_dir, judge = Path(run.cache_dir).expanduser().absolute(), run.judge.reward_model
    if name == "positions":
        check_positions(run.model, judge, all_prompts(run), run.data.max_new_tokens, cache_dir)
    elif name == "base":
        check_base(run.model, f"{BASE}={run.model.path}", cache_dir)
    elif name == "judge" and judge:
        check_judge(judge, task_of(run.data), cache_dir)
    elif name == "embedder" and run.evaluation.embedder:
        check_embedder(run.evaluation.embedder)
    else:
        raise AssertionError(f"this sweep has nothing for the check {name!r}")


def check_base(model: Model, where: str, cache_dir: Path) -> None:
    """Check that a base can be sampled and trained, and that it computes what its files say.

    Args:
        model: the base.
        where: key and value of the configuration, for messages.
        cache_dir: folder of converted models.

    Raises:
        InputError: what cannot work.
    """
    folder = Path(prepare_model(model, cache_dir))
    loaded_files(folder, where)
    config = _config(folder, where)
    _refuse_architecture(config, where)
    dtype = getattr(torch, model.dtype)
    stock = _load(AutoModelForCausalLM, folder, where, dtype, lambda model, ids: model(ids).logits)
    with _explained(where, "its tokenizer cannot be loaded"):
        tokenizer = Tokens.load(model, cache_dir).tokenizer
    _refuse_tokens_beyond(tokenizer, stock, where)
    rows = _probes(min(len(tokenizer), stock.get_input_embeddings().weight.shape[0]))
    expected = _stock_logits(stock.to(arithmetic(model)), rows)
    if not torch.isfinite(expected).all():
        raise InputError(f"{where}: its logits are not finite numbers; are its weights meant for model.dtype?")
    del stock
    torch.manual_seed(SEEDS[1])
    with _explained(where, "it cannot be loaded as a base"):
        base = load_base(model, cache_dir)
    tolerance = TOLERANCE[base.dtype]
    for way, logits in _ways(base, rows, where):
        if not float((logits - expected).norm() / expected.norm()) < tolerance:
            _refuse_random(folder, where, dtype, rows)
            raise InputError(f"{where}: {type(base).__name__} computes something else {way}, so it cannot be used here")
    modules = model.lora.target_modules
    with _explained(where, f"it cannot be adapted with model.lora.target_modules={modules}"):
        language_head(with_policy(base, model.lora, seed=0))


def check_judge(judge: RewardModelJudge, task: Task, cache_dir: Path) -> None:
    """Check that the reward-model judge gives each text one finite score, the same in every process.

    Raises:
        InputError: what cannot work, with `judge.reward_model.path`.
    """
    from experiments.evaluation.judging.reward_model import load_scorer  # with scipy

    where, folder = f"{JUDGE}={judge.path}", local_folder(judge.path, JUDGE)
    if is_our_reward_model(folder):
        if judge.chat_template:
            load_scorer(judge, task, cache_dir)  # refuses it: it has no chat template
        for file in sorted(folder.rglob("*.safetensors")):
            refuse_damaged(file, where)
            _refuse_infinite(load_file(file).items(), where)
        base = our_reward_model_base(judge.path)
        if not is_made_here(base.path):
            check_base(base, f"{where}: its base {base.path}", cache_dir)
        return
    loaded_files(folder, where)
    config = _config(folder, where)
    if config.is_encoder_decoder:
        raise InputError(f"{where}: an encoder-decoder is not supported as a judge")
    if config.num_labels == 1:  # otherwise `load_scorer` refuses it and says how many there are
        model = _load(
            AutoModelForSequenceClassification, folder, where, config.dtype, lambda model, ids: model(ids).logits
        )
        _refuse_tokens_beyond(_tokenizer(folder, where), model, where)
        del model

    def scores() -> Tensor:
        score = load_scorer(judge, task, cache_dir)
        return torch.tensor(score(["A film", "It was"], [" that nobody should miss.", ""]), dtype=torch.float64)

    _refuse_unstable(scores, where, "scores")


def check_embedder(path: str) -> None:
    """Check that the sentence encoder gives each text one vector, the same in every process.

    Raises:
        InputError: what cannot work, with `evaluation.embedder`.
    """
    where, folder = f"{EMBEDDER}={path}", local_folder(path, EMBEDDER)
    loaded_files(folder, where)
    if _config(folder, where).is_encoder_decoder:
        raise InputError(f"{where}: an encoder-decoder is not supported as an embedder")
    model = _load(AutoModel, folder, where, torch.float32, lambda model, ids: model(ids).last_hidden_state)
    _refuse_tokens_beyond(_tokenizer(folder, where), model, where)
    del model
    texts = ["A film that nobody should miss.", "It was " * MAX_TOKENS]  # the second is too long and must be cut

    def vectors() -> Tensor:
        return torch.from_numpy(SentenceEncoder.load(path).embed(texts, rows_per_batch=1)).double()

    _refuse_unstable(vectors, where, "vectors")


def check_positions(
    model: Model, judge: RewardModelJudge | None, texts: Sequence[str], max_new_tokens: int, cache_dir: Path
) -> None:
    """Check that prompts and responses fit into the positions of the base and of the judge.

    Raises:
        InputError: names the model's key, how many tokens there are, and how many fit.
    """
    _check_positions_of_base(model, f"{BASE}={model.path}", texts, max_new_tokens, cache_dir)
    if judge is None:
        return
    where, folder = f"{JUDGE}={judge.path}", local_folder(judge.path, JUDGE)
    if is_our_reward_model(folder):
        base = our_reward_model_base(judge.path)
        _check_positions_of_base(base, f"{where}: its base {base.path}", texts, max_new_tokens, cache_dir)
        return
    tokenizer = _tokenizer(folder, where)
    longest = max(len(tokenizer(text)["input_ids"]) for text in texts)
    _refuse_too_long(longest, _config(folder, where), where, max_new_tokens)


# -------------------------------------------------------------------------------------------------------------- loading
@contextlib.contextmanager
def _explained(where: str, what: str) -> Iterator[None]:
    """Turn whatever a library raises into an InputError of one sentence."""
    try:
        yield
    except InputError as error:
        raise InputError(str(error) if where in str(error) else f"{where}: {error}") from error
    except Exception as error:  # on unexpected input a library may raise anything
        if "trust_remote_code" in str(error):
            raise InputError(
                f"{where}: it needs code of its own (auto_map), which is never run; only architectures of "
                "transformers itself can be used"
            ) from error
        raise InputError(f"{where}: {what} ({type(error).__name__}: {first_line(error)})") from error


def _config(folder: Path, where: str) -> Any:
    with _explained(where, "its config.json cannot be used"):
        return AutoConfig.from_pretrained(folder, trust_remote_code=False)


def _tokenizer(folder: Path, where: str) -> Any:
    with _explained(where, "its tokenizer cannot be loaded"):
        return AutoTokenizer.from_pretrained(folder, trust_remote_code=False)


def _load(auto_class: Any, folder: Path, where: str, dtype: torch.dtype, used: Callable[[Any, Tensor], Tensor]) -> Any:
    """The model as transformers loads it; refused unless its files hold exactly the weights that `used` needs."""
    torch.manual_seed(SEEDS[0])
    with _explained(where, "it cannot be loaded"):
        model, info = auto_class.from_pretrained(
            folder, trust_remote_code=False, use_safetensors=True, dtype=dtype,
            output_loading_info=True, ignore_mismatched_sizes=True,
        )  # fmt: skip
    model.eval().requires_grad_(False)
    if mismatched := sorted(info["mismatched_keys"]):
        name, of_files, of_config = mismatched[0]
        raise InputError(
            f"{where}: {name} has the shape {list(of_files)} in its files and {list(of_config)} by its config.json"
        )
    ids = _probes(model.get_input_embeddings().weight.shape[0])[1][None]
    with _explained(where, "it cannot be run"):
        missing = _depended_on(model, info["missing_keys"], lambda: used(model, ids))
    if missing:
        raise InputError(
            f"{where}: its files lack {_some(missing)}, which would be drawn at random, other numbers in each process"
        )
    if ignored := set(info["unexpected_keys"]) - _heads(model, info["unexpected_keys"]):
        raise InputError(
            f"{where}: its files hold {_some(ignored)}, for which {type(model).__name__} has no place: its "
            "config.json describes another model"
        )
    _refuse_infinite(model.named_parameters(), where)
    return model


def _depended_on(model: Any, names: Iterable[str], compute: Callable[[], Tensor]) -> list[str]:
    """Those of `names` that the result of `compute` depends on, according to its autograd graph."""
    tensors = dict(model.named_parameters()) | dict(model.named_buffers())
    known = {name: tensors[name] for name in sorted(names) if name in tensors and tensors[name].is_floating_point()}
    unknown = set(names) - set(known)
    if not known:
        return sorted(unknown)
    for tensor in known.values():
        tensor.requires_grad_(True)
    result = compute()
    if result.requires_grad:
        gradients = torch.autograd.grad(result.float().sum(), list(known.values()), allow_unused=True)
        unknown |= {name for name, gradient in zip(known, gradients, strict=True) if gradient is not None}
    for tensor in known.values():
        tensor.requires_grad_(False)
    return sorted(unknown)


def _heads(model: Any, names: Iterable[str]) -> set[str]:
    """Those of `names` that belong to a head which transformers knows for this architecture; the output needs no head.

    A classifier or a masked language model may serve as an encoder. Its head then stays in the file, unused.
    """
    names = set(names)
    if not names:
        return set()
    prefix = f"{model.base_model_prefix}."
    known: set[str] = set()
    for architecture in _architectures(type(model.config)):
        with contextlib.suppress(Exception), torch.device("meta"):  # some cannot be built from this configuration
            known |= {name.removeprefix(prefix) for name in architecture(model.config).state_dict()}
    return {name for name in names if name.removeprefix(prefix) in known}


def _architectures(config_class: type) -> set[Any]:
    """All classes of transformers for one kind of configuration."""
    mappings = [value for name, value in vars(modeling_auto).items() if name.endswith("_MAPPING")]
    found = [mapping[config_class] for mapping in mappings if config_class in mapping]
    return {architecture for one in found for architecture in (one if isinstance(one, tuple) else (one,))}


def _refuse_infinite(weights: Iterable[tuple[str, Tensor]], where: str) -> None:
    if odd := [name for name, weight in weights if not _is_finite(weight)]:
        raise InputError(f"{where}: there are NaN or infinite numbers in {_some(odd)}")


def _is_finite(weight: Tensor) -> bool:
    """Needs no copy of the weight: the minimum and maximum of a tensor with NaN are NaN."""
    return weight.numel() == 0 or all(bool(extreme.isfinite()) for extreme in torch.aminmax(weight))


# ----------------------------------------------------------------------------------------------------- what is computed
def _probes(num_tokens: int) -> list[Tensor]:
    """Token ids of prompts with one response token each, of different lengths."""
    return [torch.tensor([int(share * num_tokens) for share in shares]) for shares in PROBES]


@torch.no_grad()
def _stock_logits(model: Any, rows: Sequence[Tensor]) -> Tensor:
    """Logits [B, 2, V] of each row's last two tokens, from a forward pass over that row alone."""
    return torch.stack([model(row[None]).logits[0, -2:].float() for row in rows])


@torch.no_grad()
def _ways(base: Any, rows: Sequence[Tensor], where: str) -> Iterator[tuple[str, Tensor]]:
    """The same logits [B, 2, V], computed in each way that jobs use; each with a phrase that describes the way."""
    head, ids = language_head(base), [row.tolist() for row in rows]
    prompt_ids, response_ids = [row[:-1] for row in ids], [row[-1:] for row in ids]
    with _explained(where, "it cannot be run in a padded batch"):
        batch = make_batch(prompt_ids, response_ids, 0, base.device, packed=takes_any_mask(base))
        hidden_B2H = batch.hidden_states(decoder_of(base))[batch.states]
        yield "in a padded batch than alone", head.logits(hidden_B2H)[0].float()
    with _explained(where, "it cannot be sampled with a cache of its attention"):
        decoder = make_decoder(base)
        before_BH = decoder.prefill(prompt_ids, 1)
        after_BH = decoder.step(torch.tensor([row[-1] for row in ids]))
        hidden_B2H = torch.stack([before_BH, after_BH], dim=1)
        yield "with a cache of its attention than without", head.logits(hidden_B2H)[0].float()


def _refuse_random(folder: Path, where: str, dtype: torch.dtype, rows: Sequence[Tensor]) -> None:
    """Refuse a model that computes different numbers each time it is loaded."""
    found = []
    for seed in SEEDS:
        torch.manual_seed(seed)
        model = AutoModelForCausalLM.from_pretrained(folder, trust_remote_code=False, use_safetensors=True, dtype=dtype)
        found.append(_stock_logits(model.train(False), rows))
    if not torch.equal(found[0], found[1]):
        raise InputError(f"{where}: it computes other numbers each time it is loaded: some weights are drawn at random")


def _refuse_unstable(compute: Callable[[], Tensor], where: str, what: str) -> None:
    """Refuse results that are not finite, or that differ each time the model is loaded."""
    found = []
    for seed in SEEDS:
        torch.manual_seed(seed)
        with _explained(where, "it cannot be run"):
            found.append(compute())
    if not torch.isfinite(found[0]).all():
        raise InputError(f"{where}: its {what} are not finite numbers")
    if not torch.allclose(found[0], found[1], rtol=1e-3, atol=1e-3 * float(found[0].abs().max())):
        raise InputError(f"{where}: its {what} are others each time it is loaded: some numbers are drawn at random")


# ------------------------------------------------------------------------------------------------------ what is refused
def _refuse_architecture(config: Any, where: str) -> None:
    name = type(config).__name__.removesuffix("Config")
    if config.is_encoder_decoder:
        raise InputError(f"{where}: {name} is an encoder-decoder; a base is a causal language model")
    architecture = MODEL_FOR_CAUSAL_LM_MAPPING.get(type(config), None)
    if architecture is None:
        raise InputError(f"{where}: transformers has no causal language model for {name}")
    if getattr(architecture, "_is_stateful", False):
        raise InputError(
            f"{where}: {name} keeps a recurrent state instead of a cache of its attention, which the sampler needs"
        )


def _refuse_tokens_beyond(tokenizer: Any, model: Any, where: str) -> None:
    """Refuse a tokenizer with ids beyond the embedding: an index out of range. The reverse is usual and harmless."""
    rows, largest = model.get_input_embeddings().weight.shape[0], max(tokenizer.get_vocab().values(), default=-1)
    if largest < 0:
        raise InputError(f"{where}: its tokenizer has no tokens")
    if largest >= rows:
        raise InputError(
            f"{where}: its tokenizer's ids go up to {largest}, but its embedding has only {rows} rows; "
            "do both come from the same model?"
        )


def _check_positions_of_base(
    model: Model, where: str, texts: Sequence[str], max_new_tokens: int, cache_dir: Path
) -> None:
    with _explained(where, "its tokenizer cannot be loaded"):
        tokens = Tokens.load(model, cache_dir)
    longest = max(len(tokens.prompt_ids(text)) for text in texts)
    _refuse_too_long(longest, _config(Path(prepare_model(model, cache_dir)), where), where, max_new_tokens)


def _refuse_too_long(longest: int, config: Any, where: str, max_new_tokens: int) -> None:
    limit = num_positions(config)
    if limit is not None and longest + max_new_tokens > limit:
        raise InputError(
            f"{where}: it has {limit} positions, but the longest prompt has {longest} tokens and "
            f"data.max_new_tokens={max_new_tokens} come after it; lower data.max_prompt_words or data.max_new_tokens"
        )


def _some(names: Iterable[str]) -> str:
    """A few names, and how many more there are."""
    ordered = sorted(names)
    more = f" and {len(ordered) - MOST_NAMES} more" if len(ordered) > MOST_NAMES else ""
    return ", ".join(ordered[:MOST_NAMES]) + more
