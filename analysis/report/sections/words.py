"""The words that a first reader needs for the first page."""

from __future__ import annotations

from analysis.report.cells import Report, deciding_judge, score_names
from analysis.report.section import ASIDE, Section


def words(report: Report) -> tuple[tuple[str, str], ...]:
    """What a first reader needs for the first page."""
    decides, (measure, *_) = deciding_judge(report), report["scores"]
    role = "It decides here." if decides == measure["name"] else "It does not decide here."
    unseen = " PPO does not see it: it maximises the training reward." if score_names(report, "training_reward") else ""
    return (
        (
            "PPO, DPO",
            "two ways to train on people's preferences: by trial against a reward model, or from ranked pairs.",
        ),
        ("Arm", "one trained variant of either; its name is a column head."),
        ("Base", "the model that every arm starts from."),
        ("Seed", "one repetition of a training with other random numbers."),
        ("Measure", f"{measure['name']}: {measure['meaning'].rstrip('.')}. {role}{unseen}"),
        (
            "Win rate",
            f"share of prompts on which {decides} prefers the first model's response; at 50 % neither is ahead.",
        ),
        ("Gate", "a threshold that an arm must pass: ✓ passes, ✗ fails, ● too uncertain to tell, ○ not assessable."),
        ("Interval", "the “81 to 93” under a number, at 95 %: no value inside it is ruled out."),
        ("SD", "how much prompts differ under the base (standard deviation): the unit of gains and drops."),
        ("AUC", "how well a classifier tells an arm's texts from the base's: 0.5 not at all, 1 always."),
    )


SECTION = Section("Words used here", ASIDE, 20, lambda report, signed: {"words": words(report)})
