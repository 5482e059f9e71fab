"""The standing text of a report: how to read it and what it does not prove."""


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


HOW_TO_READ = (
    (
        "Interval",
        "The range in brackets or small print is a 95 % interval from a bootstrap over prompts: draw the evaluation "
        "prompts again with replacement, at least 2,000 times, and see where the number falls. From three seeds on it "
        "also carries what other seeds would have given: where seeds differ much, it is Student's t over the seeds.",
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
        "Holm's method, so that the chance of claiming any difference among them where there is none is at most "
        "rules.win_rate.significance_level. Words that say who is ahead rest on these alone; everything else is "
        "descriptive. The smallest p that resamples can show is 2 / (their number + 1).",
    ),
    (
        "At equal style",
        "The share of pairs that would be won if both wrote equally long, with equally many headers, lists and bold "
        "passages: a logistic regression on the differences, refitted in 400 of the resamples. The style premium is "
        "what the plain share has beyond it. “Not identified” where the two hardly ever write alike.",
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
        "Gold, proxy, VADER",
        "Gold is the task's own measure. The proxy is the reward model that PPO trains on; a win by the proxy is what "
        "training asked for and proves nothing. VADER is a lexicon that no training saw.",
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
        "of random swaps of the two; a change below it means nothing. Style “drifted” where a change is over the "
        "floor, significant after Holm's correction for the number of measures (random swaps of arm and base, prompt "
        "by prompt), and as large as the rules ask; anything less is “within the floor”.",
    ),
    (
        "KL",
        "Mean of log π − log π_base over the arm's own samples (k1 estimator), in nats. Comparable along one arm, not "
        "across algorithms.",
    ),
)

LIMITS = (
    "One base model, one data set, one length of response: another task may order the methods the other way.",
    "Few seeds speak of these checkpoints. A method's own spread shows from about five seeds on.",
    "Settings were not tuned to each method's best; the arms had equal prompt presentations, not equal cost.",
    "Gold is a classifier, not a reader: what it rewards is what it was fitted on, and its own accuracy is printed "
    "above.",
    "Words that say who is ahead are corrected for the number of primary comparisons. Other intervals are not: read a "
    "lone narrow win among many with care.",
    "The report does not test safety, abilities outside the task, or texts longer than the limit.",
)
