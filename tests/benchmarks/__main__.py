"""Measure, compare, judge.

    python -m tests.benchmarks [--long] [--only NAME …] [--model NAME] [--json FILE]

Ends with 0 when every target is met and 1 otherwise. Every measurement is a process of its own, and the two sides of a
comparison alternate. All of them may use the same number of threads. Where a processor only emulates bfloat16, what a
peer would do in it is left out and counts as missed: one update would take half an hour.
"""

from __future__ import annotations

import argparse
import json
import os
import sys
import time
from collections.abc import Sequence
from dataclasses import asdict, dataclass, field, replace
from pathlib import Path
from typing import Any

from rich.console import Console

from tests.benchmarks import flops, peer, processes, results, settings
from tests.benchmarks.results import Measurement, Row
from tests.benchmarks.settings import Comparison, Task

ROOT = Path(__file__).parents[2]


@dataclass
class Bench:
    """Where things lie, and what came out so far."""

    folder: Path
    console: Console
    threads: int
    json_file: Path
    conditions: dict[str, Any] = field(default_factory=dict)
    rows: list[Row] = field(default_factory=list)
    raw: dict[str, Any] = field(default_factory=dict)

    def say(self, text: str) -> None:
        """One line of progress."""
        self.console.print(f"{time.strftime('%H:%M:%S')}  {text}")
        self.console.file.flush()  # a log file shows it too

    def run(self, name: str, arguments: dict[str, Any], python: Path | str = sys.executable) -> Measurement:
        """Run one measurement in a process of its own and return what it printed."""
        module = "tests.benchmarks.peers.trl_ppo" if name == settings.PEER else "tests.benchmarks.measure"
        words = [json.dumps(arguments)] if name == settings.PEER else [name, json.dumps(arguments)]
        return processes.run([str(python), "-m", module, *words], self.folder / "last_measurement.log", self.threads)

    def compare(self, comparison: Comparison, inputs: Path, cache_dir: Path, suffix: str) -> None:
        """Run both sides in turn, and add their rows."""
        name = comparison.name + suffix
        slow = results.slow_bfloat16(self.conditions["gigaflops"])
        if slow and comparison.peer_needs_bfloat16:
            self.say(f"{name} left out: {slow}")
            self.rows.append(results.failed_row(name, slow, "left out"))
            return
        sides: dict[str, list[Measurement]] = {"ours": [], "peer": []}
        try:
            for round_number in range(1, 1 + comparison.rounds):
                for side, task in (("ours", comparison.ours), ("peer", comparison.peer)):
                    done = self._task(task, inputs, cache_dir)
                    sides[side].append(done)
                    took = f"{results.seconds_of([done]):.1f} s, {results.peak_gb([done]):.2f} GB"
                    remark = processes.disturbance(done)
                    self.say(f"{name} {round_number}/{comparison.rounds} {task.label}: {took}{remark}")
            rows = results.rows_of(comparison, sides["ours"], sides["peer"])
            twin = self.raw.get(f"{comparison.twin}{suffix}", {}).get("peer")
            if twin:
                rows.append(results.faster_precision_row(comparison, sides["ours"], [sides["peer"], twin]))
            if comparison.floor:
                rows.append(self._floor(comparison, inputs, suffix, results.seconds_of(sides["ours"])))
        except processes.MeasurementError as failure:
            self.say(f"{name} failed:\n{failure}")
            rows = [results.failed_row(comparison.name, str(failure).splitlines()[-1])]
        self.raw[name] = sides
        self.rows += [replace(row, setting=row.setting + suffix) for row in rows]

    def write(self, minutes: float) -> None:
        """All that is known so far, as JSON."""
        known = {"conditions": self.conditions, "minutes": minutes, "rows": [asdict(row) for row in self.rows]}
        self.json_file.parent.mkdir(parents=True, exist_ok=True)
        self.json_file.write_text(json.dumps({**known, "measurements": self.raw}, indent=2, ensure_ascii=False))

    def print_table(self, minutes: float) -> None:
        """What a person reads."""
        c = self.conditions
        title = (
            f"{c['name']}, {c['cores']} cores, {c['threads']} threads, torch {c['torch']}; "
            f"medians, both sides in turn; {self._disturbed()} {minutes:.0f} min; all numbers in {self.json_file}"
        )
        Console(width=None if sys.stdout.isatty() else 180).print(results.table(self.rows, title))

    def _disturbed(self) -> str:
        done = [one for sides in self.raw.values() for side in ("ours", "peer") for one in sides.get(side, [])]
        disturbed = sum(bool(processes.disturbance(one)) for one in done)
        return f"{disturbed} of {len(done)} measurements disturbed by other processes;"

    def _task(self, task: Task, inputs: Path, cache_dir: Path) -> Measurement:
        if not task.in_peer_environment:
            return self.run(task.name, {**task.arguments, "folder": str(inputs), "cache_dir": str(cache_dir)})
        files = {"model": str(inputs / "model"), "prompts": str(inputs / "prompts.json")}
        python = peer.python_of(ROOT / "cache" / "benchmarks" / settings.PEER, self.say)
        return self.run(task.name, task.arguments | files, python)

    def _floor(self, comparison: Comparison, inputs: Path, suffix: str, seconds: float) -> Row:
        llama = flops.Llama.from_config(json.loads((inputs / "model" / "config.json").read_text()))
        a, arm = comparison.ours.arguments, settings.conf("arm/ppo.yaml")
        update = flops.Update(
            num_prompts=a["num_prompts"],
            prompt_tokens=len(json.loads((inputs / "prompts.json").read_text())[0]),
            new_tokens=a["new_tokens"],
            num_epochs=a["num_epochs"],
            rank=settings.conf("model/smollm2_135m.yaml")["lora"]["rank"],
            pass_tokens=arm["tokens_per_microbatch"],
        )
        dtypes = ["float32", "bfloat16"] if a["dtype"] == "bfloat16" else ["float32"]  # bf16 weights fit both
        candidates = {dtype: self._floor_in(dtype, llama, update) for dtype in dtypes}
        self.raw[f"{comparison.name}{suffix}: floor"] = candidates
        dtype = min(candidates, key=lambda name: sum(candidates[name]["stage_seconds"].values()))
        best = candidates[dtype]
        return results.floor_row(
            comparison.name, seconds, best["stage_seconds"], sum(best["stage_flops"].values()), dtype
        )

    def _floor_in(self, dtype: str, llama: flops.Llama, update: flops.Update) -> dict[str, Any]:
        stages = flops.update_stages(llama, update, bytes_per_weight=2 if dtype == "bfloat16" else 4)
        shapes = flops.distinct_shapes(stages)
        measured = self.run("rates", {"dtype": dtype, "products": shapes})
        seconds = dict(zip(shapes, measured["seconds"], strict=True))
        return {
            "stage_flops": {name: stage.flops for name, stage in stages.items()},
            "stage_seconds": flops.floor_seconds(stages, seconds, measured["bytes_per_second"]),
            "bytes_per_second": measured["bytes_per_second"],
            "product_seconds": [[*shape, taken] for shape, taken in seconds.items()],
        }


def parse(arguments: Sequence[str] | None) -> argparse.Namespace:
    """The command line."""
    parser = argparse.ArgumentParser(prog="python -m tests.benchmarks", description=__doc__)
    parser.add_argument("--long", action="store_true", help="larger settings too, and more repeats")
    parser.add_argument("--only", nargs="+", metavar="NAME", help="comparisons to run (default: all)")
    parser.add_argument("--model", help="package:…, tiny:llama or random:… (default: by the device)")
    parser.add_argument("--json", type=Path, default=ROOT / "cache" / "benchmarks" / "results.json", metavar="FILE")
    return parser.parse_args(arguments)


def num_threads() -> int:
    """Cores that this process may use."""
    return len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1


def main(arguments: Sequence[str] | None = None) -> int:
    """Run the benchmark; the exit code."""
    chosen, started = parse(arguments), time.monotonic()
    cache_dir = ROOT / "cache"
    folder = cache_dir / "benchmarks"
    folder.mkdir(parents=True, exist_ok=True)
    bench = Bench(folder, Console(highlight=False, markup=False, soft_wrap=True), num_threads(), chosen.json)
    bench.conditions = dict(bench.run("conditions", {}))
    default_models = (settings.CPU_MODEL,) if bench.conditions["device"] == "cpu" else settings.GPU_MODELS
    models = (chosen.model,) if chosen.model else default_models
    for model in models:
        listed = settings.comparisons(model, bench.conditions["device"], long=chosen.long)
        unknown = set(chosen.only or ()) - {comparison.name for comparison in listed}
        if unknown:
            bench.say(f"no comparison {sorted(unknown)}; there are {[comparison.name for comparison in listed]}")
            return 2
        inputs = folder / "inputs" / model.replace(":", "-")
        bench.say(f"prepare {model}")
        bench.run("prepare", {"model": model, "folder": str(inputs), "cache_dir": str(cache_dir)})
        for comparison in listed:
            if not chosen.only or comparison.name in chosen.only:
                bench.compare(comparison, inputs, cache_dir, f" [{model}]" if len(models) > 1 else "")
                bench.write((time.monotonic() - started) / 60)
    bench.print_table((time.monotonic() - started) / 60)
    return results.exit_code(bench.rows)


if __name__ == "__main__":
    sys.exit(main())
