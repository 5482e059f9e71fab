from __future__ import annotations

import csv
import json

import numpy as np

from tests.benchmarks import left_out_elsewhere
from tests.benchmarks.left_out_elsewhere import GRID, left_out


def test_a_file_has_no_part_in_choosing_its_own_value():
    error_FG = np.array([[0.0, 9.0], [3.0, 1.0], [3.0, 1.0]])  # without the first file, the second value is better
    assert left_out(error_FG) == [1, 0, 0]


def test_figures_of_files_that_chose_nothing_are_printed(tmp_path, capsys, monkeypatch):
    rng = np.random.default_rng(0)
    monkeypatch.setattr(left_out_elsewhere, "GRID", GRID[:2])
    with (tmp_path / "published_leaderboard.csv").open("w") as file:
        table = csv.DictWriter(file, ("generator", "length_controlled_winrate"))
        table.writeheader()
        for rate, name in enumerate(("one", "two", "three"), start=49):
            table.writerow({"generator": name, "length_controlled_winrate": rate})
            rows = [
                {
                    "instruction": f"prompt {at}", "generator_1": "baseline", "generator_2": name,
                    "output_1": "x" * int(rng.integers(50, 90)), "output_2": "x" * int(rng.integers(50, 90)),
                    "preference": int(rng.integers(1, 3)),
                }
                for at in range(100)
            ]  # fmt: skip
            (tmp_path / f"{name}.annotations.json.gz").write_text(json.dumps(rows))
    left_out_elsewhere.main(tmp_path)
    lines = capsys.readouterr().out.splitlines()
    assert [line.split(" | ")[0] for line in lines[:3]] == ["| one", "| two", "| three"]
    assert lines[3].startswith("left out: ")
    assert lines[4].startswith("all files at each value: 1: ")
