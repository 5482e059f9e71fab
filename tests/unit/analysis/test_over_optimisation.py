from __future__ import annotations

import numpy as np
import pytest

from analysis import over_optimisation


def test_proxy_rises_while_gold_falls(make_ledger, resamples_for, synthetic):
    arm = synthetic.Arm("ppo", gold=(0.2, 0.1), proxy=(0.2, 0.4), kl=9.0)
    ledger = make_ledger({"ppo": arm}, num_prompts=40)
    first, last = over_optimisation.gains(ledger, "ppo", resamples_for(ledger))
    assert last.gold.value < first.gold.value
    assert last.proxy.value > first.proxy.value
    assert last.root_kl == pytest.approx(3.0, abs=0.1)
    assert first.root_kl == pytest.approx(np.sqrt(4.5), abs=0.1)


def test_negative_kl_estimate_has_root_zero(make_ledger, resamples_for, synthetic):
    ledger = make_ledger({"dpo": synthetic.Arm("dpo", (0.1,), kl=-1.0)})
    assert over_optimisation.gains(ledger, "dpo", resamples_for(ledger))[0].root_kl == 0.0


def test_without_a_reward_model_there_is_no_proxy(make_ledger, resamples_for, synthetic):
    arm = synthetic.Arm("dpo", (0.1,), edit=lambda rows: rows.assign(proxy=float("nan")))
    ledger = make_ledger({"dpo": arm})
    assert over_optimisation.gains(ledger, "dpo", resamples_for(ledger))[0].proxy is None
