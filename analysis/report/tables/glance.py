"""The table that a decision is read from."""

from __future__ import annotations

from collections.abc import Callable

from analysis.report.cells import Cell, Report, Row, Table, cell, deciding_judge, heads

BLANK = Cell("")
MARKS = {"beats the base": "▲", "is worse than the base": "▼", "is not shown to differ from the base": "●"}
MARK_TONES = {"▲": "good", "▼": "bad", "●": "even"}


def summary(report: Report) -> Table:
    """The table that a decision is read from: arms as columns."""
    reference, still = Cell("reference"), cell({"exact": 0.0, "unit": "nats"})
    row = _row_maker(report)
    rows = (
        row(
            f"Verdict by {deciding_judge(report)}", "after correction for all primary comparisons", reference, _verdict
        ),
        row(
            "Win rate against the base",
            "pairs that gold prefers, ties half; 50 % is no difference",
            BLANK,
            _rate("gold"),
        ),
        row("Gold gain", "arm minus base on the same prompts and random numbers", BLANK, _gain),
        row("Worst drop from the peak", "along training, in SD of the base over prompts; 0 is best", BLANK, _drawdown),
        row("KL to the base", "how far the model moved, per response", still, _kl),
        row("Style drift", "measures that clearly exceed what the base shows against itself", BLANK, _drift_count),
        row("Training time", "wall clock of one run, loading included", BLANK, _cost("wall_seconds")),
    )
    return Table("Final models, with 95 % intervals", "", ("base", *heads(report)), rows)


def scores_and_costs(report: Report) -> Table:
    """What else was measured of the final models."""
    row = _row_maker(report)
    rows = (
        row("Gold score", "mean probability of a positive text, × 100", cell(report["base"]["gold"]), _gold),
        row("Win rate by the second judge", "VADER, a sentiment lexicon", BLANK, _rate("vader")),
        row(
            "Win rate by the training reward",
            "what PPO trains on: shown, never drives a verdict",
            BLANK,
            _rate("proxy"),
        ),
        row("Response length", "mean tokens of a response", cell(_length(report["arms"][0])["base"]), _mean_length),
        *(row(label, meaning, BLANK, _cost(name)) for name, label, meaning in COST_ROWS),
    )
    return Table("Further scores and costs, with 95 % intervals", "", ("base", *heads(report)), rows)


def _row_maker(report: Report) -> Callable[[str, str, Cell, Callable[[Report], Cell]], Row]:
    return lambda label, meaning, base, make: Row(label, meaning, (base, *(make(arm) for arm in report["arms"])))


COST_ROWS = (
    ("device_seconds", "Device time", "seconds × devices (threads on a CPU)"),
    ("tokens_generated", "Tokens generated", "sampled in training"),
    ("tokens_trained", "Tokens trained", "through a backward pass"),
    ("peak_memory_bytes", "Peak memory", "of the process or the GPU"),
)


def _verdict(arm: Report) -> Cell:
    mark = MARKS[arm["verdict"]]
    return Cell(f"{mark} {arm['verdict']}", tone=MARK_TONES[mark])


def _rate(judge: str) -> Callable[[Report], Cell]:
    def make(arm: Report) -> Cell:
        rate = arm["win_rate"][judge]
        if rate is None:
            return cell(None, remark="no scores")
        blocked = rate["blocked"] or ""
        return cell(None, remark=blocked, tone="even") if blocked.startswith("not assessable") else cell(rate)

    return make


def _gold(arm: Report) -> Cell:
    return cell(arm["gold"])


def _drawdown(arm: Report) -> Cell:
    return cell(arm["stability"]["drawdown"])


def _kl(arm: Report) -> Cell:
    return cell(arm["kl"]["per_response"])


def _gain(arm: Report) -> Cell:
    gain = arm["gold_difference"]
    unseen = gain["low"] <= 0 <= gain["high"]
    return cell(
        gain,
        signed=True,
        remark=f"a gain under {gain['minimum_detectable_effect']:.1f} would often go unseen" if unseen else "",
    )


def _drift_count(arm: Report) -> Cell:
    tested = [item for item in arm["style_drift"] if item["reading"] in {"drifted", "within the floor"}]
    if not tested:
        return Cell("–", remark="not assessable", tone="even")
    return Cell(f"{sum(item['reading'] == 'drifted' for item in tested)} of {len(tested)}")


def _length(arm: Report) -> Report:
    found: Report = next(item for item in arm["style_drift"] if item["measure"] == "length")
    return found


def _mean_length(arm: Report) -> Cell:
    return cell(_length(arm)["ours"])


def _cost(name: str) -> Callable[[Report], Cell]:
    return lambda arm: cell(arm["cost"][name])
