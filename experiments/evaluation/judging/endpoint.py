"""The endpoint judge: every pair is judged in both orders, by answers from the cache or by concurrent requests."""

from __future__ import annotations

import asyncio
from collections import Counter
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from experiments.errors import InputError
from experiments.evaluation.judging import template
from experiments.evaluation.judging.answers import AnswerCache, ChatAnswer, cache_key
from experiments.evaluation.judging.budget import Budget, CapReachedError
from experiments.evaluation.judging.chat_client import ChatClient, FailedRequestError
from experiments.evaluation.judging.independence import Origin
from experiments.evaluation.judging.judgement import IDENTICAL, Judgement, preference_row
from experiments.evaluation.judging.key import api_key
from experiments.evaluation.judging.pairs import Pair
from experiments.judge_spec import EndpointJudge
from experiments.records import Axes, PreferenceRow, Recorder

CACHE_FOLDER = "judge_answers"
# Why a verdict is missing.
CAP, FAILED, REFUSED, CUT, UNREADABLE = "cost cap", "request failed", "refused", "cut", "no verdict"
COST_EVERY = 50  # answers between two ledger rows of the cost
FINISHED = {"stop", None}


@dataclass(frozen=True)
class Question:
    """One order of one pair."""

    body: dict[str, Any]
    key: str


def origin(judge: EndpointJudge) -> Origin:
    """Its origin, as far as it is known: a name."""
    return Origin(names=(judge.base_model or judge.model,))


def judge_pairs(
    judge: EndpointJudge, pairs: Sequence[Pair], cache_dir: Path, recorder: Recorder, *_: object
) -> Judgement:
    """Ask about every pair in both orders, until all are judged or the cost limit is reached.

    Raises:
        InputError: the endpoint cannot be used, or too many requests failed. All answers so far are saved.
    """
    questions = [_questions(judge, pair) for pair in pairs]
    interview = Interview(judge, AnswerCache(cache_dir / CACHE_FOLDER), recorder)
    asyncio.run(interview.ask_all(list({question.key: question for both in questions for question in both}.values())))
    rows = [
        _row(pair, [interview.answers.get(q.key) for q in both], [interview.reasons.get(q.key, "") for q in both])
        for pair, both in zip(pairs, questions, strict=True)
    ]
    models = sorted({answer.model for answer in interview.answers.values() if answer.model})
    facts = {"answered_by": models, "template_sha256": template.TEMPLATE_SHA256, "currency": judge.currency}
    return Judgement(rows, interview.values() | _order_values(rows), facts)


class Interview:
    """All questions of one job.

    Attributes:
        answers: by the question's key.
        reasons: by the question's key, why it has no answer.
    """

    def __init__(self, judge: EndpointJudge, cache: AnswerCache, recorder: Recorder) -> None:
        self.answers: dict[str, ChatAnswer] = {}
        self.reasons: dict[str, str] = {}
        self._judge, self._cache, self._recorder = judge, cache, recorder
        self._num_cached = 0

    async def ask_all(self, questions: Sequence[Question]) -> None:
        """Get as many answers as possible; the questions are all different."""
        self._budget = Budget(self._judge.max_requests, self._judge.max_cost)
        jitter = np.random.default_rng()  # unseeded: it changes only waits, which must differ between processes
        self._client = ChatClient(self._judge, api_key(self._judge), self._budget, jitter)
        try:
            asked = iter([question for question in questions if not self._is_known(question)])
            self._num_cached, self._total = len(self.answers), len(questions)
            self._show_progress()
            await asyncio.gather(*(self._work(asked) for _ in range(self._judge.concurrency)))
        finally:
            await self._client.close()

    def values(self) -> dict[str, float]:
        """The cost in requests, tokens and money. It includes cached answers, which were paid for earlier."""
        return {
            "judge/num_requests": self._budget.requests - self._num_cached,
            "judge/num_cached_answers": self._num_cached,
            "judge/num_failed_requests": sum(reason == FAILED for reason in self.reasons.values()),
            "judge/prompt_tokens": sum(answer.prompt_tokens for answer in self.answers.values()),
            "judge/completion_tokens": sum(answer.completion_tokens for answer in self.answers.values()),
            "judge/cost": self._budget.cost,
            "judge/cap_reached": float(CAP in self.reasons.values()),
        }

    def _is_known(self, question: Question) -> bool:
        """Whether it was answered before. Such an answer counts towards the limit, which is for the whole result."""
        answer = self._cache.get(question.key)
        if answer is None:
            return False
        self.answers[question.key] = answer
        self._budget.charge(self._client.cost(answer))
        return True

    async def _work(self, questions: Iterator[Question]) -> None:
        for question in questions:
            try:
                answer = await self._client.ask(question.body)
            except CapReachedError:
                self.reasons[question.key] = CAP
            except FailedRequestError as error:
                self._fail(question, str(error))
            else:
                self._cache.put(question.key, answer)
                self.answers[question.key] = answer
            self._show_progress()

    def _fail(self, question: Question, reason: str) -> None:
        print(f"a request failed: {reason}", flush=True)
        self.reasons[question.key] = FAILED
        failed = sum(reason == FAILED for reason in self.reasons.values())
        if failed > self._judge.max_failed_requests:
            raise InputError(
                f"judge.endpoint: {failed} requests failed (the last: {reason}), and "
                f"max_failed_requests={self._judge.max_failed_requests}. The {len(self.answers)} answers so far are "
                "kept; the same command resumes from them"
            )

    def _show_progress(self) -> None:
        done = len(self.answers) + len(self.reasons)
        self._recorder.progress(f"ask {self._judge.model}", done, self._total, "answers")
        if done == self._total or done % COST_EVERY == 0:
            self._recorder.metrics("artifact", {"judge/cost": self._budget.cost}, Axes())


def _questions(judge: EndpointJudge, pair: Pair) -> list[Question]:
    """The questions for both orders, ours first; none if the responses are equal."""
    if pair.ours == pair.theirs:
        return []
    return [_question(judge, pair.prompt, *both) for both in ((pair.ours, pair.theirs), (pair.theirs, pair.ours))]


def _question(judge: EndpointJudge, prompt: str, first: str, second: str) -> Question:
    body = {
        "model": judge.model,
        "messages": template.messages(judge.criterion, prompt, first, second),
        "temperature": 0,
        "max_tokens": judge.max_tokens,
    }
    return Question(body, cache_key(judge.base_url, body))


def _row(pair: Pair, answers: Sequence[ChatAnswer | None], reasons: Sequence[str]) -> PreferenceRow:
    if not answers:
        return preference_row(pair, 0.5, note=IDENTICAL)
    verdicts = [answer and read_verdict(answer) for answer in answers]
    missing = [
        reason or (_why_missing(answer) if answer else "") for answer, reason in zip(answers, reasons, strict=True)
    ]
    first, second = verdicts
    score = template.pair_score(first, second) if first and second else float("nan")
    note = next((why for why, found in zip(missing, verdicts, strict=True) if why and not found), "")
    return preference_row(pair, score, first or "", second or "", note)


def read_verdict(answer: ChatAnswer) -> template.Verdict | None:
    """The verdict of an answer; None if the answer is cut, a refusal or unreadable."""
    if answer.refusal or answer.finish_reason not in FINISHED:
        return None
    return template.verdict(answer.content)


def _why_missing(answer: ChatAnswer) -> str:
    if answer.refusal or answer.finish_reason == "content_filter":
        return REFUSED
    return CUT if answer.finish_reason == "length" else UNREADABLE


def _order_values(rows: Sequence[PreferenceRow]) -> dict[str, float]:
    """Effect of the order: how often both orders agree, and how often the response shown first is preferred."""
    both = [(row["ours_first"], row["ours_second"]) for row in rows if row["ours_first"] and row["ours_second"]]
    clear = Counter(verdict for pair in both for verdict in pair if verdict != "tie")
    values = {}
    if both:
        agreeing = sum(template.is_consistent(first, second) for first, second in both)  # type: ignore[arg-type]
        values["judge/swap_consistency"] = agreeing / len(both)
    if clear:
        values["judge/first_position_share"] = clear["A"] / sum(clear.values())
    return values
