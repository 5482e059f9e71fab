"""The report, opened by a real browser without a network. Runs where Chromium is installed."""

from __future__ import annotations

import importlib.util
import shutil
import subprocess
import sys
from pathlib import Path

import pytest

from analysis.__main__ import main

CHROMIUM = shutil.which("chromium") or shutil.which("chromium-browser") or shutil.which("google-chrome")
MAKER = Path(__file__).parents[1] / "unit" / "analysis" / "synthetic_sweep.py"
FLAGS = (
    "--headless", "--no-sandbox", "--disable-gpu", "--disable-background-networking", "--disable-component-update",
    "--disable-sync", "--no-first-run", "--proxy-server=127.0.0.1:9", "--enable-logging=stderr",
)  # fmt: skip

pytestmark = pytest.mark.skipif(
    CHROMIUM is None, reason="chromium is not on PATH: the report was not opened in a browser"
)


@pytest.fixture(scope="module")
def page(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A report of a synthetic sweep whose responses try to run a script."""
    if "synthetic_sweep" not in sys.modules:
        spec = importlib.util.spec_from_file_location("synthetic_sweep", MAKER)
        sys.modules["synthetic_sweep"] = module = importlib.util.module_from_spec(spec)
        spec.loader.exec_module(module)
    maker = sys.modules["synthetic_sweep"]
    attack = "<script>document.title = 'owned'</script><img src=x onerror=\"document.title='owned'\">"
    arms = {
        "ppo": maker.Arm("ppo", (0.1, 0.2), edit=lambda rows: rows.assign(response=attack)),
        "dpo": maker.Arm("dpo", (0.1, 0.1)),
    }
    folder = tmp_path_factory.mktemp("sweep")
    maker.Sweep(folder, arms).write()
    assert main(["report", str(folder)]) == 0
    return folder / "report" / "report.html"


def chromium(page: Path, profile: Path, *flags: str) -> subprocess.CompletedProcess[str]:
    command = [CHROMIUM, *FLAGS, f"--user-data-dir={profile}", *flags, page.as_uri()]
    return subprocess.run(command, check=True, capture_output=True, text=True, timeout=120)


def test_browser_shows_the_report_and_runs_nothing(page: Path, tmp_path: Path):
    done = chromium(page, tmp_path, "--dump-dom")
    assert "<title>PPO or DPO: synthetic</title>" in done.stdout
    assert "owned" not in done.stdout.split("</title>")[0]
    assert done.stdout.count("<svg") == 3
    assert "Refused to" not in done.stderr  # the policy had nothing to refuse
    assert "CONSOLE" not in done.stderr


@pytest.mark.parametrize("width", [420, 1200])
def test_page_has_a_picture_at_any_width(page: Path, tmp_path: Path, width: int):
    picture = tmp_path / "page.png"
    chromium(page, tmp_path / "profile", f"--window-size={width},2000", f"--screenshot={picture}")
    assert picture.stat().st_size > 50_000  # not blank


def test_page_prints(page: Path, tmp_path: Path):
    printed = tmp_path / "page.pdf"
    chromium(page, tmp_path / "profile", f"--print-to-pdf={printed}")
    assert printed.read_bytes().startswith(b"%PDF")
