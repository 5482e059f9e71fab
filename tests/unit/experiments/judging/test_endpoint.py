"""The endpoint judge against a real server of the same protocol."""

from __future__ import annotations

import gzip
import json
import math
import os
import signal
import subprocess
import sys
import zlib
from collections import Counter
from collections.abc import Callable
from pathlib import Path
from types import ModuleType
from typing import Any

import pytest
from pydantic import ValidationError

from experiments.errors import InputError
from experiments.evaluation.judging.chat_client import retry_after
from experiments.evaluation.judging.endpoint import CAP, CUT, FAILED, REFUSED, UNREADABLE
from experiments.evaluation.judging.judgement import IDENTICAL, Judgement
from experiments.judge_spec import EndpointJudge

Judged = Callable[..., Judgement]
KEY = "sk-very-secret-0123456789"


def scores(judgement: Judgement) -> list[float]:
    return [row["score"] for row in judgement.rows]


def notes(judgement: Judgement) -> list[str]:
    return [row["note"] for row in judgement.rows]


def in_turn(*replies: Any) -> Callable[[Any], Any]:
    """A judge that gives these replies one after the other, the last one for ever."""
    left = list(replies)
    return lambda asked: left.pop(0) if len(left) > 1 else left[0]


def test_both_orders_are_asked_and_agree(judged: Judged, make_pairs: Any, chat_server: Any) -> None:
    judgement = judged(make_pairs(4))

    assert scores(judgement) == [1.0, 0.0, 1.0, 0.0]
    assert [(row["ours_first"], row["ours_second"]) for row in judgement.rows] == [("A", "B"), ("B", "A")] * 2
    assert len(chat_server.asked) == 8
    first, second = chat_server.asked[0].blocks, chat_server.asked[1].blocks
    assert (first["A"], first["B"]) == (second["B"], second["A"])
    assert first["TEXT"] == "The film 0"
    assert chat_server.asked[0].path == "/v1/chat/completions"
    assert chat_server.asked[0].body["temperature"] == 0
    assert "Authorization" not in chat_server.asked[0].headers
    assert judgement.values["judge/swap_consistency"] == 1.0
    assert judgement.values["judge/first_position_share"] == 0.5
    assert judgement.values["judge/cost"] == pytest.approx(8 * (100 * 1.0 + 1 * 4.0) / 1e6)
    assert judgement.facts["answered_by"] == ["judge-2026-11"]


def test_equal_responses_are_a_tie_that_nobody_is_paid_for(judged: Judged, make_pairs: Any, chat_server: Any) -> None:
    judgement = judged(make_pairs(1, ours="x0 xx"))

    assert (scores(judgement), notes(judgement), chat_server.asked) == ([0.5], [IDENTICAL], [])
    assert "judge/swap_consistency" not in judgement.values  # nothing was asked, so nothing agreed


def test_the_same_question_of_two_seeds_is_asked_once(judged: Judged, make_pairs: Any, chat_server: Any) -> None:
    judgement = judged([*make_pairs(1), *make_pairs(1)])

    assert scores(judgement) == [1.0, 1.0]
    assert len(chat_server.asked) == 2


def test_a_judge_that_goes_by_the_order_is_found_out(
    judged: Judged, make_pairs: Any, chat_server: Any, chat: ModuleType
) -> None:
    chat_server.judge = lambda asked: chat.Reply("A")
    judgement = judged(make_pairs(4))

    assert scores(judgement) == [0.5] * 4
    assert judgement.values["judge/swap_consistency"] == 0.0
    assert judgement.values["judge/first_position_share"] == 1.0


def test_a_tie_in_one_order_is_a_quarter(judged: Judged, make_pairs: Any, chat_server: Any, chat: ModuleType) -> None:
    chat_server.judge = in_turn(chat.Reply("A"), chat.Reply("tie"))

    assert scores(judged(make_pairs(1))) == [0.75]


@pytest.mark.parametrize(
    ("reply", "why"),
    [
        ({"content": None, "refusal": "I cannot compare these."}, REFUSED),
        ({"content": "", "finish_reason": "content_filter"}, REFUSED),
        ({"content": "A", "finish_reason": "length"}, CUT),
        ({"content": "A is better"}, UNREADABLE),
        ({"content": "a"}, UNREADABLE),
        ({"content": "TIE"}, UNREADABLE),
        ({"content": "A B"}, UNREADABLE),
        ({"content": ""}, UNREADABLE),
        ({"content": None}, UNREADABLE),
    ],
)
def test_anything_but_a_verdict_is_missing_and_counted(
    judged: Judged, make_pairs: Any, chat_server: Any, chat: ModuleType, reply: dict[str, Any], why: str
) -> None:
    chat_server.judge = lambda asked: chat.Reply(**reply)
    judgement = judged(make_pairs(2))

    assert all(map(math.isnan, scores(judgement)))
    assert notes(judgement) == [why, why]
    chat_server.asked.clear()
    judged(make_pairs(2))
    assert chat_server.asked == []  # it was paid for, and temperature 0 would say it again


def test_white_space_around_a_verdict_is_none_of_it(
    judged: Judged, make_pairs: Any, chat_server: Any, chat: ModuleType
) -> None:
    chat_server.judge = lambda asked: chat.Reply(" tie\n")

    assert scores(judged(make_pairs(1))) == [0.5]


# ------------------------------------------------------------------------------------------ what goes wrong on the way
def test_retry_after_is_respected(judged: Judged, make_pairs: Any, chat_server: Any, chat: ModuleType) -> None:
    chat_server.judge = in_turn(chat.Reply(status=429, headers={"Retry-After": "1"}), chat.Reply("A"), chat.Reply("B"))
    judgement = judged(make_pairs(1), max_wait_seconds=1.5)

    assert scores(judgement) == [1.0]
    assert chat_server.asked[1].at - chat_server.asked[0].at >= 1.0
    assert judgement.values["judge/num_requests"] == 3


def test_a_pause_longer_than_one_wants_to_wait_fails_the_request(
    judged: Judged, make_pairs: Any, chat_server: Any, chat: ModuleType
) -> None:
    chat_server.judge = lambda asked: chat.Reply(status=429, headers={"Retry-After": "3600"})

    with pytest.raises(InputError, match="HTTP 429, attempt 1"):
        judged(make_pairs(1))


@pytest.mark.parametrize(
    ("header", "seconds"),
    [
        (None, None),
        ("7", 7.0),
        ("0.5", 0.5),
        ("-3", 0.0),
        ("Wed, 25 Nov 2026 03:00:10 GMT", 10.0),
        ("Wed, 25 Nov 2026 02:00:00 GMT", 0.0),
        ("soon", None),
        ("nan", None),
        ("1e999", None),
    ],
)
def test_retry_after_as_number_and_as_date(header: str | None, seconds: float | None) -> None:
    assert retry_after(header, 1795575600.0) == seconds  # 2026-11-25 03:00:00 UTC


@pytest.mark.parametrize("status", [408, 429, 500, 502, 503, 504])
def test_a_passing_error_is_tried_again(
    judged: Judged, make_pairs: Any, chat_server: Any, chat: ModuleType, status: int
) -> None:
    wrong = chat.Reply(status=status, raw="try later")
    chat_server.judge = in_turn(wrong, wrong, chat.Reply("A"), chat.Reply("B"))

    assert scores(judged(make_pairs(1))) == [1.0]
    assert len(chat_server.asked) == 4


def test_what_fails_for_good_is_missing_and_asked_again_next_time(
    judged: Judged, make_pairs: Any, chat_server: Any, chat: ModuleType
) -> None:
    chat_server.judge = in_turn(*[chat.Reply(status=500)] * 3, chat.Reply("tie"))
    judgement = judged(make_pairs(2), max_failed_requests=1)

    assert notes(judgement) == [FAILED, ""]
    assert judgement.values["judge/num_failed_requests"] == 1
    assert scores(judged(make_pairs(2))) == [0.5, 0.5]
    assert len(chat_server.asked) == 3 + 3 + 1


def test_too_many_failures_end_the_job_and_keep_the_answers(
    judged: Judged, make_pairs: Any, chat_server: Any, chat: ModuleType
) -> None:
    chat_server.judge = in_turn(chat.Reply("A"), chat.Reply("B"), chat.Reply(status=503))
    with pytest.raises(InputError, match=r"1 requests failed.*HTTP 503, attempt 3.*The 2 answers so far are kept"):
        judged(make_pairs(2))

    chat_server.judge, before = chat.longer, len(chat_server.asked)
    assert scores(judged(make_pairs(2))) == [1.0, 0.0]
    assert len(chat_server.asked) == before + 2


def test_a_slow_answer_is_given_up_and_counted_as_paid(
    judged: Judged, make_pairs: Any, chat_server: Any, chat: ModuleType
) -> None:
    chat_server.judge = in_turn(chat.Reply(delay=3.0), chat.Reply("A"), chat.Reply("B"))
    judgement = judged(make_pairs(1), timeout_seconds=1.0)

    assert scores(judgement) == [1.0]
    two_answers = 2 * 104 / 1e6
    assert judgement.values["judge/cost"] > two_answers
    assert judgement.values["judge/num_requests"] == 3


def test_nobody_there(judged: Judged, make_pairs: Any) -> None:
    with pytest.raises(InputError, match="connection failed"):
        judged(make_pairs(1), base_url="http://127.0.0.1:1/v1")


@pytest.mark.parametrize(
    "raw",
    [
        "<html>busy</html>",
        "{",
        "[]",
        "null",
        '{"error": {"message": "overloaded"}}',
        '{"choices": []}',
        '{"choices": [{"message": {"content": ["A"]}}]}',
        '{"choices": [{"message": {"content": "A"}, "finish_reason": "stop"}], "usage": {"prompt_tokens": "many"}}',
    ],
)
def test_an_answer_of_another_shape_is_tried_again(
    judged: Judged, make_pairs: Any, chat_server: Any, chat: ModuleType, raw: str
) -> None:
    chat_server.judge = in_turn(chat.Reply(raw=raw), chat.Reply("A"), chat.Reply("B"))
    assert scores(judged(make_pairs(1))) == [1.0]

    chat_server.judge = lambda asked: chat.Reply(raw=raw)
    with pytest.raises(InputError, match="an answer that is no chat completion"):
        judged(make_pairs(3))


VERDICT = json.dumps({"choices": [{"message": {"content": "A"}, "finish_reason": "stop"}]})
USAGE = '{"choices": [{"message": {"content": "A"}, "finish_reason": "stop"}], "usage": {"prompt_tokens": %s}}'
BOMB = gzip.compress(b" " * 2**26 + VERDICT.encode())  # 64 kB that unpack to 64 MiB
MALFORMED = {
    "torn gzip": {"raw": gzip.compress(VERDICT.encode())[:-9], "headers": {"Content-Encoding": "gzip"}},
    "no gzip": {"raw": VERDICT, "headers": {"Content-Encoding": "gzip"}},
    "a gzip bomb": {"raw": BOMB, "headers": {"Content-Encoding": "gzip"}},
    "twice a bomb": {"raw": gzip.compress(BOMB), "headers": {"Content-Encoding": "gzip, gzip"}},
    "an encoding nobody asked for": {"raw": VERDICT, "headers": {"Content-Encoding": "br"}},
    "too long": {"raw": VERDICT + " " * 2**20},
    "deep": {"raw": "[" * 100_000 + "]" * 100_000},
    "deep object": {"raw": '{"choices":' * 50_000},
    "1e400 tokens": {"raw": USAGE % "1e400"},
    "NaN tokens": {"raw": USAGE % "NaN"},
    "true tokens": {"raw": USAGE % "true"},
    "a list of tokens": {"raw": USAGE % "[7]"},
    "6,000 digits": {"raw": USAGE % ("9" * 6000)},
    "usage is a list": {"raw": VERDICT[:-1] + ', "usage": [1]}'},
    "choices is an object": {"raw": '{"choices": {"0": 1}}'},
    "content is a list": {"content": [{"type": "text", "text": "A"}]},
    "no UTF-8": {"raw": b'{"choices": "\xff"}'},
    "huge headers": {"content": "A", "headers": {"X-Long": "x" * 200_000}},
    "an absurd pause": {"status": 429, "headers": {"Retry-After": "1000000000"}},
    "a pause until an absurd year": {"status": 429, "headers": {"Retry-After": "Wed, 25 Nov 9999 03:00:10 GMT"}},
    "a pause of no zone": {"status": 503, "headers": {"Retry-After": "Wed, 25 Nov 2026 03:00:10 +9999999999999999"}},
    "an error in an unknown charset": {
        "status": 400,
        "raw": "x",
        "headers": {"Content-Type": "text/plain; charset=rot13"},
    },
}


@pytest.mark.parametrize("reply", MALFORMED.values(), ids=MALFORMED)
def test_a_malformed_answer_fails_one_request_and_not_the_judge(
    judged: Judged, make_pairs: Any, chat_server: Any, chat: ModuleType, reply: dict[str, Any]
) -> None:
    """Whatever one answer is, the others count, and what may have been billed is counted at its dearest."""

    def judge(asked: Any) -> Any:
        return chat.Reply(**reply) if asked.blocks["TEXT"] == "The film 1" else chat.longer(asked)

    chat_server.judge = judge
    judgement = judged(make_pairs(3), max_failed_requests=2, max_attempts=2)

    assert notes(judgement) == ["", FAILED, ""]
    assert [scores(judgement)[0], scores(judgement)[2]] == [1.0, 1.0]
    assert judgement.values["judge/num_failed_requests"] == 2
    assert 4 * 104 / 1e6 <= judgement.values["judge/cost"] < 0.01


@pytest.mark.parametrize(
    "reply",
    [
        {"raw": gzip.compress(VERDICT.encode()), "headers": {"Content-Encoding": "gzip"}},
        {"raw": zlib.compress(VERDICT.encode()), "headers": {"Content-Encoding": "Deflate"}},
        {"raw": VERDICT, "headers": {"Content-Encoding": "identity", "Content-Type": "text/x; charset=no-such"}},
        {"raw": "\ufeff".encode() + VERDICT.encode()},
        {"raw": VERDICT + " " * (2**20 - len(VERDICT))},
    ],
    ids=["gzip", "deflate", "charset", "BOM", "just short enough"],
)
def test_an_odd_but_sound_answer_counts(
    judged: Judged, make_pairs: Any, chat_server: Any, chat: ModuleType, reply: dict[str, Any]
) -> None:
    chat_server.judge = lambda asked: chat.Reply(**reply)

    assert scores(judged(make_pairs(1))) == [0.5]  # A in both orders
    assert chat_server.asked[0].headers["Accept-Encoding"] == "identity"


@pytest.mark.parametrize("count", [-1, 10**12, None])
def test_a_count_of_tokens_that_cannot_be_is_taken_at_the_dearest(
    judged: Judged, make_pairs: Any, chat_server: Any, chat: ModuleType, count: int | None
) -> None:
    chat_server.judge = lambda asked: chat.Reply("tie", usage={"prompt_tokens": count, "completion_tokens": count})
    judgement = judged(make_pairs(1))
    num_bytes = sum(len(m["content"]) + 32 for m in chat_server.asked[0].body["messages"])

    assert judgement.values["judge/cost"] == pytest.approx(2 * (num_bytes + 4 * 4.0) / 1e6)
    assert judgement.values["judge/completion_tokens"] == 2 * 4


def test_an_answer_that_drips_for_ever_is_given_up(
    judged: Judged, make_pairs: Any, chat_server: Any, chat: ModuleType
) -> None:
    chat_server.judge = in_turn(chat.Reply(drips=True), chat.Reply("A"), chat.Reply("B"))
    judgement = judged(make_pairs(1), timeout_seconds=0.5)

    assert scores(judgement) == [1.0]


def test_what_a_server_says_can_be_written_and_moves_no_cursor(
    judged: Judged, make_pairs: Any, chat_server: Any, chat: ModuleType, capfd: pytest.CaptureFixture[str]
) -> None:
    hostile = r'{"model": "m\ud800\u001b[2J", "choices": [{"message": {"content": "A\udc00", "refusal": null}}]}'
    chat_server.judge = in_turn(chat.Reply(status=400, raw="\x1b[2J\rall is well"), chat.Reply(raw=hostile))
    judgement = judged(make_pairs(1), max_failed_requests=1)

    assert judgement.facts["answered_by"] == ["m? [2J"]
    assert "\x1b" not in capfd.readouterr().out


@pytest.mark.parametrize("status", [401, 402, 403, 404])
def test_what_no_request_can_mend_ends_the_job_at_once(
    judged: Judged, make_pairs: Any, chat_server: Any, chat: ModuleType, status: int
) -> None:
    chat_server.judge = lambda asked: chat.Reply(status=status, raw="no such model")
    with pytest.raises(InputError, match=f"answers HTTP {status}: no such model"):
        judged(make_pairs(3), max_failed_requests=99)

    assert len(chat_server.asked) == 1


def test_a_request_that_is_refused_is_missing_and_not_repeated(
    judged: Judged, make_pairs: Any, chat_server: Any, chat: ModuleType
) -> None:
    chat_server.judge = in_turn(chat.Reply(status=400, raw="content policy"), chat.Reply("tie"))

    assert notes(judged(make_pairs(2), max_failed_requests=1)) == [FAILED, ""]
    assert len(chat_server.asked) == 4


def test_requests_under_way_are_bounded(judged: Judged, make_pairs: Any, chat_server: Any, chat: ModuleType) -> None:
    chat_server.judge = lambda asked: chat.Reply("tie", delay=0.2)
    judged(make_pairs(6), concurrency=3)

    assert chat_server.most_at_once == 3
    assert len(chat_server.asked) == 12


def test_progress_is_told(judged: Judged, make_pairs: Any, recorder: Any) -> None:
    judged(make_pairs(2))

    assert [(done, total, unit) for _, done, total, unit in recorder.steps] == [(i, 4, "answers") for i in range(5)]
    assert recorder.values("judge/cost")[-1] == pytest.approx(4 * 104 / 1e6)


# ------------------------------------------------------------------------------------------ the cost cap
def test_the_cap_on_requests_keeps_everything_and_a_higher_one_goes_on(
    judged: Judged, make_pairs: Any, chat_server: Any
) -> None:
    judgement = judged(make_pairs(4), max_requests=5)

    assert len(chat_server.asked) == 5
    assert scores(judgement)[:2] == [1.0, 0.0]
    assert notes(judgement)[2:] == [CAP, CAP]
    assert judgement.values["judge/cap_reached"] == 1.0
    again = judged(make_pairs(4), max_requests=5)  # the cap is on the whole result, so nothing more is asked
    assert (len(chat_server.asked), notes(again)) == (5, notes(judgement))
    more = judged(make_pairs(4), max_requests=8)
    assert (len(chat_server.asked), scores(more)) == (8, [1.0, 0.0, 1.0, 0.0])
    assert (more.values["judge/num_requests"], more.values["judge/num_cached_answers"]) == (3, 5)
    assert more.values["judge/cap_reached"] == 0.0


@pytest.mark.parametrize("concurrency", [1, 4])
def test_the_cap_on_cost_is_never_exceeded(judged: Judged, make_pairs: Any, chat_server: Any, concurrency: int) -> None:
    one = 104 / 1e6
    judgement = judged(make_pairs(40), max_cost=0.0035, concurrency=concurrency)
    cost = judgement.values["judge/cost"]

    assert 0 < len(chat_server.asked) < 80
    assert cost == pytest.approx(len(chat_server.asked) * one)
    assert 0.0035 - 0.0015 < cost <= 0.0035  # what is left would not pay for the dearest possible answer
    assert CAP in notes(judgement)


def test_a_server_that_tells_no_usage_is_taken_at_the_dearest(
    judged: Judged, make_pairs: Any, chat_server: Any, chat: ModuleType
) -> None:
    chat_server.judge = lambda asked: chat.Reply("tie", usage=None)
    judgement = judged(make_pairs(1))
    num_bytes = sum(len(m["content"]) + 32 for m in chat_server.asked[0].body["messages"])

    assert judgement.values["judge/cost"] == pytest.approx(2 * (num_bytes + 4 * 4.0) / 1e6)


# ------------------------------------------------------------------------------------------ killed half way
JUDGE_IN_A_PROCESS = """
import sys, json
from pathlib import Path
from experiments.evaluation.judging.endpoint import judge_pairs
from experiments.evaluation.judging.pairs import Pair
from experiments.judge_spec import EndpointJudge
class Silent:
    def progress(self, *a): pass
    def metrics(self, *a): pass
judge, pairs, cache = json.loads(sys.argv[1]), json.loads(sys.argv[2]), Path(sys.argv[3])
judge_pairs(EndpointJudge.model_validate(judge), [Pair(*pair) for pair in pairs], cache, Silent())
"""


def test_killed_half_way_no_answer_is_paid_for_twice(
    endpoint_judge: Callable[..., EndpointJudge],
    make_pairs: Any,
    chat_server: Any,
    chat: ModuleType,
    tmp_path: Path,
    judged: Judged,
) -> None:
    pairs = make_pairs(6)
    plain = [list(vars(pair).values()) for pair in pairs]
    arguments = [json.dumps(endpoint_judge().model_dump()), json.dumps(plain), str(tmp_path / "cache")]
    process: list[subprocess.Popen[bytes]] = []

    def kill_at_the_seventh(asked: Any) -> Any:
        if len(chat_server.asked) == 7:
            os.kill(process[0].pid, signal.SIGKILL)
            process[0].wait()
        return chat.longer(asked)

    chat_server.judge = kill_at_the_seventh
    command = [sys.executable, "-c", JUDGE_IN_A_PROCESS, *arguments]
    with subprocess.Popen(command, cwd=Path(__file__).parents[4], stdout=subprocess.DEVNULL) as child:
        process.append(child)
    assert child.returncode == -signal.SIGKILL
    assert len(chat_server.asked) == 7

    judgement = judged(pairs)
    times_asked = Counter(json.dumps(asked.body) for asked in chat_server.asked)
    assert sorted(times_asked.values()) == [1] * 11 + [2]  # only what was never answered
    assert times_asked[json.dumps(chat_server.asked[6].body)] == 2
    assert scores(judgement) == [1.0, 0.0] * 3
    assert judgement.values["judge/num_cached_answers"] == 6


def test_half_an_answer_on_disk_is_asked_again(
    judged: Judged, make_pairs: Any, chat_server: Any, tmp_path: Path
) -> None:
    judged(make_pairs(1))
    torn = next((tmp_path / "cache").rglob("*.json"))
    torn.write_text(torn.read_text()[:10])

    assert scores(judged(make_pairs(1))) == [1.0]
    assert len(chat_server.asked) == 3


@pytest.mark.parametrize(
    "changes",
    [
        {"content": ["A"]},
        {"prompt_tokens": "7"},
        {"completion_tokens": -1},
        {"prompt_tokens": True},
        {"unknown": 1},
        {"content": [[[]]]},
    ],
    ids=str,
)
def test_a_kept_answer_of_another_shape_is_asked_again(
    judged: Judged, make_pairs: Any, chat_server: Any, tmp_path: Path, changes: dict[str, Any]
) -> None:
    judged(make_pairs(1))
    kept = next((tmp_path / "cache").rglob("*.json"))
    kept.write_text(json.dumps(json.loads(kept.read_text()) | changes))

    assert scores(judged(make_pairs(1))) == [1.0]
    assert len(chat_server.asked) == 3


def test_a_pipe_or_a_nest_in_place_of_a_kept_answer_is_no_answer(
    judged: Judged, make_pairs: Any, chat_server: Any, tmp_path: Path
) -> None:
    judged(make_pairs(1))
    first, second = sorted((tmp_path / "cache").rglob("*.json"))
    first.unlink()
    os.mkfifo(first)
    second.write_text('{"content":' * 50_000)

    assert scores(judged(make_pairs(1))) == [1.0]
    assert len(chat_server.asked) == 4
    assert first.is_file()


@pytest.mark.parametrize(
    "changes", [{"model": "other"}, {"criterion": "shorter"}, {"max_tokens": 5}, {"base_url": "localhost"}], ids=str
)
def test_another_question_is_asked_anew(
    judged: Judged, make_pairs: Any, chat_server: Any, changes: dict[str, Any]
) -> None:
    if "base_url" in changes:
        changes = {"base_url": chat_server.url.replace("127.0.0.1", "localhost")}
    judged(make_pairs(1))
    judged(make_pairs(1), **changes)

    assert len(chat_server.asked) == 4


# ------------------------------------------------------------------------------------------ the key
def test_the_key_is_sent_and_never_written(
    judged: Judged,
    make_pairs: Any,
    chat_server: Any,
    chat: ModuleType,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    capfd: pytest.CaptureFixture[str],
    recorder: Any,
) -> None:
    """The server repeats the key wherever it can: in errors, in verdicts, in its own name."""
    monkeypatch.setenv("JUDGE_KEY", KEY)
    replies = [
        chat.Reply(status=400, raw=f"Incorrect API key provided: {KEY}"),
        chat.Reply(content=f"your key is {KEY}"),
        chat.Reply(content=None, refusal=KEY),
        chat.Reply("A", finish_reason=KEY),
    ]
    chat_server.judge = in_turn(*replies)
    judgement = judged(make_pairs(2), api_key_variable="JUDGE_KEY", max_failed_requests=1)
    chat_server.judge = lambda asked: chat.Reply(status=401, raw=f"bad key {KEY}")
    with pytest.raises(InputError) as caught:
        judged(make_pairs(3), api_key_variable="JUDGE_KEY")

    assert {asked.headers["Authorization"] for asked in chat_server.asked} == {f"Bearer {KEY}"}
    files = [path for path in tmp_path.rglob("*") if path.is_file()]
    assert len(files) == 3
    assert [path for path in files if KEY.encode() in path.read_bytes()] == []
    said = "".join([*capfd.readouterr(), str(caught.value), str(vars(recorder)), str(judgement)])
    assert KEY not in said
    assert "bad key [key]" in said


def test_a_key_that_is_not_there_is_missed_before_anything_is_sent(
    judged: Judged, make_pairs: Any, chat_server: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.delenv("JUDGE_KEY", raising=False)
    with pytest.raises(InputError, match="there is no such environment variable"):
        judged(make_pairs(1), api_key_variable="JUDGE_KEY")

    assert chat_server.asked == []


def test_the_key_follows_no_redirect(
    judged: Judged, make_pairs: Any, chat_server: Any, chat: ModuleType, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("JUDGE_KEY", KEY)
    with chat.ChatServer().running() as other:
        moved = {"Location": f"{other.url}/chat/completions"}
        chat_server.judge = lambda asked: chat.Reply(status=307, headers=moved, raw="")
        with pytest.raises(InputError, match="HTTP 307"):
            judged(make_pairs(1), api_key_variable="JUDGE_KEY")

        assert other.asked == []


@pytest.mark.parametrize("key", ["sk-é", "sk\nX-Other: 1", "sk\x00"])
def test_a_key_that_no_header_can_hold_is_refused_without_it(
    judged: Judged, make_pairs: Any, monkeypatch: pytest.MonkeyPatch, key: str
) -> None:
    monkeypatch.setattr(os, "environ", os.environ | {"JUDGE_KEY": key})
    with pytest.raises(InputError, match="printable ASCII") as caught:
        judged(make_pairs(1), api_key_variable="JUDGE_KEY")

    assert "sk" not in str(caught.value)


@pytest.mark.parametrize(
    "base_url",
    [
        "ftp://host/v1",
        "host/v1",
        "http://user:secret@host/v1",
        "https://host/v1?key=secret",
        "http://",
        "http://secret@/v1",
        "https://host/v1#secret",
        "http://host:secret/v1",
        "http://host:99999/v1",
        "http://[secret/v1",
        "http://ho st/v1",
        "http://ho\u2100st/v1",
        "http://a..b/v1",
        "http://host/v1\n",
    ],
)
def test_an_address_that_holds_more_than_an_address_is_refused(
    endpoint_judge: Callable[..., EndpointJudge], base_url: str
) -> None:
    with pytest.raises(ValidationError, match="base_url") as caught:
        endpoint_judge(base_url=base_url)

    assert "secret" not in "".join(detail["msg"] for detail in caught.value.errors())


@pytest.mark.parametrize("base_url", ["http://[::1]:8000/v1", "https://my_host.example.org./a/b~c/v1/", "http://h"])
def test_an_address_that_is_one_is_taken(endpoint_judge: Callable[..., EndpointJudge], base_url: str) -> None:
    assert endpoint_judge(base_url=base_url).base_url == base_url.rstrip("/")
