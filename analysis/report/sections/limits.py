"""What a report of this kind does not prove."""

from __future__ import annotations

from analysis.report.section import Section

LIMITS = (
    "One base model, one data set, one length of response: another task may order the methods the other way.",
    "Few seeds speak of these checkpoints. A method's own spread shows from about five seeds on.",
    "Settings were not tuned to each method's best; the arms had equal prompt presentations, not equal cost.",
    "Gold is a classifier, not a reader: what it rewards is what it was fitted on, and its own accuracy is printed "
    "above.",
    "Words that say who is ahead are corrected for the number of primary comparisons. Other intervals are not: read a "
    "lone narrow win among many with care.",
    "The report does not test safety, abilities outside the task, or texts longer than the limit.",
)

SECTION = Section("What this does not prove", "Methods and limits", 20, lambda report, signed: {"limits": LIMITS})
