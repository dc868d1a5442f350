"""What the screen and the model card say about a file's errors by class and by length."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

from optim.common.text import in_line, markdown

Quality = Mapping[str, Any]  # that part of result.json

CLASSES_SHOWN = 10  # in the card: those with the lowest F1; result.json has all
NAMES_SHOWN = 5  # of classes that are never answered


def never_answered(quality: Quality) -> list[str]:
    """The classes that dev has and the file never answers."""
    return [c["label"] for c in quality["classes"] if c["examples"] and not c["answered"]]


def never_answered_line(quality: Quality) -> str:
    """For the screen: a line, or nothing."""
    if not (names := never_answered(quality)):
        return ""
    more = f" and {len(names) - NAMES_SHOWN} more" if len(names) > NAMES_SHOWN else ""
    count = f"{len(names)} of {len(quality['classes'])} classes"
    return f"  Never answered: {count}: {', '.join(map(in_line, names[:NAMES_SHOWN]))}{more}\n"


def errors_section(quality: Quality) -> str:
    """For the card: tables by class and by length, and the classes that are never answered."""
    worst = sorted(quality["classes"], key=lambda c: (c["f1"] is None, c["f1"] or 0.0))[:CLASSES_SHOWN]
    shown = worst if len(quality["classes"]) > CLASSES_SHOWN else quality["classes"]
    title = f"The {CLASSES_SHOWN} classes with the lowest F1" if shown is worst else "By class"
    classes = "\n".join(
        f"| {markdown(c['label'])} | {c['examples']} | {_text(c['precision'])} | {_text(c['recall'])} "
        f"| {_text(c['f1'])} |"
        for c in shown
    )
    never = markdown(never_answered_line(quality))
    return f"""## {title}

| class | sentences | precision | recall | F1 |
|---|---|---|---|---|
{classes}

{never + chr(10) + chr(10) if never else ""}## By length

| tokens | sentences | accuracy (95 %) | teacher | change, points (95 %) |
|---|---|---|---|---|
{_lengths(quality["kinds"])}
"""


def _lengths(kinds: Sequence[Mapping[str, Any]]) -> str:
    return "\n".join(
        f"| {k['value']} | {k['examples']} | {k['accuracy_fraction']:.4f} ({k['ci95_low']:.3f}-{k['ci95_high']:.3f}) "
        f"| {k['teacher_accuracy_fraction']:.4f} "
        f"| {k['change_points']:+.2f} ({k['change_low_points']:+.2f} to {k['change_high_points']:+.2f}) |"
        for k in kinds
        if k["kind"] == "tokens"
    )


def _text(share: float | None) -> str:
    return "-" if share is None else f"{share:.4f}"
