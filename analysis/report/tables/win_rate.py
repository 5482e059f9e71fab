"""PPO against DPO."""

from __future__ import annotations

from analysis.report.cells import Cell, Number, Report, Row, Table, cell

EVEN = 50.0


def matrix(report: Report) -> Table | None:
    """PPO arms as rows, DPO arms as columns, percent of pairs that PPO wins by gold."""
    pairs = {(pair["ppo"], pair["dpo"]): pair["win_rate"]["gold"] for pair in report["head_to_head"]}
    rows, columns = (list(dict.fromkeys(pair[side] for pair in pairs)) for side in (0, 1))
    body = tuple(Row(ppo, "", tuple(_pair_cell(pairs.get((ppo, dpo)), ppo, dpo) for dpo in columns)) for ppo in rows)
    return (
        Table("Share of pairs that the PPO arm wins, by gold", "PPO arm ↓  DPO arm →", tuple(columns), body)
        if body
        else None
    )


def pair_details(report: Report) -> Table | None:
    """Every pair by every judge."""
    rows = []
    for pair in report["head_to_head"]:
        rates = pair["win_rate"]
        gold = rates["gold"]
        cells = (
            cell(gold),
            cell(rates["vader"]),
            cell(rates["proxy"]),
            cell(gold["ties"]),
            Cell(f"{gold['sign_test_p']:.2g}"),
            Cell(f"{gold['minimum_detectable_effect']:.1f} points"),
        )
        rows.append(Row(f"{pair['ppo']} against {pair['dpo']}", "", cells))
    columns = (
        "gold",
        "VADER",
        "training reward (no verdict)",
        "ties by gold",
        "sign test, p",
        "smallest difference found in 4 of 5 repetitions",
    )
    return Table("Every pair by every judge: share that PPO wins", "Pair", columns, tuple(rows)) if rows else None


def _pair_cell(rate: Number, ppo: str, dpo: str) -> Cell:
    if rate is None:
        return Cell("–", remark="not compared")
    if rate["low"] <= EVEN <= rate["high"]:
        return cell(rate, remark="● no difference shown", tone="even")
    return cell(rate, remark=f"▲ {ppo if rate['value'] > EVEN else dpo} ahead")
