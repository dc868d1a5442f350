"""Sentences without labels through the front door: made from train, and from a file; keys, stages, counts."""

from __future__ import annotations

import csv
import dataclasses
import json
import shutil
from pathlib import Path

import numpy as np
import pytest
from conftest import CONF, DEV_COUNT, TRAIN_COUNT, Runs, sentences
from hydra import compose, initialize_config_dir
from whole_points import point

from optim.common.errors import UserError
from optim.data import augment
from optim.data.phrases import parts_of
from optim.data.spelling import normal_form
from optim.data.tables import read_rows
from optim.data.transfer import parents_of, texts_of
from optim.run.keys import run_id_of
from optim.run.outcome import _without_labels
from optim.run.point import point_of
from optim.run.step import Stages
from optim.run.steps import Steps, steps_of
from optim.train.rows import split

MADE = ("distill.augment.copies=2", "prune=fixed50", "fit.student.epochs=1")


@pytest.fixture(scope="module")
def runs(tmp_path_factory: pytest.TempPathFactory) -> Runs:
    """A cache of its own, in which stages can be counted."""
    return Runs(tmp_path_factory.mktemp("transfer"))


@pytest.fixture(scope="module")
def file(runs: Runs) -> Path:
    """200 sentences: 20 of train, 20 said twice, 160 new ones; none of dev."""
    train, dev = ({normal_form(t) for t, _ in read_rows(runs.data / f"{s}.tsv", "sentence", "label")} for s in
                  ("train", "dev"))  # fmt: skip
    new = [text for text, _ in sentences(400, seed=7) if normal_form(text) not in train | dev]
    new = list(dict.fromkeys(new))[:160]
    path = runs.folder / "more.csv"
    with path.open("w", newline="") as out:
        writer = csv.writer(out)
        writer.writerows([["text"], *([text] for text in (*new, *new[:20], *sorted(train)[:20]))])
    return path


@pytest.fixture(scope="module")
def results(runs: Runs, file: Path) -> dict[str, dict]:
    """A student with made-up sentences, one with those of the file as well, and one with neither."""
    both = (*MADE, f"distill.unlabelled={file}")
    return {name: runs.here(*words) for name, words in (("made", MADE), ("both", both), ("plain", MADE[1:]))}


def stages(runs: Runs, kind: str) -> list[Path]:
    return list((runs.cache / "stages").glob(f"{kind}-*[0-9a-f]"))


def test_students_learn_the_task_and_the_result_counts_their_sentences(results):
    for result in results.values():
        assert result["quality"]["accuracy_fraction"] >= 0.9
        assert (result["data"]["train_examples"], result["data"]["dev_examples"]) == (TRAIN_COUNT, DEV_COUNT)
    plain, made, both = (results[name]["data"] for name in ("plain", "made", "both"))
    assert plain["augmented_examples"] == plain["unlabelled_examples"] == made["unlabelled_examples"] == 0
    left = made["augmented_left_out"]
    assert made["augmented_examples"] + sum(left.values()) == 2 * TRAIN_COUNT
    assert both["augmented_examples"] == made["augmented_examples"] > TRAIN_COUNT
    assert both["unlabelled_examples"] == 160
    assert both["unlabelled_left_out"] == {"repeated": 40, "as_dev": 0, "of_held_out": 0}


@pytest.mark.slow
def test_sentences_that_the_steps_do_not_come_to_are_not_learnt_from(runs, results, tmp_path):
    """5 steps of 32 have 160 sentences, of 600 and of those made from them."""
    cache = shutil.copytree(runs.cache, tmp_path / "cache")  # another test counts the students of the first
    chosen = point(runs, *MADE, "fit.student.steps=5", "fit.precision=auto")
    student = steps_of(chosen, chosen.source.load(cache), cache).student
    data, whole = _without_labels(student, Stages(cache, lambda fit, row: None)), results["made"]["data"]
    assert 0 < data["augmented_examples"] <= 5 * 32
    left = data["augmented_left_out"]
    assert data["augmented_examples"] + left.pop("not_reached") == whole["augmented_examples"]
    assert left == whole["augmented_left_out"]


def test_the_card_says_that_more_was_learnt_from(results, runs):
    cards = {
        name: (runs.results / result["run_id"] / "bundle" / "README.md").read_text(encoding="utf-8")
        for name, result in results.items()
    }
    more = results["both"]["data"]["augmented_examples"] + 160
    assert f"Trained on {TRAIN_COUNT} sentences of sst2 and on {more:,} more, which have no labels" in cards["both"]
    assert f"Trained on {TRAIN_COUNT} sentences of sst2; the {DEV_COUNT} of dev" in cards["plain"]


def test_the_sentences_are_made_once_and_answered_once_by_each_teacher(results, runs):
    """One teacher, three students: the answers on train, on what was made and on the file are computed once."""
    assert [len(stages(runs, kind)) for kind in ("augmented", "unlabelled", "teacher", "student")] == [1, 1, 1, 3]
    assert [len(stages(runs, kind)) for kind in ("tokens", "logits")] == [3, 3]


def test_what_was_made_is_neither_train_nor_dev_and_its_parents_that_are_held_out_are_left_out(results, runs):
    (folder,) = stages(runs, "augmented")
    texts = [text for block in texts_of(folder / "texts.parquet") for text in block]
    forms = {normal_form(text) for text in texts}
    assert len(forms) == len(texts)
    train, dev = (
        [text for text, _ in read_rows(runs.data / f"{name}.tsv", "sentence", "label")] for name in ("train", "dev")
    )
    assert not forms & {normal_form(text) for text in [*train, *dev]}
    _, held = split(TRAIN_COUNT, holdout=0.05, minimum=200, seed=0, parts=parts_of(train))
    of_held = int(np.isin(parents_of(folder / "texts.parquet"), held).any(axis=1).sum())
    assert results["made"]["data"]["augmented_left_out"]["of_held_out"] == of_held > 0


def test_a_student_that_was_given_more_is_another_student(results, runs):
    counts = {name: result["cost"]["cached"] for name, result in results.items()}
    students = {next(key for key in cached if key.startswith("student-")) for cached in counts.values()}
    assert len(students) == 3
    assert [found for key, found in counts["both"].items() if key.startswith(("augmented-", "teacher-"))] == [True] * 2


def known_by(runs: Runs, *words: str) -> tuple[str, dict[str, set[str]]]:
    """(run_id, kind -> keys of its stages)."""
    chosen = point(runs, *words)
    steps = steps_of(chosen, chosen.source.load(runs.cache), runs.cache)
    keys: dict[str, set[str]] = {}
    for wanted in steps.wanted():
        keys.setdefault(wanted.name, set()).add(wanted.key)
    return run_id_of(chosen), keys


def changed_kinds(runs: Runs, *words: str) -> tuple[bool, set[str]]:
    """(whether the id changes, kinds of stage whose keys do), against MADE."""
    (one, keys), (other, others) = known_by(runs, *MADE), known_by(runs, *MADE, *words)
    return one != other, {kind for kind in keys if keys[kind] != others.get(kind)}


LATER = {"student", "float32", "file", "figures"}
OTHERS = {"augmented", "tokens", "logits"} | LATER


@pytest.mark.parametrize(
    "leaf",
    ["copies=3", "least_words=4", "replace=0.2", "neighbours=3", "words=train", "drop=0.1", "join=0.1", "seed=1"],
)
def test_every_key_of_augment_makes_other_sentences_and_no_other_teacher(runs, leaf):
    assert changed_kinds(runs, f"distill.augment.{leaf}") == (True, OTHERS)


def test_a_student_of_another_recipe_or_seed_of_files_shares_what_was_made(runs):
    assert changed_kinds(runs, "distill.temperature=4") == (True, LATER)
    assert changed_kinds(runs, "prune=fixed80") == (True, LATER)
    assert changed_kinds(runs, "fit.student.steps=9") == (True, LATER)
    changed = changed_kinds(runs, "seed=1")
    assert changed == (True, {"teacher", "logits"} | LATER), "the sentences do not depend on the training's seed"


def test_other_words_rules_or_numbers_make_other_sentences(runs, monkeypatch):
    from optim.common import versions
    from optim.run import keys

    assert "augmented" in changed_kinds(runs, "model.seed=1")[1], "the words' embeddings are others"
    before = known_by(runs, *MADE)
    monkeypatch.setattr(keys, "AUGMENTING", augment.VERSION + 1)
    after = known_by(runs, *MADE)
    assert before[0] != after[0]
    assert not before[1]["augmented"] & after[1]["augmented"]
    monkeypatch.undo()
    monkeypatch.setattr(versions, "_version", lambda name: "0.0.1" if name == "numpy" else "1")
    assert not before[1]["augmented"] & known_by(runs, *MADE)[1]["augmented"]


def test_no_copies_and_no_file_change_no_key(runs):
    """Rules of sentences that are not made say nothing; nor does `steps: null`."""
    plain = known_by(runs)
    assert known_by(runs, "distill.augment.copies=0", "distill.augment.seed=4", "distill.augment.drop=1") == plain
    assert set(plain[1]) & {"augmented", "unlabelled"} == set()
    chosen = point(runs, "prune=fixed50")
    student = steps_of(chosen, chosen.source.load(runs.cache), runs.cache).student
    assert "transfer" not in student.key()
    assert not {"steps", "augment", "unlabelled"} & ({*student.key()["fit"]["recipe"]} | {*student.key()["loss"]})


def test_a_file_counts_by_its_content(runs, file, tmp_path):
    copy, other = tmp_path / "copy.csv", tmp_path / "other.csv"
    copy.write_bytes(file.read_bytes())
    other.write_bytes(file.read_bytes() + b"another sentence\n")
    one, same, another = (known_by(runs, *MADE, f"distill.unlabelled={path}") for path in (file, copy, other))
    assert one == same
    assert one[0] != another[0]
    assert one[1]["augmented"] == another[1]["augmented"]
    assert not one[1]["unlabelled"] & another[1]["unlabelled"]


def test_a_teacher_that_is_its_own_student_learns_from_more_all_the_same(runs):
    """prune=none and the teacher `same`: without more sentences the teacher is the student."""
    corpus = point(runs).source.load(runs.cache)

    def steps(*words: str) -> Steps:
        return steps_of(point(runs, *words), corpus, runs.cache)

    assert steps().student.kind == "teacher"
    assert steps("distill.augment.copies=1").student.kind == "student"


def test_several_teachers_answer_and_the_first_one_s_words_are_taken(runs):
    words = ("model.seed=5", "model.layers=1", "distill.augment.copies=1")
    corpus = point(runs).source.load(runs.cache)

    def made(teacher: str) -> Steps:
        return steps_of(point(runs, *words, f"distill.teacher={teacher}"), corpus, runs.cache)

    alone, own_first, tiny_first = made("tiny"), made("[same,tiny]"), made("[tiny,same]")
    (one,), (two,), (three,) = (steps.student.transfer for steps in (alone, own_first, tiny_first))
    assert len(two.answers) == len(three.answers) == 2
    assert one.texts.wanted.key == three.texts.wanted.key != two.texts.wanted.key


def test_a_loss_that_runs_its_teachers_stores_no_answers(runs):
    chosen = point(runs, *MADE)
    loss = dataclasses.replace(chosen.loss, needs_logits=False, needs_models=True)  # type: ignore[type-var]
    steps = steps_of(dataclasses.replace(chosen, loss=loss), chosen.source.load(runs.cache), runs.cache)
    assert "logits" not in {step.kind for step in steps.all()}
    assert "augmented" in {step.kind for step in steps.all()}


def test_the_sentences_are_made_before_any_training(runs, file):
    chosen = point(runs, *MADE, f"distill.unlabelled={file}")
    steps = steps_of(chosen, chosen.source.load(runs.cache), runs.cache)
    assert [step.kind for step in steps.all()][:2] == ["augmented", "unlabelled"]


def test_the_column_of_a_file_is_that_of_the_data_or_text(runs, file):
    assert point(runs, f"distill.unlabelled={file}").unlabelled.column == "text"  # type: ignore[union-attr]
    words = ("data=csv", f"data.train_path={file}", "data.text_column=review", f"distill.unlabelled={file}")
    with initialize_config_dir(str(CONF), version_base="1.3"):
        cfg = compose("train", overrides=["model=tiny", "bench=quick", "track=none", "fit.precision=float32", *words])
    assert point_of(cfg).unlabelled.column == "review"  # type: ignore[union-attr]


def test_a_teacher_of_no_weight_is_refused(runs):
    with pytest.raises(UserError, match=r"distill\.teacher_weight must be above 0"):
        point(runs, *MADE, "distill.teacher_weight=0")


def test_another_kind_of_tokenizer_is_refused(runs, tmp_path):
    from optim.encoder.words import word_table

    folder = point(runs).checkpoint.fetch(runs.cache)
    content = json.loads((folder / "tokenizer.json").read_text())
    content["model"]["type"] = "BPE"
    (tmp_path / "tokenizer.json").write_text(json.dumps(content))
    with pytest.raises(UserError, match="needs a teacher with a WordPiece tokenizer"):
        word_table(tmp_path)


def test_the_words_of_a_checkpoint_are_whole_and_have_their_own_embeddings(runs):
    from safetensors.numpy import load_file

    from optim.encoder.words import word_table

    folder = point(runs).checkpoint.fetch(runs.cache)
    words, table = word_table(folder)
    vocabulary = (folder / "vocab.txt").read_text().split("\n")
    every = load_file(folder / "model.safetensors")["embeddings.word_embeddings.weight"]
    assert "film" in words
    assert not {"##ed", "a", "[CLS]", "don", ","} & set(words)
    for word in ("film", "performance", words[0]):
        np.testing.assert_array_equal(table[words.index(word)], every[vocabulary.index(word)])
