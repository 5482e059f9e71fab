"""The schema of ``conf/judge/``: judges besides the scorers that every evaluation has. By default there is none."""

from __future__ import annotations

import re
from functools import reduce
from operator import or_
from typing import TYPE_CHECKING, Annotated, ClassVar, get_args

from pydantic import Field, field_validator

from experiments.records import ScoreCard
from experiments.strict import Strict

MAX_PORT = 65535
LABEL = r"[A-Za-z0-9_-]{1,63}"
HOST = rf"({LABEL}(\.{LABEL})*\.?|\[[0-9A-Fa-f:.]+\])"
ADDRESS = re.compile(rf"https?://{HOST}(:(?P<port>\d{{1,5}}))?(/[A-Za-z0-9._~!$&'()*+,;=:%/-]*)?")


class JudgeSettings(Strict):
    """What every judge has."""

    who: ClassVar[str]  # the judge in words
    module: ClassVar[str]  # of its functions: `judge_pairs` and `origin`, see `experiments.evaluation.judging.job`

    max_samples_per_prompt: int = Field(ge=1, description="samples of a prompt that are judged; the others are not")


class EndpointJudge(JudgeSettings):
    """A language model behind an OpenAI-compatible chat endpoint: it is shown each two responses in both orders."""

    who = "a language model, shown both in both orders,"
    module = "experiments.evaluation.judging.endpoint"

    # repr=False: people paste a key here by mistake, so no message may repeat the value.
    base_url: str = Field(repr=False, description="the part before /chat/completions, such as http://127.0.0.1:8000/v1")
    model: str = Field(min_length=1, description="the model's name at that endpoint")
    api_key_variable: Annotated[str, Field(pattern=r"^[A-Z_][A-Z0-9_]*$")] | None = Field(
        repr=False,
        description="name of the environment variable that holds the key, never the key itself; null sends none",
    )
    base_model: str | None = Field(
        description="the model it was trained from, as its maker states, for the independence label; null means `model`"
    )
    criterion: str = Field(min_length=1, description="what the judge is told makes one response better than another")
    max_tokens: int = Field(ge=1, description="length limit of a verdict, in tokens; temperature is always 0")
    max_requests: int = Field(ge=1, description="most requests, including failed attempts and answers of earlier runs")
    max_cost: float = Field(
        gt=0, description="limit of the cost of all answers, in `currency`; checked before each request"
    )
    currency: str = Field(pattern=r"^[A-Z]{3}$", description="of max_cost and both prices, as in ISO 4217")
    prompt_price: float = Field(ge=0, description="per million tokens sent; 0 for a server of one's own")
    completion_price: float = Field(ge=0, description="per million tokens answered")
    concurrency: int = Field(ge=1, description="requests that wait for an answer at the same time")
    timeout_seconds: float = Field(gt=0, description="for a whole answer; a request that timed out counts as paid")
    max_attempts: int = Field(ge=1, description="of a request that gets 429, 5xx, a time-out or an unreadable answer")
    max_wait_seconds: float = Field(
        gt=0, description="longest pause before another attempt; if the server asks for more, the request fails"
    )
    max_failed_requests: int = Field(
        ge=0, description="requests that may fail before the job stops; the pair of each failed request is missing"
    )

    @field_validator("base_url")
    @classmethod
    def _a_plain_address(cls, base_url: str) -> str:
        if re.search(r"[@?#]", base_url):
            raise ValueError(
                "must hold no user name, password, query or fragment, because it is written to files; "
                "put a key into the environment variable that api_key_variable names"
            )
        address = ADDRESS.fullmatch(base_url)
        if not address or int(address["port"] or 0) > MAX_PORT:
            raise ValueError("must be http:// or https://, a host, and perhaps a port and a path, in plain ASCII")
        return base_url.rstrip("/")


class RewardModelJudge(JudgeSettings):
    """A reward model with weights of its own: it scores every response, and the higher score is preferred."""

    who = "a reward model, by the higher of its two scores,"
    module = "experiments.evaluation.judging.reward_model"

    path: str = Field(
        min_length=1,
        description="a folder or hub id (hub_id@revision) of a sequence classifier with one output (config, "
        "safetensors, tokenizer), or a reward_model folder from another sweep's cache",
    )
    chat_template: bool = Field(
        description="show prompt and response as turns of its chat template; false: as one text, as in our own training"
    )
    tie_band: float = Field(
        ge=0, description="scores that differ by less are a tie; in standard deviations of the base's scores"
    )


class Judges(Strict):
    """The configured judges, each one job that runs after the evaluations. This is the one list of judges."""

    endpoint: EndpointJudge | None = None
    reward_model: RewardModelJudge | None = None

    @property
    def configured(self) -> dict[str, JudgeSettings]:
        """Name -> settings."""
        return {name: judge for name, judge in self if judge is not None}

    @property
    def cards(self) -> tuple[ScoreCard, ...]:
        """Score cards of the configured judges' verdicts."""
        return tuple(
            ScoreCard(
                name=name,
                role="judge",
                unit="points",
                direction="higher is better",
                meaning=f"the share of the pairs in which {judge.who} prefers a response, in percent",
                independence="judge.json of its job compares its origin with that of the training reward",
            )
            for name, judge in self.configured.items()
        )


if TYPE_CHECKING:
    AnyJudge = JudgeSettings
else:  # told apart by their keys
    AnyJudge = reduce(or_, [get_args(field.annotation)[0] for field in Judges.model_fields.values()])
