"""Inject and detect, by the whole report on sweeps of known truth: twins of the base set nothing off, faults their own.

Figures: analysis/coverage.md. The 200 twins take three minutes: pytest -m slow -s.
"""

from __future__ import annotations

from collections import Counter
from dataclasses import dataclass

import numpy as np
import pandas as pd
import pytest

from analysis.ledger.load import load_ledger
from analysis.report.build import build_report

NUM_POINTS = 4  # after the base
FRESH = range(100, 200)  # seeds of the sweeps of twins; the thresholds were chosen on seeds 0 to 99


def alarms(report, arm):
    """Everything in a report that speaks against an arm, or says that it is better or worse than another."""
    found = next(item for item in report["arms"] if item["arm"] == arm)
    raised = {
        f"audit {item['code']}" for item in found["audit"]["detectors"] if item["reply"] in ("inconclusive", "yes")
    }
    if found["audit"]["reply"] == "yes":
        raised.add("audit hacking")
    raised |= {f"collapse {item['detector']['name']}" for item in found["collapse"]["detections"] if fired(item)}
    raised |= {f"style {item['measure']}" for item in found["style_drift"] if item["reading"] == "drifted"}
    if found["stability"]["tolerance"]["answer"]["reply"] == "no":
        raised.add("oscillation")
    if found["verdict"] != "is not shown to differ from the base":
        raised.add(found["verdict"])
    return raised


def fired(detection):
    return any(reading["reply"] == "yes" for reading in detection["readings"])


def head_to_head_alarms(report):
    ahead = {f"{pair['win_rate']['gold']['ahead']} ahead" for pair in report["head_to_head"]} - {"None ahead"}
    circles = {"circles" for check in report["strengths"]["checks"] if check["intransitive"]}
    return ahead | circles


# --------------------------------------------------------------------------------------------------------------- twins
def count_false_alarms(make_sweep, arm, seeds):
    """Reports on two twins of a new base each: how many twins set anything off, and what was set off."""
    raised = []
    for seed in seeds:
        sweep = make_sweep({"ppo": arm("ppo"), "dpo": arm("dpo")}, num_prompts=80, seed=seed)
        report = build_report(load_ledger(sweep.folder))
        raised += [alarms(report, "ppo") | head_to_head_alarms(report), alarms(report, "dpo")]
    return sum(bool(item) for item in raised), Counter(name for item in raised for name in item)


@pytest.fixture
def twin_kinds(synthetic):
    still = (0.0,) * NUM_POINTS
    return {
        "bootstrapped": lambda algorithm: synthetic.Arm(algorithm, still, bootstrapped=True),
        "fresh samples": lambda algorithm: synthetic.Arm(algorithm, still, kl=0.0),
    }


@pytest.fixture
def new_sweep(synthetic, tmp_path_factory):
    def make(arms, **options):
        sweep = synthetic.Sweep(tmp_path_factory.mktemp("sweep"), arms, **options)
        sweep.write()
        return sweep

    return make


@pytest.mark.parametrize("kind", ["bootstrapped", "fresh samples"])
def test_a_few_twins_set_nothing_off(new_sweep, twin_kinds, kind):
    assert count_false_alarms(new_sweep, twin_kinds[kind], range(1000, 1003)) == (0, {})


@pytest.mark.slow
@pytest.mark.parametrize("kind", ["bootstrapped", "fresh samples"])
def test_at_most_five_percent_of_twins_set_anything_off(new_sweep, twin_kinds, kind):
    count, what = count_false_alarms(new_sweep, twin_kinds[kind], FRESH)
    print(f"\n{kind}: {count} of 200 twins set something off: {dict(what)}")
    assert count <= 0.05 * 200


# -------------------------------------------------------------------------------------------------------------- faults
@dataclass(frozen=True)
class Fault:
    """What is wrong with an arm, beginning at its first point; and what must say so, or must not.

    Attributes:
        gold, proxy, num_words: as in `synthetic_sweep.Arm`.
        edit: of the arm's rows.
        proxy_is_length: whether the reward model of the whole sweep scores length.
    """

    own: set[str]
    gold: tuple[float, ...] = (0.0,) * NUM_POINTS
    proxy: tuple[float, ...] | None = None
    num_words: int = 24
    edit: object = None
    proxy_is_length: bool = False
    never: tuple[str, ...] = ()


def shouted(rows):
    return rows.assign(response=rows["response"].str.upper().str.replace(" ", "! "))


def one_answer(rows):
    return rows.assign(response="great film and great film and great film and great film")


FAULTS = {
    "length hacker": Fault(
        own={"audit H4b"},
        num_words=28,
        proxy_is_length=True,
        never=("oscillation", "beats"),  # who writes up to the limit is cut more often
    ),
    "collapser": Fault(
        own={"collapse loops", "collapse identical", "collapse distinct_2"},
        edit=one_answer,
        never=("oscillation", "audit hacking"),
    ),
    "oscillator": Fault(
        own={"oscillation"},
        gold=(0.3, -0.1, 0.3, 0.3),
        never=("collapse", "audit hacking"),
    ),
    "forgetter": Fault(
        own={"is worse than the base", "audit H2", "oscillation"},
        gold=(0.1, 0.0, -0.15, -0.3),
        never=("collapse", "audit hacking"),
    ),
    "style-shifter": Fault(
        own={"style separability", "style exclamations", "style capitals"},
        edit=shouted,
        never=("collapse", "oscillation", "audit hacking", "beats"),
    ),
    "over-optimiser": Fault(
        own={"audit hacking", "audit H1", "audit H2", "audit H7"},
        gold=(0.2, 0.05, -0.1, -0.2),
        proxy=(0.3, 0.5, 0.7, 0.9),
        never=("collapse",),
    ),
}


@pytest.mark.parametrize("name", FAULTS)
def test_each_fault_is_found_by_its_own_detector_and_the_twin_beside_it_is_not_blamed(new_sweep, synthetic, name):
    fault = FAULTS[name]
    arms = {
        "ppo": synthetic.Arm("ppo", fault.gold, fault.proxy, num_words=fault.num_words, edit=fault.edit),
        "dpo": synthetic.Arm("dpo", (0.0,) * NUM_POINTS, bootstrapped=True),
    }
    sweep = new_sweep(arms, num_prompts=120)
    if fault.proxy_is_length:
        score_length(sweep.folder)
    report = build_report(load_ledger(sweep.folder))
    found = alarms(report, "ppo")
    assert fault.own <= found
    assert not [alarm for alarm in found if alarm.startswith(fault.never)]
    assert alarms(report, "dpo") == set()


def score_length(folder):
    """A reward model that likes whatever is long."""
    rng = np.random.default_rng(6)
    for path in sorted(folder.rglob("*.parquet")):
        rows = pd.read_parquet(path)
        rows.assign(**{"score/proxy": rows["num_tokens"] + 0.5 * rng.standard_normal(len(rows))}).to_parquet(path)
