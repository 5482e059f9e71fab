"""Every kind of tampering that we could think of is found, and named."""

from __future__ import annotations

import json
import re
import shutil
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pandas as pd
import pytest

from analysis.__main__ import main
from analysis.ledger_hash import sha256
from analysis.report import figures
from analysis.signatures import Signature, SignoffError, append, read_record
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


@pytest.fixture(scope="module", autouse=True)
def drawn_once():
    """The figures of one and the same report are drawn once for all tests; that is most of the time of `verify`."""
    drawn, draw = {}, figures.pictures

    def pictures(report):
        key = json.dumps(report, sort_keys=True)
        return drawn[key] if key in drawn else drawn.setdefault(key, draw(report))

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(figures, "pictures", pictures)
        yield


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
    verdict = verify(report, rebuild=True)
    assert verdict.problems == ()
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
        lambda r: r["arms"][0]["gold"].update(value=99.25),
        r"arms\[0\]\.gold\.value: 99\.25 in report\.json, \d+",
    ),
    "a text": (lambda r: r.update(headline="DPO won."), r'headline: "DPO won\." in report\.json, "PPO'),
    "a key removed": (lambda r: r["decision"].pop("confidence"), r"decision\.confidence: absent in report\.json"),
    "a key added": (lambda r: r.update(extra=[1]), r"extra: \[1\] in report\.json, absent by the ledger"),
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
    edit_json(report / "report.json", lambda r: r["arms"][0]["gold"].update(value=99.25))
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
    assert "were NOT compared" in " ".join(verdict.agreements)
    edit_json(report / "report.json", lambda r: r.update(headline=""))
    assert "report.json was changed" in problems(report)


# --------------------------------------------------------------------------------------------------------- the ledger
def raise_gold(frame: pd.DataFrame) -> pd.DataFrame:
    frame.loc[3, "gold"] += 0.25
    return frame


LEDGER_EDITS: dict[str, tuple[Callable[[Path], object], str]] = {
    "a row of samples": (
        lambda s: edit_rows(s / POINT_2, raise_gold),
        rf"ledger: {POINT_2}: row 4 changed\n(.*\n)*.*arms\[0\]\.gold\.value: \S+ in report\.json, \S+ by the ledger",
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
    edit_rows(sweep / POINT_2, raise_gold)
    new = sha256((sweep / POINT_2).read_bytes())

    def change(content):
        content["files"].pop(POINT_2) if edit == "file" else content["files"][POINT_2].update(sha256=new)

    edit_json(report / "ledger_manifest.json", change)
    found = problems(report)
    assert "ledger_manifest.json was changed" in found
    assert "ledger: it is not the recorded one" in found
    assert re.search(r"arms\[0\]\.gold\.value", found)


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


def reseal(number: int, **changes: Any) -> Callable[[list[str]], object]:
    def edit(lines):
        lines[number - 1] = resealed(lines[number - 1], **changes)

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
        ("نازنین\u200cزهرا", "👩‍🔬 " + "long words " * 900),
        ("  Cafe\u0301 ", "tab\tand\n\nparagraphs"),
    ],
)
def test_odd_but_honest_text_is_kept_and_shown_as_text(report, name, note):
    entry = sign(report, name=name, role="reviewer", decision="conditional", note=note)
    assert verify(report).problems == ()
    assert read_record(report).signatures[-1] == entry
    assert entry.name in {name, "Café"}
    page = (report / "report.html").read_text(encoding="utf-8")
    assert "<script" not in page
    assert "</p><b>" not in page
    assert "\n# heading" not in re.sub(r"````text\n.*?\n````", "", (report / "report.md").read_text(), flags=re.DOTALL)


@pytest.mark.parametrize(
    ("path", "edit"),
    [
        ("report/report.json", lambda c: c["arms"][0]["gold"].update(value=1)),
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
def test_people_who_sign_at_once_all_stand_in_one_chain(report):
    command = [sys.executable, "-m", "analysis", "sign", str(report), "--role", "reviewer", "--decision", "approve"]
    signers = [subprocess.Popen([*command, "--name", name], stdout=subprocess.DEVNULL) for name in "ABCD"]
    assert [signer.wait() for signer in signers] == [0] * 4
    verdict = verify(report)
    assert verdict.problems == ()
    assert sorted(entry.name for entry in verdict.signatures[3:]) == ["A", "B", "C", "D"]
    assert [entry.number for entry in verdict.signatures] == list(range(1, 8))


def test_a_crash_between_record_and_pages_is_told_and_mended(report):
    last = read_record(report).signatures[-1]
    append(report, last.model_copy(update={"number": 4, "previous": last.sha256}))
    assert "report.md is not what report.json and signatures.jsonl give" in problems(report)
    assert main(["report", "--from-json", str(report / "report.json")]) == 0
    assert verify(report).problems == ()


# --------------------------------------------------------------------------------------------------- the real commands
def test_the_commands_as_people_type_them(sweep, report):
    def run(*arguments):
        command = [sys.executable, "-m", "analysis", *map(str, arguments)]
        return subprocess.run(command, capture_output=True, text=True, check=False)

    fields = ["--name", "Łukasz", "--role", "on call", "--decision", "reject", "--note", "two\nlines"]
    signed = run("sign", report, *fields)
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


def test_rebuild_finds_a_report_that_its_ledger_does_not_give(report, monkeypatch):
    """All hashes were made to fit: only building the report again tells."""
    edit_json(report / "report.json", lambda r: r["arms"][0]["gold"].update(value=99.25))
    (report / "signatures.jsonl").unlink()
    assert main(["report", "--from-json", str(report / "report.json")]) == 0
    sign_as(report, 0)
    assert verify(report).problems == ()
    found = problems(report, rebuild=True)
    assert "arms[0].gold.value: 99.25 in report.json" in found


def test_differences_are_the_leaves():
    ours, theirs = {"a": [1, {"b": 2}], "c": 1, "e": True}, {"a": [1, {"b": 3}, 4], "d": None, "e": 1}
    assert [path for path, _, _ in differences(ours, theirs)] == ["a[1].b", "a[2]", "c", "e", "d"]
