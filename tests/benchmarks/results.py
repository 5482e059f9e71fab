"""From measurements to rows with a verdict, the table, and the exit code. Pure functions."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from statistics import median
from typing import Any

from rich.table import Table

from tests.benchmarks.settings import Comparison

Measurement = Mapping[str, Any]  # what `probe.emit` printed
SLOW_BFLOAT16 = 4  # times slower than float32: without instructions for it each product is emulated


@dataclass(frozen=True)
class Row:
    """One line of the table. `met` is None where no target was set."""

    setting: str
    ours: str
    peer: str
    ratio: str
    target: str = ""
    met: bool | None = None


def seconds_of(measurements: Sequence[Measurement]) -> float:
    """Median over all repeats of all rounds."""
    return float(median(seconds for one in measurements for seconds in one["seconds"]))


def items_per_second(measurements: Sequence[Measurement]) -> float:
    """Items of one repeat over the median seconds."""
    return float(median(one["items"] for one in measurements) / seconds_of(measurements))


def peak_gb(measurements: Sequence[Measurement]) -> float:
    """Median over the rounds, in 10⁹ bytes."""
    return float(median(one["peak_bytes"] for one in measurements)) / 1e9


def trace_difference(ours: Sequence[float], peer: Sequence[float]) -> float:
    """Largest absolute difference of two loss traces of the same length, nats."""
    return max(abs(a - b) for a, b in zip(ours, peer, strict=True))


def rows_of(comparison: Comparison, ours: Sequence[Measurement], peer: Sequence[Measurement]) -> list[Row]:
    """Speed, memory and loss trace of one comparison, as far as it compares them."""
    rows = []
    if comparison.compares_speed:
        rows.append(
            _speed(comparison, items_per_second(ours), items_per_second(peer), seconds_of(ours), seconds_of(peer))
        )
    rows.append(_memory(comparison, peak_gb(ours), peak_gb(peer)))
    if ours[0].get("policy_dtypes") != peer[0].get("policy_dtypes"):
        rows.append(Row(f"{comparison.name}: policy weights", _dtypes(ours[0]), _dtypes(peer[0]), "differ"))
    if comparison.traces_within is not None:
        difference = trace_difference(ours[0]["losses"], peer[0]["losses"])
        rows.append(_trace(comparison, difference, comparison.traces_within))
    return rows


def faster_precision_row(
    comparison: Comparison, ours: Sequence[Measurement], peers: Sequence[Sequence[Measurement]]
) -> Row:
    """Our speed against the peer in whichever precision the peer is faster; for the reader, without a target."""
    fastest = max(peers, key=items_per_second)
    ratio = items_per_second(ours) / items_per_second(fastest)
    return Row(
        f"{comparison.name}: against the peer's faster precision",
        f"{items_per_second(ours):.3g}",
        f"{comparison.peer.label} {items_per_second(fastest):.3g} ({_dtypes(fastest[0])})",
        f"{ratio:.2f}×",
    )


def _dtypes(measurement: Measurement) -> str:
    return ", ".join(f"{kind} {dtype}" for kind, dtype in measurement.get("policy_dtypes", {}).items())


def _speed(comparison: Comparison, ours: float, peer: float, ours_seconds: float, peer_seconds: float) -> Row:
    return Row(
        f"{comparison.name}: {comparison.unit}/s",
        f"{ours:.3g} ({ours_seconds:.1f} s)",
        f"{comparison.peer.label} {peer:.3g} ({peer_seconds:.1f} s)",
        f"{ours / peer:.2f}×",
        f"≥ {comparison.speed}×" if comparison.speed else "",
        ours / peer >= comparison.speed if comparison.speed else None,
    )


def _memory(comparison: Comparison, ours: float, peer: float) -> Row:
    return Row(
        f"{comparison.name}: peak memory",
        f"{comparison.ours.label} {ours:.2f} GB",
        f"{comparison.peer.label} {peer:.2f} GB",
        f"{ours / peer:.2f}×",
        f"≤ {comparison.memory}×" if comparison.memory else "",
        ours / peer <= comparison.memory if comparison.memory else None,
    )


def _trace(comparison: Comparison, difference: float, within: float) -> Row:
    return Row(f"{comparison.name}: loss trace", "", "", f"Δ {difference:.1e}", f"≤ {within:.0e}", difference <= within)


def floor_row(name: str, seconds: float, floors: Mapping[str, float], flops: float, dtype: str) -> Row:
    """How far an update of ours is from what the machine's matrix products and memory allow."""
    floor = sum(floors.values())
    parts = ", ".join(f"{stage} {value:.2g}" for stage, value in floors.items())
    return Row(
        f"{name}: floor",
        f"{seconds:.1f} s",
        f"{floor:.2f} s = {flops / 1e12:.2f} TFLOP at {flops / floor / 1e9:.0f} GFLOP/s, {dtype} ({parts})",
        f"{seconds / floor:.1f}× the floor",
    )


def slow_bfloat16(gigaflops: Mapping[str, float]) -> str | None:
    """Why a peer in bfloat16 would take hours on this machine, where it would."""
    wide, narrow = gigaflops["float32"], gigaflops["bfloat16"]
    if narrow * SLOW_BFLOAT16 >= wide:
        return None
    return f"products in bfloat16 reach {narrow:.3g} GFLOP/s on this machine, those in float32 {wide:.3g}"


def failed_row(name: str, reason: str, how: str = "failed") -> Row:
    """A comparison that did not finish, or could not be made, counts as missed."""
    return Row(name, how, reason, "", "", met=False)


def table(rows: Sequence[Row], title: str) -> Table:
    """For a terminal."""
    drawn = Table(title=title, title_justify="left")
    for column in ("setting", "ours", "peer", "ratio", "target", "met"):
        drawn.add_column(column, overflow="fold")
    for row in rows:
        met = {True: "yes", False: "NO", None: ""}[row.met]
        drawn.add_row(row.setting, row.ours, row.peer, row.ratio, row.target, met)
    return drawn


def exit_code(rows: Sequence[Row]) -> int:
    """0 if every target that was measured is met."""
    return int(any(row.met is False for row in rows))
