"""Ids and keys: every leaf of the config changed once, and what must change with it: the run_id, and which stages."""

from __future__ import annotations

import copy
import dataclasses
import shutil
from typing import Any

import pytest
from conftest import CONF, Runs
from hydra import compose, initialize_config_dir
from omegaconf import DictConfig, OmegaConf
from whole_points import point

from optim.common import build, versions
from optim.encoder import architecture
from optim.measure import sensitivity
from optim.run import exports, keys, places, result
from optim.run.keys import run_id_of
from optim.run.point import point_of
from optim.run.steps import steps_of

# The stages in their order, and those from one of them on.
KINDS = ("tokens", "teacher", "logits", "student", "float32", "file", "figures")
TOKENS, TEACHER, STUDENT, FLOAT32, FILE, FIGURES = (
    frozenset(KINDS[KINDS.index(kind) :]) for kind in ("tokens", "teacher", "student", "float32", "file", "figures")
)
NONE: frozenset[str] = frozenset()
SAME, OTHER = False, True  # run_id

# leaf -> (another value, whether the id changes, the stages whose keys change)
LEAVES: dict[str, tuple[Any, bool, frozenset[str]]] = {
    "model.name": ("little", OTHER, TEACHER),
    "model.family": ("distilbert", OTHER, TEACHER),
    "model.layers": (1, OTHER, TEACHER),
    "model.width": (64, OTHER, TEACHER),
    "model.heads": (4, OTHER, TEACHER),
    "model.ffn_width": (32, OTHER, TEACHER),
    "model.position_count": (256, OTHER, TEACHER),
    "model.seed": (1, OTHER, TEACHER),
    "model.pooling": ("mean", OTHER, TEACHER),
    "prune.schedule": ("constant", OTHER, STUDENT),
    "prune.sparsity": (0.7, OTHER, STUDENT),
    "prune.initial_sparsity": (0.1, OTHER, STUDENT),
    "prune.power": (2, OTHER, STUDENT),
    "prune.begin": (0.1, OTHER, STUDENT),
    "prune.end": (0.7, OTHER, STUDENT),
    "prune.every_steps": (50, OTHER, STUDENT),
    "distill.temperature": (4, OTHER, STUDENT),
    "distill.teacher_weight": (0.5, OTHER, STUDENT),
    "distill.seeds": (2, OTHER, frozenset({"logits"}) | STUDENT),  # of the second fit; the first stays the teacher
    "distill.teacher_seed": (1, OTHER, TEACHER),
    "distill.teacher": ("other", OTHER, frozenset({"teacher", "logits"}) | STUDENT),
    "distill.augment.replace": (0.1, SAME, NONE),  # nothing is made here
    "distill.augment.least_words": (2, SAME, NONE),
    "distill.augment.neighbours": (3, SAME, NONE),
    "distill.augment.words": ("train", SAME, NONE),
    "distill.augment.drop": (0.2, SAME, NONE),
    "distill.augment.join": (0.1, SAME, NONE),
    "distill.augment.seed": (5, SAME, NONE),
    "quant.max_disagreement": (0.5, OTHER, NONE),  # measure.max_disagreement is taken from it: it may fail the run
    "quant.products": ("ffn", OTHER, FILE),
    "quant.samples": (8, OTHER, FILE),
    "quant.seed": (7, OTHER, FILE),
    "quant.source": ("whole", OTHER, FILE),
    "fit.teacher.epochs": (4, OTHER, TEACHER),
    "fit.teacher.steps": (50, OTHER, TEACHER),
    "fit.teacher.batch_size": (16, OTHER, TEACHER),
    "fit.teacher.learning_rate": (1e-3, OTHER, TEACHER),
    "fit.teacher.warmup": (0.2, OTHER, TEACHER),
    "fit.teacher.weight_decay": (0.1, OTHER, TEACHER),
    "fit.teacher.average": (0.99, OTHER, TEACHER),
    "fit.teacher.layer_decay": (0.9, OTHER, TEACHER),
    "fit.teacher.label_smoothing": (0.1, OTHER, TEACHER),
    "fit.teacher.r_drop": (0.5, OTHER, TEACHER),
    "fit.teacher.dropout": (0.3, OTHER, TEACHER),
    "fit.teacher.head_dropout": (0.3, OTHER, TEACHER),
    "fit.teacher.whole_copies": (2, OTHER, TEACHER),
    "fit.usual.other.epochs": (4, SAME, NONE),  # fit.teacher says these itself, all but the warm-up
    "fit.usual.other.batch_size": (16, SAME, NONE),
    "fit.usual.other.learning_rate": (1e-3, SAME, NONE),
    "fit.usual.other.warmup": (0.2, OTHER, TEACHER),
    **{
        f"fit.usual.{model}.{key}": (value, SAME, NONE)  # of models that this point does not have
        for model in ("mpnet", "bert_base", "distilbert")
        for key, value in (("epochs", 4), ("batch_size", 16), ("learning_rate", 1e-3), ("warmup", 0.2))
    },
    "fit.student.epochs": (4, OTHER, STUDENT),
    "fit.student.steps": (50, OTHER, STUDENT),
    "fit.student.batch_size": (16, OTHER, STUDENT),
    "fit.student.learning_rate": (1e-3, OTHER, STUDENT),
    "fit.student.warmup": (0.2, OTHER, STUDENT),
    "fit.student.weight_decay": (0.1, OTHER, STUDENT),
    "fit.student.average": (0.99, OTHER, STUDENT),
    "fit.student.layer_decay": (0.9, OTHER, STUDENT),
    "fit.student.label_smoothing": (0.1, OTHER, STUDENT),
    "fit.student.r_drop": (0.5, OTHER, STUDENT),
    "fit.student.dropout": (0.3, OTHER, STUDENT),
    "fit.student.head_dropout": (0.3, OTHER, STUDENT),
    "fit.student.whole_copies": (2, OTHER, STUDENT),
    "fit.keep": ("best", OTHER, TEACHER),
    "fit.holdout": (0.1, OTHER, TEACHER),
    "fit.holdout_minimum": (100, OTHER, TEACHER),
    "fit.class_weights": ("none", OTHER, TEACHER),
    "fit.precision": ("bfloat16", OTHER, TEACHER),
    "data.hub_id": ("elsewhere", SAME, NONE),  # the files of data.path are what counts
    "data.config": ("cola", SAME, NONE),
    "data.revision": ("main", SAME, NONE),
    "data.label_names": (["bad", "good"], OTHER, TOKENS),
    "data.phrases": (False, OTHER, TOKENS),
    "data.held_sentences": (20, OTHER, TOKENS),
    "data.split_seed": (1, SAME, NONE),  # no sentence is held out: nothing is drawn
    "data.max_length": (64, OTHER, TOKENS),
    "bench.sequence_length": (64, OTHER, FIGURES),
    "bench.threads": (2, OTHER, FIGURES),
    "bench.warmup_calls": (5, OTHER, FIGURES),
    "bench.min_calls": (50, OTHER, FIGURES),
    "bench.min_seconds": (1, OTHER, FIGURES),
    "track.mode": ("offline", SAME, NONE),
    "track.project": ("another", SAME, NONE),
    "track.entity": ("somebody", SAME, NONE),
    "track.dir": ("elsewhere", SAME, NONE),
    "track.group": ("mine", SAME, NONE),
    "track.tags": (["a"], SAME, NONE),
    "track.artifact": (False, SAME, NONE),
    "track.init_timeout_s": (11, SAME, NONE),
    "track.finish_timeout_s": (31, SAME, NONE),
    "seed": (1, OTHER, TEACHER),  # quant.seed is taken from it
    "results_dir": ("elsewhere", SAME, NONE),
    "cache_free_gb": (0.2, SAME, NONE),
    "cache_max_gb": (100, SAME, NONE),
    "verbosity": ("stages", SAME, NONE),
    "measure.max_disagreement": (0.5, OTHER, NONE),
    "export.zstd_level": (3, SAME, NONE),  # nothing is compressed here
    "sweep.dry_run": (True, SAME, NONE),
}
# A path says nothing, its content does: tests below. Those of distill bring stages of their own: test_transfer.py; that
# of export as well: below.
ELSEWHERE = {"model.path", "data.path", "cache_dir", "distill.augment.copies", "distill.unlabelled",
             "export.compress"}  # fmt: skip
METHODS = {
    f"{group}.method"
    for group in ("model", "slim", "vocab", "prune", "distill", "quant", "fit", "data", "bench", "track")
}


# The keys of a quantization that chooses, and those of what its candidates are timed by.
CHOOSING: dict[str, tuple[Any, bool, frozenset[str]]] = {
    "quant.candidates": (["int8", "int8_static"], OTHER, FILE | {"candidates"}),
    "quant.max_drop_points": (1, OTHER, FILE),
    "quant.tie": (0.1, OTHER, FILE),
    "quant.max_disagreement": (0.5, OTHER, NONE),
    "bench.sequence_length": (64, OTHER, FILE | {"candidates"}),
}


@pytest.fixture(scope="module")
def config(runs: Runs) -> DictConfig:
    """A point that takes every step, with no `auto` left in it but those under test."""
    words = ("prune=poly80", "quant=int8_static", "track=offline", "fit.precision=float32")
    with initialize_config_dir(str(CONF), version_base="1.3"):
        return compose("train", overrides=runs.overrides(*words))


@pytest.fixture(autouse=True)
def other_model(tmp_path_factory, monkeypatch, config):
    """conf/model with one more name, `other`: tiny from another seed."""
    folder = tmp_path_factory.mktemp("models") / "model"
    folder.mkdir()
    OmegaConf.save(OmegaConf.merge(config.model, {"seed": 9}), folder / "other.yaml")
    monkeypatch.setattr(places, "_added", [folder.parent])


def leaves(node: dict[str, Any], above: str = "") -> list[str]:
    names: list[str] = []
    for key, value in node.items():
        names += leaves(value, f"{above}{key}.") if isinstance(value, dict) and value else [f"{above}{key}"]
    return names


def changed(config: DictConfig, **values: Any) -> DictConfig:
    other = copy.deepcopy(config)
    for key, value in values.items():
        OmegaConf.update(other, key, value)
    return other


def known_by(config: DictConfig, runs: Runs) -> tuple[str, dict[str, str]]:
    """(run_id, kind -> key of every stage)."""
    point = point_of(config)
    wanted = steps_of(point, point.source.load(runs.cache), runs.cache).wanted()
    assert {w.name for w in wanted} == set(KINDS)
    return run_id_of(point), {w.name: w.key for w in wanted if w.name != "teacher" or w is wanted[1]}


def difference(config: DictConfig, other: DictConfig, runs: Runs) -> tuple[bool, set[str]]:
    """(whether the ids differ, the kinds of stage whose keys do)."""
    (run_id, stages), (other_id, others) = known_by(config, runs), known_by(other, runs)
    return run_id != other_id, {kind for kind in stages if stages[kind] != others[kind]}


def test_every_leaf_of_the_config_is_in_the_table(config):
    plain: dict[str, Any] = OmegaConf.to_container(config, resolve=True)  # type: ignore[assignment]
    assert set(leaves(plain)) == set(LEAVES) | METHODS | ELSEWHERE


@pytest.mark.parametrize("leaf", LEAVES)
def test_a_leaf_changes_the_id_and_the_stages_that_it_changes(leaf, config, runs):
    value, id_changes, stages = LEAVES[leaf]
    assert difference(config, changed(config, **{leaf: value}), runs) == (id_changes, stages)


def every_stage(config: DictConfig, runs: Runs) -> tuple[str, dict[str, str]]:
    """(run_id, key of every stage -> its kind)."""
    chosen = point_of(config)
    wanted = steps_of(chosen, chosen.source.load(runs.cache), runs.cache).wanted()
    return run_id_of(chosen), {w.key: w.name for w in wanted}


@pytest.fixture(scope="module")
def choosing(runs: Runs) -> DictConfig:
    """A point whose file is chosen from several."""
    with initialize_config_dir(str(CONF), version_base="1.3"):
        return compose("train", overrides=runs.overrides("quant=int8_auto", "fit.precision=float32"))


@pytest.mark.parametrize("leaf", CHOOSING)
def test_a_leaf_of_a_choice_changes_what_it_changes(leaf, choosing, runs):
    value, id_changes, stages = CHOOSING[leaf]
    (one, before), (other, after) = every_stage(choosing, runs), every_stage(changed(choosing, **{leaf: value}), runs)
    assert ((one != other), {after[key] for key in after.keys() - before.keys()}) == (id_changes, stages)


def test_every_leaf_of_a_choice_is_in_its_table(choosing):
    own = {f"quant.{key}" for key in OmegaConf.to_container(choosing.quant)}  # type: ignore[union-attr]
    assert own - METHODS == {leaf for leaf in CHOOSING if leaf.startswith("quant.")}


def test_another_machine_tries_the_same_files_anew(choosing, runs, monkeypatch):
    own, before = every_stage(choosing, runs)
    monkeypatch.setattr(exports, "machine_id", lambda: "another")
    monkeypatch.setattr(keys, "machine_id", lambda: "another")
    other, after = every_stage(choosing, runs)
    assert sorted(after[key] for key in after.keys() - before.keys()) == ["candidates", "figures", "file"]
    assert own != other, "it may choose another file"


def test_a_budget_in_milliseconds_is_another_point_on_another_machine(runs, monkeypatch):
    """What is left of the student follows from what files take there; a budget in parameters is one everywhere."""
    budgets = [point(runs, "slim=budget", word) for word in ("slim.latency_ms=6", "slim.parameters=35000")]
    before = [run_id_of(one) for one in budgets]
    monkeypatch.setattr(keys, "machine_id", lambda: "another")
    assert [run_id_of(one) == old for one, old in zip(budgets, before, strict=True)] == [False, True]


def test_a_compressed_file_is_one_stage_more_and_another_result(config, runs):
    (plain_id, plain) = every_stage(config, runs)
    (packed_id, packed) = every_stage(changed(config, **{"export.compress": "zstd"}), runs)
    assert packed_id != plain_id
    assert [packed[key] for key in packed.keys() - plain.keys()] == ["compressed"]
    assert plain.keys() < packed.keys()
    level_id, level = every_stage(changed(config, **{"export.compress": "zstd", "export.zstd_level": 3}), runs)
    assert level_id != packed_id
    assert [level[key] for key in level.keys() - packed.keys()] == ["compressed"]


def test_the_seed_of_the_fit_alone_is_another_point(config, runs):
    """quant.seed follows it unless it is set; held here, the id and the fits must still differ."""
    one, other = (changed(config, **{"quant.seed": 7, "seed": seed}) for seed in (0, 1))
    assert difference(one, other, runs) == (True, set(TEACHER))


def test_a_teacher_is_held_while_the_seed_of_the_student_changes(config, runs):
    held = {"distill.teacher_seed": 0, "quant.seed": 7}
    one, other = (changed(config, seed=seed, **held) for seed in (0, 1))
    assert difference(one, other, runs) == (True, set(STUDENT))


@pytest.mark.parametrize(
    ("leaf", "one", "other"),
    [("distill.temperature", 2, 2.0), ("bench.min_seconds", 3, 3.0), ("fit.student.batch_size", 32.0, 32),
     ("distill.teacher", "same", ["same"])],
)  # fmt: skip
def test_two_spellings_of_one_value_are_one_point(leaf, one, other, config, runs):
    assert difference(changed(config, **{leaf: one}), changed(config, **{leaf: other}), runs) == (False, set())


def test_a_teacher_by_its_name_is_the_same_as_same(config, runs, monkeypatch):
    OmegaConf.save(config.model, places.config_dirs()[-1] / "model" / "twin.yaml")
    assert difference(config, changed(config, **{"distill.teacher": "twin"}), runs) == (False, set())


@pytest.mark.parametrize(("bfloat16", "meant"), [(True, "bfloat16"), (False, "float32")])
def test_auto_is_hashed_as_what_it_is_here(bfloat16, meant, config, runs, monkeypatch):
    from optim.run import point

    monkeypatch.setattr(point, "has_bfloat16", lambda: bfloat16)
    auto, plain = (changed(config, **{"fit.precision": word}) for word in ("auto", meant))
    assert difference(auto, plain, runs) == (False, set())


@pytest.mark.parametrize(
    ("group", "stages"),
    [("prune", STUDENT), ("distill", STUDENT), ("quant", FILE), ("fit", TEACHER), ("bench", FIGURES)],
)
def test_a_method_of_another_version_is_another_method(group, stages, config, runs, monkeypatch):
    before = known_by(config, runs)
    chosen = build.methods(group)[config[group].method]
    newer = dataclasses.replace(chosen, version=chosen.version + 1)
    monkeypatch.setitem(build.methods(group), chosen.name, newer)
    after = known_by(config, runs)
    assert before[0] != after[0]
    assert {kind for kind in KINDS if before[1][kind] != after[1][kind]} == stages


@pytest.mark.parametrize(
    ("package", "stages"),
    [("tokenizers", TOKENS), ("tensorflow", TEACHER), ("tf_keras", TEACHER), ("ai-edge-litert", FIGURES),
     ("litert-quantizer", FLOAT32), ("tensorflow-model-optimization", STUDENT)],
)  # fmt: skip
def test_another_version_of_a_package_remakes_what_it_made(package, stages, config, runs, monkeypatch):
    """The results that it made stay: they say by which versions."""
    before, honest = known_by(config, runs), versions._version
    monkeypatch.setattr(versions, "_version", lambda name: "0.0.1" if name == package else honest(name))
    after = known_by(config, runs)
    assert before[0] == after[0]
    assert {kind for kind in KINDS if before[1][kind] != after[1][kind]} == stages


def test_another_graph_remakes_models_and_files(config, runs, monkeypatch):
    before = known_by(config, runs)
    monkeypatch.setattr(keys, "GRAPH", architecture.GRAPH + 1)
    after = known_by(config, runs)
    assert before[0] != after[0]
    assert {kind for kind in KINDS if before[1][kind] != after[1][kind]} == TEACHER


def test_other_operations_of_files_remake_files_and_no_fit(config, runs, monkeypatch):
    before = known_by(config, runs)
    monkeypatch.setattr(keys, "OPERATIONS", keys.OPERATIONS + 1)
    after = known_by(config, runs)
    assert before[0] != after[0]
    assert {kind for kind in KINDS if before[1][kind] != after[1][kind]} == FLOAT32


def test_another_machine_measures_anew(config, runs, monkeypatch):
    before = known_by(config, runs)
    monkeypatch.setattr(exports, "machine_id", lambda: "another")
    after = known_by(config, runs)
    assert {kind for kind in KINDS if before[1][kind] != after[1][kind]} == FIGURES


def test_results_of_another_schema_are_other_results(config, runs, monkeypatch):
    before = known_by(config, runs)
    monkeypatch.setattr(result, "SCHEMA", result.SCHEMA + 1)
    assert known_by(config, runs)[0] != before[0]


def test_data_count_by_their_content(config, runs, tmp_path):
    copied = shutil.copytree(runs.data, tmp_path / "copy")
    elsewhere = changed(config, **{"data.path": str(copied)})
    assert difference(config, elsewhere, runs) == (False, set())
    with (copied / "dev.tsv").open("a") as file:
        file.write("a good film\t1\n")
    assert difference(config, elsewhere, runs) == (True, set(TOKENS))


def test_weights_count_by_their_content(config, runs, tmp_path):
    folder = point_of(config).checkpoint.fetch(runs.cache)
    copies = [shutil.copytree(folder, tmp_path / name) for name in ("one", "two")]
    (copies[1] / "vocab.txt").write_text((folder / "vocab.txt").read_text() + "more\n")
    one, two = (changed(config, **{"model.path": str(path)}) for path in copies)
    assert difference(config, one, runs)[0], "a folder's content is not the recipe of a tiny model"
    assert difference(one, changed(config, **{"model.path": str(copies[0]) + "/"}), runs) == (False, set())
    assert difference(one, two, runs) == (True, set(TEACHER))


def test_a_student_of_its_own_start_depends_on_that_start(config, runs):
    """Taught by `other`: what the student starts from is its own checkpoint then."""
    taught = changed(config, **{"distill.teacher": "other"})
    assert difference(taught, changed(taught, **{"model.seed": 3}), runs) == (True, set(STUDENT))


def test_a_calibration_on_train_is_what_it_was_before_there_was_a_choice():
    """Files and results that there are stay found: the key that they lack says nothing where it changes nothing."""
    from optim.run.keys import file_key, quant_key

    old = {"method": "static_int8", "version": 1, "max_disagreement": 0.08, "samples": 256, "seed": 0}
    assert quant_key({**old, "source": "train"}) == old
    assert quant_key({**old, "source": "whole"}) == {**old, "source": "whole"}
    assert quant_key({**old, "source": "train", "products": "all"}) == old
    assert quant_key({**old, "products": "ffn"}) == {**old, "products": "ffn"}
    assert "max_disagreement" not in file_key(old)


def test_a_recipe_that_copies_no_sentence_is_what_it_was_before_there_was_a_choice(config):
    recipe = point_of(config).schedule.student
    assert "whole_copies" not in keys.recipe_key({}, recipe)["recipe"]
    assert keys.recipe_key({}, dataclasses.replace(recipe, whole_copies=2))["recipe"]["whole_copies"] == 2
    assert keys.written_recipe(dataclasses.replace(recipe, whole_copies=2))["copies_version"] == 2
    assert "copies_version" not in keys.written_recipe(recipe)


def test_a_fit_that_keeps_the_best_is_what_it_was_before_there_was_a_choice(config):
    """And so is one that is judged once: what is kept of it is the same."""
    recipe, old = point_of(config).schedule.student, {"holdout": 0.1}
    was = keys.recipe_key(old, recipe)
    assert keys.recipe_key({**old, "keep": "best"}, recipe) == was
    assert keys.recipe_key({**old, "keep": "last"}, recipe) != was
    assert keys.recipe_key({**old, "keep": "last"}, recipe, judged_once=True) == was


@pytest.mark.parametrize(
    ("words", "has"),
    [((), (False, False)), (("fit.teacher.epochs=2",), (True, False)), (("fit.student.epochs=2",), (False, True)),
     (("fit.student.steps=30",), (False, True)), (("distill.augment.copies=2",), (False, True))],
)  # fmt: skip
def test_only_a_fit_that_may_keep_another_epoch_has_what_it_keeps_in_its_key(words, has, runs):
    """One epoch of labelled sentences is judged once; one with sentences of teachers, or of some steps, maybe not."""
    words = ("prune=fixed50", "distill=kd", "fit.teacher.epochs=1", "fit.student.epochs=1", *words)
    with initialize_config_dir(str(CONF), version_base="1.3"):
        point = point_of(compose("train", overrides=runs.overrides(*words)))
    student = steps_of(point, point.source.load(runs.cache), runs.cache).student
    assert ("keep" in student.answers[0].teacher.key()["fit"], "keep" in student.key()["fit"]) == has


def test_other_sentences_for_the_calibration_are_no_other_fit(config, runs):
    """Only the file of `int8_qat` is calibrated anew; the student that was fitted with its rounding stays."""
    with initialize_config_dir(str(CONF), version_base="1.3"):
        qat = compose("train", overrides=runs.overrides("prune=poly80", "quant=int8_qat", "fit.precision=float32"))
    assert difference(qat, changed(qat, **{"quant.samples": 8}), runs) == (True, set(FILE))
    assert difference(qat, changed(qat, **{"quant.memory": 0.5}), runs) == (True, set(STUDENT))


def test_the_version_of_mixed_is_that_of_its_table():
    """The table is no part of a run_id: another one makes another file."""
    assert build.methods("quant")["mixed"].version == sensitivity.VERSION


@pytest.mark.parametrize("version", ["TABLE", "WEIGHING"])
def test_another_table_or_another_reading_of_it_is_another_cut_and_another_run(version, runs, monkeypatch):
    """The table is no part of a run_id, and of a cut only by what it is of; other budgets stay what they are."""
    words = ["slim=budget", "slim.parameters=40000"]
    points = [point(runs, *words, *more) for more in ((), ["slim.importance=sensitivity"])]

    def found() -> list[tuple[str, str]]:
        steps = [steps_of(one, one.source.load(runs.cache), runs.cache) for one in points]
        return [(keys.run_id_of(one), two.student.wanted.key) for one, two in zip(points, steps, strict=True)]

    before = found()
    monkeypatch.setattr(keys, version, 99)
    after = found()
    assert before[0] == after[0]
    assert before[1][0] != after[1][0]
    assert before[1][1] != after[1][1]


def test_states_that_are_followed_to_the_end_have_the_key_of_before_there_was_a_choice():
    """`relations` by states_until=1 is the fit it was; a share is another."""
    spec = {"method": "relations", "layers": "last"}
    assert keys.loss_key({**spec, "states_until": 1.0}) == spec
    assert keys.loss_key({**spec, "states_until": 0.5}) != spec
