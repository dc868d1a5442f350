"""`python -m optim.predict` on a bundle whose answers are known by hand."""

from __future__ import annotations

import io
import json
import math
import os
import re
import shlex
import shutil
import signal
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
from tiny_tflite import write_table_file
from tokenizers import Tokenizer, models, normalizers, pre_tokenizers, processors

from optim import predict
from optim.common.errors import UserError
from optim.export.bundle import is_whole, read_labels, snippet, write_labels
from optim.export.compress import compress

ROOT = Path(__file__).parent.parent
WORDS = ["[PAD]", "[UNK]", "[CLS]", "[SEP]", "a", "charming", "dull", "film"]
# Rows of the table: what a word adds to the logits of (negative, positive).
TABLE = np.array([[99, 0], [0, 0], [0, 0.5], [0, 0.5], [0, 0], [0, 2], [3, 0], [0, 0]], np.float32)


def write_tokenizer(path, words):
    """Lower-cased words between [CLS] and [SEP], and like MiniLM's own file padded to 128."""
    tokenizer = Tokenizer(models.WordLevel({word: i for i, word in enumerate(words)}, unk_token="[UNK]"))
    tokenizer.normalizer = normalizers.Lowercase()  # pyright: ignore[reportAttributeAccessIssue]
    tokenizer.pre_tokenizer = pre_tokenizers.Whitespace()  # pyright: ignore[reportAttributeAccessIssue]
    tokenizer.post_processor = processors.TemplateProcessing(  # pyright: ignore[reportAttributeAccessIssue]
        single="[CLS] $A [SEP]", special_tokens=[("[CLS]", 2), ("[SEP]", 3)]
    )
    tokenizer.enable_padding(length=128)
    tokenizer.enable_truncation(256)
    tokenizer.save(str(path))


@pytest.fixture(scope="module")
def whole(tmp_path_factory):
    folder = tmp_path_factory.mktemp("bundle")
    write_table_file(folder / "model.tflite", TABLE)
    write_tokenizer(folder / "tokenizer.json", WORDS)
    write_labels(folder / "labels.json", labels=["negative", "positive"], max_length=5)
    return folder


@pytest.fixture
def bundle(whole, tmp_path):
    """A copy of the bundle to break."""
    return shutil.copytree(whole, tmp_path / "bundle")


def run(*arguments, stdin=""):
    """(exit code, stdout, stderr) of the command."""
    command = [sys.executable, "-m", "optim.predict", *map(str, arguments)]
    done = subprocess.run(command, input=stdin, capture_output=True, text=True, cwd=ROOT)
    return done.returncode, done.stdout, done.stderr


def test_sentences_from_arguments(whole):
    code, out, err = run(whole, "A charming film", "dull dull film")
    assert (code, err) == (0, "")
    first, second = (json.loads(line) for line in out.splitlines())
    # [CLS] and [SEP] add 1 to positive: (0, 3) and (6, 1).
    assert list(first) == ["text", "label", "score", "scores"]
    assert (first["text"], first["label"]) == ("A charming film", "positive")
    assert first["score"] == first["scores"]["positive"] == pytest.approx(1 / (1 + math.exp(-3)))
    assert first["scores"]["negative"] == pytest.approx(1 / (1 + math.exp(3)))
    assert (second["label"], second["score"]) == ("negative", pytest.approx(1 / (1 + math.exp(-5))))


def test_sentences_from_stdin_skip_blank_lines(whole):
    code, out, err = run(whole, stdin="a charming film\n\n  dull  \n")
    assert (code, err) == (0, "2 sentences: 1 positive, 1 negative; none was cut.\n")
    assert [(row["text"], row["label"]) for row in map(json.loads, out.splitlines())] == [
        ("a charming film", "positive"),
        ("dull", "negative"),
    ]


def called(capsys, *arguments):
    """(exit code, stdout, stderr) of the command, in this process."""
    return predict.main([str(argument) for argument in arguments]), *capsys.readouterr()


def test_a_file_is_read_and_its_summary_counts_what_was_cut(whole, tmp_path, capsys):
    """Five tokens are [CLS], three words and [SEP]."""
    file = tmp_path / "sentences.txt"
    file.write_text("a charming film\n\na dull film\na charming film a dull\n")
    code, out, err = called(capsys, whole, file)
    rows = [json.loads(line) for line in out.splitlines()]
    assert (code, [row["text"] for row in rows]) == (0, ["a charming film", "a dull film", "a charming film a dull"])
    assert err == "3 sentences: 2 positive, 1 negative; 1 cut at 5 tokens.\n"


@pytest.mark.parametrize("workers", [1, 2, 3])
def test_many_sentences_have_their_own_answers_in_order(whole, workers, monkeypatch):
    """Of 200 in blocks of 90, with pieces of 7 for each interpreter: sorted by length inside, and back in order."""
    monkeypatch.setattr(predict, "BLOCK", 90)
    monkeypatch.setattr(predict, "PIECE", 7)
    rng = np.random.default_rng(0)
    texts = [" ".join(rng.choice(["charming", "dull", "film"], rng.integers(1, 4))) for _ in range(200)]
    classify = predict.Classifier(whole, workers=workers)
    answers = list(classify.answers(iter(texts)))
    assert [one["text"] for one in answers] == texts
    for one in answers:  # [CLS] and [SEP] add 1 to positive
        words = one["text"].split()
        margin = 1 + 2 * words.count("charming") - 3 * words.count("dull")
        assert one["scores"]["positive"] == pytest.approx(1 / (1 + math.exp(-margin)))
    assert len(classify._models) == workers
    assert classify.counts.total() == 200
    assert re.fullmatch(r"200 sentences: .*; none was cut; 1,000 a second.", classify.summary(0.2))


def test_what_comes_before_a_line_that_cannot_be_read_is_answered(whole, tmp_path):
    (tmp_path / "bad.txt").write_bytes(b"a charming film\ndull\n\xff\xfe\nfilm\n")
    code, out, err = run(whole, tmp_path / "bad.txt")
    assert (code, "is not UTF-8 text" in err) == (2, True)
    assert [json.loads(line)["label"] for line in out.splitlines()] == ["positive", "negative"]


@pytest.mark.parametrize("way", ["file", "stdin"])
def test_the_mark_before_utf8_is_no_part_of_the_first_sentence(whole, tmp_path, way):
    (tmp_path / "marked.txt").write_bytes(b"\xef\xbb\xbfa charming film\r\ndull\r\n")
    words = [str(tmp_path / "marked.txt")] if way == "file" else []
    with (tmp_path / "marked.txt").open("rb") as stdin:
        command = [sys.executable, "-m", "optim.predict", str(whole), *words]
        done = subprocess.run(command, stdin=stdin, capture_output=True, cwd=ROOT)
    assert [json.loads(line)["text"] for line in done.stdout.splitlines()] == ["a charming film", "dull"]


def test_an_interrupt_ends_it_without_a_traceback(whole):
    command = [sys.executable, "-m", "optim.predict", str(whole)]
    with subprocess.Popen(command, cwd=ROOT, stdin=subprocess.PIPE, stdout=subprocess.PIPE, stderr=subprocess.PIPE,
                          text=True) as program:  # fmt: skip
        assert program.stdin
        assert program.stdout
        assert program.stderr
        program.stdin.write("charming\n")
        program.stdin.flush()
        assert json.loads(program.stdout.readline())["label"] == "positive"
        program.send_signal(signal.SIGINT)
        assert (program.wait(30), program.stderr.read()) == (130, "")


def test_a_pipe_has_each_answer_before_it_writes_the_next_line(whole):
    command = [sys.executable, "-m", "optim.predict", str(whole)]
    with subprocess.Popen(command, cwd=ROOT, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True) as program:
        assert program.stdin
        assert program.stdout
        for word, label in (("charming", "positive"), ("dull", "negative")):
            program.stdin.write(f"{word}\n")
            program.stdin.flush()
            assert json.loads(program.stdout.readline())["label"] == label
        program.stdin.close()
    assert program.returncode == 0


def test_a_sentence_that_is_cut_is_told_and_others_are_not(whole, capsys):
    assert called(capsys, whole, "a film")[2] == ""
    assert called(capsys, whole, "a a a film")[2] == "1 sentence: 1 positive; 1 cut at 5 tokens.\n"


def test_a_run_folder_is_taken_for_its_bundle(whole, tmp_path, capsys):
    shutil.copytree(whole, tmp_path / "run" / "bundle")
    assert called(capsys, tmp_path / "run", "a film")[0] == 0


@pytest.mark.parametrize(
    ("name", "said"),
    [
        ("nowhere.txt", "There is no file nowhere.txt. If it is a sentence, send it through stdin, or in a file."),
        ("nofile.md", "There is no file nofile.md. If it is"),
        ("nofile.parquet", "There is no file nofile.parquet. If it is"),
        ("nowhere/sentences", "There is no file nowhere/sentences. If it is"),
        (".", ". is a folder: name text files in it, one sentence a line. If it is"),
        ("table.csv", "table.csv is a table: put its sentences into a text"),
    ],
)
def test_what_is_no_file_of_sentences_is_refused(whole, tmp_path, monkeypatch, capsys, name, said):
    monkeypatch.chdir(tmp_path)
    (tmp_path / "table.csv").write_text("text,label\na film,1\n")
    code, out, err = called(capsys, whole, name)
    assert (code, out) == (2, "")
    assert err.startswith(f"error: {said}")


def test_words_with_dots_and_slashes_are_sentences(whole, capsys):
    words = ["good.", "U.S.", "U.S", "e.g.", "ok...so", "...", ":/", "9/10", "3.5", "see nofile.md", "good.Tomorrow"]
    code, out, err = called(capsys, whole, *words)
    assert (code, "error" in err) == (0, False)
    assert [json.loads(line)["text"] for line in out.splitlines()] == words


@pytest.mark.parametrize("way", ["stdin", "file"])
def test_a_sentence_that_looks_like_a_file_is_classified_all_the_same(whole, tmp_path, way):
    (tmp_path / "sentences").write_text("nofile.md\n")
    words = [tmp_path / "sentences"] if way == "file" else []
    _, out, _ = run(whole, *words, stdin="nofile.md\n")
    assert json.loads(out)["text"] == "nofile.md"


def test_a_word_with_a_dash_is_told_how_to_be_a_sentence(whole, capsys):
    with pytest.raises(SystemExit, match="2"):
        called(capsys, whole, "-meh")
    said = capsys.readouterr().err.splitlines()[-1]
    way = 'A sentence of one word that begins with "-" stands after "--": BUNDLE -- "-meh".'
    assert said.endswith(f"unrecognized arguments: -meh. {way}")
    _, out, _ = called(capsys, whole, "--", "-meh")
    assert json.loads(out)["text"] == "-meh"


def test_a_line_of_a_file_that_is_no_text_is_refused(whole, tmp_path, capsys):
    (tmp_path / "bytes.txt").write_bytes(b"a film\n\xff\xfe\n")
    code, out, err = called(capsys, whole, tmp_path / "bytes.txt")
    assert (code, len(out.splitlines())) == (2, 1)
    assert "bytes.txt is not UTF-8 text" in err


def test_the_package_classifies_one_sentence_or_several(whole):
    import optim

    classify = optim.Classifier(whole)
    assert classify("a charming film")["label"] == "positive"
    assert [row["label"] for row in classify(["dull film", "charming"])] == ["negative", "positive"]
    assert (classify.cut, classify.counts) == (0, {"positive": 2, "negative": 1})


HALVED = "\ud800 bad"  # half of a surrogate pair, as JSON can spell it


@pytest.mark.parametrize(
    ("given", "said"),
    [
        (["a", None], "sentence 2 must be a text, got None."),
        ([float("nan")], "sentence 1 must be a text, got nan."),
        ([b"a film"], "sentence 1 must be a text, got b'a film'."),
        (["a", HALVED], r"sentence 2 must be Unicode, got '\ud800 bad', which has one half of a surrogate pair."),
        (HALVED, r"the sentence must be Unicode, got '\ud800 bad', which has one half of a surrogate pair."),
        (None, "What is classified must be a text or several, got None."),
        (b"a film", "What is classified must be a text or several, got b'a film'."),
        (np.array(5), "What is classified must be a text or several, got array(5)."),
    ],
)
def test_what_is_no_text_is_told_by_its_number(whole, given, said):
    with pytest.raises(UserError) as caught:
        predict.Classifier(whole)(given)
    assert str(caught.value) == said


def test_what_comes_before_a_sentence_that_is_no_text_is_answered(whole):
    answers = predict.Classifier(whole).answers(["charming", "dull", None, "film"])  # pyright: ignore[reportArgumentType]
    assert [next(answers)["label"], next(answers)["label"]] == ["positive", "negative"]
    with pytest.raises(UserError, match="sentence 3 must be a text"):
        next(answers)


def test_a_label_with_a_line_end_or_a_long_one_stands_in_a_line(bundle):
    write_labels(bundle / "labels.json", labels=["no\nline", "y" * 999], max_length=5)
    classify = predict.Classifier(bundle)
    classify(["dull", "charming"])
    assert classify.summary() == f"2 sentences: 1 no line, 1 {'y' * 36} ...; none was cut."


# What a bundle needs: only these distributions, and what they ask for.
ONLY = """
import importlib.metadata as m, re, sys
there = {{re.sub("[-_.]+", "-", d.metadata["Name"]).lower(): d for d in m.distributions()}}
wanted, names = [{names}], set()
while wanted:
    name = re.sub("[-_.]+", "-", re.match("[A-Za-z0-9._-]+", wanted.pop())[0]).lower()
    if name in there and name not in names:
        names.add(name)
        wanted += [r for r in there[name].requires or () if "extra ==" not in r]
files = [file for name in names for file in there[name].files]
allowed = {{file.parts[0].removesuffix(".py") for file in files}} | set(sys.stdlib_module_names) | {{{more}}}
class Only:
    def find_spec(self, name, path=None, target=None):
        if name.split(".")[0] not in allowed:
            raise ModuleNotFoundError(f"{{name}} is none of the packages of a bundle", name=name)
sys.meta_path.insert(0, Only())
for name in ("tensorflow", "hydra", "pandas", "scipy"):
    assert name not in allowed
"""


def only(*more: str) -> str:
    """Code after which nothing can be imported but LiteRT, NumPy, tokenizers, what these ask for, and `more`."""
    names = ", ".join(map(repr, ("ai-edge-litert", "numpy", "tokenizers")))
    return ONLY.format(names=names, more=", ".join(map(repr, more or ("",))))


def test_the_snippet_of_the_card_needs_nothing_but_litert_numpy_and_tokenizers(whole):
    done = subprocess.run([sys.executable, "-c", only() + snippet(compressed=False)], cwd=whole, capture_output=True,
                          text=True)  # fmt: skip
    assert done.stdout == "positive\n", done.stderr


def test_the_snippet_of_a_compressed_bundle_needs_zstandard_too(bundle):
    model = bundle / "model.tflite"
    (bundle / "model.tflite.zst").write_bytes(compress(model.read_bytes(), level=3))
    model.unlink()
    done = subprocess.run([sys.executable, "-c", only("zstandard") + snippet(compressed=True)], cwd=bundle,
                          capture_output=True, text=True)  # fmt: skip
    assert done.stdout == "positive\n", done.stderr


def test_using_a_bundle_needs_nothing_but_litert_numpy_and_tokenizers(whole):
    """The base install: optim.Classifier and the command line; training says what it lacks."""
    code = only("optim") + (
        f"import optim\nassert optim.Classifier({str(whole)!r})('a charming film')['label'] == 'positive'\n"
        f"from optim import predict\nassert predict.main([{str(whole)!r}, 'a film']) == 0\n"
        "from optim.command.__main__ import train\nassert train() == 2\n"
    )
    done = subprocess.run([sys.executable, "-c", code], cwd=ROOT, capture_output=True, text=True)
    assert done.returncode == 0, done.stderr
    assert 'pip install "distilbert-optim[train]"' in done.stderr


def test_sentence_is_cut_at_max_length(whole):
    """Five tokens are [CLS], three words, [SEP]: the fourth word is not heard."""
    classify = predict.Classifier(whole)
    cut, short = classify("a a charming dull dull"), classify("a a charming")
    assert classify.cut == 1
    assert (cut["label"], cut["score"]) == (short["label"], pytest.approx(short["score"], abs=1e-6))


def test_padding_of_the_checkpoint_is_put_off(whole):
    """One [PAD] would add 99 to negative."""
    assert predict.Classifier(whole)("charming")["label"] == "positive"


def test_text_is_not_escaped(whole):
    _, out, _ = run(whole, "ein schöner Film")
    assert '"text": "ein schöner Film"' in out


def test_large_logits_do_not_overflow(bundle):
    write_table_file(bundle / "model.tflite", TABLE * 1000)
    row = predict.Classifier(bundle)("dull")
    assert (row["label"], row["score"]) == ("negative", 1.0)


def test_nothing_heavy_is_imported(whole):
    code = (
        "import sys; from optim import predict\n"
        f"assert predict.main([{str(whole)!r}, 'a film']) == 0\n"
        "print(sorted({'tensorflow', 'tf_keras', 'transformers', 'torch', 'datasets', 'hydra'} & set(sys.modules)))"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True, cwd=ROOT)
    assert done.stdout.splitlines()[-1] == "[]"


def test_a_bundle_that_has_only_the_compressed_file_answers_alike(whole, bundle):
    model = bundle / "model.tflite"
    (bundle / "model.tflite.zst").write_bytes(compress(model.read_bytes(), level=19))
    model.unlink()
    assert run(bundle, "A charming film", "dull dull film") == run(whole, "A charming film", "dull dull film")
    (bundle / "model.tflite.zst").write_bytes(b"nothing")
    code, out, err = run(bundle, "a film")
    assert (code, out) == (2, "")
    assert "model.tflite.zst is not a whole zstd file" in err
    assert len(err.splitlines()) == 1


def test_help_shows_the_usage():
    code, out, _ = run("--help")
    assert code == 0
    assert "python -m optim.predict" in out
    assert "one a line" in " ".join(out.split())


@pytest.mark.parametrize("name", ["model.tflite", "tokenizer.json", "labels.json"])
def test_missing_file_is_named(bundle, name):
    (bundle / name).unlink()
    code, out, err = run(bundle, "a film")
    assert (code, out) == (2, "")
    assert err.startswith("error: ")
    assert f"it has no {name}" in err
    assert len(err.splitlines()) == 1


def test_missing_folder_is_no_bundle(tmp_path):
    code, _, err = run(tmp_path / "nowhere", "a film")
    assert code == 2
    assert "nowhere is not a bundle" in err
    assert len(err.splitlines()) == 1


def test_an_answer_that_is_no_number_is_none(whole, capsys, monkeypatch):
    """JSON has no NaN, and a label beside it would pass for an answer."""
    monkeypatch.setattr(predict.runtime.Classifier, "_as_float", lambda self, logits: np.full(2, np.nan, np.float32))
    code, out, err = called(capsys, whole, "a charming film")
    assert (code, out) == (2, "")
    assert err == "error: The file has no answer to 'a charming film': what it computes is no number. Train it anew.\n"


@pytest.mark.parametrize("name", ["model.tflite", "tokenizer.json", "labels.json"])
def test_a_bundle_without_a_part_or_with_an_empty_one_is_not_whole(bundle, name):
    assert is_whole(bundle)
    (bundle / name).write_bytes(b"")
    assert not is_whole(bundle)
    (bundle / name).unlink()
    assert not is_whole(bundle)


@pytest.mark.parametrize("name", ["model.tflite", "tokenizer.json", "labels.json"])
def test_damaged_file_is_named(bundle, name):
    (bundle / name).write_text('{"half": ')
    code, out, err = run(bundle, "a film")
    assert (code, out) == (2, "")
    assert name in err
    assert len(err.splitlines()) == 1


@pytest.mark.parametrize(
    "content",
    [
        "[]",
        '{"labels": ["negative", "positive"]}',
        '{"labels": ["one"], "max_length": 128}',
        '{"labels": ["twice", "twice"], "max_length": 128}',
        '{"labels": [0, 1], "max_length": 128}',
        '{"labels": ["negative", "positive"], "max_length": 2}',
        '{"labels": ["negative", "positive"], "max_length": "128"}',
        '{"labels": ["negative", "positive"], "max_length": 128.5}',
        '{"labels": ["negative", "positive"], "max_length": true}',
        '{"labels": "ab", "max_length": 128}',
        '{"labels": ["a", "b"], "max_length": 99999999999999999999}',
        '{"labels": ["a", "\\ud800"], "max_length": 128}',
    ],
)
def test_unfit_labels_are_refused(tmp_path, content):
    path = tmp_path / "labels.json"
    path.write_text(content)
    with pytest.raises(UserError, match=r"labels.json must be like"):
        read_labels(path)


def test_labels_that_do_not_fit_the_model_are_refused(bundle):
    write_labels(bundle / "labels.json", labels=["a", "b", "c"], max_length=5)
    with pytest.raises(UserError, match=r"names 3 labels, model\.tflite has 2"):
        predict.Classifier(bundle)


def test_written_labels_are_read_back(tmp_path):
    write_labels(tmp_path / "labels.json", labels=["schlecht", "schön"], max_length=64)
    assert read_labels(tmp_path / "labels.json") == (["schlecht", "schön"], 64)


def test_tokenizer_of_another_model_is_refused(bundle):
    write_tokenizer(bundle / "tokenizer.json", [*WORDS, "new"])
    code, out, err = run(bundle, "a film", "a new film")
    assert code == 2
    assert len(out.splitlines()) == 1
    assert "vocabulary" in err
    assert len(err.splitlines()) == 1


@pytest.mark.parametrize(
    ("arguments", "message"),
    [(["a film", " "], "blank"), (["--threads", "0", "a"], "threads"), (["--workers", "0", "a"], "workers")],
)
def test_unfit_arguments_are_refused(whole, arguments, message):
    code, _, err = run(whole, *arguments)
    assert code == 2
    assert message in err
    assert len(err.splitlines()) == 1


@pytest.mark.parametrize("way", ["stdin", "argument"])
def test_bytes_that_are_no_text_are_refused(whole, way):
    command = [sys.executable, "-m", "optim.predict", str(whole)]
    command, stdin = (command, b"a film\n\xff\xfe\n") if way == "stdin" else ([*command, "a film", b"\xff\xfe"], b"")
    done = subprocess.run(command, input=stdin, capture_output=True, cwd=ROOT)
    assert done.returncode == 2
    assert len(done.stdout.splitlines()) == 1
    assert done.stderr.splitlines() == [
        rb"error: A sentence is not UTF-8 text: b'\xff\xfe%s'." % (b"\\n" * (way == "stdin"))
    ]


def test_output_is_utf8_whatever_the_locale(whole):
    command = [sys.executable, "-m", "optim.predict", str(whole)]
    done = subprocess.run(
        command,
        input="schön\n".encode(),
        capture_output=True,
        cwd=ROOT,
        env={**os.environ, "PYTHONIOENCODING": "ascii"},
    )
    assert json.loads(done.stdout)["text"] == "schön"


def test_reader_that_leaves_early_is_no_error(whole):
    command = f'yes "a charming film" | head -3000 | "{sys.executable}" -m optim.predict "{whole}" | head -1'
    done = subprocess.run(command, shell=True, capture_output=True, text=True, cwd=ROOT)
    assert json.loads(done.stdout)["label"] == "positive"
    assert done.stderr == ""


def test_a_pipe_is_read_as_a_file_is(whole):
    command = f'{shlex.quote(sys.executable)} -m optim.predict {shlex.quote(str(whole))} <(printf "a film\\ndull\\n")'
    done = subprocess.run(["bash", "-c", command], cwd=ROOT, capture_output=True, text=True, timeout=60)
    assert [json.loads(line)["text"] for line in done.stdout.splitlines()] == ["a film", "dull"]
    assert done.stderr.startswith("2 sentences")


def test_a_file_that_may_not_be_read_is_told_in_a_line(whole, tmp_path, monkeypatch, capsys):
    path = tmp_path / "some.txt"
    path.write_text("a film\n")

    def forbidden(name, mode):
        raise PermissionError(13, "Permission denied", str(name))

    monkeypatch.setattr(predict, "open", forbidden, raising=False)
    assert predict.main([str(whole), str(path)]) == 2
    assert capsys.readouterr().err == f"error: {path}: Permission denied\n"


@pytest.mark.skipif(not Path("/dev/full").exists(), reason="no /dev/full")
def test_a_full_disk_is_told_in_a_line(whole):
    with open("/dev/full", "wb") as full:
        done = subprocess.run([sys.executable, "-m", "optim.predict", str(whole), "a film"], cwd=ROOT, stdout=full,
                              stderr=subprocess.PIPE, text=True, timeout=60)  # fmt: skip
    assert (done.returncode, done.stderr) == (2, "error: the output: No space left on device\n")


def test_a_file_that_fails_in_the_middle_is_told_and_what_came_before_is_answered(whole, tmp_path, monkeypatch, capsys):
    """A network disk that goes away: its error names no file."""
    good, bad = tmp_path / "good.txt", tmp_path / "bad.txt"
    for path in (good, bad):
        path.write_text("a film\n")

    class Failing(io.BytesIO):
        def __next__(self):
            raise OSError(5, "Input/output error")

    monkeypatch.setattr(predict, "open", lambda name, mode: Failing() if name == str(bad) else io.BytesIO(b"a film\n"),
                        raising=False)  # fmt: skip
    assert predict.main([str(whole), str(good), str(bad)]) == 2
    out, err = capsys.readouterr()
    assert [json.loads(line)["text"] for line in out.splitlines()] == ["a film"]
    assert err == f"error: {bad}: Input/output error\n"


def test_a_closed_stderr_keeps_the_answers_and_nothing_else(whole):
    """As a daemon has it: Python has none then, and print would send the summary to stdout, among the answers."""
    command = [sys.executable, "-m", "optim.predict", str(whole), "--workers=1"]
    done = subprocess.run(command, cwd=ROOT, input=b"a film\n", stdout=subprocess.PIPE, preexec_fn=lambda: os.close(2))
    assert done.returncode == 0
    assert [json.loads(line)["text"] for line in done.stdout.splitlines()] == ["a film"]


def test_a_closed_stdin_is_told_in_a_line(whole, monkeypatch, capsys):
    monkeypatch.setattr(sys, "stdin", None)
    assert predict.main([str(whole)]) == 2
    assert capsys.readouterr().err == "error: stdin is closed.\n"
    assert predict.main([str(whole), "a film"]) == 0
