"""One measurement in a process of its own, so that its peak memory is its own.

    python -m tests.benchmarks.measure NAME '{"folder": …, "cache_dir": …, …}'

Its last line is the JSON that `probe.emit` prints.
"""

from __future__ import annotations

import json
import sys
from pathlib import Path
from typing import Any


def main(name: str, a: dict[str, Any]) -> None:
    """Run the measurement called `name`; heavy imports happen in the one that needs them."""
    folder, cache_dir = Path(a.get("folder", ".")), Path(a.get("cache_dir", "cache"))
    match name:
        case "conditions" | "rates":
            from tests.benchmarks import rates

            rates.conditions() if name == "conditions" else rates.measure(a)
        case "prepare":
            from tests.benchmarks import inputs, probe

            inputs.prepare(a["model"], folder, cache_dir)
            probe.emit([], 0, {})
        case "stock_dpo" | "generate":
            from tests.benchmarks import stock

            (stock.dpo if name == "stock_dpo" else stock.generate)(folder, a)
        case "ppo" | "dpo" | "sampler" | "arm":
            from tests.benchmarks import ours

            getattr(ours, name)(folder, cache_dir, a)
        case _:
            raise SystemExit(f"no measurement is called {name}")


if __name__ == "__main__":
    main(sys.argv[1], json.loads(sys.argv[2]))
