from __future__ import annotations

import hashlib
import json
import subprocess

import pandas as pd
import pytest

from analysis.ledger.load import load_ledger
from analysis.ledger.manifest import Manifest, changes, is_inside, manifest_of, read_manifest

WATCHED = """
import json, sys
from pathlib import Path
import pandas as pd
root, opened = Path(sys.argv[1]), set()
sys.addaudithook(lambda event, args: opened.add(str(args[0])) if event == "open" else None)
read = pd.read_parquet
pd.read_parquet = lambda path, *a, **k: (opened.add(str(path)), read(path, *a, **k))[1]  # arrow opens without Python
from analysis.ledger.load import load_ledger
from analysis.report.build import build_report
ledger = load_ledger(root)
vars(ledger)["manifest"] = type("Unread", (), {"sha256": "0" * 64, "files": {}})()  # it would open all that it lists
build_report(ledger)
print(json.dumps(sorted(Path(p).relative_to(root).as_posix() for p in opened if p.startswith(str(root)))))
"""


def test_every_file_that_a_report_reads_is_in_the_manifest(make_sweep, forked):
    """A new feature that reads another kind of file has to add it to `manifest.RECORDS`, or this fails."""
    sweep = make_sweep(seeds=(0, 1))
    sweep.edit("dpo/seed1/status.json", state="failed", error="boom")
    command = [*forked, "-c", WATCHED, str(sweep.folder)]
    done = subprocess.run(command, check=True, capture_output=True, text=True)
    read = set(json.loads(done.stdout))
    assert {"plan.json", "ppo/seed0/metrics.jsonl", "shared/base_evaluation/samples/point_0.parquet"} <= read
    assert read <= set(load_ledger(sweep.folder).manifest.files)


def test_the_manifest_has_hash_and_rows_of_each_file(make_ledger):
    ledger = make_ledger()
    files = ledger.manifest.files
    for path, file in files.items():
        content = (ledger.folder / path).read_bytes()
        assert file.sha256 == hashlib.sha256(content).hexdigest()
        if path.endswith(".jsonl"):
            lines = content.splitlines()
            assert file.rows == "".join(hashlib.sha256(line).hexdigest()[:8] for line in lines)
        elif path.endswith(".parquet"):
            assert len(file.rows) == 8 * len(pd.read_parquet(ledger.folder / path))
        else:
            assert file.rows == ""
    assert list(json.loads(ledger.manifest.text)["files"]) == sorted(files)


def test_of_what_has_not_finished_only_the_status_counts(make_sweep):
    """Its other files are not read, and may grow while people read the report."""
    sweep = make_sweep(seeds=(0, 1))
    sweep.edit("dpo/seed1/status.json", state="running")
    files = load_ledger(sweep.folder).manifest.files
    assert [path for path in files if path.startswith("dpo/seed1") and "evaluation" not in path] == [
        "dpo/seed1/status.json"
    ]
    with (sweep.folder / "dpo/seed1/metrics.jsonl").open("a") as stream:
        stream.write("{}\n")
    assert changes(load_ledger(sweep.folder).manifest, sweep.folder) == []


def test_weights_logs_and_trackers_are_no_ledger(make_sweep):
    sweep = make_sweep()
    before = load_ledger(sweep.folder).manifest
    for name in ("log.txt", "adapters/point_2/adapter_config.json", "wandb/run/files/x.json", ".status.json.1.tmp"):
        path = sweep.folder / "ppo/seed0" / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text("{}")
    assert load_ledger(sweep.folder).manifest == before
    assert changes(before, sweep.folder) == []


def test_a_manifest_survives_its_file(make_ledger):
    manifest = make_ledger().manifest
    assert read_manifest(manifest.text.encode()) == manifest
    assert read_manifest(manifest.text.encode()).sha256 == manifest.sha256


@pytest.mark.parametrize("content", [b"", b"[]", b'{"files": []}', b'{"files": {"a": 1}}', b"\xff"])
def test_what_is_no_manifest_is_refused(content):
    with pytest.raises(ValueError, match="not a list of files and hashes"):
        read_manifest(content)


def test_row_digests_do_not_depend_on_how_pandas_holds_text(tmp_path):
    frame = pd.DataFrame({"text": ["a", "é", None], "number": [1.0, float("nan"), -0.5], "count": [1, 2, 3]})
    (tmp_path / "job").mkdir()
    plan = {"shared": {"gold": "job"}, "arms": [], "jobs": []}
    (tmp_path / "plan.json").write_text(json.dumps(plan))
    (tmp_path / "job/status.json").write_text('{"state": "finished"}')
    manifests = []
    for kind in (object, "string", "category"):
        frame.astype({"text": kind}).to_parquet(tmp_path / "job/rows.parquet")
        manifests.append(manifest_of(tmp_path, plan).files["job/rows.parquet"].rows)
    assert len(set(manifests)) == 1
    assert len(manifests[0]) == 3 * 8


def test_many_changed_rows_are_counted(tmp_path):
    (tmp_path / "plan.json").write_text("{}")
    (tmp_path / "rows.jsonl").write_text("\n".join(map(str, range(100))) + "\n")
    recorded = Manifest({"rows.jsonl": manifest_file(tmp_path)})
    lines = [str(-number) if number % 5 == 0 else str(number) for number in range(1, 100)]
    (tmp_path / "rows.jsonl").write_text("\n".join(lines) + "\n")
    (line,) = changes(recorded, tmp_path)
    assert line.startswith("rows.jsonl: line 1 removed; line 5 changed; ")
    assert line.endswith("; and 12 more")


def manifest_file(folder):
    plan = {"shared": {"all": "."}, "arms": [], "jobs": []}
    (folder / "status.json").write_text('{"state": "finished"}')
    return manifest_of(folder, plan).files["rows.jsonl"]


@pytest.mark.parametrize(
    ("path", "inside"), [("a/b", True), ("a..b/c", True), ("/etc/passwd", False), ("../a", False), ("a/../../b", False)]
)
def test_is_inside(path, inside):
    assert is_inside(path) is inside
