"""What to do: derived from the gates, the head-to-head and the questions by a table of rules, the first that applies.

The table is printed in the report with the row that applied. If no row does, the recommendation is to run what
would settle it, and the command lines stand there.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Literal

from analysis.answers import Answer, Reply
from analysis.decision.gates import Gate, standing
from analysis.decision.headline import Confidence, Final, confidence_by_seeds
from analysis.questions import readiness, switch_words
from analysis.stability import tolerance
from analysis.statistics.bootstrap import MIN_SEEDS_FOR_METHOD
from analysis.statistics.sample_size import NextRun, free_name, next_seed_count, runner_command, units_needed
from analysis.win_rates import EVEN
from experiments.rules import ConfidenceRules, DecisionRules
from runner.ledger.command import hydra_text

Choice = Literal["PPO", "DPO", "PPO then DPO", "base", "inconclusive"]
Lead = Literal["PPO", "DPO", "not shown"]

QUESTIONS = (
    readiness.QUESTION,
    tolerance.QUESTION.format("PPO"),
    switch_words.QUESTION.format("PPO"),
)
WOULD_CHANGE: dict[Choice, str] = {
    "PPO": "DPO ahead in the head-to-head, or PPO failing a gate, in more seeds or on more prompts.",
    "DPO": "PPO ahead in the head-to-head, or DPO failing a gate, in more seeds or on more prompts.",
    "PPO then DPO": "The staged run itself: PPO to that point, pairs sampled anew from it (not the base's), then DPO, "
    "at the cost of PPO to its end. It has to keep PPO's measure within the noise and be better in risk or cost.",
    "base": "An arm that passes every gate, or other thresholds, which would have to be registered before training.",
    "inconclusive": "These runs, and what stands under each of the three questions below.",
}
STAGED_IS_THERE = (
    "This sweep's own staged arm: its gates, and its win rates against the plain arms, if it loses PPO's measure or is "
    "no better in risk or cost."
)
STAGED_LEADS = "The staged arm failing a gate, or no longer ahead of both, in more seeds or on more prompts."


@dataclass(frozen=True)
class Sweep:
    """What was planned and what finished.

    Attributes:
        name: of the sweep.
        algorithms: finished arm -> one of `analysis.ledger.ALGORITHMS`.
        planned_seeds: of every arm.
        num_seeds: finished ones that the comparison rests on.
        num_prompts: evaluation prompts.
        num_missing: planned runs without a result.
        seed_looks: registered numbers of seeds at which results are looked at.
        arguments: what `python -m runner` was started with; empty if the plan does not say.
        identity: hash of all that the report depends on.
    """

    name: str
    algorithms: Mapping[str, str]
    planned_seeds: Sequence[int]
    num_seeds: int
    num_prompts: int
    num_missing: int
    seed_looks: Sequence[int]
    arguments: tuple[str, ...] = ()
    identity: str = ""


@dataclass(frozen=True)
class Questions:
    """The answers to the three questions, None if one was not assessed; `switch_at` is the point in words."""

    nearly_right: Answer | None
    oscillation: Answer | None = None
    stops_paying: Answer | None = None
    switch_at: str | None = None

    def shown(self) -> tuple[Answer, ...]:
        """All three, in the report's order; one that was not assessed says so."""
        pairs = zip((self.nearly_right, self.oscillation, self.stops_paying), QUESTIONS, strict=True)
        return tuple(answer or _not_assessed(question) for answer, question in pairs)


@dataclass(frozen=True)
class Situation:
    """What the rules look at.

    Attributes:
        ppo, dpo: how the two arms of the head-to-head stand at their gates; None if there is none.
        all_fail: whether every finished arm fails a gate, and both algorithms have one.
        lead: who wins the head-to-head.
        nearly_right: whether the base was; None if that was not assessed.
        stops_paying: whether PPO's marginal gain falls under its risk and cost within the run; the same.
        staged: how the arm of PPO then DPO that leads both of these arms stands; None if none does.
    """

    ppo: Reply | None
    dpo: Reply | None
    all_fail: bool
    lead: Lead
    nearly_right: Reply | None
    stops_paying: Reply | None
    staged: Reply | None = None


@dataclass(frozen=True)
class Rule:
    """One row of the table. Its confidence is the head-to-head's, by the number of seeds, or low for a mere hint."""

    when: str
    then: Choice
    rests_on: Literal["the head-to-head", "the staged arm", "the gates", "a hint", "nothing"]
    applies: Callable[[Situation], bool]


RULES = (
    Rule("Every finished arm fails a gate, PPO's and DPO's alike", "base", "the gates", lambda now: now.all_fail),
    Rule(
        "PPO then DPO clears its gates and leads PPO's arm and DPO's",
        "PPO then DPO",
        "the staged arm",
        lambda now: now.staged == "yes",
    ),
    Rule(
        "PPO clears its gates and leads, but its marginal gain falls under its risk and cost within the run",
        "PPO then DPO",
        "a hint",  # it is PPO's own curve that speaks here, not a staged arm's
        lambda now: now.ppo == "yes" and now.lead == "PPO" and now.stops_paying == "yes",
    ),
    Rule(
        "PPO clears its gates and leads", "PPO", "the head-to-head", lambda now: now.ppo == "yes" and now.lead == "PPO"
    ),
    Rule(
        "DPO clears its gates and leads", "DPO", "the head-to-head", lambda now: now.dpo == "yes" and now.lead == "DPO"
    ),
    Rule(
        "PPO clears its gates and DPO fails one", "PPO", "the gates", lambda now: now.ppo == "yes" and now.dpo == "no"
    ),
    Rule(
        "DPO clears its gates and PPO fails one", "DPO", "the gates", lambda now: now.dpo == "yes" and now.ppo == "no"
    ),
    Rule(
        "Both clear their gates, neither is shown to lead, and the base was nearly right",
        "DPO",
        "a hint",
        lambda now: now.ppo == now.dpo == "yes" and now.nearly_right == "yes",
    ),
    Rule(
        "Both clear their gates, neither is shown to lead, and the base was unruly",
        "PPO",
        "a hint",
        lambda now: now.ppo == now.dpo == "yes" and now.nearly_right == "no",
    ),
    Rule("None of these", "inconclusive", "nothing", lambda _: True),
)


@dataclass(frozen=True)
class Recommendation:
    """The answer to "what should we do?".

    Attributes:
        choice, sentence, confidence: what to do, in words, and how sure that is.
        row: of `RULES`, from 0, that applied.
        because: how the two arms of the head-to-head, and those that clear every gate, stand at their gates.
        would_change: what would overturn or settle it.
        next_runs: what to run next, the most useful first.
    """

    choice: Choice
    sentence: str
    confidence: Confidence
    row: int
    because: tuple[str, ...]
    would_change: str
    next_runs: tuple[NextRun, ...]


def recommend(
    sweep: Sweep,
    final: Final | None,
    head_to_head: Confidence,
    gates: Mapping[str, Sequence[Gate]],
    questions: Questions,
    confidence_rules: ConfidenceRules,
    rules: DecisionRules,
    staged: str | None = None,
) -> Recommendation:
    """Apply the table, and say what it rests on and what would settle the rest.

    Args:
        sweep: what there is.
        final: the head-to-head, with its confidence.
        head_to_head: that confidence.
        gates: of every finished arm.
        questions: the three answers.
        confidence_rules: registered.
        rules: registered.
        staged: the arm of PPO then DPO that leads both arms of the head-to-head, if there is one.
    """
    now = situation(sweep, final, gates, questions, staged)
    row = first_that_applies(now)
    rule = RULES[row]
    sure: dict[str, Confidence] = {
        "the head-to-head": head_to_head,
        "the staged arm": confidence_by_seeds(sweep.num_seeds, confidence_rules),
        "the gates": confidence_by_seeds(sweep.num_seeds, confidence_rules),
        "a hint": "low",
        "nothing": "inconclusive",
    }
    return Recommendation(
        rule.then,
        _sentence(rule.then, final, gates, questions.switch_at, staged),
        sure[rule.rests_on],
        row,
        tuple(f"{arm}: {_stand(gates[arm])}" for arm in _worth_naming(final, gates, staged)),
        STAGED_LEADS if rule.rests_on == "the staged arm" else _would_change(rule.then, sweep),
        tuple(_next_runs(sweep, final, rules, rule.then)),
    )


def situation(
    sweep: Sweep,
    final: Final | None,
    gates: Mapping[str, Sequence[Gate]],
    questions: Questions,
    staged: str | None = None,
) -> Situation:
    """What the rules look at."""
    stands = {arm: standing(items) for arm, items in gates.items()}
    lead: Lead = "not shown"
    asked = _by_label(final)
    if final and asked and final.ahead:
        lead = "PPO" if final.ahead == asked["PPO"] else "DPO"
    return Situation(
        ppo=stands[asked["PPO"]] if asked else None,
        dpo=stands[asked["DPO"]] if asked else None,
        all_fail={"ppo", "dpo"} <= set(sweep.algorithms.values()) and set(stands.values()) == {"no"},
        lead=lead,
        nearly_right=_reply(questions.nearly_right),
        stops_paying=_reply(questions.stops_paying),
        staged=stands[staged] if staged else None,
    )


def _by_label(final: Final | None) -> dict[str, str]:
    """PPO's and DPO's arm in the head-to-head; empty if others meet: the table is about these two."""
    found = {final.arm_label: final.arm, final.opponent_label: final.opponent} if final else {}
    return found if set(found) == {"PPO", "DPO"} else {}


def _reply(answer: Answer | None) -> Reply | None:
    return answer.reply if answer else None


def first_that_applies(now: Situation) -> int:
    """Row of `RULES`."""
    return next(row for row, rule in enumerate(RULES) if rule.applies(now))


# ------------------------------------------------------------------------------------------------------------- in words
def _not_assessed(question: str) -> Answer:
    why = "Not assessable yet: this sweep has no measurement of it."
    return Answer(question, "not assessable", why, (), "A sweep with a finished PPO arm and rules registered for it.")


def _would_change(choice: Choice, sweep: Sweep) -> str:
    staged = choice == "PPO then DPO" and "ppo_then_dpo" in sweep.algorithms.values()
    return STAGED_IS_THERE if staged else WOULD_CHANGE[choice]


def _sentence(
    choice: Choice, final: Final | None, gates: Mapping[str, Sequence[Gate]], switch_at: str | None, staged: str | None
) -> str:
    asked = _by_label(final)
    ppo, dpo = asked.get("PPO", ""), asked.get("DPO", "")
    if choice == "PPO then DPO" and staged:
        return f"Shape with PPO, then set with DPO, as {staged} did."
    return {
        "PPO": f"Shape with PPO now ({ppo}).",
        "DPO": f"Set with DPO now ({dpo}).",
        "PPO then DPO": f"Shape with PPO ({ppo}) up to {switch_at or 'the switch point'}, then set with DPO.",
        "base": "Neither: stay with the base, because every arm fails a gate.",
        "inconclusive": f"Do not choose yet: {_why_not(final, gates, staged)}.",
    }[choice]


def _why_not(final: Final | None, gates: Mapping[str, Sequence[Gate]], staged: str | None) -> str:
    """What keeps the table from choosing."""
    if final is None:
        return "there is no comparison of a PPO arm with a DPO arm"
    if not _by_label(final):
        ahead = f"{final.ahead} leads" if final.ahead else f"neither {final.arm} nor {final.opponent} is shown to lead"
        return f"{ahead}, and the table of rules is about PPO and DPO only"
    if staged:
        return f"{staged} leads PPO's arm and DPO's, but {_stand(gates[staged])}"
    if final.ahead is None:
        return f"neither {final.arm} nor {final.opponent} is shown to lead, and no gate or question settles it"
    return f"{final.ahead} leads, but {_stand(gates[final.ahead])}"


def _worth_naming(final: Final | None, gates: Mapping[str, Sequence[Gate]], staged: str | None) -> list[str]:
    """The arms of the head-to-head, the staged one that leads both, and whichever else clears every gate."""
    if final is None:
        return list(gates)
    compared = (final.arm, final.opponent, staged)
    return [arm for arm in gates if arm in compared or standing(gates[arm]) == "yes"]


def _stand(gates: Sequence[Gate]) -> str:
    """Which gates it fails, which are open."""
    words = {"no": "fails", "inconclusive": "is inconclusive in", "not assessable": "was not assessed for"}
    parts = [
        f"{said} {', '.join(names)}"
        for outcome, said in words.items()
        if (names := [gate.name for gate in gates if gate.reply == outcome])
    ]
    return "; ".join(parts) or "clears every gate"


# ----------------------------------------------------------------------------------------------------- what to run next
def _next_runs(sweep: Sweep, final: Final | None, rules: DecisionRules, choice: Choice) -> Iterator[NextRun]:
    if sweep.num_missing:
        runs = "one planned run is" if sweep.num_missing == 1 else f"{sweep.num_missing} planned runs are"
        yield NextRun(f"{runs} missing; only what is missing is run again", runner_command(sweep.arguments))
    seeds = list(_more_seeds(sweep))
    prompts = [] if choice == "base" else list(_more_prompts(sweep, final, rules))  # who leads matters no more
    few = sweep.num_seeds < MIN_SEEDS_FOR_METHOD
    seeds_first = few or (final is not None and (final.seed_share or 0.0) > 1 / 2)
    yield from [*seeds, *prompts] if seeds_first else [*prompts, *seeds]


def _more_seeds(sweep: Sweep) -> Iterator[NextRun]:
    """The next look of a fixed schedule."""
    wanted = next_seed_count(len(sweep.planned_seeds), sweep.seed_looks)
    if wanted is None:
        return
    unused = (seed for seed in range(wanted) if seed not in sweep.planned_seeds)
    seeds = sorted([*sweep.planned_seeds, *(next(unused) for _ in range(wanted - len(sweep.planned_seeds)))])
    have = "one" if len(sweep.planned_seeds) == 1 else str(len(sweep.planned_seeds))
    speaks = "speaks" if have == "one" else "speak"
    few = f": {have} {speaks} of these checkpoints only" if len(sweep.planned_seeds) < MIN_SEEDS_FOR_METHOD else ""
    why = f"{wanted} seeds in place of {have}{few}; finished seeds are kept"
    yield NextRun(why, runner_command(sweep.arguments, {"seed": ",".join(map(str, seeds))}))


def _more_prompts(sweep: Sweep, final: Final | None, rules: DecisionRules) -> Iterator[NextRun]:
    """As many as would show the lead that was seen, if it is the true one."""
    if final is None or final.ahead:
        return
    needed = units_needed(final.rate, EVEN, final.wider)
    leader = final.arm if final.rate.value > EVEN else final.opponent
    lead = f"the lead seen, {abs(final.rate.value - EVEN):.1f} points for {leader}"
    num_prompts = math.inf if needed is None else math.ceil(needed * sweep.num_prompts / final.rate.n / 10) * 10
    if num_prompts > rules.max_num_evaluation_prompts:
        why = f"{lead}, is too small to be shown with {rules.max_num_evaluation_prompts} evaluation prompts"
        yield NextRun(f"{why}: let gates and cost decide between these two", "")
    else:
        why = f"{num_prompts} evaluation prompts in place of {sweep.num_prompts} would show {lead}; trains anew"
        name = hydra_text(free_name(sweep.name, int(num_prompts), sweep.identity))
        command = runner_command(sweep.arguments, {"name": name, "budget.num_evaluation_prompts": str(num_prompts)})
        yield NextRun(why, command)
