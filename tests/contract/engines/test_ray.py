"""What only Ray does: nodes that go away, and clusters that are not there or too small."""

from __future__ import annotations

import signal
import time
from collections.abc import Callable, Iterator
from typing import Any

import pytest

from experiments.errors import InputError

SHARE = {"gpus_per_job": 0, "cpus_per_job": 1, "max_jobs": 8, "max_restarts": 0}
NAMES = ("one", "two", "three")  # as many as the cluster has CPUs


@pytest.fixture(scope="module")
def fixed(ray_cluster: Any) -> tuple[str, dict[str, Any]]:
    return "ray", SHARE | {"address": ray_cluster.address}


@pytest.fixture
def lose_a_node(bench: Any, ray_cluster: Any, wait_until: Any, is_alive: Any) -> Iterator[Callable[..., Any]]:
    """Three tasks on three CPUs, of which one is on the second node; then that node is killed, its worker too."""

    def lose(**changes: Any) -> Any:
        engine = bench.engine(**changes)
        for name in NAMES:
            engine.start(bench.task(name, f"say('started', os.getppid()); wait({str(bench.folder / 'go')!r})"))
        for name in NAMES:
            bench.wait_for_log(engine, name, "\n")
        workers = [int(bench.log(name).read_text().split()[1]) for name in NAMES]
        ray_cluster.remove_node(ray_cluster.second, allow_graceful=False)
        wait_until(lambda: not all(map(is_alive, workers)), "no worker was on the second node")
        return engine

    yield lose
    ray_cluster.second = ray_cluster.add_node(num_cpus=1, object_store_memory=80 * 2**20, memory=2**30)


def test_lost_node_is_told_and_the_others_finish(bench: Any, lose_a_node: Callable[..., Any]) -> None:
    engine = lose_a_node()
    (lost,) = bench.drain(engine, 1).values()
    (bench.folder / "go").touch()
    others = bench.drain(engine, 2)

    assert (lost.cause, lost.exit_code) == ("node_lost", None)
    assert "NodeDiedError" in lost.detail
    assert {lost.name, *others} == set(NAMES)
    assert [outcome.exit_code for outcome in others.values()] == [0, 0]


def test_lost_task_starts_again_elsewhere(bench: Any, lose_a_node: Callable[..., Any]) -> None:
    engine = lose_a_node(max_restarts=1)
    (bench.folder / "go").touch()
    outcomes = bench.drain(engine, 3)
    starts = sorted(bench.log(name).read_text().count("started") for name in NAMES)

    assert {outcome.exit_code for outcome in outcomes.values()} == {0}
    assert starts == [1, 1, 2]


def test_a_task_ends_though_ray_loses_the_request(bench: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    engine = bench.engine()
    engine.start(bench.task("one", "say('started'); time.sleep(60)"))
    bench.wait_for_log(engine, "one", "started")
    monkeypatch.setattr("ray.cancel", lambda *_, **__: None)
    engine.cancel("one")
    outcome = bench.drain(engine, 1)["one"]

    assert (outcome.cause, outcome.exit_code) == ("cancelled", -signal.SIGTERM)
    assert list(bench.folder.rglob("*.cancel")) == []


@pytest.mark.parametrize(
    ("share", "needed_bytes"),
    [
        ({}, 600 * 2**20),  # measured
        ({}, 600 * 2**30),  # more than any node has: one at a time on each
        ({"memory_gib_per_job": 1}, 0),  # set
    ],
)
def test_tasks_share_a_node_only_if_both_have_memory_there(
    bench: Any, share: dict[str, int], needed_bytes: int
) -> None:
    """Two nodes with 1 GiB each and three CPUs: the third task has to wait for one of the others."""
    engine, go = bench.engine(**share), bench.folder / "go"
    code = f"go = pathlib.Path({str(go)!r}); say(go.exists()); wait(go)"
    for name in NAMES:
        engine.start(bench.task(name, code, needed_bytes=needed_bytes))
    for name in NAMES[:2]:
        bench.wait_for_log(engine, name, "\n")
    time.sleep(1)  # so that a third that need not wait is seen
    go.touch()
    outcomes = bench.drain(engine, 3)

    assert [outcomes[name].exit_code for name in NAMES] == [0, 0, 0]
    assert [bench.log(name).read_text() for name in NAMES] == ["False\n", "False\n", "True\n"]


@pytest.mark.parametrize(
    ("changes", "complaint"),
    [
        ({"cpus_per_job": 64}, "no node of the Ray cluster has room for a job with engine.cpus_per_job=64"),
        ({"memory_gib_per_job": 2}, "no node .* engine.memory_gib_per_job=2"),  # each has 1 GiB
        ({"address": "127.0.0.1:1"}, "engine.address=127.0.0.1:1: no Ray cluster answers"),
    ],
)
def test_unusable_cluster_is_found_out_first(bench: Any, changes: dict[str, Any], complaint: str) -> None:
    with pytest.raises(InputError, match=complaint):
        bench.engine(**changes)


def test_folder_that_no_node_sees(bench: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("runner.engines.ray._exists", lambda path: False)

    with pytest.raises(InputError, match="is not to be seen on"):
        bench.engine()


def test_command_that_is_not_there(bench: Any) -> None:
    engine = bench.engine()
    task = bench.task("job", "")
    engine.start(type(task)(task.name, ("/nowhere/python",), task.log))
    outcome = bench.drain(engine, 1)["job"]

    assert outcome.cause == "not_started"
    assert "/nowhere/python" in outcome.detail
