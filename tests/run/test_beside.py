"""Whole points whose teacher runs beside the student: `distill=hidden` and `distill=minilm`, in other words too."""

# pyright: reportAttributeAccessIssue=false, reportOptionalMemberAccess=false, reportGeneralTypeIssues=false
from __future__ import annotations

import json
import re
import shutil
from dataclasses import dataclass, replace
from pathlib import Path

import numpy as np
import pytest
from conftest import CONF, TRAIN_COUNT, Runs
from omegaconf import OmegaConf
from safetensors.numpy import load_file, save_file
from tokenizers import Tokenizer, models, pre_tokenizers, processors
from whole_points import made, point

from optim.common.errors import UserError
from optim.cut.structure import Criterion, Even
from optim.cut.surgery import Removal
from optim.cut.vocabulary import Words
from optim.encoder import store
from optim.run import fits, places
from optim.run.fits import FitStep
from optim.run.point import Point
from optim.run.step import Stages
from optim.run.steps import steps_of
from optim.run.transfer import TransferTokensStep

# A student that is narrower, shallower and of fewer heads than tiny, from random weights of its own.
OTHER = ("model.layers=1", "model.width=16", "model.heads=1", "model.seed=5", "fit.student.epochs=8",
         "fit.student.learning_rate=8e-3")  # fmt: skip
METHODS = pytest.mark.parametrize("method", ["hidden", pytest.param("minilm", marks=pytest.mark.slow)])
HEADS = {"hidden": (), "minilm": ("distill.relation_heads=16",)}


@dataclass(frozen=True)
class FewerWords:
    """A vocabulary without some words."""

    words: tuple[str, ...]
    changes: bool = True
    positions: int | None = None

    def check(self, words: Words) -> None:
        """Nothing can be wrong."""

    def keep(self, words: Words, counts: np.ndarray) -> list[int]:
        """The ids of all others."""
        return sorted(i for piece, i in words.ids.items() if piece not in self.words)


def without(*words: str) -> Removal:
    """A cut of one head of each layer, and of these words."""
    criterion = Criterion(importance="magnitude", samples=1, seed=0, steps=1)
    slim = Even(heads=0.5, ffn=0.0, layers=None, width=None, criterion=criterion)
    return Removal(slim=slim, vocabulary=FewerWords(words), spec={"vocab": {"method": "toy", "words": list(words)}})


@pytest.fixture(scope="module")
def runs(tmp_path_factory: pytest.TempPathFactory) -> Runs:
    return Runs(tmp_path_factory.mktemp("beside"))


@pytest.fixture
def shifted(runs, tmp_path, monkeypatch) -> Path:
    """conf/model with `shifted`: tiny, its pieces four ids higher, its special tokens others, as MPNet has BERT's."""
    folder = teacher_folder(runs, tmp_path, monkeypatch, "shifted")
    content = json.loads((folder / "tokenizer.json").read_text())
    pieces = {piece: number + 4 for piece, number in content["model"]["vocab"].items()}
    content["model"]["vocab"] = {"<s>": 0, "<pad>": 1, "</s>": 2, "<unk>": 3, **pieces}
    added = [{**one, "id": one["id"] + 4} for one in content["added_tokens"]]
    content["added_tokens"] = [
        {**added[0], "id": 0, "content": "<s>"},
        {**added[0], "id": 2, "content": "</s>"},
        *added,
    ]
    around = {"sep": ["</s>", 2], "cls": ["<s>", 0], "trim_offsets": True, "add_prefix_space": False}
    content["post_processor"] = {"type": "RobertaProcessing", **around}
    (folder / "tokenizer.json").write_text(json.dumps(content))
    weights = load_file(folder / "model.safetensors")
    table = weights["embeddings.word_embeddings.weight"]
    weights["embeddings.word_embeddings.weight"] = np.concatenate([table[[2, 0, 3, 1]], table])
    save_file(weights, folder / "model.safetensors")
    config = json.loads((folder / "config.json").read_text())
    (folder / "config.json").write_text(json.dumps({**config, "vocab_size": len(table) + 4}))
    return folder


def teacher_folder(runs: Runs, tmp_path: Path, monkeypatch, name: str) -> Path:
    """A copy of tiny's checkpoint that conf/model names."""
    folder = Path(shutil.copytree(point(runs).checkpoint.fetch(runs.cache), tmp_path / name))
    conf = tmp_path / "conf" / "model"
    conf.mkdir(parents=True)
    tiny = OmegaConf.load(CONF / "model" / "tiny.yaml")
    OmegaConf.save(OmegaConf.merge(tiny, {"name": name, "path": str(folder)}), conf / f"{name}.yaml")
    monkeypatch.setattr(places, "_added", [conf.parent])
    return folder


@pytest.mark.slow
@METHODS
def test_a_student_of_another_shape_and_of_other_words_is_taught_by_states(method, runs, shifted):
    """Tiny itself as the teacher, and the same under shifted ids: one student, up to how products are rounded."""
    logits = {}
    for teacher in ("tiny", "shifted"):
        chosen = point(runs, *OTHER, f"distill={method}", *HEADS[method], f"distill.teacher={teacher}")
        steps, stages, outcome = made(runs, chosen)
        kinds = [step.kind for step in steps.all()]
        assert kinds.count("alignment") == (teacher == "shifted")
        assert outcome.quality["accuracy_fraction"] >= 0.9
        assert store.read_architecture(stages.folder(steps.student)).width == 16
        logits[teacher] = steps.student.dev_logits(stages)
        if teacher == "shifted":
            (alignment,) = steps.student.alignments
            assert kinds.index("alignment") < kinds.index("teacher"), "words are refused before anything is trained"
            assert alignment.read(stages).same.all()
    assert np.mean(logits["tiny"].argmax(1) == logits["shifted"].argmax(1)) >= 0.9


@METHODS
def test_a_student_with_a_cut_vocabulary_learns_the_states_of_the_sentences_that_it_still_reads(method, runs, caplog):
    """The others are spelt by other pieces, and have soft targets alone."""
    chosen = replace(point(runs, f"distill={method}", *HEADS[method]), surgery=without("charming", "boring"))
    with caplog.at_level("INFO"):
        steps, stages, outcome = made(runs, chosen)
    (alignment,) = steps.student.alignments
    same = alignment.read(stages).same
    texts = chosen.source.load(runs.cache).train.texts
    assert same.tolist() == [not {"charming", "boring"} & set(text.split()) for text in texts]
    assert f"{np.count_nonzero(~same):,} of {TRAIN_COUNT} sentences are cut into other pieces" in caplog.text
    assert outcome.quality["accuracy_fraction"] >= 0.9


@pytest.mark.slow
def test_sentences_without_labels_are_aligned_too(runs, shifted):
    words = (*OTHER, "distill=hidden", "distill.teacher=shifted", "distill.augment.copies=1", "fit.student.epochs=1")
    steps, stages, _ = made(runs, point(runs, *words))
    (alignment,) = steps.student.alignments
    (one,) = steps.student.transfer
    assert len(alignment.read(stages).same) == TRAIN_COUNT + one.texts.counts(stages)["examples"]


def test_several_teachers_answer_and_the_first_one_runs(runs):
    chosen = point(runs, *OTHER, "distill=hidden", "distill.teacher=tiny", "distill.seeds=2")
    steps = steps_of(chosen, chosen.source.load(runs.cache), runs.cache)
    assert (len(steps.student.answers), len(steps.student.teachers)) == (2, 1)
    assert steps.student.teachers[0] is steps.teachers[0]


def in_order(runs: Runs, chosen: Point) -> None:
    """Makes every step of a point in the order in which a run makes them."""
    stages = Stages(runs.cache, lambda fit, row: None)
    for step in steps_of(chosen, chosen.source.load(runs.cache), runs.cache).all():
        stages.make(step)


@pytest.mark.parametrize(
    ("words", "said"),
    [
        (("distill=hidden", "distill.layers=[3]"),
         "distill.layers must be from 1 to 2, the teacher's layers, or null, got 3."),
        (("distill=minilm", "distill.layers=[1,2]"), "one entry for each of the student's 1 layers, got 2: [1,2]."),
        (("distill=hidden", "distill.layers=first"), "distill.layers must be even, last, or a list"),
        (("distill=minilm",), "must divide the 16 features of the model's layer 1, got 32; 16 does."),
        (("distill=hidden", "distill.attention_weight=-1"), "distill.attention_weight must be 0 or above, got -1."),
        (("distill=minilm", "distill.augment.copies=1", "distill.teacher_weight=0"), "distill.teacher_weight must be"),
    ],
)  # fmt: skip
def test_settings_that_the_models_do_not_fit_are_refused_before_training(words, said, runs):
    corpus = point(runs).source.load(runs.cache)
    with pytest.raises(UserError, match=re.escape(said)):
        steps_of(point(runs, *OTHER, "distill.teacher=tiny", *words), corpus, runs.cache)


def test_a_teacher_of_another_kind_of_tokenizer_is_refused_before_training(runs, tmp_path, monkeypatch):
    folder = teacher_folder(runs, tmp_path, monkeypatch, "letters")
    special = {"[UNK]": 0, "[CLS]": 1, "[SEP]": 2}
    letters = Tokenizer(models.WordLevel({**special, **{c: i for i, c in enumerate("abcdefghijklmnopqrstuvwxyz", 3)}},
                                         unk_token="[UNK]"))  # fmt: skip
    letters.post_processor = processors.BertProcessing(("[SEP]", 2), ("[CLS]", 1))
    letters.pre_tokenizer = pre_tokenizers.Split("", "isolated")
    letters.save(str(folder / "tokenizer.json"))
    trained: list[str] = []
    monkeypatch.setattr(FitStep, "_fit", lambda step, *args: trained.append(step.kind))
    with pytest.raises(UserError, match=r"letters cuts 100% of the sentences .* distill=kd needs none"):
        in_order(runs, point(runs, *OTHER, "distill=hidden", "distill.teacher=letters"))
    assert trained == []


@METHODS
def test_a_cut_of_words_that_states_are_followed_by_is_refused_before_anything_is_trained(method, runs):
    """97 pieces are single characters and hardly a word: nearly every sentence is cut into other pieces than before."""
    words = ("vocab=top", f"distill={method}", *HEADS[method])
    chosen = point(runs, "vocab.size=97", *words)
    corpus = chosen.source.load(runs.cache)
    with pytest.raises(
        UserError, match=r"the teacher tiny cuts \d+% of the sentences .* Keep more words, by vocab=; dis"
    ):
        steps_of(chosen, corpus, runs.cache)
    kept = steps_of(point(runs, "vocab.size=120", *words[:1], "distill=kd"), corpus, runs.cache)
    assert kept.student.kind == "student", "answers need no pieces"


def test_a_plan_of_many_points_reads_the_sentences_once_for_their_words(runs, monkeypatch):
    tokenized, honest = [], fits.tokenize
    monkeypatch.setattr(fits, "tokenize", lambda *args, **kw: (tokenized.append(1), honest(*args, **kw))[1])
    fits._tokenized.cache_clear()
    for seed in range(3):
        chosen = point(runs, "vocab=seen", "distill=hidden", f"seed={seed}")
        steps_of(chosen, chosen.source.load(runs.cache), runs.cache)
    assert len(tokenized) == 1


def test_sentences_of_a_file_may_make_up_for_those_of_train(runs, tmp_path):
    """Most of them: so what train alone tells ends nothing before they are read."""
    (file := tmp_path / "more.txt").write_text("a\n" * 9)
    chosen = point(runs, "vocab=top", "vocab.size=97", "distill=hidden", f"distill.unlabelled={file}")
    assert steps_of(chosen, chosen.source.load(runs.cache), runs.cache).student.alignments


def test_a_layer_map_of_a_model_that_is_its_own_teacher_is_looked_at_too(runs):
    """Nothing is done to it, so nothing follows any layer; a map that cannot be is a mistake all the same."""
    chosen = point(runs, "distill=hidden", "distill.layers=[3,1]")
    with pytest.raises(UserError, match=r"distill\.layers"):
        steps_of(chosen, chosen.source.load(runs.cache), runs.cache)


@pytest.mark.parametrize("method", ["hidden", "kd"])
def test_a_teacher_that_was_never_tuned_is_refused_before_the_student_is_trained(method, runs, monkeypatch):
    """A rate of nothing leaves it as it was drawn. It is not asked about the sentences made from train either."""
    words = ("fit.teacher.learning_rate=1e-12", "fit.teacher.epochs=1", "prune=fixed50", f"distill={method}",
             "distill.augment.copies=1")  # fmt: skip
    trained, fit = [], FitStep._fit
    monkeypatch.setattr(FitStep, "_fit", lambda step, *args: (trained.append(step.kind), fit(step, *args))[1])
    monkeypatch.setattr(TransferTokensStep, "build", lambda *args: pytest.fail("it is to be asked about more"))
    with pytest.raises(UserError, match=r"teacher tiny has 0\.\d+ of the held-out slice of train right, where its"):
        in_order(runs, point(runs, *words))
    assert trained in (["teacher"], []), "the student was not"


@pytest.mark.parametrize(
    ("words", "said"),
    [
        (("distill=hidden", "distill.layers=[1,2]"), "one entry for each of the student's 1 layers, got 2"),
        (("distill=minilm", "distill.relation_heads=32"), "must divide the 16 features of the model's layer 1, got 32"),
    ],
)
def test_what_a_budget_may_leave_must_suit_the_loss_before_training(words, said, runs):
    """A single layer with a head of 16 features: only the cut tells what is really left."""
    chosen = point(runs, "slim=budget", "slim.parameters=35000", *words)
    with pytest.raises(UserError, match=f"^slim=budget may leave a single layer, and one head of it. .*{said}"):
        steps_of(chosen, chosen.source.load(runs.cache), runs.cache)


@pytest.mark.slow
@METHODS
def test_bfloat16_teaches_states_through_a_pruned_student(method, runs):
    _, _, outcome = made(runs, point(runs, "fit.precision=bfloat16", "prune=fixed50", f"distill={method}"))
    assert outcome.quality["accuracy_fraction"] >= 0.9
    assert outcome.size["zeroed_fraction"] == pytest.approx(0.5, abs=0.001)


@pytest.mark.parametrize("change", ["distill.layers=last", "distill.hidden_weight=2", "distill.embeddings_weight=0",
                                    "distill.attention_weight=0.5", "distill.temperature=4",
                                    "distill.states_until=0.75"])  # fmt: skip
def test_every_setting_is_in_the_key_of_the_student(change, runs):
    corpus = point(runs).source.load(runs.cache)
    one, other = (steps_of(point(runs, "prune=fixed50", "distill=hidden", *more), corpus, runs.cache)
                  for more in ((), (change,)))  # fmt: skip
    assert one.student.wanted.key != other.student.wanted.key
    assert one.teachers[0].wanted.key == other.teachers[0].wanted.key


ANSWERS = {"temperature": 3.0, "teacher_weight": 0.25}
SETTINGS = {
    "kd": ANSWERS,
    "hidden": {**ANSWERS, "states_until": 0.75, "layers": "last", "embeddings_weight": 2.0, "hidden_weight": 3.0,
               "attention_weight": 4.0},
    "minilm": {**ANSWERS, "states_until": 0.75, "layers": "even", "query_weight": 2.0, "key_weight": 3.0,
               "value_weight": 4.0, "relation_heads": 16},
}  # fmt: skip


@pytest.mark.parametrize("option", SETTINGS)
def test_every_setting_of_a_loss_reaches_it_under_its_own_name(option, runs):
    words = [f"distill.{name}={value}" for name, value in SETTINGS[option].items()]
    loss = point(runs, f"distill={option}", *words).loss
    assert {name: getattr(loss, name) for name in SETTINGS[option]} == SETTINGS[option]
