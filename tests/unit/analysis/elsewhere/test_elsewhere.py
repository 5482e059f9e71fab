from __future__ import annotations

import csv
import json
from pathlib import Path

import numpy as np
import pytest
from scipy.stats import spearmanr

from analysis.elsewhere.annotations import AnnotationError, Annotations, read_annotations
from analysis.elsewhere.win_rates import FileWinRate, measure, render_table, win_rates


@pytest.fixture(scope="module")
def results(alpaca_eval: Path) -> dict[str, FileWinRate]:
    """Of the real files, by the name of the file."""
    paths = sorted(alpaca_eval.glob("*.annotations.json.gz"))
    return {
        path.name.split(".annotations")[0]: result
        for path, result in zip(paths, win_rates(paths, "alpaca_eval"), strict=True)
    }


@pytest.fixture(scope="module")
def published(alpaca_eval: Path) -> dict[str, dict[str, float]]:
    with (alpaca_eval / "published_leaderboard.csv").open() as file:
        return {row.pop("generator"): {key: float(value) for key, value in row.items()} for row in csv.DictReader(file)}


def test_raw_rates_are_the_published_ones(results, published):
    assert results.keys() == published.keys()
    for name, result in results.items():
        assert result.win_rate == pytest.approx(published[name]["win_rate"], abs=0.1)
        assert result.n == published[name]["n_total"]


def test_controlled_rates_agree_with_the_published_ones(results, published):
    ours = [result.lc_win_rate for result in results.values()]
    theirs = [published[name]["length_controlled_winrate"] for name in results]
    assert np.mean(np.abs(np.subtract(ours, theirs))) <= 1.2
    assert spearmanr(ours, theirs).statistic >= 0.96  # fourteen models, four of them within 2.4 points of each other


def test_models_that_answer_half_as_long_are_not_carried_too_far_from_the_raw_rate(results, published):
    for name in ("claude", "jina-chat"):
        published_rate = published[name]["length_controlled_winrate"]
        assert results[name].lc_win_rate == pytest.approx(published_rate, abs=2)
        assert results[name].lc_win_rate_ci95[0] <= published_rate <= results[name].lc_win_rate_ci95[1]


def test_published_rates_lie_in_the_intervals_but_for_one(results, published):
    outside = [
        name
        for name, result in results.items()
        if not result.lc_win_rate_ci95[0] <= published[name]["length_controlled_winrate"] <= result.lc_win_rate_ci95[1]
    ]
    assert len(outside) <= 1


def test_real_model_against_itself_is_exactly_even(results):
    result = results["gpt4_1106_preview"]
    assert (result.win_rate, result.lc_win_rate, result.style_premium) == (50, 50, 0)
    assert result.lc_win_rate_ci95 == (50, 50)
    assert result.length_ratio == 1


def test_only_the_adversarial_model_is_flagged_for_repeating_itself(results):
    assert {name for name, result in results.items() if "repeated_responses" in result.flags} == {"NullModel"}
    assert results["NullModel"].flags == ("repeated_responses",)
    assert not results["NullModel"].identified


def test_short_answerers_are_weakly_identified_and_balanced_models_are_not(results):
    weak = {name for name, result in results.items() if "weakly_identified" in result.flags}
    assert {"claude", "jina-chat"} <= weak
    assert not weak & {"gpt4_1106_preview", "FuseChat-Llama-3.1-8B-Instruct", "FuseChat-Gemma-2-9B-Instruct"}
    assert all(results[name].length_ratio < 0.6 for name in weak)


def test_models_that_are_nearly_always_shorter_are_not_identified(results):
    assert not results["alpaca-7b"].identified
    assert results["alpaca-7b"].length_ratio == pytest.approx(396 / 2049, abs=0.001)
    assert results["FuseChat-Llama-3.1-8B-Instruct"].identified


def test_a_file_alone_gives_the_same_numbers(results, alpaca_eval):
    (alone,) = win_rates([alpaca_eval / "vicuna-13b-v1.5.annotations.json.gz"], "alpaca_eval")
    assert alone == results["vicuna-13b-v1.5"]


def test_choosing_the_longer_of_two_responses_gains_little_after_control(alpaca_eval):
    """No published number needed: the two mixtures differ in length by choice and in nothing else."""
    sides = [
        read_annotations(alpaca_eval / f"FuseChat-{name}-Instruct.annotations.json.gz", "alpaca_eval")
        for name in ("Llama-3.1-8B", "Gemma-2-9B")
    ]
    shorter, longer = (measure(mixture(*sides, longer=choice), "") for choice in (False, True))
    assert longer.win_rate - shorter.win_rate > 7
    assert abs(longer.lc_win_rate - shorter.lc_win_rate) < 2


def mixture(first: Annotations, second: Annotations, longer: bool) -> Annotations:
    """Takes, prompt by prompt, the longer or the shorter response (both files list the prompts in the same order)."""
    assert np.array_equal(first.baseline_characters_N, second.baseline_characters_N)
    take_first = (first.characters_N > second.characters_N) == longer
    return Annotations(
        generator="mixture",
        baseline=first.baseline,
        preference_N=np.where(take_first, first.preference_N, second.preference_N),
        prompt_N=first.prompt_N,
        characters_N=np.where(take_first, first.characters_N, second.characters_N),
        baseline_characters_N=first.baseline_characters_N,
        repeated_share=0.0,
        num_missing=0,
        num_malformed=0,
    )


@pytest.fixture
def write_annotations(tmp_path, annotation_row):
    def write(name: str = "file.json", num_rows: int = 60, **changes: object) -> Path:
        path = tmp_path / name
        path.write_text(json.dumps([annotation_row(number, **changes) for number in range(num_rows)]))
        return path

    return write


def test_every_number_is_finite_and_inside_its_range(write_annotations):
    (result,) = win_rates([write_annotations()], "alpaca_eval")
    assert result.n == result.num_prompts == 60
    assert 0 <= result.win_rate_ci95[0] < result.win_rate < result.win_rate_ci95[1] <= 100
    assert 0 <= result.lc_win_rate_ci95[0] < result.lc_win_rate < result.lc_win_rate_ci95[1] <= 100
    assert result.style_premium == pytest.approx(result.win_rate - result.lc_win_rate, abs=2e-4)
    assert result.mde == pytest.approx(2.8 * 100 * 0.408 / np.sqrt(60), rel=0.1)  # scores 0, 1/2, 1 have SD 0.408


def test_one_comparison_and_empty_texts_are_no_crash(write_annotations):
    (one,) = win_rates([write_annotations(num_rows=1, preference=2)], "alpaca_eval")
    assert one.win_rate == 100
    (empty,) = win_rates([write_annotations(output_1="", output_2="")], "alpaca_eval")
    assert empty.length_ratio == 0
    assert empty.flags == ("repeated_responses",)


def test_all_bad_files_are_named_at_once(write_annotations, tmp_path):
    (tmp_path / "bad.json").write_text("{")
    with pytest.raises(AnnotationError, match=r"bad\.json: not JSON.*; .*absent\.json: No such file"):
        win_rates([write_annotations(), tmp_path / "bad.json", tmp_path / "absent.json"], "alpaca_eval")


def test_table_shows_hostile_names_as_text(write_annotations):
    hostile = "a\x1b[2J\u202eb\ud800\n" + "x" * 100
    (result,) = win_rates([write_annotations(generator_2=hostile)], "alpaca_eval")
    table = render_table([result])
    table.encode("utf-8")
    assert len(table.splitlines()) == 2
    assert "\x1b" not in table
    assert "\u202e" not in table
    assert "a⟨U+001B⟩[2J" in table


def test_table_tells_what_was_left_out_and_what_to_distrust(write_annotations):
    path = write_annotations(num_rows=50)
    rows = json.loads(path.read_text())
    rows[0]["preference"], rows[1]["preference"] = None, "?"
    path.write_text(json.dumps(rows))
    always_shorter = write_annotations("short.json", output_2="same answer")
    lines = render_table(win_rates([path, always_shorter], "alpaca_eval")).splitlines()
    assert lines[1].endswith("1 missing, 1 malformed")
    assert lines[2].endswith("controlled rate not identified, repeated responses")
