"""Which sentences a file gets wrong, by hand."""

from __future__ import annotations

import numpy as np
import pytest

from optim.measure import kinds, quality
from optim.run.errors_text import errors_section, never_answered, never_answered_line

LABELS = np.array([0, 0, 0, 0, 1, 1, 2, 2])
ANSWERS = np.array([0, 0, 0, 1, 1, 0, 0, 1])
TEACHER = np.array([0, 0, 0, 0, 1, 1, 2, 0])
LENGTHS = np.array([1, 2, 3, 4, 5, 6, 7, 8])
NAMES = ("<b>", "no|yes", "third", "fourth")


def test_each_class_by_hand():
    """Answered 5, 3, 0 and 0 times, of which 3, 1, 0, 0 are right; the fourth class has no sentence at all."""
    found = kinds.by_class(quality.confusion(LABELS, ANSWERS, 4), NAMES)
    assert [(c["examples"], c["answered"]) for c in found] == [(4, 5), (2, 3), (2, 0), (0, 0)]
    assert [c["precision"] for c in found] == [3 / 5, 1 / 3, None, None]
    assert [c["recall"] for c in found] == [3 / 4, 1 / 2, 0.0, None]
    assert [c["f1"] for c in found] == [6 / 9, 2 / 5, 0.0, None]
    assert [c["label"] for c in found] == list(NAMES)


def test_kinds_by_hand():
    """Lengths 1-2, 3-4, 5-6, 7-8: the file has 2, 1, 1, 0 right, the teacher 2, 2, 2, 1."""
    found = kinds.by_kind(ANSWERS == LABELS, TEACHER == LABELS, LABELS, LENGTHS, NAMES)
    parts = [k for k in found if k["kind"] == "tokens"]
    assert [(k["value"], k["examples"]) for k in parts] == [("1 to 2", 2), ("3 to 4", 2), ("5 to 6", 2), ("7 to 8", 2)]
    assert [k["accuracy_fraction"] for k in parts] == [1, 0.5, 0.5, 0]
    assert [k["teacher_accuracy_fraction"] for k in parts] == [1, 1, 1, 0.5]
    assert [(k["ci95_low"], k["ci95_high"]) for k in parts] == [quality.wilson(right, 2) for right in (2, 1, 1, 0)]
    assert [k["change_points"] for k in parts] == [0, -50, -50, -50]
    assert all(k["change_low_points"] < k["change_points"] < k["change_high_points"] for k in parts[1:])
    classes = [k for k in found if k["kind"] == "class"]
    assert [(k["value"], k["examples"], k["change_points"]) for k in classes] == [
        ("<b>", 4, -25), ("no|yes", 2, -50), ("third", 2, -50),
    ], "a class without sentences is none"  # fmt: skip
    assert classes[2]["p"] == quality.mcnemar(np.array([False, False]), np.array([True, False]))


def test_one_length_is_one_part():
    found = kinds.by_kind(ANSWERS == LABELS, TEACHER == LABELS, LABELS, np.full(8, 5), NAMES)
    assert [(k["value"], k["examples"]) for k in found if k["kind"] == "tokens"] == [("5", 8)]


def test_every_sentence_is_in_one_part_of_the_lengths():
    lengths = np.random.default_rng(0).integers(1, 12, 101)
    right = np.ones(101, bool)
    found = kinds.by_kind(right, right, np.zeros(101, int), lengths, ("one",))
    assert sum(k["examples"] for k in found if k["kind"] == "tokens") == 101


def test_what_file_and_teacher_answer_differently():
    texts = [f"text {i}" for i in range(8)]
    found = kinds.changed(texts, LABELS, TEACHER, ANSWERS, NAMES)
    assert [one["row"] for one in found] == [3, 5, 6, 7]
    assert found[0] == {"row": 3, "text": "text 3", "label": "<b>", "teacher": "<b>", "answer": "no|yes"}
    assert (found[3]["label"], found[3]["teacher"], found[3]["answer"]) == ("third", "<b>", "no|yes")


def test_card_and_screen_say_what_is_never_answered_and_escape_labels():
    table = quality.confusion(LABELS, ANSWERS, 4)
    found = {
        "classes": kinds.by_class(table, NAMES),
        "kinds": kinds.by_kind(ANSWERS == LABELS, TEACHER == LABELS, LABELS, LENGTHS, NAMES),
    }
    assert never_answered(found) == ["third"], "the fourth has no sentences to answer"
    assert never_answered_line(found) == "  Never answered: 1 of 4 classes: third\n"
    section = errors_section(found)
    assert "| &lt;b&gt; | 4 | 0.6000 | 0.7500 | 0.6667 |" in section
    assert "| no\\|yes | 2 |" in section
    assert "| third | 2 | - | 0.0000 | 0.0000 |" in section
    assert "| 7 to 8 | 2 | 0.0000 (" in section
    linked = {**found, "classes": [{**found["classes"][0], "label": "[win](http://evil) *b*"}]}
    assert "| \\[win\\](http://evil) \\*b\\* | 4 |" in errors_section(linked)
    many = {**found, "classes": found["classes"] * 3}
    assert "The 10 classes with the lowest F1" in errors_section(many)
    assert never_answered_line({**found, "classes": [found["classes"][0]]}) == ""


@pytest.mark.parametrize("count", [1, 6])
def test_many_classes_that_are_never_answered_are_counted(count):
    one = {"label": "x", "examples": 1, "answered": 0}
    line = never_answered_line({"classes": [{**one, "label": f"c{i}"} for i in range(count)]})
    assert line == {1: "  Never answered: 1 of 1 classes: c0\n",
                    6: "  Never answered: 6 of 6 classes: c0, c1, c2, c3, c4 and 1 more\n"}[count]  # fmt: skip


def test_a_class_with_a_line_end_or_a_long_name_stands_in_a_line():
    classes = [{"label": label, "examples": 1, "answered": 0} for label in ("no\n\nline", "y" * 999)]
    said = f"  Never answered: 2 of 2 classes: no line, {'y' * 36} ...\n"
    assert never_answered_line({"classes": classes}) == said
