"""Every kind of tampering that we could think of is found, and named."""

from __future__ import annotations

import importlib
import json
import os
import re
import shutil
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pandas as pd
import pytest

from analysis import signoff
from analysis.__main__ import main
from analysis.ledger import manifest as ledger_hash
from analysis.ledger.manifest import sha256
from analysis.report.signatures import Signature, SignoffError, append, read_record
from analysis.signoff import differences, sign, verify

SIGNERS = (
    ("Ada Lovelace", "head of safety", "approve", "Fine by me."),
    ("Grace Hopper", "team lead", "conditional", "Only with\nfive seeds."),
    ("Žofia 李", "reviewer", "reject", ""),
)
POINT_2 = "ppo/seed0/evaluation/samples/point_2.parquet"


def sign_as(folder: Path, position: int, **options: Any) -> Signature:
    fields = dict(zip(("name", "role", "decision", "note"), SIGNERS[position], strict=True))
    return sign(folder, **{**fields, **options})


@pytest.fixture(scope="module")
def original(tmp_path_factory, write_sweep) -> Path:
    """A sweep whose report three people have signed."""
    sweep = write_sweep(tmp_path_factory.mktemp("signed") / "sweep")
    assert main(["report", str(sweep.folder)]) == 0
    for position in range(len(SIGNERS)):
        sign_as(sweep.folder / "report", position)
    return sweep.folder


@pytest.fixture
def sweep(original, tmp_path) -> Path:
    return shutil.copytree(original, tmp_path / "copy")


@pytest.fixture
def report(sweep) -> Path:
    return sweep / "report"


def edit_json(path: Path, change: Callable[[Any], object]) -> None:
    content = json.loads(path.read_text(encoding="utf-8"))
    change(content)
    path.write_text(json.dumps(content, indent=1, ensure_ascii=False) + "\n", encoding="utf-8")


def edit_lines(path: Path, change: Callable[[list[str]], object]) -> None:
    lines = path.read_text(encoding="utf-8").split("\n")[:-1]
    change(lines)
    path.write_text("".join(f"{line}\n" for line in lines), encoding="utf-8")


def edit_rows(path: Path, change: Callable[[pd.DataFrame], pd.DataFrame]) -> None:
    change(pd.read_parquet(path)).to_parquet(path)


def resealed(line: str, **changes: Any) -> str:
    """An entry with other fields and the hash that fits them: what a forger who knows the format would write."""
    content = {**json.loads(line), **changes}
    content.pop("sha256")
    return Signature(**content).line.decode().rstrip("\n")


def problems(folder: Path, **options: Any) -> str:
    verdict = verify(folder, **options)
    assert verdict.problems
    return "\n".join(verdict.problems)


# ----------------------------------------------------------------------------------------------------- nothing changed
def test_what_nobody_touched_is_as_signed_wherever_it_lies(report):
    verdict = verify(report)
    assert verdict.problems == ()
    assert verdict.was_rebuilt
    assert [entry.name for entry in verdict.signatures] == [name for name, *_ in SIGNERS]


def test_signing_leaves_the_report_and_shows_the_signatures(original, report):
    views = [(report / name).read_text(encoding="utf-8") for name in ("report.md", "report.html")]
    for entry in read_record(report).signatures:
        assert entry.report_sha256 == sha256((report / "report.json").read_bytes())
        assert entry.ledger_sha256 == sha256((report / "ledger_manifest.json").read_bytes())
        for text in views:
            for words in (entry.name, entry.role, entry.decision, entry.sha256, entry.time[:10]):
                assert words in text
            assert "five seeds." in text


def test_verify_says_what_it_proves_and_what_not(report, capsys):
    assert main(["verify", str(report)]) == 0
    out = capsys.readouterr().out
    assert "AS SIGNED" in out
    assert "does not prove" in out
    assert "entry 2 (Grace Hopper, team lead: conditional)" in out
    num_files = json.loads((report / "report.json").read_text(encoding="utf-8"))["ledger"]["num_files"]
    assert num_files > 30
    assert f"{num_files} files of the ledger" in out


def test_an_unsigned_report_has_a_code_and_words_of_its_own(sweep, report, capsys):
    (report / "signatures.jsonl").unlink()
    assert main(["report", str(sweep)]) == 0
    assert main(["verify", str(report)]) == 3
    assert "NOT SIGNED" in capsys.readouterr().out


def test_a_report_without_its_ledger_is_verified_and_the_gap_is_named(report, tmp_path, sweep):
    alone = shutil.copytree(report, tmp_path / "alone" / "report")
    assert "NOT compared" in " ".join(verify(alone).agreements)
    assert "NOT compared" not in " ".join(verify(alone, ledger=sweep).agreements)
    edit_lines(sweep / "dpo/seed0/metrics.jsonl", lambda lines: lines.pop(1))
    assert "dpo/seed0/metrics.jsonl: line 2 removed" in problems(alone, ledger=sweep)


# --------------------------------------------------------------------------------------------------- report.json, views
REPORT_EDITS = {
    "a number": (
        lambda r: r["arms"][0]["measure"].update(value=99.25),
        r"arms\[0\]\.measure\.value: 99\.25 in report\.json, \d+",
    ),
    "a text": (lambda r: r.update(headline="DPO won."), r'headline: "DPO won\." in report\.json, "PPO'),
    "a key removed": (lambda r: r["decision"].pop("confidence"), r"decision\.confidence: absent in report\.json"),
    "a key added": (lambda r: r.update(extra=[1]), r"extra: \[1\] in report\.json, absent by"),
    "an item removed": (lambda r: r["fairness"].pop(), r"fairness\[0\]: absent in report\.json"),
    "the schema": (lambda r: r.update(schema="1"), "is no report with schema"),
    "the ledger it cites": (lambda r: r["ledger"].update(sha256="0" * 64), r'ledger\.sha256: "0{59}… in report\.json'),
    "a control character": (lambda r: r.update(headline="\x1b[2J"), "report.json was changed"),
}


@pytest.mark.parametrize(("edit", "named"), REPORT_EDITS.values(), ids=REPORT_EDITS)
def test_a_change_of_report_json_is_named(report, edit, named):
    edit_json(report / "report.json", edit)
    found = problems(report)
    assert re.search(r"report\.json was changed: its SHA-256 is \w{64}, but entry 1 \(Ada Lovelace", found)
    assert re.search(named, found)


def test_pages_that_show_the_signed_numbers_differ_from_a_changed_report(report):
    edit_json(report / "report.json", lambda r: r["arms"][0]["measure"].update(value=99.25))
    found = problems(report)
    for name in ("report.html", "report.md"):
        assert f"{name} is not what report.json and signatures.jsonl give" in found


def test_other_bytes_of_the_same_values_are_a_change(report):
    path = report / "report.json"
    path.write_text(json.dumps(json.loads(path.read_text())))
    assert "report.json was changed" in problems(report)


@pytest.mark.parametrize("content", [b"", b"{", b"\xff", b"[]", b'{"schema": 1}', b"NaN", b"[" * 100_000], ids=repr)
def test_a_report_json_that_is_none_is_told(report, content):
    (report / "report.json").write_bytes(content)
    assert "report.json was changed" in problems(report)


@pytest.mark.parametrize("name", ["report.json", "report.html", "report.md", "ledger_manifest.json"])
def test_a_lost_file_is_named(report, name):
    (report / name).unlink()
    assert re.search(rf"{re.escape(name)}.* is missing", problems(report))


@pytest.mark.parametrize("name", ["report.html", "report.md"])
def test_an_edited_view_is_named_and_can_be_written_again(report, name):
    path = report / name
    path.write_text(path.read_text(encoding="utf-8").replace("PPO", "DPO"), encoding="utf-8")
    (found,) = verify(report).problems
    assert found.startswith(f"{name} is not what report.json")
    assert main(["report", "--from-json", str(report / "report.json")]) == 0
    assert verify(report).problems == ()


def test_an_unchanged_report_that_this_version_cannot_show_is_still_verified(report, monkeypatch):
    """After the program has moved on, hashes can be compared though the pages cannot."""
    monkeypatch.setattr("analysis.report.files.REPORT_SCHEMA", 99)
    verdict = verify(report)
    assert verdict.problems == ()
    assert "have the SHA-256 that the last signature cites" in " ".join(verdict.agreements)
    (report / "report.html").write_text("PPO wins everything")
    assert "report.html or report.md is not the page that entry 3" in problems(report)
    edit_json(report / "report.json", lambda r: r.update(headline=""))
    assert "report.json was changed" in problems(report)


# --------------------------------------------------------------------------------------------------------- the ledger
def raise_measure(frame: pd.DataFrame) -> pd.DataFrame:
    frame.loc[3, "score/gold"] += 0.25
    return frame


LEDGER_EDITS: dict[str, tuple[Callable[[Path], object], str]] = {
    "a row of samples": (
        lambda s: edit_rows(s / POINT_2, raise_measure),
        rf"ledger: {POINT_2}: row 4 changed\n(.*\n)*.*arms\[0\]\.measure\.value: \S+ in report\.json, \S+ by the",
    ),
    "a response": (
        lambda s: edit_rows(s / POINT_2, lambda f: f.assign(response=["no", *f["response"][1:]])),
        f"{POINT_2}: row 1 changed",
    ),
    "a row of samples removed": (
        lambda s: edit_rows(s / POINT_2, lambda f: f.drop(index=5)),
        f"{POINT_2}: row 6 removed\n(.*\n)*no report can be built from the ledger any more: .*other prompts or samples",
    ),
    "rows of samples exchanged": (
        lambda s: edit_rows(s / POINT_2, lambda f: f.iloc[[1, 0, *range(2, len(f))]]),
        rf"{POINT_2}: .*row 1",
    ),
    "samples written again": (
        lambda s: pd.read_parquet(s / POINT_2).to_parquet(s / POINT_2, compression="gzip"),
        f"{POINT_2}: was written again; its rows say the same",
    ),
    "samples broken": (
        lambda s: (s / POINT_2).write_bytes(b"PAR1"),
        f"{POINT_2}: was changed; its rows cannot be read",
    ),
    "samples removed": (lambda s: (s / POINT_2).unlink(), f"{POINT_2}: is missing"),
    "samples added": (
        lambda s: shutil.copy(s / POINT_2, s / POINT_2.replace("_2", "_7")),
        r"samples/point_7\.parquet: was not there",
    ),
    "a metrics line": (
        lambda s: edit_lines(s / "dpo/seed0/metrics.jsonl", lambda lines: lines.__setitem__(7, "{}")),
        r"ledger: dpo/seed0/metrics\.jsonl: line 8 changed",
    ),
    "metrics lines added": (
        lambda s: edit_lines(s / "dpo/seed0/metrics.jsonl", lambda lines: lines.extend(["{}", "{}"])),
        r"metrics\.jsonl: lines 9 to 10 added",
    ),
    "the end of the metrics": (
        lambda s: (s / "dpo/seed0/metrics.jsonl").write_bytes((s / "dpo/seed0/metrics.jsonl").read_bytes()[:-9]),
        r"metrics\.jsonl: line 8 changed",
    ),
    "the specification": (
        lambda s: edit_json(s / "ppo/seed0/spec.json", lambda c: c["spec"].update(num_prompts=9)),
        r"ppo/seed0/spec\.json: was changed(.*\n)*.*trained with num_prompts = 512, ppo/seed0 with 9",
    ),
    "the status": (
        lambda s: edit_json(s / "ppo/seed0/status.json", lambda c: c.update(state="failed")),
        r"ppo/seed0/status\.json: was changed",
    ),
    "the provenance": (
        lambda s: edit_json(s / "ppo/seed0/provenance.json", lambda c: c["git"].update(dirty=True)),
        r"ppo/seed0/provenance\.json: was changed(.*\n)*.*provenance\.",
    ),
    "the plan": (
        lambda s: edit_json(s / "plan.json", lambda c: c["rules"]["confidence"].clear()),
        r"ledger: plan\.json: was changed",
    ),
    "the plan broken": (lambda s: (s / "plan.json").write_text("{"), r"ledger: plan\.json: was changed"),
    "the plan lost": (lambda s: (s / "plan.json").unlink(), r"ledger: plan\.json: is missing"),
    "an arm lost": (lambda s: shutil.rmtree(s / "dpo"), r"dpo/seed0/metrics\.jsonl: is missing"),
}


@pytest.mark.parametrize(("edit", "named"), LEDGER_EDITS.values(), ids=LEDGER_EDITS)
def test_a_change_of_the_ledger_is_named(sweep, report, edit, named):
    edit(sweep)
    assert re.search(named, problems(report))


@pytest.mark.parametrize("edit", ["file", "hash"])
def test_a_changed_manifest_hides_no_change_of_the_ledger(sweep, report, edit):
    edit_rows(sweep / POINT_2, raise_measure)
    new = sha256((sweep / POINT_2).read_bytes())

    def change(content):
        content["files"].pop(POINT_2) if edit == "file" else content["files"][POINT_2].update(sha256=new)

    edit_json(report / "ledger_manifest.json", change)
    found = problems(report)
    assert "ledger_manifest.json was changed" in found
    assert "ledger: it is not the recorded one" in found
    assert re.search(r"arms\[0\]\.measure\.value", found)


def test_a_changed_manifest_is_told_though_the_ledger_is_whole(report):
    (report / "ledger_manifest.json").write_text("{}")
    (found,) = verify(report).problems
    assert found.startswith("ledger_manifest.json was changed")


def test_a_manifest_cannot_lead_outside(report, sweep, tmp_path):
    """Its hash is the signed one here: somebody signed a manifest that was made by hand."""
    (tmp_path / "secret").write_text("x")
    shutil.copytree(report, tmp_path / "made" / "report")
    made = tmp_path / "made" / "report"
    edit_json(
        made / "ledger_manifest.json", lambda c: c["files"].update({"../secret": {"sha256": "0" * 64, "rows": ""}})
    )
    digest = sha256((made / "ledger_manifest.json").read_bytes())
    edit_lines(made / "signatures.jsonl", lambda lines: lines[1:])
    lines = (made / "signatures.jsonl").read_text(encoding="utf-8").splitlines()
    (made / "signatures.jsonl").write_text(resealed(lines[0], ledger_sha256=digest) + "\n", encoding="utf-8")
    assert "../secret: is outside the sweep's folder" in problems(made, ledger=sweep)


# --------------------------------------------------------------------------------------------------------- the record
def replace_field(number: int, field: str, value: Any) -> Callable[[list[str]], object]:
    def edit(lines):
        lines[number - 1] = json.dumps({**json.loads(lines[number - 1]), field: value}, ensure_ascii=False)

    return edit


def reseal(position: int, **changes: Any) -> Callable[[list[str]], object]:
    def edit(lines):
        lines[position - 1] = resealed(lines[position - 1], **changes)

    return edit


RECORD_EDITS: dict[str, tuple[Callable[[list[str]], object], str]] = {
    "a decision": (
        replace_field(3, "decision", "approve"),
        r"line 3 of signatures\.jsonl was changed: entry 3 \(Žofia",
    ),
    "a name": (replace_field(1, "name", "Eve"), r"line 1 of signatures\.jsonl was changed: entry 1 \(Eve"),
    "a note": (replace_field(2, "note", ""), r"line 2 of signatures\.jsonl was changed: entry 2"),
    "a time": (replace_field(2, "time", "2020-01-01T00:00:00.000+00:00"), "line 2 of .* was changed"),
    "a hash": (replace_field(2, "report_sha256", "0" * 64), "line 2 of .* was changed"),
    "a hash in capitals": (replace_field(2, "report_sha256", "A" * 64), "line 2 of .* is no entry: report_sha256"),
    "its own hash": (replace_field(2, "sha256", "0" * 64), "line 2 of .* was changed"),
    "a field too many": (replace_field(2, "extra", 1), "line 2 of .* is no entry: extra"),
    "an unknown decision": (replace_field(2, "decision", "maybe"), "line 2 of .* is no entry: decision"),
    "a name with a newline": (replace_field(2, "name", "Eve\nx"), "line 2 of .* is no entry: name: it must be on one"),
    "a name with an escape": (replace_field(2, "name", "Eve\x1b"), r"line 2 of .* is no entry: name: .*U\+001B"),
    "other bytes": (lambda lines: lines.__setitem__(0, lines[0] + " "), "line 1 of .* by something else than `sign`"),
    "resealed in the middle": (
        reseal(2, decision="approve"),
        r"entry 3 \(Žofia.*\) was added after another entry than the entry 2 \(Grace Hopper, team lead: approve\)",
    ),
    "resealed at the end": (
        reseal(3, decision="approve"),
        r"report\.md shows entry 3 with SHA-256 \w+, which signatures\.jsonl does not have",
    ),
    "the first removed": (lambda lines: lines.pop(0), r"entry 1 was removed"),
    "the second removed": (lambda lines: lines.pop(1), r"entry 2 was removed"),
    "the last removed": (lambda lines: lines.pop(), r"report\.html shows entry 3 with SHA-256 .* removed or replaced"),
    "all removed": (lambda lines: lines.clear(), r"shows entry 1 with(.*\n)*.*shows entry 3 with"),
    "the first removed, the rest numbered anew": (
        lambda lines: lines.__setitem__(slice(None), [resealed(lines[1], number=1), resealed(lines[2], number=2)]),
        r"entry 1 \(Grace.*\) is the first, yet it was added after another one",
    ),
    "exchanged": (lambda lines: lines.reverse(), "put into another order: 3, 2, 1"),
    "doubled": (lambda lines: lines.insert(1, lines[0]), "2 entries with the number 1"),
    "a line of something else": (lambda lines: lines.insert(1, "[" * 10_000), "line 2 of .* is no entry"),
    "an empty line": (lambda lines: lines.insert(1, ""), "line 2 of .* is no entry"),
    "a forged addition": (
        lambda lines: lines.append(resealed(lines[2], number=4, name="Eve", previous="0" * 64)),
        r"entry 4 \(Eve.*\) was added after another entry",
    ),
    "a forged addition to the chain": (
        lambda lines: lines.append(resealed(lines[2], number=4, name="Eve", previous=json.loads(lines[2])["sha256"])),
        r"report\.md is not what report\.json and signatures\.jsonl give",
    ),
}


@pytest.mark.parametrize(("edit", "named"), RECORD_EDITS.values(), ids=RECORD_EDITS)
def test_a_change_of_the_record_is_named(report, edit, named):
    edit_lines(report / "signatures.jsonl", edit)
    assert re.search(named, problems(report))


def test_a_lost_record_is_not_taken_for_an_unsigned_report(report, capsys):
    (report / "signatures.jsonl").unlink()
    assert main(["verify", str(report)]) == 1
    assert "shows entry 1 with SHA-256" in capsys.readouterr().out


@pytest.mark.parametrize("num_bytes", [1, 100])
def test_a_torn_last_line_is_named_and_nothing_is_signed_on_top_of_it(report, num_bytes):
    path = report / "signatures.jsonl"
    torn = path.read_bytes()[:-num_bytes]
    path.write_bytes(torn)
    assert "the last line of signatures.jsonl is torn" in problems(report)
    with pytest.raises(SignoffError, match="torn"):
        sign_as(report, 0)
    assert main(["report", "--from-json", str(report / "report.json")]) == 2
    assert path.read_bytes() == torn


def test_only_a_kept_hash_shows_a_record_that_was_written_anew(report):
    """The honest limit: pages and record made anew agree with each other, and not with the copy of the hash."""
    kept = read_record(report).signatures[-1].sha256
    assert verify(report, kept_hashes=[kept]).problems == ()
    (report / "signatures.jsonl").unlink()
    assert main(["report", "--from-json", str(report / "report.json")]) == 0
    sign(report, name="Eve", role="intern", decision="approve", note="")
    assert verify(report).problems == ()
    assert f"no entry of signatures.jsonl has the kept hash {kept}" in problems(report, kept_hashes=[kept])
    assert main(["verify", str(report), "--kept-hash", kept.upper()]) == 1


# -------------------------------------------------------------------------------------------------------- who may sign
@pytest.mark.parametrize(
    ("field", "value", "message"),
    [
        ("name", "", "--name: it is empty: the tool signs for nobody"),
        ("name", " \t ", "--name: it is empty"),
        ("name", "\u3164\u2800", "--name: it is empty"),
        ("name", "Ada\nLovelace", "--name: it must be on one line"),
        ("name", "Ada\rLovelace", "U\\+000D"),
        ("name", "Ada \x1b[31m", "U\\+001B"),
        ("name", "Ada \u202eevil", "U\\+202E"),
        ("name", "Ada\u2028Lovelace", "U\\+2028"),
        ("name", "Ada \udcff", "--name: .*unicode"),
        ("name", "A" * 201, "--name: .*200"),
        ("name", "Ada\u00a0Lovelace", "U\\+00A0"),
        ("name", "Ada\u3000Lovelace", "U\\+3000"),
        ("name", "Ada\u2009Lovelace", "U\\+2009"),
        ("name", "Ada\ufe0f Lovelace", "U\\+FE0F"),
        ("name", "Ada\U000e0101 Lovelace", "U\\+E0101"),
        ("name", "Ada\u034f Lovelace", "U\\+034F"),
        ("name", "Ada\u3164Lovelace", "U\\+3164"),
        ("name", "Ada\u200cLovelace", "U\\+200C"),
        ("name", "Ada ❤\ufe0f", "U\\+FE0F"),
        ("name", "\u0410da Lovelace", "mixes letters that look alike: Cyrillic and Latin"),
        ("role", "head \u03bff safety", "--role: .*Greek and Latin"),
        ("role", "head\u202fof safety", "U\\+202F"),
        ("note", "a\u2064b", "U\\+2064"),
        ("role", "...", "--role: it is empty"),
        ("decision", "perhaps", "--decision"),
        ("note", "x" * 10_001, "--note: .*10000"),
        ("note", "a\x00b", "U\\+0000"),
        ("note", " ", "--note: a conditional decision needs the condition"),
    ],
)
def test_what_cannot_be_signed_is_refused_and_leaves_no_trace(report, field, value, message):
    before = {path.name: path.read_bytes() for path in report.iterdir()}
    with pytest.raises(SignoffError, match=message):
        sign_as(report, 1, **{field: value})
    assert {path.name: path.read_bytes() for path in report.iterdir()} == before


def test_all_that_is_wrong_is_told_at_once(report):
    with pytest.raises(SignoffError, match=r"--name: .*--role: .*--decision: "):
        sign(report, name="", role="", decision="", note="")


@pytest.mark.parametrize(
    ("name", "note"),
    [
        ("<script>alert(1)</script>|`", "```\n# heading\n</p><b>\n| a | b |"),
        ("نازنین\u200cزهرا", "👩‍🔬 ❤\ufe0f " + "long words " * 900),
        ("Дмитрий", "d'accord\u202f: non,山田\u3000太郎"),
        ("  Cafe\u0301 ", "tab\tand\n\nparagraphs"),
    ],
)
def test_odd_but_honest_text_is_kept_and_shown_as_text(report, name, note):
    entry = sign(report, name=name, role="reviewer", decision="conditional", note=note)
    assert verify(report).problems == ()
    assert read_record(report).signatures[-1] == entry
    assert entry.name in {name, "Café"}
    assert entry.note == note.strip()
    page = (report / "report.html").read_text(encoding="utf-8")
    assert "<script" not in page
    assert "</p><b>" not in page
    assert "\n# heading" not in re.sub(r"````text\n.*?\n````", "", (report / "report.md").read_text(), flags=re.DOTALL)


@pytest.mark.parametrize(
    ("path", "edit"),
    [
        ("report/report.json", lambda c: c["arms"][0]["measure"].update(value=1)),
        ("report/ledger_manifest.json", lambda c: c["files"].clear()),
        ("dpo/seed0/status.json", lambda c: c.update(stage="x")),
    ],
)
def test_nobody_signs_what_is_not_consistent(sweep, report, path, edit):
    (report / "signatures.jsonl").unlink()
    assert main(["report", "--from-json", str(report / "report.json")]) == 0
    edit_json(sweep / path, edit)
    with pytest.raises(SignoffError, match="nothing was signed, because"):
        sign_as(report, 0)
    assert read_record(report).is_empty


def test_nobody_signs_a_page_that_is_not_the_report(report):
    """People read the HTML; what they sign is report.json."""
    (report / "report.html").write_text("PPO wins everything")
    with pytest.raises(SignoffError, match=r"report\.html is not what report\.json"):
        sign_as(report, 0)


@pytest.mark.parametrize("name", ["report.json", "report.html", "report.md", "signatures.jsonl", ".signatures.lock"])
def test_links_are_not_followed(report, tmp_path, name):
    outside = tmp_path / "outside"
    outside.write_bytes((report / name).read_bytes())
    (report / name).unlink()
    (report / name).symlink_to(outside)
    before = outside.read_bytes()
    for action in (lambda: sign_as(report, 0), lambda: verify(report)):
        with pytest.raises(SignoffError, match=re.escape(name)):
            action()
    assert main(["report", "--from-json", str(report / "report.json")]) == 2
    assert main(["report", str(report.parent)]) == 2
    assert outside.read_bytes() == before


@pytest.mark.parametrize("command", ["sign", "verify"])
def test_a_folder_without_a_report_is_refused_with_a_hint(sweep, command, capsys):
    options = ["--name", "A", "--role", "B", "--decision", "approve"] if command == "sign" else []
    assert main([command, str(sweep), *options]) == 2
    error = capsys.readouterr().err
    assert error.count("\n") == 1
    assert f"the newest report of this sweep is in {sweep / 'report'}" in error
    assert main([command, str(sweep / "nowhere"), *options]) == 2


def test_name_role_and_decision_have_no_default(report, capsys):
    for left_out in ("--name", "--role", "--decision"):
        given = {"--name": "A", "--role": "B", "--decision": "approve"}
        given.pop(left_out)
        with pytest.raises(SystemExit) as stopped:
            main(["sign", str(report), *(word for pair in given.items() for word in pair)])
        assert stopped.value.code == 2
        assert left_out in capsys.readouterr().err


# -------------------------------------------------------------------------------------------------------------- races
def test_people_who_sign_at_once_all_stand_in_one_chain(report, forked):
    command = [*forked, "-m", "analysis", "sign", str(report), "--role", "reviewer", "--decision", "approve"]
    signers = [subprocess.Popen([*command, "--name", name], stdout=subprocess.DEVNULL) for name in "ABC"]
    assert [signer.wait() for signer in signers] == [0] * 3
    verdict = verify(report)
    assert verdict.problems == ()
    assert sorted(entry.name for entry in verdict.signatures[3:]) == ["A", "B", "C"]
    assert [entry.number for entry in verdict.signatures] == list(range(1, 7))


def test_a_crash_between_record_and_pages_is_told_and_mended(report):
    last = read_record(report).signatures[-1]
    append(report, last.model_copy(update={"number": 4, "previous": last.sha256}))
    assert "report.md is not what report.json and signatures.jsonl give" in problems(report)
    assert main(["report", "--from-json", str(report / "report.json")]) == 0
    assert verify(report).problems == ()


# --------------------------------------------------------------------------------------------------- the real commands
def test_the_commands_as_people_type_them(sweep, report, forked):
    def run(*arguments, python=forked):
        command = [*python, "-m", "analysis", *map(str, arguments)]
        return subprocess.run(command, capture_output=True, text=True, check=False)

    fields = ["--name", "Łukasz", "--role", "on call", "--decision", "reject", "--note", "two\nlines"]
    signed = run("sign", report, *fields, python=[sys.executable])
    assert signed.returncode == 0, signed.stderr
    digest = re.search(r"SHA-256 of the entry: (\w{64})", signed.stdout)[1]
    fine = run("verify", report, "--kept-hash", digest)
    assert fine.returncode == 0
    assert "entry 4 has the hash that was kept elsewhere" in fine.stdout
    edit_lines(sweep / "ppo/seed0/evaluation/metrics.jsonl", lambda lines: lines.pop())
    changed = run("verify", report, "--ledger", sweep)
    assert changed.returncode == 1
    assert "NOT AS SIGNED" in changed.stdout
    assert "ppo/seed0/evaluation/metrics.jsonl: line 2 removed" in changed.stdout
    assert changed.stderr == ""


def test_a_hash_that_is_none_is_bad_input(report, capsys):
    with pytest.raises(SystemExit) as stopped:
        main(["verify", str(report), "--kept-hash", "abc"])
    assert stopped.value.code == 2
    assert "64 hexadecimal digits" in capsys.readouterr().err


def test_hostile_values_cannot_write_to_the_terminal(report, capsys):
    edit_json(report / "report.json", lambda r: r.update({"\x1b[2Jkey": "\u202e\x07"}))
    assert main(["verify", str(report)]) == 1
    out = capsys.readouterr().out
    assert "⟨U+001B⟩" in out
    assert not set(out) & {"\x1b", "\u202e", "\x07"}


# ------------------------------------------------------------------------------------------ forgeries that fit together
FORGERIES = {
    "a number": REPORT_EDITS["a number"],
    "the headline": (lambda r: r.update(headline="DPO is ahead."), r'headline: "DPO is ahead\." in report\.json'),
    "an interval": (lambda r: r["arms"][1]["measure"].update(high=99.5), r"arms\[1\]\.measure\.high: 99\.5 in report"),
    "a rule": (lambda r: r["samples"].update(rule="at random"), r'samples\.rule: "at random" in report\.json'),
}


@pytest.mark.parametrize(("edit", "named"), FORGERIES.values(), ids=FORGERIES)
def test_a_forged_report_whose_pages_were_rendered_again_is_not_signed(report, edit, named):
    edit_json(report / "report.json", edit)
    (report / "signatures.jsonl").unlink()
    assert main(["report", "--from-json", str(report / "report.json")]) == 0
    with pytest.raises(SignoffError, match=named):
        sign_as(report, 0)
    assert read_record(report).is_empty


@pytest.mark.parametrize(("edit", "named"), FORGERIES.values(), ids=FORGERIES)
def test_a_forged_report_with_a_forged_record_is_named(report, edit, named, capsys):
    """All hashes were made to fit: only building the report again tells."""
    edit_json(report / "report.json", edit)
    reseal_all(report, report_sha256=sha256((report / "report.json").read_bytes()))
    assert main(["report", "--from-json", str(report / "report.json")]) == 0
    assert main(["verify", str(report)]) == 1
    out = capsys.readouterr().out
    assert "NOT AS SIGNED" in out
    assert re.search(named, out)


def test_values_of_the_ledger_in_bytes_of_somebody_else_are_named(report):
    path = report / "report.json"
    path.write_text(json.dumps(json.loads(path.read_text(encoding="utf-8"))), encoding="utf-8")
    reseal_all(report, report_sha256=sha256(path.read_bytes()))
    assert main(["report", "--from-json", str(path)]) == 0
    assert "something else wrote it" in problems(report)


def reseal_all(report: Path, leave_out: tuple[str, ...] = (), **changes: Any) -> None:
    """The record written anew with other fields, each entry citing the one before."""
    entries: list[Signature] = []
    for line in (report / "signatures.jsonl").read_text(encoding="utf-8").splitlines():
        kept = {key: value for key, value in json.loads(line).items() if key not in {"sha256", *leave_out}}
        entries.append(Signature(**{**kept, **changes, "previous": entries[-1].sha256 if entries else None}))
    (report / "signatures.jsonl").write_bytes(b"".join(entry.line for entry in entries))


def test_two_builds_of_one_ledger_in_other_processes_give_the_same_bytes(sweep, report, tmp_path):
    """So that nothing has to be left out of the comparison: another folder, hash seed, locale and time zone."""
    elsewhere = shutil.copytree(sweep, tmp_path / "some where" / "else")
    shutil.rmtree(elsewhere / "report")
    environment = {"PATH": os.environ["PATH"], "PYTHONHASHSEED": "7", "TZ": "Asia/Kathmandu", "LC_ALL": "C"}
    command = [sys.executable, "-m", "analysis", "report", str(elsewhere)]
    subprocess.run(command, env=environment, check=True, capture_output=True)
    assert (elsewhere / "report/report.json").read_bytes() == (report / "report.json").read_bytes()


# --------------------------------------------------------------------------------------------- versions of the program
def first_line(capsys: pytest.CaptureFixture[str]) -> str:
    return capsys.readouterr().out.splitlines()[0]


def test_what_another_version_signed_is_compared_by_its_hashes(report, monkeypatch, capsys):
    monkeypatch.setattr(signoff, "program", lambda: "version 99")
    assert main(["verify", str(report)]) == 0
    out = capsys.readouterr().out
    assert out.startswith(f"AS SIGNED, NOT REBUILT: {report}")
    assert "this is version 99" in out
    assert main(["verify", str(report), "--rebuild"]) == 0
    assert first_line(capsys).startswith("AS SIGNED: ")
    (report / "report.md").write_text("DPO wins everything")
    assert main(["verify", str(report)]) == 1


def test_with_another_version_a_forgery_is_named_when_it_is_built_again(report, monkeypatch, capsys):
    edit_json(report / "report.json", lambda r: r.update(headline="DPO is ahead."))
    reseal_all(report, report_sha256=sha256((report / "report.json").read_bytes()), program="version 0.0.1, code x")
    assert main(["report", "--from-json", str(report / "report.json")]) == 0
    capsys.readouterr()
    assert main(["verify", str(report)]) == 0
    assert first_line(capsys).startswith("AS SIGNED, NOT REBUILT: ")
    assert "headline" in problems(report, rebuild=True)


def test_a_record_of_the_first_version_is_still_as_signed(report, capsys):
    """Its entries cite neither program nor pages nor adapters, and its hashes cover what they have."""
    reseal_all(report, leave_out=("program", "rebuilt", "pages", "adapters"))
    assert "program" not in (report / "signatures.jsonl").read_text(encoding="utf-8")
    assert main(["report", "--from-json", str(report / "report.json")]) == 0
    page = report / "report.html"
    page.write_text(page.read_text(encoding="utf-8").replace("<p>", "<p >"), encoding="utf-8")  # drawn otherwise then
    capsys.readouterr()
    assert main(["verify", str(report)]) == 0
    out = capsys.readouterr().out
    assert out.startswith("AS SIGNED, NOT REBUILT: ")
    assert "report.html were NOT compared: an earlier version signed" in out
    sign_as(report, 1)
    assert verify(report).was_rebuilt


def test_a_seal_below_a_page_may_depend_on_the_entry(report):
    """It covers the page with the entry's hash, which in turn covers the page: so it is no part of what is cited."""
    entry = read_record(report).signatures[-1]
    page = f"<p>{entry.sha256}</p>\n".encode()
    seal = f"<!-- SHA-256 of report.json: {'a' * 64}; of all above: {'b' * 64} -->\n".encode()
    assert signoff.page_hash(page + seal, entry) == signoff.page_hash(page, entry)
    assert signoff.page_hash(page + seal + b"x", entry) != signoff.page_hash(page, entry)
    other = entry.model_copy(update={"note": "another"})
    assert signoff.page_hash(page.replace(entry.sha256.encode(), other.sha256.encode()), other) == signoff.page_hash(
        page, entry
    )


def test_the_program_is_known_by_its_code(tmp_path, monkeypatch):
    program = importlib.import_module("analysis.signoff.program")  # the function has its module's name
    for source in program.SOURCES:
        there, here = program.PROJECT / source, tmp_path / source
        here.parent.mkdir(parents=True, exist_ok=True)
        copy = shutil.copytree if there.is_dir() else shutil.copy
        copy(there, here)
    here = program.program.__wrapped__()
    monkeypatch.setattr(program, "PROJECT", tmp_path)
    assert program.program.__wrapped__() == here
    for name in ("analysis/report/templates/style.css", "runner/ledger/reader.py", "experiments/rules.py"):
        (tmp_path / name).write_text((tmp_path / name).read_text(encoding="utf-8") + "\n", encoding="utf-8")
        changed = program.program.__wrapped__()
        assert changed != here
        here = changed


# ------------------------------------------------------------------------------------------------------ final adapters
def write_adapter(folder: Path, content: bytes) -> None:
    folder.mkdir(parents=True, exist_ok=True)
    (folder / "adapter_model.safetensors").write_bytes(content)
    (folder / "adapter_config.json").write_text('{"r": 8}')


@pytest.fixture
def with_adapters(sweep, report):
    for arm in ("ppo", "dpo"):
        write_adapter(sweep / arm / "seed0/adapters/point_1", b"first")
        write_adapter(sweep / arm / "seed0/adapters/point_2", arm.encode() + bytes(3 * 2**20))
    sign_as(report, 0)
    return sweep


FINAL = "ppo/seed0/adapters/point_2"


def test_final_adapters_are_bound_by_their_whole_content(with_adapters, report):
    entry = read_record(report).signatures[-1]
    weights = with_adapters / FINAL / "adapter_model.safetensors"
    assert entry.adapters[f"{FINAL}/adapter_model.safetensors"] == sha256(weights.read_bytes())
    assert len(entry.adapters) == 4
    assert verify(report).problems == ()
    (with_adapters / "ppo/seed0/adapters/point_1/adapter_model.safetensors").unlink()  # no final one
    assert verify(report).problems == ()
    with weights.open("r+b") as stream:  # in the middle, where the digest of a finished job does not look
        stream.seek(3 * 2**19)
        stream.write(b"x")
    assert f"{FINAL}/adapter_model.safetensors: was changed" in problems(report)


@pytest.mark.parametrize(
    ("edit", "named"),
    [
        (lambda folder: (folder / "adapter_config.json").write_text('{"r": 16}'), "adapter_config.json: was changed"),
        (lambda folder: (folder / "adapter_model.bin").write_bytes(b"x"), "adapter_model.bin: was not there"),
    ],
)
def test_changed_and_added_files_of_a_final_adapter_are_named(with_adapters, report, edit, named, capsys):
    edit(with_adapters / FINAL)
    assert main(["verify", str(report)]) == 1
    assert named in capsys.readouterr().out


@pytest.mark.parametrize("lost", [FINAL, f"{FINAL}/adapter_model.safetensors", "dpo/seed0/adapters"])
def test_adapters_that_were_removed_are_not_compared(with_adapters, report, lost, capsys):
    path = with_adapters / lost
    path.unlink() if path.is_file() else shutil.rmtree(path)
    assert main(["verify", str(report)]) == 0
    out = capsys.readouterr().out
    assert out.startswith("AS SIGNED: ")
    assert re.search(rf"what is not here any more was NOT compared: .*{re.escape(lost)}", out)


# ------------------------------------------------------------------------------------------------ a ledger that is gone
def test_a_ledger_that_is_gone_has_a_code_of_its_own(report, sweep, tmp_path, capsys):
    alone = shutil.copytree(report, tmp_path / "alone" / "report")
    (tmp_path / "empty").mkdir()
    for options in ([], ["--ledger", str(tmp_path / "empty")]):
        assert main(["verify", str(alone), *options]) == 4
        assert first_line(capsys).startswith("AS SIGNED, THE LEDGER IS GONE: ")
    assert main(["verify", str(alone), "--ledger", str(sweep)]) == 0
    (alone / "report.md").write_text("x")
    assert main(["verify", str(alone)]) == 1


def test_nobody_signs_without_a_ledger_unless_they_ask_for_it(report, sweep, tmp_path, capsys):
    alone = shutil.copytree(report, tmp_path / "alone" / "report")
    command = ["sign", str(alone), "--name", "Eve", "--role", "reviewer", "--decision", "approve"]
    assert main(command) == 2
    assert "--ledger RUNS_DIR says where it is" in capsys.readouterr().err
    assert len(read_record(alone).signatures) == 3
    assert main([*command, "--without-ledger"]) == 0
    assert not read_record(alone).signatures[-1].rebuilt
    assert main(["verify", str(alone)]) == 4
    capsys.readouterr()
    assert main(["verify", str(alone), "--ledger", str(sweep)]) == 0
    assert "entry 4 (Eve, reviewer: approve) was signed without the ledger" in capsys.readouterr().out


# ---------------------------------------------------------------------------------------------- hostile records, times
@pytest.mark.parametrize(
    ("edit", "named"),
    [
        (replace_field(3, "number", 3_000_000_000), "line 3 of .* is no entry: number"),
        (replace_field(2, "number", 10**90), "line 2 of .* is no entry"),
        (replace_field(1, "number", -(2**63)), "line 1 of .* is no entry: number"),
        (reseal(3, number=987), r"984 entries before entry 987 were removed"),
        (lambda lines: lines.extend(["{}"] * 5_000), "more than 1000 lines"),
        (lambda lines: lines.insert(0, '{"note": "' + "a" * 5_000_000 + '"}'), "line 1 of .* has 5,000,012 bytes"),
        (lambda lines: lines.insert(0, '{"a":' * 300 + "1" + "}" * 300), "line 1 of .* is no entry"),
        (lambda lines: lines.insert(0, '{"number": ' + "1" * 3_000 + "}"), "line 1 of .* is no entry"),
        (replace_field(2, "time", "2026-02-31T25:00:00.000+00:00"), "line 2 of .* is no entry: time"),
    ],
)
def test_a_hostile_record_is_named_within_seconds(report, edit, named):
    edit_lines(report / "signatures.jsonl", edit)
    assert re.search(named, problems(report))


@pytest.mark.parametrize("time", ["2020-01-01T00:00:00.000+00:00", "1999-12-31T23:59:59.999+00:00"])
def test_an_entry_that_is_older_than_the_one_before_is_named(report, time):
    edit_lines(report / "signatures.jsonl", reseal(3, time=time))
    assert re.search(rf"entry 3 \(Žofia.*\) is older \({re.escape(time)}\) than entry 2 \(Grace", problems(report))


def test_nobody_signs_with_a_clock_that_is_behind_the_record(report, monkeypatch):
    monkeypatch.setattr(signoff, "timestamp", lambda: "2024-06-01T00:00:00.000+00:00")
    with pytest.raises(SignoffError, match="this machine's clock says 2024-06-01"):
        sign_as(report, 0)


@pytest.mark.parametrize("name", ["report.pdf", "for the board.pdf"])
def test_a_pdf_is_named_as_not_compared(report, name, capsys):
    (report / name).write_bytes(b"%PDF-1.7")
    assert main(["verify", str(report)]) == 0
    assert f"{name} was NOT compared" in capsys.readouterr().out


def test_a_sparse_or_deep_file_of_the_report_is_one_sentence(report, capsys):
    with (report / "ledger_manifest.json").open("wb") as stream:
        stream.truncate(2**40)
    assert main(["verify", str(report)]) == 2
    assert "ledger_manifest.json cannot be read: it is larger than" in capsys.readouterr().err


@pytest.mark.parametrize("depth", [100, 900])
def test_a_deep_report_is_named(report, depth):
    content = '{"schema": 1, "arms": ' + "[" * depth + "]" * depth + "}"
    (report / "report.json").write_text(content)
    assert "report.json was changed" in problems(report)


def test_the_hash_of_a_ledgers_file_is_compared_before_it_is_unpacked(sweep, report, monkeypatch):
    """What fits its hash needs no unpacking, and what does not is unpacked within bounds."""
    read = []
    monkeypatch.setattr(ledger_hash, "read_rows", lambda path: read.append(path.name) or pd.DataFrame())
    monkeypatch.setattr(signoff, "_rebuild_problems", lambda *_: [])
    assert verify(report).problems == ()
    assert read == []
    (sweep / POINT_2).write_bytes(b"PAR1" * 100)
    assert "was changed" in problems(report)
    assert read == ["point_2.parquet"]


@pytest.mark.parametrize(
    ("before", "now", "named"),
    [
        (["a", "b"] * 5_000, ["b", "a"] * 5_000, "rows 1 to 10000 changed"),
        (["a"] * 20_000, ["a", "b"] * 9_000, "rows 2 to 18000 changed"),
        ([str(row) for row in range(9_000)], [str(row) for row in range(9_000) if row != 4_321], "row 4322 removed"),
    ],
)
def test_rows_that_were_made_to_be_slow_to_compare_are_compared_in_seconds(before, now, named):
    assert named in ledger_hash._changed_rows(before, now, "row")


def test_differences_are_the_leaves():
    ours, theirs = {"a": [1, {"b": 2}], "c": 1, "e": True}, {"a": [1, {"b": 3}, 4], "d": None, "e": 1}
    assert [path for path, _, _ in differences(ours, theirs)] == ["a[1].b", "a[2]", "c", "e", "d"]
