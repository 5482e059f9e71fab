"""How the base reads and writes text: prompts to token ids, responses back to words, and which tokens end a response.

A decoder may depend on where a token stands: that of Llama 1 and 2 drops a space at the start of a text, WordPiece
glues a part of a word to the part before it. So a response is never decoded alone, but behind its prompt.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

from transformers import AutoConfig, AutoTokenizer
from transformers.tokenization_utils_base import PreTrainedTokenizerBase

from experiments.errors import InputError
from experiments.inputs import planned
from experiments.inputs.model_files import CONFIG, read_object
from experiments.inputs.models import prepare_model
from experiments.model_spec import Model

Ids = Sequence[int]
GENERATION = "generation_config.json"


@dataclass(frozen=True)
class Tokens:
    """The tokens of one base."""

    tokenizer: PreTrainedTokenizerBase
    eos_ids: tuple[int, ...]  # any of them ends a response and belongs to it
    silent_ids: frozenset[int]  # ends and special tokens: no part of a response's text
    path: str  # `model.path`, for messages

    @classmethod
    def load(cls, model: Model, cache_dir: Path) -> Tokens:
        """The base's tokenizer, and every end that it, the configuration or the generation configuration names.

        Raises:
            InputError: no end is named that the model could sample.
        """
        folder = Path(prepare_model(model, cache_dir))
        tokenizer = AutoTokenizer.from_pretrained(folder, trust_remote_code=False)
        eos_ids = _eos_ids(tokenizer, folder, model)
        planned.compare("base_model")
        if tokenizer.pad_token_id is None:  # TRL's trainers want one; masks come from lengths
            tokenizer.pad_token = tokenizer.eos_token or tokenizer.convert_ids_to_tokens(eos_ids[0])
        special = {number for number, token in tokenizer.added_tokens_decoder.items() if token.special}
        return cls(tokenizer, eos_ids, frozenset(special.union(tokenizer.all_special_ids, eos_ids)), model.path)

    def prompt_ids(self, text: str) -> list[int]:
        """A prompt with what the tokenizer puts in front of it, but not with what it appends: an end, say.

        Raises:
            InputError: the text has no token, or the tokenizer changes it when it adds its own tokens.
        """
        plain, whole = self._encode(text), list(self.tokenizer(text)["input_ids"])
        if not plain:
            raise InputError(f"model.path={self.path}: its tokenizer has no token for the prompt {text!r}")
        for end in range(len(plain), len(whole) + 1):
            if whole[end - len(plain) : end] == plain:
                return whole[:end]
        raise InputError(
            f"model.path={self.path}: with special tokens its tokenizer reads the prompt {text!r} as {whole}, without "
            f"as {plain}; it must add tokens in front or behind and change nothing between"
        )

    def response_texts(self, prompt_ids: Sequence[Ids], response_ids: Sequence[Ids]) -> list[str]:
        """Responses in words, as they read behind their prompts."""
        prompts = {prompt: self._decode(prompt) for prompt in set(map(tuple, prompt_ids))}
        spoken = [[number for number in response if number not in self.silent_ids] for response in response_ids]
        return [
            self._behind(prompt, prompts[tuple(prompt)], response)
            for prompt, response in zip(prompt_ids, spoken, strict=True)
        ]

    def response_ids(self, prompt: str, text: str) -> list[int]:
        """Token ids that read as `text` behind a prompt, for a response whose own ids are not known; without an end.

        A tokenizer may begin whatever it is given with a space. So the text is encoded alone, behind its prompt and on
        a new line, and the first ids that read as the text are taken; if none do, those of the text alone.
        """
        prompt_ids, alone = self.prompt_ids(prompt), self._encode(text)
        for context in ("", prompt, "\n"):
            start, whole = self._encode(context), self._encode(context + text)
            ids = whole[len(start) :]
            if whole[: len(start)] == start and self.response_texts([prompt_ids], [ids]) == [text]:
                return ids
        return alone

    def _encode(self, text: str) -> list[int]:
        return list(self.tokenizer(text, add_special_tokens=False)["input_ids"])

    def _decode(self, token_ids: Ids) -> str:
        return str(self.tokenizer.decode(list(token_ids)))

    def _behind(self, prompt: Ids, prompt_text: str, response: Ids) -> str:
        """What `response` adds to the text of its prompt.

        If the prompt's last tokens read otherwise with the response behind them (bytes that make no character
        together, a space that clean-up takes away), the rest of the prompt says where the response begins.
        """
        whole = self._decode([*prompt, *response])
        if whole.startswith(prompt_text):
            return whole[len(prompt_text) :]
        for end in reversed(range(len(prompt))):
            before, after = self._decode(prompt[:end]), self._decode([*prompt[:end], *response])
            if after.startswith(before):
                break
        text = after[len(before) :]
        return text if whole.endswith(text) else text.lstrip(" ")


def _eos_ids(tokenizer: PreTrainedTokenizerBase, folder: Path, model: Model) -> tuple[int, ...]:
    """Every end that is named somewhere and that the model can sample, in order.

    The files are asked and not transformers' classes, which have ends that no file names.
    """
    where = f"model.path={model.path}"
    config = read_object(folder / CONFIG, where)
    generation = read_object(folder / GENERATION, where) if (folder / GENERATION).exists() else {}
    named: list[object] = [tokenizer.eos_token_id]
    for ids in (some.get("eos_token_id") for some in (config, config.get("text_config") or {}, generation)):
        named += ids if isinstance(ids, list) else [ids]
    size = int(AutoConfig.from_pretrained(folder, trust_remote_code=False).get_text_config().vocab_size)
    eos_ids = sorted({number for number in named if isinstance(number, int) and 0 <= number < size})
    if not eos_ids:
        raise InputError(
            f"{where}: neither its tokenizer nor its configurations name an end-of-sequence token that "
            f"it could sample (found {[number for number in named if number is not None]}, vocab_size={size})"
        )
    return tuple(eos_ids)
