from __future__ import annotations

from collections import Counter
from collections.abc import Callable

from analysis.ledger import Ledger
from analysis.report.build import build_report
from analysis.report.render import TEMPLATES
from analysis.report.section import APPENDICES, ASIDE, FIRST, MAIN, all_sections, in_place


def test_every_section_has_a_template_and_every_template_a_section() -> None:
    """A missing template hides a section without a word, so names that do not match would go unseen."""
    files = {path.name.partition(".")[0] for path in (TEMPLATES / "sections").iterdir()}
    assert files == set(all_sections())


def test_sections_stand_in_their_places_in_order() -> None:
    placed = [name for place in (FIRST, ASIDE, MAIN, *APPENDICES) for name in in_place(place)]
    assert placed == list(all_sections())
    assert list(in_place(FIRST)) == ["what_to_do"]
    assert list(in_place(MAIN))[:2] == ["gates", "questions"]
    assert all(in_place(title) for title in APPENDICES)


def test_no_two_sections_use_one_name(make_ledger: Callable[..., Ledger]) -> None:
    report = build_report(make_ledger())
    names = Counter(name for section in all_sections().values() for name in section.view(report, ()))
    assert [name for name, times in names.items() if times > 1] == []
