"""What bad input gets: one or two lines, a non-zero exit code, and no training."""

# ruff: noqa: E501
from __future__ import annotations

import json
import re
import shutil
import subprocess
import sys
import time
from pathlib import Path

import pytest
from conftest import DEV_COUNT, ROOT, Runs, sentences
from front_door import called

from optim.common.errors import UserError
from optim.run import result


@pytest.fixture(scope="module")
def bad(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Files that cannot be worked with."""
    folder = tmp_path_factory.mktemp("bad")
    (folder / "empty.csv").write_text("")
    (folder / "columns.csv").write_text("review,stars\nfine,1\n")
    (folder / "single.csv").write_text("text,label\n" + "good,1\n" * 20)
    (folder / "train.csv").write_text("text,label\n" + "good,1\nbad,0\n" * 20)
    (folder / "dev.csv").write_text("text,label\ngood,7\n")
    (folder / "copies.csv").write_text("text,label\n" + "".join(f"film {i},{i % 2}\n" for i in range(20)))
    (folder / "file").write_text("not a folder")
    (folder / "loop").symlink_to(folder / "loop")
    (folder / "blank.txt").write_text(" \n\n")
    shutil.copytree(ROOT / "tests" / "golden" / "mobilebert", folder / "mobilebert")
    (folder / "mobilebert" / "vocab.txt").write_text("[PAD]\n[UNK]\n[CLS]\n[SEP]\nfilm\n")
    scored = [text for text, _ in sentences(DEV_COUNT, seed=1)]
    (folder / "scored.txt").write_text("a new one\n" + "".join(f"{text.upper()} .\n" for text in scored[:4]))
    return folder


CASES = {
    "an unknown option": (["prune=fixed51"], "prune has no option 'fixed51'", "The nearest: fixed50."),
    "no option": (["prune="], "prune has no option ''; it has block1x4, fixed50, fixed80,"),
    "an unknown key": (
        ["prune=fixed50", "prune.sparsty=0.5"],
        "prune.sparsty is no key here. The nearest: prune.sparsity.",
    ),
    "a sparsity of one": (
        ["prune=fixed50", "prune.sparsity=1.0"],
        "prune.sparsity must be a fraction in [0, 1)",
        "got 1",
    ),
    "a sparsity in per cent": (["prune=fixed50", "prune.sparsity=50"], "For 50 %, write 0.5"),
    "a negative sparsity": (["prune=fixed50", "prune.sparsity=-0.1"], "got -0.1"),
    "a sparsity that is a word": (
        ["prune=fixed50", "prune.sparsity=half"],
        "prune.sparsity must be a number, got 'half'",
    ),
    "a temperature of zero": (["distill.temperature=0"], "distill.temperature must be above 0, got 0"),
    "a teacher weight above one": (["distill.teacher_weight=1.5"], "distill.teacher_weight must be a fraction"),
    "an unknown teacher": (["distill.teacher=gpt"], "distill.teacher must be same or one of", "distilbert"),
    "a teacher that teaches nothing": (["distill=none", "distill.teacher=distilbert"], "choose distill=kd"),
    "too many copies": (["distill.augment.copies=21"], "distill.augment.copies must be from 0 (none) to 20, got 21"),
    "half a copy": (["distill.augment.copies=0.5"], "distill.augment.copies must be a whole number, got 0.5"),
    "copies that nobody answers": (["distill=none", "distill.augment.copies=4"], "distill.augment.copies=4: nobody"),
    "a file that nobody answers": (
        ["distill=none", "distill.unlabelled={bad}/train.csv"],
        "distill.unlabelled=",
        "choose distill=kd",
    ),
    "a missing file of sentences": (["distill.unlabelled={bad}/nowhere.txt"], "distill.unlabelled: no file"),
    "an empty file of sentences": (["distill.unlabelled={bad}/empty.csv"], "distill.unlabelled: ", "is empty"),
    "a blank file of sentences": (["distill.unlabelled={bad}/blank.txt"], "distill.unlabelled: ", "has no sentences"),
    "sentences in no column": (["distill.unlabelled={bad}/columns.csv"], "no column 'text'; it has 'review', 'stars'"),
    "sentences that are scored": (
        ["distill.unlabelled={bad}/scored.txt"],
        "distill.unlabelled: ",
        "4 of the 150 sentences that are scored",
    ),
    "a fit of no steps": (["fit.student.steps=0"], "fit.student.steps must be above 0, got 0"),
    "half an epoch": (["fit.teacher.epochs=0.5"], "fit.teacher.epochs must be a whole number, got 0.5"),
    "copies of no sentence": (
        ["data.phrases=false", "fit.student.whole_copies=3"],
        "fit.student.whole_copies needs data whose rows are phrases",
        "got 3",
    ),
    "none of the whole sentences": (["fit.student.whole_copies=0"], "fit.student.whole_copies must be above 0, got 0"),
    "a seed that is a word": (["seed=x"], "Error: seed must be a whole number, got 'x'."),
    "no epochs": (["fit.teacher.epochs=0"], "fit.teacher.epochs must be above 0, got 0"),
    "no epochs that are usual": (["fit.usual.mpnet.epochs=0"], "fit.usual.mpnet.epochs must be above 0, got 0"),
    "more held out than a fit gives up": (["fit.holdout=0.3"], "fit.holdout must be at most 0.2"),
    "an unknown precision": (["fit.precision=int3"], "fit.precision must be auto, float32 or bfloat16"),
    "a missing folder": (["data.path={bad}/nowhere"], "nowhere"),
    "a missing file": (["data=csv", "data.train_path={bad}/nowhere.csv"], "nowhere.csv"),
    "no file": (["data=csv"], "data.train_path"),
    "an empty file": (["data=csv", "data.train_path={bad}/empty.csv"], "empty"),
    "missing columns": (["data=csv", "data.train_path={bad}/columns.csv"], "text", "stars"),
    "a single class": (["data=csv", "data.train_path={bad}/single.csv"], "class"),
    "labels that train lacks": (["data=csv", "data.train_path={bad}/train.csv", "data.dev_path={bad}/dev.csv"], "7"),
    "a set without a name": (["data=hf"], "data=hf needs data.name=OWNER/NAME"),
    "a set without a hub": (
        ["data=hf", "data.name=someone/things"],
        "data.name: someone/things: HF_HUB_OFFLINE is set",
    ),
    "a set that is no folder": (["data=hf", "data.path={bad}/nowhere"], "data.path", "nowhere is not a folder"),
    "a benchmark without its folder": (["data=banking77"], "data=banking77 needs data.path=DIR"),
    "a benchmark without its files": (["data=banking77", "data.path={bad}"], "no file", "test.csv"),
    "what is learnt is scored": (
        ["data=csv", "data.train_path={bad}/copies.csv", "data.dev_path={bad}/copies.csv"],
        "20 of the 20 sentences that are scored",
    ),
    "a missing checkpoint": (["model.path={bad}/nowhere"], "nowhere"),
    "a target": (["prune._target_=os.system"], "prune._target_ is no key here"),
    "a target that is added": (["+prune._target_=optim.common.files.write_text"], "prune._target_ is refused"),
    "a target that runs code": (
        ["+prune._target_=optim.track.sender.start_apart", "+prune.module='os;os.system(\"false\")#'"],
        "prune._target_ is refused: a config names a registered method",
    ),
    "a target that ends the program": (["+track._target_=sys.exit"], "track._target_ is refused"),
    "a target below": (["+fit.teacher._target_=os.system"], "fit.teacher._target_ is refused"),
    "a target where nothing is made": (["+measure.x._target_=os.system"], "Error: measure has no key 'x'"),
    "arguments by position": (["+prune._args_=[1]"], "prune._args_ is refused"),
    "a partial object": (["+quant._partial_=true"], "quant._partial_ is refused"),
    "a recursive flag": (["+bench._recursive_=false"], "bench._recursive_ is refused"),
    "a conversion": (["+model._convert_=all"], "model._convert_ is refused"),
    "a method of another group": (["prune.method=soft_targets"], "prune.method must be one of across, blocks"),
    "a method that is a path": (["prune.method=os.system"], "prune.method must be one of across, blocks"),
    "a block that divides no kernel": (
        ["prune=block1x4", "prune.block=[1,5]"],
        "prune.block must divide every kernel, [inputs, outputs]; layer0_query is [32, 32], got [1, 5]",
    ),
    "a block that does not divide the embeddings": (
        ["quant=int4_emb4", "quant.block=64"],
        "quant.block=64 must divide the 32 numbers of an embedding: choose 32 or quant.embedding_bits=8.",
    ),
    "a model that is not fitted with rounding": (
        ["model=mobilebert", "model.path={bad}/mobilebert", "quant=int8_qat"],
        "quant=int8_qat does not know a mobilebert",
        "choose quant=int8 or quant=int8_static",
    ),
    "a group that divides no kernel": (
        ["prune=nm24", "prune.group=5"],
        "prune.group must divide the inputs of every kernel; layer0_query is [32, 32]",
    ),
    "a block of one weight": (
        ["prune=block1x4", "prune.block=[1,1]"],
        "prune.block must be [inputs, outputs], above 0",
    ),
    "as many zeros as neighbours": (["prune=nm24", "prune.zeros=4"], "prune.zeros must be below prune.group, 4, got 4"),
    "an unknown scope": (["prune=movement", "prune.scope=layer"], "prune.scope must be kernel or global, got 'layer'"),
    "an unknown compression": (["export.compress=gzip"], "export.compress must be none or zstd, got 'gzip'"),
    "a level beyond the last": (["export.zstd_level=23"], "export.zstd_level must be from 1 to 22, got 23"),
    "an unknown top key": (["+colour=red"], "train has no key 'colour'", "--help lists what there is"),
    "a key of a fit, at the top": (
        ["epochs=3"],
        "epochs is no key here. The nearest: fit.teacher.epochs, fit.student.epochs.",
    ),
    "the same, added": (
        ["+epochs=3"],
        "train has no key 'epochs'",
        "The nearest: fit.teacher.epochs, fit.student.epochs.",
    ),
    "a misspelt group": (["modle=tiny"], "modle is no key here. The nearest: model."),
    "a key of another option": (["prune=none", "prune.sparsity=0.5"], "It is a key of prune=block1x4, fixed50,"),
    "several values for one run": (["prune=none,fixed50"], "prune=none,fixed50 gives several values", "train.py -m"),
    "an interval": (["distill.temperature=interval(1,4)"], "an interval has endless points", "distill.temperature=1,2"),
    "a value that is none": (["prune=["], "'prune=[' cannot be read"),
    "a sweeper of others": (["hydra/sweeper=optuna"], "hydra/sweeper=optuna is refused", "sweep.py sweep=search"),
    "an unknown key below": (["+sweep.colour=red"], "Error: sweep has no key 'colour'"),
    "an unknown key of a group": (["+distill.colour=red"], "distill has no key 'colour'"),
    "a list for a number": (["distill.temperature=[1,2]"], "distill.temperature must be a number"),
    "a truth for a number": (["bench.threads=true"], "bench.threads must be a whole number"),
    "a seed below nothing": (["seed=-1"], "seed must be a whole number from 0"),
    "one teacher under two names": (["distill.teacher=[same,tiny]"], "same and tiny, which are one model here"),
    "one teacher twice": (["distill.teacher=[same,same]"], "distill.teacher must name one model, or several"),
    "teachers, as if it were a key": (
        ["distill.teachers=[tiny,minilm]"],
        "distill.teacher takes a list: distill.teacher=[",
    ),
    "teachers, added": (["+distill.teachers=[tiny,minilm]"], "distill.teacher takes a list"),
    "more seeds than anyone fits": (["distill.seeds=101"], "distill.seeds must be at most 100 fits of each", "got 101"),
    "a heat that float32 does not bear": (["distill.temperature=1e30"], "distill.temperature must be at most 100, got"),
    "zeros that become fewer": (
        ["prune=poly80", "prune.initial_sparsity=0.9"],
        "prune.initial_sparsity must be at most prune.sparsity=0.8, got 0.9",
    ),
    "less than nothing in the cache": (["cache_max_gb=-1"], "cache_max_gb must be above 0, got -1"),
    "a group that is taken away": (["~quant"], "~quant: every run has one option of quant, quant=NAME without a sign"),
    "a group that is added": (["+prune=fixed50"], "+prune=fixed50: every run has one option of prune"),
    "a list of options": (["slim=[heads50]"], "slim=[heads50]: that is no option; slim has budget, ffn50, heads50,"),
    "a link to itself": (["model.path={bad}/loop"], "loop is not a folder"),
    "scored sentences without labels, in a plan": (
        ["distill.unlabelled={bad}/scored.txt", "sweep.dry_run=true"],
        "distill.unlabelled: ",
        "of the 150 sentences that are scored",
    ),
    "no seed for a teacher": (["distill.seeds=0"], "distill.seeds must be above 0, got 0"),
    "half a seed": (["distill.seeds=1.5"], "distill.seeds must be a whole number, got 1.5"),
    "a teacher's seed below nothing": (
        ["distill.teacher_seed=-1"],
        "distill.teacher_seed must be a whole number from 0",
    ),
    "seeds beyond the last": (["distill.seeds=2", "distill.teacher_seed=2147483647"], "from 0 to 2147483646"),
    "an unwritable results folder": (["results_dir={bad}/file/results"], "results_dir"),
    "an unwritable cache": (["cache_dir={bad}/file/cache"], "cache_dir"),
    "a results folder that cannot be made": (
        ["results_dir=/proc/made"],
        "results_dir /proc/made cannot be written (No such file or directory: /proc/made). results_dir=DIR moves it.",
    ),
    "a cache that cannot be made": (
        ["cache_dir=/proc/made"],
        "cache_dir /proc/made cannot be written (No such file or directory: /proc/made). cache_dir=DIR moves it.",
    ),
    "a full disk": (["cache_free_gb=1e9"], "cache_free_gb", "GB left"),
    "more tokens than positions": (
        ["data.max_length=4096"],
        "data.max_length must be at most 512, the positions of the model, got 4096.",
    ),
    "more tokens than the student has positions for": (
        ["model.position_count=48", "model.seed=1", "distill.teacher=tiny", "data.max_length=64"],
        "data.max_length must be at most 48, the positions of the model, got 64.",
    ),
    "as many tokens as positions, which eight does not divide": (
        ["model.position_count=50", "data.max_length=50"],
        "data.max_length must be at most 48, the positions of the model, got 50.",
    ),
    "more tokens than the teacher has positions for": (
        ["model.position_count=1024", "distill.teacher=tiny", "data.max_length=600"],
        "data.max_length must be at most 512, the positions of the teacher tiny, got 600.",
    ),
    "more tokens in a plan than positions": (
        ["data.max_length=1000000", "sweep.dry_run=true"],
        "data.max_length must be at most 512, the positions of the model, got 1000000.",
    ),
    "a timed sentence longer than the model": (
        ["bench.sequence_length=100000"],
        "bench.sequence_length must be at most 512, the positions of the model, got 100000.",
    ),
    "a timed sentence longer than the model, in a plan": (
        ["bench.sequence_length=513", "sweep.dry_run=true"],
        "bench.sequence_length must be at most 512, the positions of the model, got 513.",
    ),
    "a timed sentence longer than what is cut out": (
        ["slim=heads50", "bench.sequence_length=513"],
        "bench.sequence_length must be at most 512, the positions of the model, got 513.",
    ),
    "wandb without a key": (["track=wandb"], "WANDB_API_KEY"),
    "a calibration without sentences": (["quant=int8_static", "quant.samples=0"], "quant.samples must be above 0"),
    "a calibration larger than train": (
        ["quant=int8_static", "quant.samples=601"],
        "quant.samples asks for 601 sentences, quant.source=train has 600: set quant.samples=600 or less.",
    ),
    "a calibration larger than what is held out": (
        ["quant=int8_qat", "quant.source=held_out"],
        "quant.samples asks for 256 sentences, quant.source=held_out has 108",
    ),
    "a calibration on dev": (
        ["quant=int8_full", "quant.source=dev"],
        "quant.source must be one of train, whole, held_o",
    ),
    "products that are none": (
        ["quant=int8_qat", "quant.products=ffn_out"],
        "quant.products must be one of all, attention, ffn, but_ffn_out; got 'ffn_out'",
    ),
    "a block that LiteRT lacks": (["quant=int4", "quant.block=48"], "quant.block must be null or one of 32, 64, 128"),
    "bits that LiteRT lacks": (["quant=int4", "quant.kernel_bits=2"], "quant.kernel_bits must be 4 or 8, got 2"),
    "embedding bits that LiteRT lacks": (
        ["quant=int8_emb4", "quant.embedding_bits=2"],
        "quant.embedding_bits must be 4",
    ),
    "activations that LiteRT lacks": (
        ["quant=int8_full", "quant.activation_bits=4"],
        "quant.activation_bits must be 8 or",
    ),
    "a gain for a drop": (["quant=mixed", "quant.max_drop_points=-1"], "quant.max_drop_points must be 0 or above"),
    "a candidate that is none": (
        ["quant=int8_auto", "quant.candidates=[int8,int9]"],
        "quant.candidates must be of fp16, int16x8, int4,",
        "got 'int9'",
    ),
    "a candidate alone": (
        ["quant=int8_auto", "quant.candidates=[int8]"],
        "must name two or more precisions, each once",
    ),
    "a candidate with a fit of its own": (
        ["quant=int8_auto", "quant.candidates=[int8,int8_qat]"],
        "quant.candidates has int8_qat, which has a fit of its own",
    ),
    "a candidate that chooses": (
        ["quant=int8_auto", "quant.candidates=[int8,int8_auto]"],
        "quant.candidates has int8_auto, which chooses itself: leave it out.",
    ),
    "a candidate for NPUs": (
        ["quant=int8_auto", "quant.candidates=[int8,int8_full]"],
        "quant.candidates has int8_full, which has integer logits",
    ),
    "a candidate that cannot be made": (
        ["quant=int8_auto", "model.width=48", "model.heads=2"],
        "quant.candidates has int8_emb4, which cannot be made here: leave it out. quant.block=32 must divide",
    ),
    "a gain for a drop of a choice": (["quant=int8_auto", "quant.max_drop_points=-1"], "max_drop_points must be 0 or"),
    "a tie of everything": (["quant=int8_auto", "quant.tie=1"], "quant.tie must be a fraction in [0, 1), got 1"),
    "a choice before there is a student": (
        ["quant=int8_auto", "slim=budget", "slim.latency_ms=5"],
        "slim.latency_ms times files before anything is trained, which this quant= cannot write",
    ),
    "products that there are not": (
        ["quant=int8_static", "quant.products=heads"],
        "quant.products must be one of all, attention, ffn, but_ffn_out; got 'heads'",
    ),
    "a range without an end": (
        ["quant=int8_qat", "quant.memory=1"],
        "quant.memory must be a fraction in [0, 1), got 1",
    ),
    "a disagreement above one": (["quant.max_disagreement=2"], "max_disagreement"),
}


def command(runs: Runs, bad: Path, name: str) -> list[str]:
    """The words of a case after those of a quick run that they leave as they are."""
    given = [item.format(bad=bad) for item in CASES[name][0]]
    mine = {item.split("=")[0] for item in given}
    own = [item for item in runs.overrides() if item.split("=")[0] not in mine]
    if any(item.startswith("data=") for item in given):
        own = [item for item in own if not item.startswith("data.")]
    return [*own, *given]


def require_refused(done: subprocess.CompletedProcess[str], name: str) -> None:
    """Exit code and screen are those of bad input, which trains nothing."""
    said = done.stdout + done.stderr
    assert done.returncode != 0
    assert all(part in said for part in CASES[name][1:]), said
    assert "Traceback" not in said
    assert "teacher   " not in said
    lines = [line for line in done.stderr.splitlines() if line.startswith("Error:")]
    assert len(lines) == 1, said


def test_a_sentence_as_long_as_the_model_is_planned(runs: Runs):
    words = runs.overrides("bench.sequence_length=512", "data.max_length=512", "slim=heads50", "sweep.dry_run=true")
    done = called("train.py", *words)
    assert (done.returncode, "1 point: 0 done, 1 to run" in done.stdout) == (0, True), done.stderr


def test_a_teacher_may_have_fewer_positions_than_the_timed_sentence(runs: Runs):
    """What is timed is the student's file alone."""
    words = runs.overrides("model.position_count=1024", "distill.teacher=tiny", "bench.sequence_length=1000")
    done = called("train.py", *words, "sweep.dry_run=true")
    assert (done.returncode, "1 point: 0 done, 1 to run" in done.stdout) == (0, True), done.stderr


def test_a_budget_is_held_against_the_words_that_may_stay(runs: Runs):
    """Whole, tiny's words alone exceed it; cut, they leave room for a layer."""
    words = runs.overrides("slim=budget", "slim.parameters=30000", "sweep.dry_run=true")
    whole, cut = called("train.py", *words), called("train.py", *words, "vocab=top", "vocab.size=150")
    assert (whole.returncode, "slim.parameters must be at least 3" in whole.stderr) == (2, True), whole.stderr
    assert (cut.returncode, "1 point: 0 done, 1 to run" in cut.stdout) == (0, True), cut.stderr


@pytest.mark.parametrize("name", CASES)
def test_bad_input_gets_a_line_and_no_training(runs: Runs, bad: Path, name: str):
    require_refused(called("train.py", *command(runs, bad, name)), name)


# One for each place that refuses: Hydra, the look at the command line, a method, the tracker, and the data.
APART = ["an unknown option", "an unknown key", "an unknown top key", "a sparsity of one", "wandb without a key",
         "what is learnt is scored"]  # fmt: skip


@pytest.mark.parametrize("name", APART)
def test_a_process_with_bad_input_says_the_same_and_imports_no_tensorflow(runs: Runs, bad: Path, name: str):
    code = "import sys, atexit, runpy; atexit.register(lambda: print('HEAVY', {'tensorflow', 'wandb', 'datasets', 'pandas'} & set(sys.modules))); runpy.run_path('train.py', run_name='__main__')"
    words = command(runs, bad, name)
    done = subprocess.run([sys.executable, "-c", code, *words], cwd=ROOT, capture_output=True, text=True, timeout=60)
    require_refused(done, name)
    here = called("train.py", *words)
    assert (done.returncode, done.stderr) == (here.returncode, here.stderr)
    assert "HEAVY set()" in done.stdout


@pytest.fixture(scope="module")
def checkpoint(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A good local checkpoint, for tests to spoil."""
    from optim.encoder.tiny import tiny_checkpoint

    folder = tmp_path_factory.mktemp("checkpoint")
    made = tiny_checkpoint(name="tiny", family="bert", layers=1, width=32, heads=2, ffn_width=64, position_count=128, seed=0,
                path=None, pooling="first").fetch(folder)  # fmt: skip
    return made


def _spoilt(checkpoint: Path, folder: Path, **change) -> Path:
    copy = folder / "copy"
    shutil.copytree(checkpoint, copy)
    config = json.loads((copy / "config.json").read_text())
    (copy / "config.json").write_text(json.dumps({**config, **change}))
    return copy


@pytest.mark.parametrize(
    ("change", "said"),
    [
        ({"hidden_size": 64}, "word_embeddings"),
        ({"num_hidden_layers": 2}, "encoder.layer.1"),
        ({"model_type": "roberta"}, "roberta"),
    ],
)
def test_a_checkpoint_that_does_not_fit_is_named(runs, checkpoint, tmp_path, change, said):
    done = called("train.py", *runs.overrides(f"model.path={_spoilt(checkpoint, tmp_path, **change)}"))
    assert done.returncode == 2
    assert said in done.stderr
    assert "Traceback" not in done.stderr


@pytest.mark.parametrize(("family", "key"), [("bert", "num_hidden_layers"), ("distilbert", "n_layers")])
def test_weights_of_more_layers_than_the_config_has_are_refused_before_another_model_is_fitted(
    runs, tmp_path, family, key
):
    """The others would be left out, and nobody told."""
    from optim.encoder.tiny import tiny_checkpoint

    made = tiny_checkpoint(name="tiny", family=family, layers=3, width=32, heads=2, ffn_width=64, position_count=128, seed=0,
                path=None, pooling="first").fetch(tmp_path)  # fmt: skip
    fewer = _spoilt(made, tmp_path, **{key: 2})
    words = (f"model.path={fewer}", "model.name=mine", "distill.teacher=tiny", "sweep.dry_run=true")
    done = called("train.py", *runs.overrides(*words))
    assert done.returncode == 2
    assert "model.safetensors has 3 layers, config.json 2. Set its number of layers to 3" in done.stderr


def test_a_tokenizer_of_more_words_than_the_embedding_is_refused(checkpoint, tmp_path):
    """Its new words would end a fit, or, where none stands in the data, the file's answers."""
    from tokenizers import Tokenizer

    from optim.encoder.assets import LocalCheckpoint
    from optim.run.starts import FromCheckpoint

    copy = _spoilt(checkpoint, tmp_path)
    assert FromCheckpoint(LocalCheckpoint("own", copy, "first"), tmp_path).architecture(2).vocabulary_size == 305
    tokenizer = Tokenizer.from_file(str(copy / "tokenizer.json"))
    tokenizer.add_tokens(["cinematography"])
    tokenizer.save(str(copy / "tokenizer.json"))
    with pytest.raises(
        UserError, match=r"tokenizer.json has ids up to 305, .* only 305 rows\. .*resize_token_embeddings"
    ):
        FromCheckpoint(LocalCheckpoint("own", copy, "first"), tmp_path).architecture(2)


@pytest.mark.parametrize("kept", [0, 100, -10])
def test_weights_that_are_cut_short_are_told_before_another_model_is_fitted(runs, checkpoint, tmp_path, kept):
    """Its teacher may take hours, and a dry run said that all is well."""
    copy = _spoilt(checkpoint, tmp_path)
    content = (copy / "model.safetensors").read_bytes()
    (copy / "model.safetensors").write_bytes(content[:kept])
    words = (f"model.path={copy}", "model.name=mine", "distill.teacher=tiny", "sweep.dry_run=true")
    done = called("train.py", *runs.overrides(*words))
    assert done.returncode == 2
    assert "model.safetensors is not a readable safetensors file" in done.stderr


def test_a_local_checkpoint_is_used_wherever_it_lies(runs, checkpoint, tmp_path):
    """The folder's content names the run, not its path."""
    copy = tmp_path / "elsewhere"
    shutil.copytree(checkpoint, copy)
    first = runs.here(f"model.path={checkpoint}")
    again = called("train.py", *runs.overrides(f"model.path={copy}"))
    assert again.returncode == 0
    assert "Done before" in again.stderr
    assert first["run_id"] in again.stdout


@pytest.mark.timed
@pytest.mark.parametrize("arguments", [["--help"], ["prune=fixed51"]])
def test_help_and_typos_answer_within_a_second_or_so(arguments):
    def took_s(*words: str) -> float:
        start = time.perf_counter()
        subprocess.run([sys.executable, *words], cwd=ROOT, capture_output=True, timeout=60)
        return time.perf_counter() - start

    # Any of ten: a busy machine may slow some of them, not all; a heavy import slows every one. Hydra alone takes a
    # third of a second where the limit is 1.5 s; a machine slower than that is allowed as much more. In turns, as the
    # speed of some machines changes within seconds.
    turns = ((took_s("-c", "import hydra"), took_s("train.py", *arguments)) for _ in range(10))
    assert any(took <= 1.5 * max(1.0, hydra / 0.35) for hydra, took in turns)


def test_help_names_groups_and_loads_nothing_heavy():
    code = "import sys, atexit, train; atexit.register(lambda: print('HEAVY', {'tensorflow', 'wandb', 'datasets', 'pandas'} & set(sys.modules))); train.main()"
    done = subprocess.run([sys.executable, "-c", code, "--help"], cwd=ROOT, capture_output=True, text=True, timeout=60)
    assert "HEAVY set()" in done.stdout
    assert "prune: block1x4, fixed50, fixed80, global50, movement, nm24, none, poly50, poly80" in done.stdout
    assert "slim: budget, ffn50, heads50, layers3, layers6, none, slim50, slim75" in done.stdout


@pytest.mark.parametrize("program", ["train.py", "sweep.py"])
def test_a_reader_that_leaves_early_is_no_failure(program):
    """As `head` does: nothing on stderr, and the exit code of a program whose output nobody reads."""
    with subprocess.Popen([sys.executable, program, "--help"], cwd=ROOT, stdout=subprocess.PIPE,
                          stderr=subprocess.PIPE) as shown:  # fmt: skip
        assert shown.stdout
        assert shown.stderr
        shown.stdout.close()
        assert shown.stderr.read() == b""
    assert shown.returncode == 141


@pytest.mark.parametrize("sign", ["[", "\\"])
def test_a_cache_that_tensorflow_would_read_as_a_pattern_is_refused(tmp_path, sign):
    folder = tmp_path / f"a {sign}b"
    with pytest.raises(UserError, match=re.escape(f"cache_dir {folder} must have no {sign} in it")):
        result.require_space(folder, free_gb=0.0)
    assert not folder.exists()


def test_a_cache_is_made_with_the_folders_above_it(tmp_path):
    result.require_space(tmp_path / "a" / "b", free_gb=0.0)
    assert (tmp_path / "a" / "b").is_dir()
