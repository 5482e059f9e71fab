"""Stands in for `runner.job`: real processes, real status files, no torch. Told what to do by a file beside the sweep.

`behaviour.json` in RUNS_DIR maps a job's label to "fail", "kill", "sleep", "quiet" (ends well but finishes nothing),
"starve" (runs out of memory until its passes are smaller), "always starve" or "wait" (for a file `go` in RUNS_DIR, and,
like `runner.job`, no longer than its parent lives).
Every job appends a line with its label, device, threads and the time to `trace.jsonl`.
"""

import json
import os
import signal
import socket
import sys
import time
from pathlib import Path

from runner.ledger.manifest import MANIFEST, FileHash, Manifest, file_sha256, ledger_files, sha256
from runner.ledger.reader import newest_report
from runner.ledger.reports import HTML, JSON, MARKDOWN, sealed


def trace(runs_dir: Path, **entry: object) -> None:
    with (runs_dir / "trace.jsonl").open("a") as stream:
        stream.write(json.dumps(entry | {"time": time.time()}) + "\n")


def status(folder: Path, job: dict, state: str, error: str | None = None, out_of_memory: bool = False) -> None:
    now = time.strftime("%Y-%m-%dT%H:%M:%S+00:00", time.gmtime())
    content = {"state": state, "identity": job["identity"], "stage": "working", "done": 1, "total": 2, "unit": "steps"}
    content |= {
        "latest": {},
        "attempt": str(os.getpid()),
        "host": socket.gethostname(),
        "started": now,
        "updated": now,
        "seconds": 0.1,
        "pid": os.getpid(),
        "error": error,
        "out_of_memory": out_of_memory,
    }
    temporary = folder / "status.tmp"
    temporary.write_text(json.dumps(content))
    temporary.replace(folder / "status.json")


def write_report(runs_dir: Path) -> None:
    """The four files of a report, as whole and as true as a real one's; the pages are short."""
    report = newest_report(runs_dir)
    files = ledger_files(runs_dir, json.loads((runs_dir / "plan.json").read_text()))
    manifest = Manifest({path: FileHash(file_sha256(runs_dir / path)) for path in files})
    content = json.dumps({"headline": "DPO won.", "ledger": {"sha256": manifest.sha256}})
    (report / MANIFEST).write_text(manifest.text)
    (report / JSON).write_text(content)
    for name in (MARKDOWN, HTML):
        (report / name).write_text(sealed("DPO won.", sha256(content.encode())))


def run(folder: Path, runs_dir: Path) -> None:
    job = json.loads((folder / "spec.json").read_text())
    behaviour = json.loads((runs_dir / "behaviour.json").read_text()).get(job["label"])
    environment = {key: os.environ.get(key) for key in ("CUDA_VISIBLE_DEVICES", "OMP_NUM_THREADS")}
    trace(runs_dir, label=job["label"], event="start", pid=os.getpid(), **environment)
    status(folder, job, "running")
    print(f"{job['label']} was here", flush=True)
    if behaviour == "kill":
        os.kill(os.getpid(), signal.SIGKILL)
    if behaviour == "fail":
        status(folder, job, "failed", "ValueError: no luck")
        sys.exit(1)
    if behaviour == "always starve" or (behaviour == "starve" and not (folder / "retry.json").exists()):
        status(folder, job, "failed", "OutOfMemoryError: no room", out_of_memory=True)
        sys.exit(1)
    if behaviour == "quiet":
        sys.exit(0)
    while behaviour == "wait" and not (runs_dir / "go").exists():
        if os.getppid() != int(os.environ["RUNNER_PARENT_PID"]):
            sys.exit(130)
        time.sleep(0.05)
    time.sleep(60 if behaviour == "sleep" else 0.1)
    if job["kind"] == "report":
        write_report(runs_dir)
    if job["kind"] == "arm":
        for point in range(1, job["spec"]["num_points"]):
            (folder / f"adapters/point_{point}").mkdir(parents=True, exist_ok=True)
    status(folder, job, "finished")
    trace(runs_dir, label=job["label"], event="end")


if __name__ == "__main__":
    for argument in sys.argv[2:]:
        run(Path(argument), Path(sys.argv[1]))
