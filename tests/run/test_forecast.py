"""How long fits take, said before they start: by hand, on a made-up cache."""

# pyright: reportGeneralTypeIssues=false
from __future__ import annotations

import json
import subprocess
import sys
import time
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
from conftest import ROOT, TRAIN_COUNT, Runs, sentences
from whole_points import point

from optim.common.stages import SUMS
from optim.encoder.architecture import Architecture
from optim.run import product
from optim.run.fits import FitStep, LogitsStep
from optim.run.forecast import SHARE, START_S, Forecast, spoken, weights_of
from optim.run.steps import Steps, steps_of
from optim.run.surgery import shape_before
from optim.sweep import plan

# 2 layers of 10: 4 * (10 * 10 + 10) + (10 * 20 + 20) + (20 * 10 + 10) + 2 * 20 = 910 each; 8 positions and 2 types
# and norms, 100; pooler 110; classifier 22. The 1,000 words of 10 count nothing.
SHAPE = Architecture(
    family="bert", vocabulary_size=1000, position_count=6, width=10, head_width=5, heads=(2, 2), ffn_widths=(20, 20),
    norm_epsilon=1e-12, hidden_dropout=0.0, attention_dropout=0.0, head_dropout=0.0, pooling="first", classes=2,
)  # fmt: skip
WEIGHTS = 2 * 910 + 80 + 110 + 22


@pytest.fixture(scope="module")
def runs(tmp_path_factory: pytest.TempPathFactory) -> Runs:
    return Runs(tmp_path_factory.mktemp("forecast"))


def put(cache: Path, name: str, seconds: float, key: dict, shape: Architecture | None = None) -> Path:
    """A stage that was made once."""
    folder = cache / "stages" / name
    folder.mkdir(parents=True)
    (folder / SUMS).write_text(json.dumps({"seconds": seconds, "sha256": {}, "key": key}))
    if shape:
        (folder / "architecture.json").write_text(json.dumps(shape.to_json()))
    return folder


def put_tokens(cache: Path, name: str, count: int) -> None:
    np.savez(put(cache, name, 1, {}) / "train.npz", offsets=np.array([0, 3, count]))


def fit_key(tokens: str, epochs: int, precision: str = "float32") -> dict:
    fit = {"precision": precision, "recipe": {"epochs": epochs}}
    return {"tokens": tokens, "teachers": [], "loss": {}, "fit": fit}


def tiny_shape() -> Architecture:
    """Of conf/model/tiny.yaml, as fits and cache know it; its vocabulary counts nothing."""
    return replace(SHAPE, position_count=512, width=32, head_width=16, ffn_widths=(64, 64))


def planned(runs: Runs, cache: Path, *words: str) -> tuple[Steps, FitStep, LogitsStep, FitStep]:
    """(steps, teacher, its answers, student) of a tiny student of one layer, taught by tiny."""
    chosen = point(runs, "model.layers=1", "model.seed=5", "distill.teacher=tiny", *words)
    steps = steps_of(chosen, chosen.source.load(cache), cache)
    answers = steps.student.answers[0]
    return steps, steps.teachers[0], answers, steps.student


def test_weights_are_counted_without_the_words():
    assert weights_of(SHAPE) == WEIGHTS
    assert weights_of(replace(SHAPE, vocabulary_size=7)) == WEIGHTS


def test_a_fit_of_the_same_model_is_scaled_by_tokens_and_epochs(runs, tmp_path):
    """100 s for 1,000 tokens twice, 5 of them at the start. Three epochs of 4,000 tokens: 5 s and 6 times 95."""
    _, teacher, answers, _ = planned(runs, tmp_path)
    put_tokens(tmp_path, "tokens-0", 1000)
    put_tokens(tmp_path, teacher.tokens.wanted.key, 4000)
    put(tmp_path, "teacher-0", 100, fit_key("tokens-0", 2), tiny_shape())
    put(tmp_path, "teacher-1", 7, fit_key("tokens-0", 2, "bfloat16"), tiny_shape())  # another precision
    put(tmp_path, "teacher-2", 7, fit_key("tokens-0", 2), SHAPE)  # another model
    put(tmp_path, "teacher-3", 7, fit_key("tokens-9", 2), tiny_shape())  # of tokens that are gone
    put(tmp_path, "student-0", 7, fit_key("tokens-0", 2), tiny_shape())  # another kind
    put(tmp_path, "logits-0", 30, {"teacher": "teacher-0", "tokens": "tokens-0"})
    told = Forecast(tmp_path, rate=lambda: pytest.fail("the cache knows"))
    assert told.seconds(teacher) == pytest.approx(575)
    assert told.seconds(answers) == pytest.approx(120)


def test_a_fit_of_so_many_steps_sees_their_batches_whatever_is_learnt_from_beside_train(runs, tmp_path):
    """Train has 2 sentences, of 500 tokens on average. 10 steps of 8 are 40,000 tokens, 20 of 4 as many."""
    words = ["fit.student.steps=10", "fit.student.batch_size=8", "distill.augment.copies=7"]
    *_, student = planned(runs, tmp_path, *words)
    put_tokens(tmp_path, student.tokens.wanted.key, 1000)
    one_layer = replace(tiny_shape(), heads=(2,), ffn_widths=(64,))
    past = fit_key("tokens-0", 9)
    past["fit"]["recipe"] |= {"steps": 20, "batch_size": 4}
    put_tokens(tmp_path, "tokens-0", 1000)
    put(tmp_path, "student-0", 70, past | {"transfer": ["sentences made from train"]}, one_layer)
    put(tmp_path, "student-1", 7, fit_key("tokens-0", 9) | {"transfer": ["of which epochs had who knows"]}, one_layer)
    assert Forecast(tmp_path, rate=lambda: pytest.fail("the cache knows")).seconds(student) == pytest.approx(70)


def test_a_teacher_that_runs_beside_the_first_steps_counts_for_those(runs, tmp_path):
    """Forecast, and read off the cache: 6 for each weight of the student, 2 for the teacher's in a quarter of it."""
    words = ("distill=hidden", "distill.states_until=0.25")
    _, teacher, _, student = planned(runs, tmp_path, *words)
    own, other = weights_of(shape_before(student)), weights_of(tiny_shape())
    told = Forecast(tmp_path, rate=lambda: 1000.0)
    count = told._count(student.tokens)
    assert told.work(student).operations == pytest.approx((6 * own + 2 * other / 4) * 2 * count.tokens)
    put_tokens(tmp_path, student.tokens.wanted.key, 1000)
    put(tmp_path, teacher.wanted.key, 1, fit_key(student.tokens.wanted.key, 3), tiny_shape())
    put(tmp_path, "student-0", 70, {**student.key(), "tokens": student.tokens.wanted.key}, shape_before(student))
    assert Forecast(tmp_path, rate=lambda: pytest.fail("the cache knows")).seconds(student) == pytest.approx(70)


def test_sentences_without_labels_count_by_their_words(runs, tmp_path):
    """Those of a file, ten times the words of train; of copies those of the sentences that are long enough."""
    words = [len(text.split()) for text, _ in sentences(TRAIN_COUNT, 0)]
    file = tmp_path / "more.txt"
    file.write_text("\n".join(["a good film"] * (10 * sum(words) // 3)))
    for word, more in (
        (f"distill.unlabelled={file}", 10 * sum(words)),
        ("distill.augment={copies: 2, least_words: 12}", 2 * sum(n for n in words if n >= 12)),
    ):
        *_, student = planned(runs, tmp_path, word)
        *_, plain = planned(runs, tmp_path)
        told, share = Forecast(tmp_path, rate=lambda: 1000.0), more / sum(words)
        assert told.work(student).operations == pytest.approx((1 + share) * told.work(plain).operations, rel=1e-3)
        of_more = told.work(student.transfer[0].answers[0]).operations
        assert of_more == pytest.approx(share * told.work(student.answers[0]).operations, rel=1e-3)


def test_answers_of_a_file_of_which_nothing_was_left_tell_nothing(runs, tmp_path):
    _, teacher, answers, _ = planned(runs, tmp_path)
    put_tokens(tmp_path, "tokens-0", 1000)
    np.savez(put(tmp_path, "tokens-1", 1, {}) / "train.npz", offsets=np.array([0]))
    put_tokens(tmp_path, teacher.tokens.wanted.key, 4000)
    put(tmp_path, "teacher-0", 100, fit_key("tokens-0", 2), tiny_shape())
    for i, seconds in enumerate((30, 1)):
        put(tmp_path, f"logits-{i}", seconds, {"teacher": "teacher-0", "tokens": f"tokens-{i}"})
    assert Forecast(tmp_path, rate=lambda: pytest.fail("the cache knows")).seconds(answers) == pytest.approx(120)


def test_r_drop_reads_each_sentence_twice(runs, tmp_path):
    """A fit without it: 5 s, and 95 for 1,000 tokens twice. With it, of three epochs of 1,000: 5 s and 3 times 95."""
    _, teacher, *_ = planned(runs, tmp_path, "fit.teacher.r_drop=0.5")
    put_tokens(tmp_path, "tokens-0", 1000)
    put_tokens(tmp_path, teacher.tokens.wanted.key, 1000)
    past = fit_key("tokens-0", 2)
    put(tmp_path, "teacher-0", 100, past, tiny_shape())
    assert Forecast(tmp_path).seconds(teacher) == pytest.approx(290)
    past["fit"]["recipe"] |= {"r_drop": 1.0}
    put(tmp_path, "teacher-1", 100, past, tiny_shape())  # the median is between 290 s and 147.5 s
    assert Forecast(tmp_path).seconds(teacher) == pytest.approx(218.75)


def test_of_several_fits_the_median_counts(runs, tmp_path):
    _, teacher, *_ = planned(runs, tmp_path, "fit.teacher.epochs=1")
    put_tokens(tmp_path, "tokens-0", 1000)
    put_tokens(tmp_path, teacher.tokens.wanted.key, 1000)
    for i, seconds in enumerate((10, 1000, 20)):
        put(tmp_path, f"teacher-{i}", seconds, fit_key("tokens-0", 1), tiny_shape())
    assert Forecast(tmp_path).seconds(teacher) == pytest.approx(20)


def test_a_fit_that_ended_soon_after_its_start_tells_nothing_of_a_longer_one(runs, tmp_path):
    """9 s for a token, most of them of the start, are no 9,000 s for a thousand tokens; of as short a one they tell."""
    for tokens, expected in ((1000, START_S + 6 * weights_of(tiny_shape()) * 1000 / 1000), (1, 9)):
        cache = tmp_path / str(tokens)
        _, teacher, *_ = planned(runs, cache, "fit.teacher.epochs=1", "fit.precision=float32")
        put_tokens(cache, "tokens-0", 1)
        put_tokens(cache, teacher.tokens.wanted.key, tokens)
        put(cache, "teacher-0", 9, fit_key("tokens-0", 1), tiny_shape())
        assert Forecast(cache, rate=lambda: 1000.0).seconds(teacher) == pytest.approx(expected)


@pytest.mark.parametrize("precision", ["float32", "bfloat16"])
def test_without_a_fit_the_product_of_matrices_tells(precision, runs, tmp_path):
    """6 operations for each weight and token of a fit, 2 of the answers, at a rate of 1,000 in a second."""
    _, teacher, answers, student = planned(runs, tmp_path, f"fit.precision={precision}")
    put_tokens(tmp_path, teacher.tokens.wanted.key, 500)
    told, weights = Forecast(tmp_path, rate=lambda: 1000.0), weights_of(tiny_shape())
    fit_s = 6 * weights * 500 / 1000
    assert told.seconds(teacher) == pytest.approx(START_S + 3 * fit_s / SHARE[precision])
    assert told.seconds(answers) == pytest.approx(START_S + fit_s / 3 / SHARE[precision])
    one_layer = weights_of(replace(tiny_shape(), heads=(2,), ffn_widths=(64,)))
    assert told.seconds(student) == pytest.approx(START_S + 2 * 6 * one_layer * 500 / 1000 / SHARE[precision])


def test_sentences_without_tokens_are_counted_by_their_words(runs, tmp_path):
    """Within a fifth of what the tokenizer makes of ordinary words, which `tiny` knows."""
    _, teacher, *_ = planned(runs, tmp_path)
    words = sum(len(text.split()) + 2 for text, _ in sentences(TRAIN_COUNT, 0))
    guessed = Forecast(tmp_path).work(teacher).operations / (6 * 3 * weights_of(tiny_shape()))
    assert words <= guessed <= 1.3 * words


def test_a_line_for_each_fit_to_come_and_none_for_what_is_there(runs, tmp_path):
    steps, teacher, answers, _ = planned(runs, tmp_path, "distill.seeds=2", "distill.teacher_seed=4")
    told = Forecast(tmp_path, rate=lambda: 1e9)
    lines = told.lines(steps.all())
    assert [line.split(":")[0] for line in lines] == [
        "teacher tiny, seed 4", "answers of teacher tiny, seed 4", "teacher tiny, seed 5",
        "answers of teacher tiny, seed 5", "student tiny, seed 0", "all of these",
    ]  # fmt: skip
    assert all(": about " in line for line in lines)
    for step in steps.all():
        if step not in (teacher, answers):
            put(tmp_path, step.wanted.key, 1, {})
    assert [line.split(":")[0] for line in told.lines(steps.all())[:-1]] == [
        "teacher tiny, seed 4", "answers of teacher tiny, seed 4",
    ]  # fmt: skip
    put(tmp_path, teacher.wanted.key, 1, {})
    put(tmp_path, answers.wanted.key, 1, {})
    assert Forecast(tmp_path, rate=lambda: pytest.fail("nothing is to come")).lines(steps.all()) == []


def test_answers_about_train_and_about_more_sentences_are_told_apart(runs, tmp_path):
    file = tmp_path / "more.txt"
    file.write_text("a good film\n" * 9)
    for word, texts in (
        (f"distill.unlabelled={file}", "those of distill.unlabelled"),
        ("distill.augment={copies: 2, least_words: 2}", "sentences made from train"),
    ):
        steps, *_ = planned(runs, tmp_path, word)
        lines = Forecast(tmp_path, rate=lambda: 1e9).lines(steps.all())
        told = [line.split(": about ")[0] for line in lines if line.startswith("answers")]
        assert told == ["answers of teacher tiny, seed 0", f"answers of teacher tiny, seed 0, on {texts}"]


def test_a_student_of_its_teacher_is_as_large_as_that(runs, tmp_path):
    chosen = point(runs, "prune=fixed50")
    steps = steps_of(chosen, chosen.source.load(tmp_path), tmp_path)
    assert Forecast(tmp_path).work(steps.student).weights == weights_of(tiny_shape())


def test_durations_are_said_as_people_say_them():
    assert [spoken(s) for s in (3.2, 99, 240, 3900, 7200)] == ["3 s", "99 s", "4 min", "65 min", "2.0 h"]


def test_a_plan_says_under_a_second_and_not_about_none():
    assert [plan._about(s) for s in (0.0, 0.9, 1.2, 240)] == ["under 1 s", "under 1 s", "about 1 s", "about 4 min"]


@pytest.mark.timed
def test_the_product_takes_half_a_second_and_is_a_rate():
    start = time.perf_counter()
    rate = product.product_rate()
    assert time.perf_counter() - start < 2
    assert 1e8 < rate < 1e14


@pytest.mark.skipif(not Path("/proc/self/task").is_dir(), reason="only Linux lists the threads of a process")
def test_the_product_is_timed_on_one_thread_and_counts_for_each_core(monkeypatch):
    """Several threads wait for each other: on a busy machine the slowest of them is all that a clock sees."""
    threads = (
        "import os; from optim.run import product; product.core_rate(0.01); print(len(os.listdir('/proc/self/task')))"
    )
    honest = subprocess.run
    monkeypatch.setattr(product, "cores", lambda: 3)
    monkeypatch.setattr(product.subprocess, "run", lambda _, **how: honest([sys.executable, "-c", threads], **how))
    assert product.product_rate() == 3 * 1


def test_train_and_sweep_say_it_before_they_start_and_import_nothing_heavy_for_it(runs):
    """A plan of fits that nobody has timed: the sweep's process forecasts them without TensorFlow."""
    words = runs.overrides("prune=fixed50", "distill.seeds=2", "seed=3", "sweep.dry_run=true")
    code = ("import sys; sys.argv[0] = 'train.py'; import train; train.main(); "
            "heavy = {'tensorflow', 'tf_keras', 'datasets'} & set(sys.modules); assert not heavy, heavy")  # fmt: skip
    done = subprocess.run([sys.executable, "-c", code, "-m", *words], cwd=ROOT, capture_output=True, text=True,
                          timeout=100)  # fmt: skip
    assert done.returncode == 0, done.stderr
    assert "  teacher tiny, seed 3: 1 to build, each about " in done.stdout
    assert "  teacher tiny, seed 4: 1 to build, each about " in done.stdout
    assert "  student tiny, seed 3: 1 to build, each about " in done.stdout
