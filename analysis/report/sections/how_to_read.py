"""How the numbers are made, for whoever asks."""

from __future__ import annotations

from analysis.report.section import Section

HOW_TO_READ = (
    (
        "Interval",
        "The range in brackets or small print is a 95 % interval from a bootstrap over prompts: draw the evaluation "
        "prompts again with replacement, at least 2,000 times, and see where the number falls. From three seeds on it "
        "also carries what other seeds would have given: if seeds differ much, it is Student's t over the seeds.",
    ),
    (
        "Win rate",
        "Both models continue the same prompts with the same random numbers; the judge says whose response scores "
        "higher, a tie counts half. The sign test is its exact companion: the chance of so lopsided a count of "
        "prompts if there were no difference.",
    ),
    (
        "Primary and descriptive",
        "Which comparisons are primary was registered before training. Their p-values are corrected together by "
        "Holm's method, so that the chance of claiming any difference among them when there is none is at most "
        "rules.win_rate.significance_level. Words that say who is ahead rest on these alone; everything else is "
        "descriptive. The smallest p that resamples can show is 2 / (their number + 1).",
    ),
    (
        "At equal style",
        "The share of pairs that would be won if both wrote equally long, with equally many headers, lists and bold "
        "passages: a logistic regression on the differences, refitted in 400 of the resamples. The style premium is "
        "what the plain share has beyond it. “Not identified” means that the two hardly ever write alike.",
    ),
    (
        "Strength",
        "One number for each arm that explains all comparisons together (Bradley and Terry): the difference of two "
        "strengths is the log-odds that one is preferred to the other. A judge that prefers in circles has no such "
        "scale, which the check against the direct results shows.",
    ),
    (
        "Independence of a judge",
        "INDEPENDENT of the reward that PPO trains on, of the SAME FAMILY, or it IS THE TRAINING REWARD, which never "
        "decides anything.",
    ),
    (
        "Measure, training reward, secondary score",
        "The measure is what the task itself asks for. The training reward is what PPO maximises; a win by it is what "
        "training asked for and proves nothing. A secondary score is one that no training saw.",
    ),
    (
        "Smallest difference found",
        "With this many prompts a true difference of that size would be shown in four of five repetitions. “No "
        "difference” means no more than: none that large.",
    ),
    (
        "Base SD",
        "Standard deviation over prompts of the base's own mean score per prompt. It makes drops and gains comparable "
        "across scores.",
    ),
    (
        "Drops, distances",
        "They are never negative, so noise alone makes them larger than zero; their intervals are moved to the "
        "observed value, because drawing prompts twice inflates them further.",
    ),
    (
        "Noise floor",
        "The base is sampled twice with different random numbers. The floor is what it shows against itself in 95 % "
        "of random swaps of the two; a change below it means nothing. Style “drifted” if a change is over the "
        "floor, significant after Holm's correction for the number of measures (random swaps of arm and base, prompt "
        "by prompt), and as large as the rules ask; anything less is “within the floor”.",
    ),
    (
        "KL",
        "Mean of log π − log π_base over the arm's own samples (k1 estimator), in nats. Comparable along one arm, not "
        "across algorithms.",
    ),
)

SECTION = Section("How to read this", "Methods and limits", 10, lambda report, signed: {"how_to_read": HOW_TO_READ})
