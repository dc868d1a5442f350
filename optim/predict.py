"""Classifies sentences with the bundle of a run; needs neither TensorFlow nor transformers.

python -m optim.predict results/<run_id> "a charming film"
python -m optim.predict results/<run_id>/bundle sentences.txt
python -m optim.predict results/<run_id>/bundle < sentences.txt

A bundle is a folder with
  model.tflite    inputs input_ids and attention_mask, output logits (optim/measure/runtime.py); or model.tflite.zst,
                  which is unpacked into memory and needs the package zstandard
  tokenizer.json  the model's tokenizer, in the format of the `tokenizers` library
  labels.json     {"labels": ["negative", "positive"], "max_length": 128}: the names of the classes in the order of the
                  logits, and the number of tokens at which a sentence is cut, [CLS] and [SEP] included
"""

from __future__ import annotations

import argparse
import codecs
import json
import math
import os
import re
import stat
import sys
import time
from collections import Counter
from collections.abc import Iterable, Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import suppress
from pathlib import Path
from queue import SimpleQueue
from typing import Any, NoReturn, overload

import numpy as np

from optim.common.errors import UserError, require_count, shown
from optim.common.interrupts import INTERRUPTED
from optim.common.screen import with_stderr
from optim.common.text import in_line, is_unicode
from optim.export.bundle import LABELS_FILE, TOKENIZER_FILE, bundle_of, model_in, read_labels
from optim.measure import runtime
from optim.measure.device import cores

TABLES = (".csv", ".tsv", ".jsonl", ".json", ".parquet")
SUFFIX = r"[^.]\.[A-Za-z]{2,5}$"  # of a name of a file
AS_SENTENCE = "If it is a sentence, send it through stdin, or in a file."
DASHED = """A sentence of one word that begins with "-" stands after "--": BUNDLE -- "-meh"."""
BLOCK = 1024  # sentences that are sorted by length together, and answered before the next ones are read
PIECE = 32  # of these, neighbours in length, that one interpreter answers in a row
RATED = 100  # sentences: a rate of fewer says nothing


class Classifier:
    """A bundle, loaded: `Classifier("results/<run_id>")("a charming film")`.

    folder: a bundle, or the run folder that holds one. threads: of one interpreter. workers: interpreters that answer
    several sentences side by side; each keeps weights of its own. Raises UserError naming the file that is missing or
    does not fit.
    """

    def __init__(self, folder: str | Path, *, threads: int = 1, workers: int = 1):
        require_count("workers", workers)
        folder = bundle_of(Path(folder))
        model = model_in(folder)
        for name in (model.name, TOKENIZER_FILE, LABELS_FILE):
            if not (folder / name).is_file():
                raise UserError(f"{folder} is not a bundle: it has no {name}. A run leaves one in <its folder>/bundle.")
        self.labels, self.max_length = read_labels(folder / LABELS_FILE)
        self._tokenizer = _tokenizer(folder / TOKENIZER_FILE, self.max_length)
        first = runtime.Classifier(model, threads)
        if first.classes != len(self.labels):
            raise UserError(
                f"{folder / LABELS_FILE} names {len(self.labels)} labels, {model.name} has {first.classes}."
            )
        self._threads, self._workers, self._models = threads, workers, [first]
        self.counts: Counter[str] = Counter()  # label -> sentences that were given it
        self.cut = 0  # sentences that had more than max_length tokens

    @overload
    def __call__(self, text: str) -> dict[str, Any]: ...

    @overload
    def __call__(self, text: Iterable[str]) -> list[dict[str, Any]]: ...

    def __call__(self, text):
        """text, label, score (soft-max of that label's logit, in (0, 1]) and scores (of every label; they add to 1).

        Of several sentences a list of these. Raises UserError for what is no text.
        """
        return self._single(text) if isinstance(text, str) else list(self.answers(text))

    def _single(self, text: str) -> dict[str, Any]:
        """As `answers`, without the sorting and the pieces that only several sentences need."""
        encoded = self._tokenizer.encode(_text(text, "the sentence"))
        logits = self._models[0].logits(np.array(encoded.ids, np.int32))
        return self._answer(text, logits, cut=bool(encoded.overflowing))

    def answers(self, texts: Iterable[str]) -> Iterator[dict[str, Any]]:
        """Those of `__call__`, in the order of the texts; a block of texts is read before its first answer comes."""
        for block in blocks(_texts(texts), BLOCK):
            encoded = self._tokenizer.encode_batch(block)
            rows = [np.array(one.ids, np.int32) for one in encoded]
            try:
                found = self._logits(rows)
            except UserError:  # one of them has no answer: those before it still get theirs
                found = (self._models[0].logits(row) for row in rows)
            for text, one, logits in zip(block, encoded, found, strict=True):
                yield self._answer(text, logits, cut=bool(one.overflowing))

    def _answer(self, text: str, logits: np.ndarray, *, cut: bool) -> dict[str, Any]:
        """Counts it, too. logits: float32 [classes]. Raises UserError where they are no numbers."""
        values = logits.tolist()  # so few that NumPy would take longer
        if not all(map(math.isfinite, values)):
            raise UserError(f"The file has no answer to {shown(text)}: what it computes is no number. Train it anew.")
        greatest = max(values)
        exps = [math.exp(value - greatest) for value in values]
        total = sum(exps)
        scores = dict(zip(self.labels, [one / total for one in exps], strict=True))
        label = self.labels[values.index(greatest)]
        self.counts[label] += 1
        self.cut += cut
        return {"text": text, "label": label, "score": scores[label], "scores": scores}

    def _logits(self, rows: Sequence[np.ndarray]) -> np.ndarray:
        """float32 [sentences, classes] of token ids, int32 [length] each: sorted by length, as the runtime plans anew
        for another one, and by several interpreters where there are enough of them."""
        logits = np.zeros((len(rows), len(self.labels)), np.float32)
        order = np.argsort([len(row) for row in rows], kind="stable")
        pieces = [order[start : start + PIECE] for start in range(0, len(order), PIECE)]
        free: SimpleQueue[runtime.Classifier] = SimpleQueue()

        def answer(piece: np.ndarray) -> None:
            model = free.get()
            try:
                for i in piece:
                    logits[i] = model.logits(rows[i])
            finally:
                free.put(model)

        workers = min(self._workers, len(pieces))
        while len(self._models) < workers:
            self._models.append(runtime.Classifier(self._models[0].path, self._threads))
        for model in self._models[:workers]:
            free.put(model)
        longest_first = reversed(pieces)  # they are what one could wait for at the end
        if workers == 1:
            list(map(answer, longest_first))
            return logits
        with ThreadPoolExecutor(workers) as pool:  # LiteRT lets other threads run while it computes
            list(pool.map(answer, longest_first))
        return logits

    def summary(self, seconds: float | None = None) -> str:
        """How many sentences were given which label, how many of them were cut, and how many a second it were."""
        total = self.counts.total()
        named = ", ".join(f"{count:,} {in_line(label)}" for label, count in self.counts.most_common())
        cut = f"{self.cut:,} cut at {self.max_length} tokens" if self.cut else "none was cut"
        rate = f"; {total / seconds:,.0f} a second" if seconds and total >= RATED else ""
        return f"{total:,} sentence{'s' * (total != 1)}: {named or 'none'}; {cut}{rate}."


def blocks(texts: Iterable[str], size: int) -> Iterator[list[str]]:
    """Lists of up to `size` texts. Where reading fails, what was read before it still comes first."""
    block: list[str] = []
    try:
        for text in texts:
            block.append(text)
            if len(block) == size:
                yield block
                block = []
    except UserError:
        if block:
            yield block
        raise
    if block:
        yield block


def _texts(given: Iterable[str]) -> Iterator[str]:
    """The sentences. Raises UserError for one that is no text, by its number: those before it are answered."""
    try:
        if isinstance(given, bytes):  # it would be taken for its numbers
            raise TypeError
        every = iter(given)
    except TypeError as error:
        raise UserError(f"What is classified must be a text or several, got {shown(given)}.") from error
    for number, text in enumerate(every, start=1):
        yield _text(text, f"sentence {number}")


def _text(value: object, name: str) -> str:
    """The text, which the tokenizer takes. Raises UserError for anything else, as a column of a table may hold."""
    if not isinstance(value, str):
        raise UserError(f"{name} must be a text, got {shown(value)}.")
    if not is_unicode(value):
        raise UserError(f"{name} must be Unicode, got {shown(value)}, which has one half of a surrogate pair.")
    return value


def _tokenizer(path: Path, max_length: int):
    """The tokenizer, cutting at `max_length` tokens; a checkpoint's own padding, 128 wide in MiniLM's, is put off."""
    from tokenizers import Tokenizer

    try:
        tokenizer = Tokenizer.from_file(str(path))
    except Exception as error:  # the library raises bare Exception
        raise UserError(f"{path} is not a readable tokenizer file: {str(error)[:160]}") from error
    tokenizer.enable_truncation(max_length)
    tokenizer.no_padding()
    return tokenizer


def sentences(arguments: Sequence[str]) -> Iterator[str]:
    """The arguments, the lines of those that are files, or, without any, the lines of stdin; blank lines are left out.

    Raises UserError for a blank argument, a file that holds no sentences or is not there, and bytes that are no UTF-8.
    """
    if any(not text.strip() for text in arguments):
        raise UserError("A sentence to classify is blank.")
    for name, line in _lines(arguments):
        try:
            text = line.decode("utf-8").strip()
        except UnicodeDecodeError as error:
            raise UserError(f"{name} is not UTF-8 text: {line[:60]!r}.") from error
        if text:
            yield text


def _lines(arguments: Sequence[str]) -> Iterator[tuple[str, bytes]]:
    """(what it is, its bytes) of each argument, of each line of a file, or of stdin."""
    for line in () if arguments else _told("stdin", _unmarked(sys.stdin.buffer)):
        yield "A sentence", line
    for argument in arguments:
        if not _is_file(argument):
            # An argument's undecodable bytes are lone surrogates: `surrogateescape` makes them bytes again.
            yield "A sentence", argument.encode("utf-8", "surrogateescape")
            continue
        for line in _told(argument, _of_file(argument)):
            yield f"A line of {argument}", line


def _of_file(path: str) -> Iterator[bytes]:
    with open(path, "rb") as file:
        yield from _unmarked(file)


def _told(name: str, lines: Iterable[bytes]) -> Iterator[bytes]:
    """The lines. Raises UserError, with the name, where they cannot be read: what came before them is answered."""
    try:
        yield from lines
    except OSError as error:
        raise UserError(f"{name}: {error.strerror or error}") from error


def _unmarked(lines: Iterable[bytes]) -> Iterator[bytes]:
    """The lines without the mark that some editors put before the first one of UTF-8."""
    for number, line in enumerate(lines):
        yield line if number else line.removeprefix(codecs.BOM_UTF8)


def _is_file(argument: str) -> bool:
    """Whether it names a file of sentences. Raises UserError for a folder, a table, and what only looks like a file."""
    path, there, folder = Path(argument), False, False
    with suppress(OSError, ValueError):  # too long for a name, or no name at all: a sentence
        there, folder = path.exists(), path.is_dir()  # it need be no plain file: a shell makes a pipe of <(command)
    if folder:
        raise UserError(f"{path} is a folder: name text files in it, one sentence a line. {AS_SENTENCE}")
    if there and path.suffix.lower() in TABLES:
        raise UserError(f"{path} is a table: put its sentences into a text file, one a line.")
    if not there and _looks_like_a_file(argument):
        raise UserError(f"There is no file {path}. {AS_SENTENCE}")
    return there


def _looks_like_a_file(argument: str) -> bool:
    """Whether one word is a path or ends as names of files do: `notes.md`, but not `good.`, `U.S.`, `ok...so`, `9/10`.

    Letters are asked for, as figures and faces have slashes too.
    """
    if argument.split()[1:] or not any(map(str.isalpha, argument)):
        return False
    known = Path(argument).suffix.lower() in TABLES
    return known or os.sep in argument or bool(re.search(SUFFIX, argument.strip()))


def answers(classify: Classifier, arguments: Sequence[str]) -> Iterator[dict[str, Any]]:
    """In blocks, but for a stdin that is no file: whoever writes to it may wait for the answer to each line."""
    found = sentences(arguments)
    if arguments or stat.S_ISREG(os.fstat(sys.stdin.fileno()).st_mode):
        return classify.answers(found)
    return map(classify, found)


class _Arguments(argparse.ArgumentParser):
    """Says, where a word is taken for a flag, how it is taken for a sentence."""

    def error(self, message: str) -> NoReturn:
        super().error(f"{message}. {DASHED}" if message.startswith("unrecognized") else message)


def main(arguments: list[str] | None = None) -> int:
    """Prints one JSON line a sentence; 2 and one line on stderr if bundle or input are not fit."""
    parser = _Arguments(
        prog="python -m optim.predict",
        description="Classifies sentences with the bundle of a run. One line of JSON each: text, label, score, scores.",
        epilog=DASHED,
    )
    parser.add_argument("bundle", type=Path, help="results/<run_id> or its bundle")
    parser.add_argument("text", nargs="*", help="sentences, or text files with one a line; without any, stdin is read")
    parser.add_argument("--threads", type=int, default=1, help="of an interpreter (default: 1)")
    parser.add_argument("--workers", type=int, default=cores(), help="interpreters side by side (default: the cores)")
    options = parser.parse_intermixed_args(arguments)
    with_stderr()
    try:
        for name in ("stdout",) if options.text else ("stdout", "stdin"):
            if getattr(sys, name) is None:  # as a daemon has them
                raise UserError(f"{name} is closed.")
        classify = Classifier(options.bundle, threads=options.threads, workers=options.workers)
        start = time.perf_counter()
        for answer in answers(classify, options.text):
            sys.stdout.buffer.write(json.dumps(answer, ensure_ascii=False).encode() + b"\n")
            sys.stdout.flush()  # line by line, for a reader at the other end of a pipe
        if classify.cut or not options.text or any(map(_is_file, options.text)):  # else the lines above say it all
            print(classify.summary(time.perf_counter() - start), file=sys.stderr)
    except UserError as error:
        print(f"error: {error}", file=sys.stderr)
        return 2
    except KeyboardInterrupt:  # the way out of a stdin that is a terminal
        return INTERRUPTED
    except BrokenPipeError:  # the reader of stdout, `head` for one, has had enough
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
    except OSError as error:  # a file that may not be read, or a disk that is full
        if error.filename is None:
            os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())  # Python writes once more when it ends
        print(f"error: {error.filename or 'the output'}: {error.strerror or error}", file=sys.stderr)
        return 2
    return 0


if __name__ == "__main__":
    sys.exit(main())
