"""What one part of a run hands to the next: words, seeds, splits, lengths, recipes, limits."""

# pyright: reportAttributeAccessIssue=false, reportOptionalMemberAccess=false, reportArgumentType=false
from __future__ import annotations

from dataclasses import replace
from types import SimpleNamespace
from typing import Any

import numpy as np
import pytest
from conftest import Runs, sentences
from small_fit import tokens_of
from whole_points import made, point

from optim.cut.budget import LatencyModel
from optim.data.corpus import Corpus, Sentences
from optim.data.phrases import parts_of
from optim.data.tokens import Tokens, tokenize
from optim.data.transfer import UnlabelledFile, from_nobody, save
from optim.export import quantize
from optim.export.choice import Choice
from optim.export.convert import convert
from optim.export.quantize import Calibration, Quantizer, Student
from optim.run import exports, latency_model, outcome
from optim.run.exports import CompressedStep
from optim.run.fits import TokensStep
from optim.run.starts import FromCheckpoint
from optim.run.step import Stages
from optim.run.steps import Steps, steps_of
from optim.run.surgery import SurgeryStep, shape_before
from optim.run.teaching import teaching_of
from optim.run.transfer import TEXTS, TransferTokensStep
from optim.train.rows import split


class Reached(Exception):
    """What was to be seen has been seen."""


def planned(runs: Runs, *words: str) -> Steps:
    chosen = point(runs, *words)
    return steps_of(chosen, chosen.source.load(runs.cache), runs.cache)


def test_sentences_without_labels_are_read_in_the_words_of_who_reads_them(runs):
    """A student with a cut vocabulary numbers its pieces anew: to its teacher the same ids are other words."""
    student = planned(runs, "vocab=seen", "distill.augment.copies=1").student
    (one,) = student.transfer
    (answers,) = one.answers
    own, other = (step.key()["tokenizer"] for step in (student.tokens, answers.teacher.tokens))
    assert own != other
    assert (one.tokens.key()["tokenizer"], answers.tokens.key()["tokenizer"]) == (own, other)


def test_a_student_is_cut_by_training_sentences_and_never_by_those_of_dev(tmp_path):
    asked: list[str] = []
    start = SimpleNamespace(tokenizer=lambda stages: tmp_path)
    whole: Any = SimpleNamespace(start=start, tokens=SimpleNamespace(read=lambda stages, part: asked.append(part)))
    surgery: Any = SimpleNamespace(tables=(), cut=lambda patient, folder: None)
    stages: Any = SimpleNamespace(folder=lambda step: tmp_path)
    SurgeryStep(surgery, whole, None).build(tmp_path, tmp_path, stages)
    assert asked == ["train"]


def begun(monkeypatch, call) -> tuple[Any, Any]:
    """(task, settings) that a fit begins with; `call` comes to it."""
    given: list[Any] = []

    def fit(task, settings, journal):
        given.extend((task, settings))
        raise Reached

    monkeypatch.setattr("optim.train.fit.Fit", fit)
    with pytest.raises(Reached):
        call()
    return given[0], given[1]


def test_a_fit_draws_by_its_seed_and_holds_out_what_it_says(runs, monkeypatch, tmp_path):
    """The student of seed 5 begins from the teacher of seed 3, and is judged by what that one has not seen."""
    student = planned(runs, "prune=fixed50", "seed=5", "distill.teacher_seed=3").student
    _, settings = begun(monkeypatch, lambda: student._fit(None, tmp_path, tmp_path, None))
    assert (settings.seed, settings.holdout_seed) == (5, 3)
    texts, schedule = student.tokens.corpus.train.texts, settings.schedule
    held = split(len(texts), holdout=schedule.holdout, minimum=schedule.holdout_minimum, seed=3, parts=parts_of(texts))
    np.testing.assert_array_equal(student.rows(parts_of(texts))["held_out"], held[1])


def test_a_fit_holds_copies_of_a_text_out_together(runs, monkeypatch, tmp_path):
    for name, seed in (("train", 0), ("dev", 1)):
        rows = [(one, label) for text, label in sentences(40, seed) for one in (text, text.upper())]
        (tmp_path / f"{name}.tsv").write_text("sentence\tlabel\n" + "".join(f"{t}\t{label}\n" for t, label in rows))
    teacher = planned(runs, f"data.path={tmp_path}", "data.phrases=false").teachers[0]
    stages = Stages(runs.cache, lambda fit, row: None)
    task, settings = begun(monkeypatch, lambda: teacher.build(tmp_path, tmp_path, stages))
    held = split(len(task.tokens), holdout=settings.schedule.holdout, minimum=settings.schedule.holdout_minimum,
                 seed=settings.holdout_seed, parts=task.parts, copies=task.copies)[1]  # fmt: skip
    assert {row ^ 1 for row in held} == set(held), "each with its copy"
    np.testing.assert_array_equal(teacher.rows(None)["held_out"], held)


def test_sentences_are_cut_where_the_data_say(runs, tmp_path):
    both = Sentences(["a " * 50, "a"], np.array([0, 1], np.int32))
    corpus, start = Corpus("two", both, both, ("no", "yes"), "d"), FromCheckpoint(point(runs).checkpoint, runs.cache)
    save(tmp_path / TEXTS, [from_nobody(both.texts)])
    texts: Any = SimpleNamespace(counts=lambda stages: {"examples": 2})
    stages: Any = SimpleNamespace(folder=lambda step: tmp_path)
    for step in (TokensStep(corpus, start, 10), TransferTokensStep(texts, start, 10)):
        step.build(tmp_path, tmp_path, stages)
        assert Tokens.load(tmp_path / "train.npz").lengths.tolist() == [10, 3]
        (tmp_path / "train.npz").unlink()


def turned(student: Student) -> bytes:
    """A file that turns every answer round."""
    model = student.load()
    layer = model.get_layer("classifier")
    layer.set_weights([-w for w in layer.get_weights()])
    return convert(model)


def answering_round(runs: Runs, usual: float) -> Any:
    """The outcome of a point whose file turns every answer round, which measure.max_disagreement=1 lets pass."""
    plain = point(runs)
    spec = {**plain.specs, "quant": {"method": "turned", "version": 1}}
    quantizer = Quantizer(max_disagreement=usual, run=turned)
    return made(runs, replace(plain, quantizer=quantizer, max_disagreement=1.0, specs=spec))[2]


def test_a_bundle_has_the_words_of_its_student(runs):
    steps, stages, found = made(runs, point(runs, "vocab=seen"))
    dev = steps.student.tokens.read(stages, "dev")
    again = tokenize(steps.student.tokens.corpus.dev, tokenizer_path=found.tokenizer, max_length=128)
    np.testing.assert_array_equal(again.ids, dev.ids)


def test_what_file_and_teacher_answer_otherwise_is_told_of_each(runs):
    found = answering_round(runs, usual=1.0)
    answers, teacher = found.answers["answers"], found.answers["teacher"]
    assert len(found.changed) > 100
    for one in found.changed:
        own, other = (found.labels[of[one["row"]]] for of in (answers, teacher))
        assert (one["answer"], one["teacher"]) == (own, other)


def test_a_file_is_let_pass_by_the_limit_that_is_set_and_not_by_what_is_usual(runs):
    assert answering_round(runs, usual=0.0).quality["agreement_fraction"] <= 0.05


def test_accuracy_by_length_and_class_is_the_file_s_beside_the_teacher_s():
    dev = tokens_of(20)
    found = outcome._errors(dev, dev.labels, np.eye(2)[1 - dev.labels], ("bad", "good"))["kinds"]
    assert {(one["accuracy_fraction"], one["teacher_accuracy_fraction"]) for one in found} == {(0.0, 1.0)}


def test_shapes_are_timed_as_files_of_their_precision_at_the_length_of_the_bench(runs, monkeypatch):
    truth, seen = LatencyModel(base_ms=1, layer_ms=1, head_ms=1, column_ms=1 / 64), []
    steps = planned(runs, "slim=budget", "slim.latency_ms=6", "quant=int8", "bench.sequence_length=24")
    (step,) = steps._latencies()

    def latency(files, *, ids, length, bench):
        seen.append((length, {path.read_bytes() for path in files.values()}))
        return {name: {"latency_p50_ms": truth(latency_model.probes(step.shape)[int(name)])} for name in files}

    monkeypatch.setattr(latency_model, "latency", latency)
    monkeypatch.setattr(latency_model, "convert", lambda model: b"float32")
    monkeypatch.setattr("optim.encoder.graph.classifier", lambda shape, single: None)
    step.point = replace(step.point, quantizer=Quantizer(max_disagreement=1.0, run=lambda student: b"int8"))
    Stages(runs.cache, lambda fit, row: None).make(step)
    assert seen == [(24, {b"int8"})]


def test_a_teacher_is_fitted_as_is_usual_for_it_and_not_for_its_student(runs):
    """runs.overrides() leaves open the warm-up alone."""
    usual = "+fit.usual.mine={epochs: 1, batch_size: 8, learning_rate: 1e-3, warmup: 0.3}"
    words = ("distill.teacher=tiny", "model.name=mine", "model.seed=5", usual, "fit.usual.other.warmup=0.4")
    steps = planned(runs, *words, "slim=slim50")
    assert steps.teachers[0].recipe.warmup == 0.4
    assert steps.student.start.step.whole.recipe.warmup == 0.3, "what it is cut out of is of its own model"


@pytest.mark.parametrize("precision", ["float32", "bfloat16"])
def test_a_fit_begins_with_what_its_seed_draws_in_the_precision_that_is_asked_for(precision, runs):
    heads = []
    for seed in (0, 0, 1):
        teacher = planned(runs, f"seed={seed}", f"fit.precision={precision}").teachers[0]
        model = teacher._fresh(shape_before(teacher), None)
        heads.append(model.get_layer("classifier").get_weights()[0])
        assert model.get_layer("pooler").compute_dtype == precision
    np.testing.assert_array_equal(heads[0], heads[1])
    assert (heads[0] != heads[2]).any()


def test_every_setting_of_a_quantization_reaches_what_reads_it():
    told: Any = {"samples": 7, "seed": 3, "source": "whole"}
    found = [quantize.static_int8(max_disagreement=1.0, products="ffn", **told),
             quantize.integer(max_disagreement=1.0, activation_bits=8, **told),
             quantize.qat_int8(max_disagreement=1.0, products="ffn", memory=0.5, **told)]  # fmt: skip
    assert [one.calibration for one in found] == [Calibration(**told)] * 3
    auto = quantize.auto(max_disagreement=1.0, candidates=["a", "b"], max_drop_points=3.0, tie=0.2)
    assert auto.choice == Choice(candidates=("a", "b"), max_drop_points=3.0, tie=0.2)


@pytest.mark.parametrize(("most", "small"), [(0.3, []), (0.6, ["layer1_key"])])
def test_mixed_loses_no_more_than_it_may(most, small, monkeypatch, tmp_path):
    (tmp_path / "float32").write_bytes(b"")
    monkeypatch.setattr(quantize, "with_lookups", lambda content: content)
    monkeypatch.setattr(quantize, "_blocks_file", lambda student, content, **how: how)
    together = [{"kernels": ["layer1_key"], "accuracy_points": -0.55, "low": -1.0, "high": 1.0}]
    table = {"order_int4": ["layer1_key"], "examples": 10, "together_int4": together}
    student = Student(load=lambda: None, float32_path=tmp_path / "float32", train=tokens_of(5),
                      tables={quantize.SENSITIVITY: table})  # fmt: skip
    written: Any = quantize.mixed(max_disagreement=1.0, max_drop_points=most, block=32).run(student)
    assert written == {"small": small, "block": 32, "embedding_bits": 8}


@pytest.mark.parametrize("pooling", ["first", "mean"])
def test_a_model_is_pooled_as_it_is_asked_for(pooling, runs):
    assert shape_before(planned(runs, f"model.pooling={pooling}").student).pooling == pooling


def test_a_file_is_compressed_at_the_level_that_is_asked_for(monkeypatch, tmp_path):
    levels: list[int] = []
    (tmp_path / exports.MODEL).write_bytes(b"")
    monkeypatch.setattr(exports, "compress", lambda content, *, level: levels.append(level) or b"")
    monkeypatch.setattr(exports, "decompress_p50_ms", lambda path: 1.0)
    stages: Any = SimpleNamespace(folder=lambda step: tmp_path)
    chosen: Any = SimpleNamespace(export=SimpleNamespace(zstd_level=22))
    CompressedStep(chosen, None).build(tmp_path, tmp_path, stages)
    assert levels == [22]


@pytest.mark.parametrize(("temperature", "right"), [(1.0, 0.0), (10.0, 1.0)])
def test_an_ensemble_is_asked_at_the_temperature_of_the_loss(temperature, right):
    """Logits 6, -2, -2 of the class: 0.998, 0.119, 0.119 at T = 1, a mean of 0.41; 0.646, 0.450, 0.450 at 10: 0.52."""
    fits = [SimpleNamespace(dev_logits=lambda stages, own=own: np.array([[own, 0.0]])) for own in (6.0, -2.0, -2.0)]
    steps: Any = SimpleNamespace(teachers=fits, student=fits[0])
    chosen: Any = SimpleNamespace(specs={"distill": {"temperature": temperature}})
    told = teaching_of(chosen, None, steps, SimpleNamespace(cache_dir=None), np.array([0]))
    assert told["ensemble_accuracy_fraction"] == right


def test_a_file_of_two_columns_is_read_by_the_one_that_is_named(tmp_path):
    (tmp_path / "x.csv").write_text("text,review\n17,a good film\n")
    assert UnlabelledFile(tmp_path / "x.csv", "review").texts() == ["a good film"]


def test_phrases_of_a_text_are_asked_of_the_data_and_not_of_what_was_asked_before():
    """A sweep over data.phrases reads the same sentences twice."""
    both = Sentences(["a film that is very good indeed", "very good indeed"] * 3, np.zeros(6, np.int32))
    phrases, plain = (Corpus("own", both, both, ("no", "yes"), "one digest", phrases=one) for one in (True, False))
    for first, second in ((phrases, plain), (plain, phrases)):
        exports._found.clear()
        found = {one.phrases: exports._parts(one) for one in (first, second)}
        assert found[True] is not None
        assert found[False] is None
