"""Removed structure and removed words on the whole way of a point."""

# pyright: reportAttributeAccessIssue=false, reportOptionalSubscript=false
from __future__ import annotations

import json
import re
import shutil
from dataclasses import replace

import numpy as np
import pytest
from conftest import CONF
from made_results import made as made_result
from safetensors.numpy import load_file
from tokenizers import Tokenizer, models, processors
from whole_points import made, point

from optim.common.errors import UserError
from optim.cut.budget import LatencyModel
from optim.cut.importance import HEAD, SENSITIVITY, least_head, sides
from optim.cut.surgery import CUT, SCORES
from optim.data.alignment import require_special_tokens
from optim.data.tokens import Tokens, unknown_id
from optim.encoder import store
from optim.run import card, latency_model
from optim.run.keys import run_id_of, surgery_key
from optim.run.latency_model import LatencyStep
from optim.run.step import Stages
from optim.run.steps import steps_of
from optim.run.tables import Float32Step, TableStep
from optim.train.scores import logits_of

# Options -> (heads of each layer, feed-forward widths of each layer, width): tiny has (2, 2), (64, 64), 32.
SLIM = {
    "slim=heads50": ((1, 1), (64, 64), 32),
    "slim=ffn50": ((2, 2), (32, 32), 32),
    "slim=slim50": ((1, 1), (32, 32), 32),
    "slim=slim50 slim.importance=magnitude slim.steps=2": ((1, 1), (32, 32), 32),
    "slim=layers3 slim.layers=1": ((2,), (64,), 32),
    "slim=layers6 slim.layers=2 slim.ffn=0.25": ((2, 2), (48, 48), 32),
    "slim=slim75 slim.heads=0.5": ((1, 1), (16, 16), 32),
    "slim=heads50 slim.width=24": ((1, 1), (64, 64), 24),
    "slim=budget slim.parameters=36000": None,
    "slim=budget slim.parameters=36000 slim.importance=sensitivity slim.steps=2": None,
}  # fmt: skip


@pytest.fixture(scope="module")
def whole(runs):
    """The size of the same file with nothing removed."""
    return made(runs, point(runs, "quant=int8"))[2].size


FAST = ("slim=slim50", "slim=budget slim.parameters=36000")  # the others are made beside the slow tests


@pytest.mark.parametrize("words", [w if w in FAST else pytest.param(w, marks=pytest.mark.slow) for w in SLIM])
def test_what_is_removed_is_gone_from_the_file(runs, whole, words):
    outcome = made(runs, point(runs, *words.split(), "quant=int8"))[2]
    size = outcome.size
    assert size["parameters"] < whole["parameters"]
    assert size["file_bytes"] < whole["file_bytes"]
    assert outcome.quality["agreement_fraction"] >= 0.96
    assert outcome.quality["accuracy_fraction"] >= 0.8
    if (wanted := SLIM[words]) is not None:
        built = size["structure"]
        assert (tuple(built["heads"]), tuple(built["ffn_widths"]), built["width"]) == wanted
    else:
        assert size["parameters"] <= 36_000


def test_every_option_is_run():
    run = {words.split()[0] for words in SLIM} | {"slim=none", "vocab=full", "vocab=seen", "vocab=top"}
    assert run == {f"{group}={path.stem}" for group in ("slim", "vocab") for path in (CONF / group).glob("*.yaml")}


def test_the_most_frequent_words_stay(runs):
    chosen = point(runs, "vocab=top", "vocab.size=120")
    steps, stages, outcome = made(runs, chosen)
    assert store.read_architecture(stages.folder(steps.student)).vocabulary_size <= 120
    assert outcome.data["dev_tokens_mean"] >= steps.teachers[0].tokens.read(stages, "dev").lengths.mean()


def test_structure_words_zeros_and_int8_together_through_the_front_door(runs):
    result = runs.here("slim=slim50", "vocab=seen", "prune=fixed50", "quant=int8")
    assert result["choices"]["slim"] == "slim50"
    assert result["choices"]["vocab"] == "seen"
    assert result["size"]["structure"]["heads"] == [1, 1]
    assert result["size"]["zeroed_fraction"] == pytest.approx(0.5, abs=0.01)
    assert result["data"]["dev_unknown_token_fraction"] == 0
    assert result["data"]["dev_tokens_mean"] > 3
    assert result["quality"]["accuracy_fraction"] >= 0.8


def test_words_that_train_lacks_are_gone_and_kept_text_gives_the_same_logits(runs):
    chosen = point(runs, "vocab=seen")
    steps, stages, outcome = made(runs, chosen)
    surgery, teacher = steps.student.start.step, steps.teachers[0]
    cut = json.loads((stages.folder(surgery) / CUT).read_text())["words"]
    before, after = teacher.tokens.read(stages, "train"), steps.student.tokens.read(stages, "train")
    assert 0 < len(cut) < store.read_architecture(stages.folder(teacher)).vocabulary_size
    np.testing.assert_array_equal(np.array(cut)[after.ids], before.ids, "all of train is made of kept tokens")
    logits = [logits_of(store.load(stages.folder(one)), tokens.take(np.arange(50)))
              for one, tokens in ((teacher, before), (surgery, after))]  # fmt: skip
    np.testing.assert_allclose(logits[0], logits[1], atol=1e-6)
    assert outcome.data["dev_unknown_token_fraction"] == 0
    assert outcome.size["structure"]["vocabulary_size"] == len(cut)


def test_ids_are_those_of_before_there_were_positions(runs):
    """`vocab=seen` alone had no such key, and its results and stages stay."""
    whole, short = (point(runs, "slim=slim50", "vocab=seen", f"vocab.positions={n}") for n in ("null", 128))
    key = surgery_key(whole.surgery)
    assert set(key["vocab"]) == {"method", "version", "minimum_count"}
    assert surgery_key(short.surgery) == {**key, "vocab": {**key["vocab"], "positions": 128}}
    assert run_id_of(whole) != run_id_of(short)


def test_positions_that_no_sentence_comes_to_are_gone_and_change_nothing(runs):
    """The file has 512 - 128 rows fewer; what it answers is what it would answer with them, to the last bit."""
    found = {n: made(runs, point(runs, "vocab=seen", "quant=int8", f"vocab.positions={n}")) for n in ("null", 128)}
    (before, kept, whole), (steps, stages, short) = found.values()
    shape = store.read_architecture(stages.folder(steps.student))
    assert shape.position_count == 128
    np.testing.assert_array_equal(steps.student.dev_logits(stages), before.student.dev_logits(kept))
    np.testing.assert_array_equal(short.answers["answers"], whole.answers["answers"])
    fewer = (512 - 128) * shape.width
    assert whole.size["parameters"] - short.size["parameters"] == fewer
    assert whole.size["file_bytes"] - short.size["file_bytes"] == pytest.approx(fewer, rel=0.05), "a byte each"


def test_the_unknown_token_is_found_in_a_tokenizer(tmp_path):
    (tmp_path / "t.json").write_text(json.dumps({"model": {"unk_token": "[UNK]", "vocab": {"a": 0, "[UNK]": 7}}}))
    assert unknown_id(tmp_path / "t.json") == 7
    (tmp_path / "t.json").write_text(json.dumps({"model": {"type": "Unigram", "vocab": [["a", -1.0]]}}))
    assert unknown_id(tmp_path / "t.json") is None


def test_points_that_differ_later_share_the_surgery(runs):
    corpus = point(runs).source.load(runs.cache)
    words = (["quant=int8"], ["prune=fixed50"], ["distill.temperature=4"], ["seed=0", "quant=fp16"])
    steps = [steps_of(point(runs, "slim=slim50", "vocab=seen", *more), corpus, runs.cache) for more in words]
    kinds = [{s.wanted.key for s in one.all() if s.kind == "surgery"} for one in steps]
    assert len(set.union(*kinds)) == 1
    assert len({one.figures.wanted.key for one in steps}) == 4


def test_another_removal_is_another_student_and_none_is_none(runs):
    corpus = point(runs).source.load(runs.cache)
    words = ["slim=none", "slim=slim50", "slim=slim50 slim.seed=5", "slim=slim50 vocab=seen", "vocab=seen",
             "slim=slim50 slim.importance=magnitude"]  # fmt: skip
    keys = [steps_of(point(runs, "prune=fixed50", *w.split()), corpus, runs.cache).student.wanted.key for w in words]
    assert len(set(keys)) == len(keys)
    neutral = steps_of(point(runs, "prune=fixed50", "slim=layers3", "slim.layers=null"), corpus, runs.cache)
    assert neutral.student.wanted.key == keys[0]


@pytest.mark.parametrize("change", ["slim.heads=0", "slim.ffn=0.25", "slim.layers=1", "slim.width=24", "slim.samples=5",
                                    "slim.importance=magnitude", "slim.seed=3", "slim.steps=2",
                                    "vocab.minimum_count=2"])  # fmt: skip
def test_every_setting_is_in_the_key_of_the_surgery_and_of_nothing_before(change, runs):
    corpus = point(runs).source.load(runs.cache)
    one, other = (steps_of(point(runs, "slim=slim50", "vocab=seen", *more), corpus, runs.cache)
                  for more in ((), (change,)))  # fmt: skip
    assert one.student.wanted.key != other.student.wanted.key
    assert one.teachers[0].wanted.key == other.teachers[0].wanted.key


@pytest.mark.slow
def test_a_student_taught_by_another_is_cut_out_of_its_own_fine_tuning(runs):
    chosen = point(runs, "slim=slim50", "distill.teacher=minilm", "model.layers=1", "seed=1", "distill.teacher_seed=0")
    chosen = replace(chosen, teachers=tuple(replace(t, checkpoint=point(runs).checkpoint) for t in chosen.teachers))
    steps, stages, outcome = made(runs, chosen)
    whole = steps.student.start.step.whole
    assert whole is not steps.teachers[0]
    assert whole.point.seed == 0, "students that share a teacher share what they are cut from"
    assert len(store.read_architecture(stages.folder(whole)).heads) == 1
    assert len(store.read_architecture(stages.folder(steps.teachers[0])).heads) == 2
    assert outcome.size["structure"]["heads"] == [1]
    assert steps.student.holdout_seed == 0, "its start has not seen that slice"


@pytest.mark.slow
def test_a_budget_in_milliseconds_is_kept_by_what_files_take(runs, monkeypatch):
    """The clock is told: 1 ms, 1 for each layer, 1 for each head, 1/64 for each column. A whole tiny takes 7: its last
    layer's columns and half of its heads are of one token.
    """
    truth = LatencyModel(base_ms=1, layer_ms=1, head_ms=1, column_ms=1 / 64)
    timed: list[int] = []

    def latency(files, *, ids, length, bench):
        shapes = latency_model.probes(timed_shape)
        assert len(files) == len(shapes) == len({path.stat().st_size for path in files.values()})
        timed.append(len(files))
        return {name: {"latency_p50_ms": truth(shapes[int(name)])} for name in files}

    chosen = point(runs, "slim=budget", "slim.latency_ms=6", "quant=int8")
    timed_shape = steps_of(chosen, chosen.source.load(runs.cache), runs.cache)._latencies()[0].shape  # type: ignore[attr-defined]
    monkeypatch.setattr(latency_model, "latency", latency)
    steps, stages, _ = made(runs, chosen)
    kinds = [step.kind for step in steps.all()]
    assert kinds.index("latency") < kinds.index("teacher"), "a budget that nothing keeps is told of at once"
    shape = store.read_architecture(stages.folder(steps.student))
    assert truth(shape) <= 6 < truth(timed_shape)
    assert len(timed) == 1
    with pytest.raises(UserError, match=r"slim.latency_ms must be at least 2\.5"):
        made(runs, point(runs, "slim=budget", "slim.latency_ms=2", "quant=int8"))


def test_the_scores_by_which_parts_were_kept_lie_beside_the_cut(runs):
    steps, stages, _ = made(runs, point(runs, "slim=slim50", "quant=int8"))
    folder = stages.folder(steps.student.start.step)
    kept = json.loads((folder / CUT).read_text())
    with np.load(folder / SCORES) as scores:
        assert len(scores.files) == 2 * 2 + 3
        for layer in (0, 1):
            for part in ("heads", "columns"):
                own = scores[f"cut0_{part}_layer{layer}"]
                assert sorted(kept[part][layer]) == sorted(np.argsort(-own)[: len(own) // 2].tolist())


@pytest.mark.parametrize(
    ("asked_ms", "took_ms", "told"),
    [(4.0, 3.9, "kept"), (4.0, 5.0, "missed: the file takes 25% longer; ask for less"), (None, 5.0, None)],
)
def test_the_result_says_whether_the_file_keeps_the_milliseconds_that_it_was_cut_for(asked_ms, took_ms, told):
    found = made_result("a", accuracy=0.9, ms=took_ms)
    found.cfg["slim"] = {"latency_ms": asked_ms}
    assert [row[2] for row in card.budget_rows(found)] == ([told] if told else [])


def test_a_budget_in_milliseconds_that_nothing_keeps_is_refused_before_anything_is_trained(runs, monkeypatch):
    truth = LatencyModel(base_ms=1, layer_ms=1, head_ms=1, column_ms=1 / 64)

    def latency(files, **how):
        return {name: {"latency_p50_ms": truth(latency_model.probes(step.shape)[int(name)])} for name in files}

    monkeypatch.setattr(latency_model, "latency", latency)
    monkeypatch.setattr(LatencyStep, "_file", lambda self, shape, sentences, folder: folder)
    chosen = point(runs, "slim=budget", "slim.latency_ms=2", "quant=int8", "bench.min_calls=8")
    steps = steps_of(chosen, chosen.source.load(runs.cache), runs.cache)
    (step,) = steps._latencies()
    for _ in ("made", "found"):
        stages = Stages(runs.cache, lambda fit, row: None)
        with pytest.raises(UserError, match=r"slim\.latency_ms must be at least 2\.5"):
            stages.make(step)
        assert not [key for key in stages.made if not key.startswith(("latency-", "tokens-"))]


def test_files_are_timed_at_the_width_that_the_student_will_have(runs):
    steps = [steps_of(one, one.source.load(runs.cache), runs.cache)._latencies()[0]
             for one in (point(runs, "slim=budget", "slim.latency_ms=6", *more) for more in ((), ("slim.width=24",)))
             ]  # fmt: skip
    widths = [{shape.width for shape in latency_model.probes(step.shape)} for step in steps]
    assert widths == [{32}, {24}]
    assert steps[0].wanted.key != steps[1].wanted.key


@pytest.mark.parametrize("vocab", ["seen", "full"])
@pytest.mark.parametrize("token", ["[UNK]", "[CLS]", "[SEP]"])
def test_a_vocabulary_without_a_special_token_is_refused(token, vocab, runs, tmp_path):
    """Cut or not: without [UNK] the shipped file would fail at the first strange word."""
    folder = shutil.copytree(point(runs).checkpoint.fetch(runs.cache), tmp_path / "model")
    content = json.loads((folder / "tokenizer.json").read_text())
    content["model"]["vocab"].pop(token)
    content["added_tokens"] = [one for one in content["added_tokens"] if one["content"] != token]
    (folder / "tokenizer.json").write_text(json.dumps(content))
    corpus = point(runs).source.load(runs.cache)
    with pytest.raises(UserError, match=re.escape(f"has no {token}")) as told:
        steps_of(point(runs, f"model.path={folder}", f"vocab={vocab}"), corpus, runs.cache)
    assert "\n" not in str(told.value)


def test_an_unknown_that_is_an_added_token_alone_is_refused(runs, tmp_path):
    """WordPiece looks for it among its own pieces, and fails at the first strange word."""
    folder = shutil.copytree(point(runs).checkpoint.fetch(runs.cache), tmp_path / "model")
    content = json.loads((folder / "tokenizer.json").read_text())
    content["model"]["vocab"].pop("[UNK]")
    assert "[UNK]" in [one["content"] for one in content["added_tokens"]]
    (folder / "tokenizer.json").write_text(json.dumps(content))
    chosen = point(runs, f"model.path={folder}")
    with pytest.raises(UserError, match=re.escape("has no [UNK] in its vocabulary")):
        steps_of(chosen, chosen.source.load(runs.cache), runs.cache)


def test_bytes_need_no_unknown_among_their_own(tmp_path):
    """Byte-level BPE spells every text; one that adds `<unk>` to its pieces never makes it."""
    tokenizer = Tokenizer(models.BPE({"<s>": 0, "</s>": 1, "a": 2}, [], unk_token="<unk>"))
    tokenizer.add_special_tokens(["<unk>"])
    tokenizer.post_processor = processors.BertProcessing(("</s>", 1), ("<s>", 0))
    tokenizer.save(str(tmp_path / "tokenizer.json"))
    require_special_tokens(tmp_path / "tokenizer.json", framed=True)


def test_a_tokenizer_that_frames_no_sentence_is_refused(runs, tmp_path):
    folder = shutil.copytree(point(runs).checkpoint.fetch(runs.cache), tmp_path / "model")
    content = json.loads((folder / "tokenizer.json").read_text())
    (folder / "tokenizer.json").write_text(json.dumps(content | {"post_processor": None}))
    chosen = point(runs, f"model.path={folder}")
    with pytest.raises(UserError, match=r"puts 0 tokens around a sentence, and this model reads \[CLS\] and \[SEP\]"):
        steps_of(chosen, chosen.source.load(runs.cache), runs.cache)


@pytest.mark.parametrize(
    ("words", "said"),
    [
        (["slim=slim75"], "slim.heads 0.75 leaves no head"),
        (["slim=layers3"], "slim.layers must be at most 2"),
        (["slim=heads50", "slim.width=99"], "slim.width must be at most 32"),
        (["slim=heads50", "slim.heads=1"], "slim.heads must be a fraction in"),
        (
            ["slim=heads50", "slim.importance=luck"],
            "slim.importance must be one of taylor, magnitude, sensitivity \\(the last for",
        ),
        (["slim=slim50", "slim.importance=sensitivity"], "takes the same share of each: choose slim=budget, or"),
        (["slim=budget"], "slim.parameters=N or slim.latency_ms=MS"),
        (["slim=budget", "slim.parameters=10"], "slim.parameters must be at least"),
        (["vocab=top", "vocab.size=3"], "vocab.size must be at least"),
        (["vocab=seen", "vocab.positions=513"], "vocab.positions must be at most 512, those of the model, got 513"),
        (["vocab=seen", "vocab.positions=0"], "vocab.positions must be above 0"),
        (["vocab=seen", "vocab.positions=64"], "data.max_length must be at most 64, the positions of the model"),
        (["vocab=seen", "vocab.minimum_count=0"], "vocab.minimum_count must be above 0"),
    ],
)
def test_what_cannot_be_removed_is_refused_before_anything_is_trained(runs, words, said):
    corpus = point(runs).source.load(runs.cache)
    with pytest.raises(UserError, match=said):
        steps_of(point(runs, *words), corpus, runs.cache)


def test_a_budget_that_the_words_exceed_is_named_whole_not_by_the_goal_of_a_step(runs):
    """How many words `seen` keeps is counted in the plan: the fewest that it might keep would fit."""
    words = ("slim=budget", "slim.steps=3", "vocab=seen")
    corpus = point(runs).source.load(runs.cache)
    with pytest.raises(UserError) as told:
        steps_of(point(runs, *words, "slim.parameters=10"), corpus, runs.cache)
    fewest = int(re.search(r"at least ([\d,]+)", str(told.value))[1].replace(",", ""))
    with pytest.raises(UserError, match=rf"slim\.parameters must be at least .*; got {fewest:,}\. vocab=seen"):
        steps_of(point(runs, *words, f"slim.parameters={fewest}"), corpus, runs.cache)


@pytest.mark.slow
def test_a_budget_weighs_layers_by_the_sensitivity_table_of_the_model_that_is_cut(runs):
    """Heads are scaled in each layer so that those that the table removed stand to each other as the roots it found."""
    words = ("slim=budget", "slim.parameters=40000", "quant=int8")
    steps, stages, outcome = made(runs, point(runs, *words, "slim.importance=sensitivity"))
    surgery, plain = steps.student.start.step, made(runs, point(runs, *words))[0].student.start.step
    table = TableStep(SENSITIVITY, Float32Step(steps.teachers[0]))
    assert table.wanted.key in [one.wanted.key for one in surgery.inputs()], "that of sweep=sensitivity, made once"
    weighed, own = (np.load(stages.folder(one) / SCORES) for one in (surgery, plain))
    roots = {row["layer"]: np.sqrt(row["kl_nats"]) for row in table.read(stages)["rows"] if row["change"] == HEAD}
    assert sorted(roots) == [0, 1]
    assert min(roots.values()) > 0
    weights = load_file(stages.folder(steps.teachers[0]) / store.WEIGHTS)
    removed, found = {}, []
    for layer in roots:
        heads, before = (scores[f"cut0_heads_layer{layer}"] for scores in (weighed, own))
        np.testing.assert_allclose(heads / before, heads[0] / before[0])
        found.append(heads[0] / before[0])
        removed[layer] = heads[least_head(*sides(weights, layer, "value", "attention_output"), 16)]
    assert removed[0] / removed[1] == pytest.approx(roots[0] / roots[1])
    assert len({scale.round(6) for scale in found}) == 2, "and not as before"
    spent = outcome.cost["stages"]
    written = [steps.file.float32.wanted.key, steps.file.wanted.key]
    assert outcome.cost["export_s"] == pytest.approx(sum(spent[key] for key in written)), "the table is for the cut"
    assert outcome.cost["student_s"] > spent[table.wanted.key] > 0


def test_the_cut_model_starts_from_the_weights_that_were_kept(runs):
    chosen = point(runs, "slim=slim50")
    steps, stages, _ = made(runs, chosen)
    surgery = stages.folder(steps.student.start.step)
    kept = json.loads((surgery / CUT).read_text())
    whole, cut = (load_file(f / store.WEIGHTS) for f in (stages.folder(steps.teachers[0]), surgery))
    columns = kept["columns"][1]
    np.testing.assert_array_equal(cut["layer1_ffn_in/kernel:0"], whole["layer1_ffn_in/kernel:0"][:, columns])
    assert isinstance(steps.student.tokens.read(stages, "train"), Tokens)
    assert steps.student.tokens.wanted.key == steps.teachers[0].tokens.wanted.key, "the words are the same"
