"""The words that a first reader needs for the first page."""

from __future__ import annotations

from analysis.report.cells import deciding_judge
from analysis.report.section import ASIDE, Section


def words(decides: str) -> tuple[tuple[str, str], ...]:
    """What a first reader needs for the first page, where this judge decides."""
    role = "the scorer that decides here" if decides == "gold" else "the task's own scorer"
    return (
        (
            "PPO, DPO",
            "two ways to train on people's preferences: by trial against a reward model, or from ranked pairs.",
        ),
        ("Arm", "one trained variant of either; its name is a column head."),
        ("Base", "the model that every arm starts from."),
        ("Seed", "one repetition of a training with other random numbers."),
        ("Gold", f"{role}. PPO does not see it: it maximises the proxy, a reward model."),
        (
            "Win rate",
            f"share of prompts on which {decides} prefers the first model's response; at 50 % neither is ahead.",
        ),
        ("Gate", "a threshold that an arm must pass: ✓ passes, ✗ fails, ● too uncertain to tell, ○ not assessable."),
        ("Interval", "the “81 to 93” under a number, at 95 %: no value inside it is ruled out."),
        ("SD", "how much prompts differ under the base (standard deviation): the unit of gains and drops."),
        ("AUC", "how well a classifier tells an arm's texts from the base's: 0.5 not at all, 1 always."),
    )


SECTION = Section("Words used here", ASIDE, 20, lambda report, signed: {"words": words(deciding_judge(report))})
