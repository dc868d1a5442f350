"""Teachers: fitted and asked once for all their students, alone and together, and whether they help a student."""

from __future__ import annotations

import json
import re
import shlex
import shutil
from collections import namedtuple
from contextlib import nullcontext
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import numpy as np
import pytest
from conftest import DEV_COUNT, TRAIN_COUNT, Runs
from made_results import made as made_result
from whole_points import made, point

from optim.common import files, memory
from optim.common.errors import UserError
from optim.common.stages import Wanted
from optim.run import card, fits, places, result, teaching
from optim.run.compose import composed
from optim.run.keys import run_id_of
from optim.run.point import point_of
from optim.run.result import Result
from optim.run.steps import other_classes, require_room, steps_of, untaught
from optim.run.surgery import shape_before
from optim.run.teaching import teaching_of
from optim.train.rows import split

# A student of one layer and random weights of its own, which tiny teaches twice.
TAUGHT = ("model.layers=1", "model.seed=5", "distill.teacher=tiny", "distill.seeds=2", "fit.student.epochs=6")
# Another model, seed, pruning, quantization and temperature under the same two teachers.
OTHER = ("model.family=distilbert", "model.layers=1", "prune=fixed50", "quant=int8", "distill.temperature=4",
         "distill.teacher=tiny", "distill.seeds=2", "seed=1", "distill.teacher_seed=0")  # fmt: skip


SINCE = ("untaught_accuracy_fraction", "untaught_p", "teacher_helps")  # told later, of a run that is done


def again(runs: Runs, *more: str) -> None:
    """A run that is done before, in this process."""
    with pytest.raises(AssertionError, match="was expected to leave one new result"):
        runs.folder_of(*more)


@pytest.fixture(scope="module")
def runs(tmp_path_factory: pytest.TempPathFactory) -> Runs:
    """A cache of its own, in which stages can be counted."""
    return Runs(tmp_path_factory.mktemp("teaching"))


@pytest.fixture(scope="module")
def first(runs: Runs) -> tuple[Path, dict[str, int]]:
    """The run folder of TAUGHT, whose own fine-tuning nobody has made yet, and the stages that it left."""
    folder = runs.folder_of("fit.precision=float32", *TAUGHT)
    return folder, stages_in(runs)


def stages_in(runs: Runs) -> dict[str, int]:
    kinds = ("teacher", "logits", "student")
    return {kind: len(list((runs.cache / "stages").glob(f"{kind}-*/stage.json"))) for kind in kinds}


def read(folder: Path) -> dict[str, Any]:
    return json.loads((folder / "result.json").read_text(encoding="utf-8"))


def test_every_fit_of_a_teacher_and_its_answers_are_made_once_for_all_students(runs, first):
    assert first[1] == {"teacher": 2, "logits": 2, "student": 1}
    steps, *_ = made(runs, point(runs, *OTHER))
    assert stages_in(runs) == {"teacher": 2, "logits": 2, "student": 2}
    assert steps.student.point.seed == 1
    assert [step.point.seed for step in steps.teachers] == [0, 1]


def test_answers_are_stored_in_half_precision_close_to_the_teacher(runs, first):
    from optim.encoder import store
    from optim.train.scores import logits_of

    steps, stages, _ = made(runs, point(runs, *TAUGHT))
    answers = steps.student.answers[0]
    stored = np.load(stages.folder(answers) / "train.npy")
    assert (stored.dtype, stored.shape) == (np.float16, (TRAIN_COUNT, 2))
    whole = logits_of(store.load(stages.folder(answers.teacher)), answers.teacher.tokens.read(stages, "train"))
    assert answers.read(stages).dtype == np.float32
    np.testing.assert_allclose(answers.read(stages), whole, rtol=2**-11, atol=2**-25)


def test_the_teacher_of_a_result_is_that_of_the_first_seed_and_the_ensemble_is_the_mean_of_all(runs, first):
    steps, stages, outcome = made(runs, point(runs, *TAUGHT))
    labels = outcome.answers["labels"]
    each = [teacher.dev_logits(stages).astype(np.float64) / 2.0 for teacher in steps.teachers]
    soft = sum(np.exp(logits) / np.exp(logits).sum(axis=1, keepdims=True) for logits in each)
    assert outcome.quality["ensemble_accuracy_fraction"] == np.mean(np.argmax(soft, axis=1) == labels)
    np.testing.assert_array_equal(outcome.answers["teacher"], each[0].argmax(axis=1))
    assert [len(logits) for logits in each] == [DEV_COUNT] * 2


def of_two(logits: list[list[list[float]]], labels: list[int], student: int = 0) -> dict[str, Any]:
    """`quality` of a student, one of the fits with these logits on dev, that all of them taught at T = 1."""
    fits = [SimpleNamespace(dev_logits=lambda stages, own=own: np.array(own)) for own in logits]
    steps = SimpleNamespace(teachers=fits, student=fits[student])
    chosen = SimpleNamespace(specs={"distill": {"temperature": 1.0}}, loss=SimpleNamespace(needs_logits=True))
    return teaching_of(chosen, None, steps, SimpleNamespace(cache_dir=None), np.array(labels))  # type: ignore[arg-type]


def test_an_ensemble_is_as_right_as_the_mean_of_its_soft_answers():
    """The first is wrong with 0.9 and 0.6, the other right with 0.99 and wrong with 0.6: 0.545 is right, 0.4 is not."""
    one, other = ([[np.log(p), np.log(1 - p)] for p in shares] for shares in ((0.1, 0.4), (0.99, 0.4)))
    assert of_two([one, other], [0, 0])["ensemble_accuracy_fraction"] == 0.5
    assert of_two([one], [0, 0])["ensemble_accuracy_fraction"] is None


@pytest.mark.parametrize(
    ("without", "helps", "p"),
    [([True, True, True, False], False, 1.0), ([False, False, True, True], True, 1.0), ([True] * 4, False, 1.0),
     ([False] * 4, True, 0.25)],
)  # fmt: skip
def test_the_teacher_helps_where_more_answers_are_right_with_it_than_without(without, helps, p, monkeypatch):
    """Right on three of four. Against none right: three that it alone has right, p = 2 / 2³."""
    monkeypatch.setattr(teaching, "_right_without", lambda *args: np.array(without))
    taught = of_two([[[0.0, 1.0]] * 4, [[1.0, 0.0]] * 3 + [[0.0, 1.0]]], [0] * 4, student=1)
    assert (taught["student_accuracy_fraction"], taught["untaught_accuracy_fraction"]) == (0.75, np.mean(without))
    assert (taught["teacher_helps"], taught["untaught_p"]) == (helps, pytest.approx(p))


@pytest.mark.parametrize(("weight", "states", "taught"), [(0.0, False, False), (0.1, False, True), (0.0, True, True)])
def test_answers_that_weigh_nothing_teach_nothing(weight, states, taught, monkeypatch):
    monkeypatch.setattr(teaching, "_right_without", lambda *args: None)
    fits: Any = [SimpleNamespace(dev_logits=lambda stages: np.eye(2)) for _ in range(2)]
    loss = SimpleNamespace(needs_logits=True, needs_models=states)
    chosen: Any = SimpleNamespace(specs={"distill": {"teacher_weight": weight}}, loss=loss)
    steps: Any = SimpleNamespace(teachers=fits[:1], student=fits[1])
    stages: Any = SimpleNamespace(cache_dir=None)
    assert teaching_of(chosen, None, steps, stages, np.array([0, 1]))["taught"] == taught  # type: ignore[arg-type]


def test_a_student_that_cannot_be_fitted_without_its_teacher_ends_no_run(runs, tmp_path):
    """It has no dropout, which fit.teacher.r_drop needs: that is of its teacher, and was refused at the very end."""
    folder = shutil.copytree(point(runs).checkpoint.fetch(runs.cache), tmp_path / "mine")
    config = json.loads((folder / "config.json").read_text())
    bare = {"hidden_dropout_prob": 0.0, "attention_probs_dropout_prob": 0.0}
    (folder / "config.json").write_text(json.dumps({**config, **bare}))
    words = (f"model.path={folder}", "model.name=mine", "distill.teacher=tiny", "fit.teacher.r_drop=0.5")
    chosen = point(runs, *words)
    corpus = chosen.source.load(runs.cache)
    assert steps_of(chosen, corpus, runs.cache).student.kind == "student"
    assert teaching._right_without(chosen, corpus, runs.cache, np.zeros(DEV_COUNT)) is None


def test_whether_the_teacher_helps_is_not_known_before_the_student_without_it_is_made(runs, first):
    """Then the command that the result names tells: the student's own fine-tuning, and nothing else, is trained."""
    folder, _ = first
    quality = read(folder)["quality"]
    assert (quality["taught"], quality["teacher_helps"], quality["untaught_accuracy_fraction"]) == (True, None, None)
    command = card.untaught_command(Result(**read(folder)))
    assert command is not None
    assert command in (folder / "bundle" / "README.md").read_text(encoding="utf-8")
    counted = stages_in(runs)
    own = read(runs.folder_of(*shlex.split(command)[2:]))
    assert stages_in(runs) == {**counted, "teacher": counted["teacher"] + 1}
    again(runs, "fit.precision=float32", *TAUGHT)
    told = read(folder)["quality"]
    assert told["untaught_accuracy_fraction"] == own["quality"]["student_accuracy_fraction"]
    assert told["teacher_helps"] == (told["student_accuracy_fraction"] > told["untaught_accuracy_fraction"])
    assert 0 <= told["untaught_p"] <= 1
    assert {key for key, value in told.items() if value != quality[key]} == set(SINCE)
    assert command not in (folder / "bundle" / "README.md").read_text(encoding="utf-8"), "it is known now"
    shutil.rmtree(folder)
    assert read(runs.folder_of("fit.precision=float32", *TAUGHT))["quality"] == told, "as if it had been known before"
    assert (own["quality"]["taught"], own["quality"]["teacher_helps"]) == (False, None)
    assert card.untaught_command(Result(**own)) is None


@pytest.mark.parametrize(
    "words",
    [
        ("prune=fixed50", "seed=1", "distill.teacher_seed=0"),
        ("distill.teacher=tiny", "model.seed=5"),
        ("distill.augment.copies=1",),
        ("prune=fixed50", "distill.augment.copies=1", "distill.unlabelled={file}"),
        (),
    ],
)
def test_the_student_without_its_teachers_is_that_of_distill_none(words, runs):
    """One key: what the command makes is what is looked for."""
    file = runs.cache.parent / "more.txt"
    file.write_text("one more film\nand one more\n")
    chosen = point(runs, *(word.format(file=file) for word in words), "distill.temperature=4")
    corpus = chosen.source.load(runs.cache)
    answered = ("distill.teacher=", "distill.augment", "distill.unlabelled")  # by a teacher
    plain = [word for word in words if not word.startswith(answered)]
    none = steps_of(point(runs, *plain, "distill=none"), corpus, runs.cache).student
    assert untaught(chosen, corpus, runs.cache).wanted == none.wanted


def test_the_id_of_a_cut_student_knows_how_the_model_that_it_is_cut_from_was_fitted(runs):
    """Its teacher has a recipe of its own, so that `other` is the student's alone; of a whole one it makes nothing."""
    usual = "+fit.usual.tiny={epochs: 1, batch_size: 8, learning_rate: 1e-3, warmup: 0}"
    words = ("distill.teacher=tiny", "model.name=mine", "model.seed=5", usual)
    ids = {(cut, warmup): run_id_of(point(runs, *words, cut, f"fit.usual.other.warmup={warmup}"))
           for cut in ("slim=slim50", "slim=none") for warmup in (0.3, 0.4)}  # fmt: skip
    assert ids["slim=slim50", 0.3] != ids["slim=slim50", 0.4]
    assert ids["slim=none", 0.3] == ids["slim=none", 0.4]


def test_a_student_starts_from_its_teacher_and_keeps_the_slice_that_this_one_has_not_seen(runs):
    held = point(runs, "prune=fixed50", "seed=1", "distill.teacher_seed=0")
    student = steps_of(held, held.source.load(runs.cache), runs.cache).student
    assert (student.point.seed, student.holdout_seed) == (1, 0)
    own = point(runs, "distill.teacher=tiny", "model.seed=5", "seed=1", "distill.teacher_seed=0")
    assert steps_of(own, own.source.load(runs.cache), runs.cache).student.holdout_seed == 1


def test_several_fits_of_the_model_itself_teach_it_though_nothing_else_is_done(runs):
    chosen = point(runs, "distill.seeds=2")
    steps = steps_of(chosen, chosen.source.load(runs.cache), runs.cache)
    assert steps.student is not steps.teachers[0]
    assert len(steps.student.answers) == 2


def result_of(**quality: Any) -> Result:
    figures = {
        "taught": True,
        "ensemble_accuracy_fraction": None,
        "teacher_helps": None,
        "teacher_accuracy_fraction": 0.9,
    }
    return Result(
        schema=result.SCHEMA, run_id="r", status=result.DONE, error=None, choices={"model": "minilm"},
        cfg={"distill": {"teacher": ["mpnet", "minilm"]}}, seed=0, machine={}, quality={**figures, **quality},
        command="python train.py model=minilm 'distill.teacher=[mpnet,minilm]' prune=fixed50 distill.seeds=2 seed=1",
    )  # fmt: skip


def compared(student: float, other: float, p: float) -> Result:
    return result_of(student_accuracy_fraction=student, untaught_accuracy_fraction=other, untaught_p=p,
                     teacher_helps=student > other)  # fmt: skip


@pytest.mark.parametrize(
    ("student", "other", "p", "said"),
    [
        (0.93, 0.91, 0.01, ("yes", "0.9300 with it, 0.9100 without: p = 0.010, hardly chance")),
        (0.93, 0.91, 0.3, ("perhaps", "0.9300 with it, 0.9100 without: p = 0.300, may be chance")),
        (
            0.89,
            0.9,
            0.3,
            ("no: perhaps worse", "0.8900 with it, 0.9000 without: p = 0.300, may be chance"),
        ),
        (0.8, 0.9, 1e-6, ("no: worse", "0.8000 with it, 0.9000 without: p < 0.001, hardly chance")),
        (0.9, 0.9, 1.0, ("no difference", "0.9000 with it, 0.9000 without: p = 1.000, may be chance")),
    ],
)
def test_the_verdict_is_said_with_its_uncertainty(student, other, p, said):
    (row, *_) = card.teaching_rows(compared(student, other, p))
    assert row == ("teacher helps?", *said)
    assert len(f"  {row[0]:<16}{row[1]:>18}   {row[2]}") <= 100


def test_a_teacher_below_the_student_s_own_fine_tuning_is_named():
    rows = card.teaching_rows(compared(0.91, 0.95, 0.01))
    assert rows[1] == ("teacher itself", "0.9000", "is worse than a student without it, 0.9500")
    assert len(card.teaching_rows(compared(0.91, 0.9, 0.01))) == 1, "a teacher that is as good is not"


def test_what_would_tell_is_the_same_command_without_distillation():
    assert card.untaught_command(result_of()) == "python train.py model=minilm prune=fixed50 seed=1 distill=none"
    own = result_of()
    own.cfg["distill"]["teacher"] = "same"
    own.command = "python train.py model=minilm distill.teacher_seed=0 seed=1"
    assert card.untaught_command(own) == "python train.py model=minilm seed=1 distill=none distill.teacher_seed=0"
    assert card.untaught_command(compared(0.9, 0.8, 0.1)) is None
    assert card.untaught_command(result_of(taught=False)) is None
    assert card.teaching_rows(result_of(taught=False)) == []


@pytest.mark.parametrize("name", ["paper", "frontier"])
def test_what_would_tell_takes_back_what_an_experiment_sets(name):
    taught = result_of()
    taught.command = f"python train.py experiment={name} model=tiny data=reviews track=none"
    command = card.untaught_command(taught)
    assert command
    words = shlex.split(command)[2:]
    assert not point_of(composed(words).cfg).loss.needs_logits, "or it is refused"


@pytest.mark.parametrize("distill", ["kd", "hidden"])
def test_the_title_names_what_the_student_learns(distill):
    choices = {"model": "minilm", "data": "sst2", "prune": "none", "quant": "int8", "distill": distill}
    taught: Any = SimpleNamespace(choices=choices, cfg={"distill": {"temperature": 2.0}}, cost={"student_s": 1.0})
    assert card.title(taught) == f"minilm on sst2, prune=none, quant=int8, {distill} at T=2"


def test_a_bundle_that_is_not_finished_leaves_nothing(tmp_path, monkeypatch):
    def full(*paths):
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(card.shutil, "copyfile", full)
    with pytest.raises(OSError, match="No space"):
        card.write_bundle(tmp_path, file=tmp_path / "m.tflite", tokenizer=tmp_path / "t", labels=["a", "b"],
                            max_length=8, result=result_of())  # fmt: skip
    assert not list(tmp_path.iterdir())


def test_what_would_tell_leaves_a_seed_that_an_experiment_holds(tmp_path, monkeypatch):
    monkeypatch.setattr(places, "_added", [tmp_path])
    path = tmp_path / "experiment" / "mine.yaml"
    path.parent.mkdir()
    path.write_text("# @package _global_\ndefaults:\n  - override /distill: kd\n  - _self_\n"
                    "distill: {teacher_seed: 0, temperature: 4}\n")  # fmt: skip
    taught = made_result("a", accuracy=0.9)
    taught.command = "python train.py experiment=mine model=tiny prune=fixed50 seed=1"
    taught.choices["model"] = "tiny"
    for teacher, back in (("same", []), ("mpnet", ["distill.teacher_seed=${seed}"])):
        taught.cfg["distill"] = {"teacher": teacher, "teacher_seed": 0}
        command = card.untaught_command(taught)
        assert command
        assert shlex.split(command)[2:] == [
            "experiment=mine",
            "model=tiny",
            "prune=fixed50",
            "seed=1",
            "distill=none",
            *back,
            "~distill.temperature",
        ]


def test_answers_that_go_on_are_timed_by_their_own_pace(monkeypatch, tmp_path):
    """The bar is told how many sentences a stopped run had answered: not done by this one."""
    begun: list[int] = []

    def answered(model, train, **more):
        more["begun"](7)
        return np.zeros((len(train), 2), np.float32)

    monkeypatch.setattr(fits, "starts_at", lambda bar, done: begun.append(done))
    monkeypatch.setattr("optim.encoder.store.load", lambda folder, bfloat16: None)
    monkeypatch.setattr("optim.train.scores.logits_of", answered)
    tokens: Any = SimpleNamespace(read=lambda stages, part: range(10))
    teacher: Any = SimpleNamespace(in_bfloat16=False, tokens=tokens)
    stages: Any = SimpleNamespace(folder=lambda step: tmp_path)
    fits.LogitsStep(teacher).build(tmp_path, tmp_path, stages)
    assert begun == [7]


@pytest.mark.parametrize(("always", "refused"), [(False, False), (True, True)])
def test_a_teacher_is_judged_by_the_slice_whatever_a_rare_class_weighs_in_the_fit(always, refused, monkeypatch):
    """One of 200 held-out sentences is of a class of three: two thirds of the slice, by the weights of the fit."""
    schedule: Any = SimpleNamespace(holdout=0.02, holdout_minimum=200, class_weights="balanced")
    labels = np.arange(2000) % 2
    fitted, held = split(2000, holdout=0.02, minimum=200, seed=0)
    labels[[held[0], *fitted[:2]]] = 2
    answers = np.eye(3, dtype=np.float32)[np.zeros_like(labels) if always else np.arange(2000) % 2]  # none says class 2
    tokens: Any = SimpleNamespace(read=lambda stages, part: SimpleNamespace(labels=labels), parts=lambda stages: None)
    point = SimpleNamespace(schedule=schedule)
    teacher: Any = SimpleNamespace(tokens=tokens, point=point, classes=3, model_name="mine",
                                   rows=lambda parts: {"held_out": held})  # fmt: skip
    stages: Any = None
    others: Any = SimpleNamespace()  # sentences without labels tell nothing
    monkeypatch.setattr(fits.LogitsStep, "read", lambda self, stages: answers)
    with pytest.raises(UserError, match="The teacher mine has") if refused else nullcontext():
        fits.LogitsStep(teacher).at_hand(stages, stages)
    fits.LogitsStep(teacher, others).at_hand(stages, stages)


def test_a_disk_without_room_for_what_a_fit_saves_ends_before_it(runs, tmp_path, monkeypatch):
    """Two savings of weights, two moments and the best weights, float32 each; of a fit that is there none is made."""
    chosen = point(runs, "prune=fixed50")
    corpus = chosen.source.load(runs.cache)
    steps = steps_of(chosen, corpus, runs.cache)
    needed = 32 * shape_before(steps.student).parameters
    usage = namedtuple("usage", "total used free")
    monkeypatch.setattr(files.shutil, "disk_usage", lambda _: usage(0, 0, needed))
    require_room(steps.all(), tmp_path)
    monkeypatch.setattr(files.shutil, "disk_usage", lambda _: usage(0, 0, needed - 1))
    with pytest.raises(UserError, match=r"^the teacher tiny takes 0\.00 GB of disk while it is fitted, cache_dir "):
        require_room(steps.all(), tmp_path)
    monkeypatch.setattr(Wanted, "at_hand", lambda self, cache_dir: 1.0)
    require_room(steps.all(), tmp_path)


@pytest.mark.parametrize(
    ("named", "part"),
    [
        (["no", "perhaps", "yes"], "checkpoint tells no, perhaps, yes apart, data=sst2 has negative, positive. It is"),
        (["positive", "negative"], "tells positive, negative apart"),
        (["NEGATIVE", "Positive"], None),
        (["LABEL_0", "LABEL_1", "LABEL_2"], None),
        (None, None),
    ],
)  # fmt: skip
def test_a_checkpoint_that_tells_other_classes_apart_is_named(runs, tmp_path, named, part):
    folder = shutil.copytree(point(runs).checkpoint.fetch(runs.cache), tmp_path / "model")
    config = json.loads((folder / "config.json").read_text())
    config.pop("id2label", None)
    config |= {"id2label": {str(i): name for i, name in enumerate(named)}} if named else {}
    (folder / "config.json").write_text(json.dumps(config))
    chosen = point(runs, f"model.path={folder}", "prune=fixed50")
    corpus = chosen.source.load(runs.cache)
    lines = other_classes(steps_of(chosen, corpus, runs.cache).all(), corpus)
    assert len(lines) == (part is not None)
    assert part is None or part in lines[0]


def test_other_classes_and_how_long_it_takes_are_said_before_the_first_fit(runs, tmp_path):
    """By the plan of a run, by the run itself before the model that it asks for is fitted, and by a dry run."""
    folder = shutil.copytree(point(runs).checkpoint.fetch(runs.cache), tmp_path / "model")
    config = json.loads((folder / "config.json").read_text())
    (folder / "config.json").write_text(json.dumps(config | {"id2label": {"0": "no", "1": "perhaps", "2": "yes"}}))
    words = (f"model.path={folder}", "prune=fixed50")
    told = "model=tiny: its checkpoint tells no, perhaps, yes apart, data=sst2 has negative, positive."
    dry = runs.apart(*words, "sweep.dry_run=true")
    assert (dry.returncode, dry.stdout.count(told)) == (0, 1)
    done = runs.apart(*words, "fit.teacher.steps=1")
    said = done.stdout + done.stderr
    assert (done.returncode, "one that teaches needs" in said) == (2, True), "such a teacher ends it, once it is fitted"
    first = said.index("teacher   ")
    assert 0 < said.index(told) < first
    assert 0 < said.index("plan      teacher tiny, seed 0: about ") < first
    assert 0 < said.index("plan      student tiny, seed 0: about ") < first


def test_a_run_without_room_for_its_fit_ends_before_it(runs, monkeypatch, capfd):
    monkeypatch.setattr("optim.run.steps.SAVED_BYTES", 10**12)
    with pytest.raises(SystemExit):
        runs.folder_of("seed=77")
    said = capfd.readouterr()
    assert re.search(r"the teacher tiny takes [\d.]+ GB of disk while it is fitted", said.err)
    assert "teacher   " not in said.out + said.err


def test_the_memory_of_a_container_is_what_it_may_use(tmp_path, monkeypatch):
    limit = tmp_path / "memory.max"
    monkeypatch.setattr(memory, "LIMITS", (tmp_path / "none", limit))
    whole = memory.memory_bytes()
    assert whole > 10**8
    limit.write_text("1000000\n")
    assert memory.memory_bytes() == 10**6
    for content in ("max\n", str(10**18)):
        limit.write_text(content)
        assert memory.memory_bytes() == whole
