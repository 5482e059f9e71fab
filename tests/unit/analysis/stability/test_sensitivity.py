from __future__ import annotations

import json

import numpy as np
import pytest

from analysis.ledger.load import load_ledger
from analysis.stability import sensitivity


def test_only_what_differs_is_a_knob():
    knobs = {"a": {"name": "a", "beta": 0.1, "rate": 1}, "b": {"name": "b", "beta": 0.5, "rate": 1}}
    assert sensitivity.differing(knobs) == ("beta",)


def test_spread_of_known_means():
    means = np.array([[1.0, 1.0, 1.0], [3.0, 3.0, 3.0], [2.0, 2.0, 2.0]])
    found = sensitivity.spread_of(means, np.tile([1.0, 3.0, 2.0], (50, 1)), 3, 1)
    assert (found.low, found.value, found.high) == (2, 2, 2)


def test_spread_of_noise_includes_zero():
    rng, shown = np.random.default_rng(0), []
    for _ in range(40):
        means = rng.standard_normal((4, 50))
        weights = rng.multinomial(50, np.full(50, 1 / 50), size=300) / 50
        found = sensitivity.spread_of(means, weights @ means.T, 50, 1)
        shown.append(found.low > 0)
        assert found.low <= found.value <= found.high
    assert sum(shown) <= 5


def test_variants_are_named_with_their_knob(make_sweep, synthetic, resamples_for):
    arms = {
        "dpo": synthetic.Arm("dpo", (0.3,)),
        "dpo_high_beta": synthetic.Arm("dpo", (0.0,)),
        "ppo": synthetic.Arm("ppo", (0.1,)),
    }
    sweep = make_sweep(arms, num_prompts=60)
    plan = json.loads((sweep.folder / "plan.json").read_text())
    for item in plan["arms"]:
        item["knobs"]["beta"] = 0.5 if item["arm"] == "dpo_high_beta" else 0.1
    sweep.edit("plan.json", arms=plan["arms"])
    ledger = load_ledger(sweep.folder)
    dpo, ppo = sensitivity.sensitivities(ledger, resamples_for(ledger))
    assert dpo.knobs == ("beta",)
    assert [variant.knobs for variant in dpo.variants] == [{"beta": 0.1}, {"beta": 0.5}]
    assert dpo.spread.low > 1
    assert ppo.spread is None
    assert ppo.reason == "not assessable: one finished variant"
    assert dpo.variants[0].gain.value == pytest.approx(dpo.variants[1].gain.value + dpo.spread.value, abs=0.05)
