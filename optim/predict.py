"""Classifies sentences with the bundle of a run; needs neither TensorFlow nor transformers.

python -m optim.predict results/<run_id>/bundle "a charming film"
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
import json
import os
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np

from optim.common.errors import UserError
from optim.export.bundle import LABELS_FILE, TOKENIZER_FILE, model_in, read_labels
from optim.measure.runtime import Classifier


class Bundle:
    """The three files of a bundle, loaded. Raises UserError naming the one that is missing or does not fit."""

    def __init__(self, folder: Path, *, threads: int):
        model = model_in(folder)
        for name in (model.name, TOKENIZER_FILE, LABELS_FILE):
            if not (folder / name).is_file():
                raise UserError(f"{folder} is not a bundle: it has no {name}. A run leaves one in <its folder>/bundle.")
        self.labels, max_length = read_labels(folder / LABELS_FILE)
        self._tokenizer = _tokenizer(folder / TOKENIZER_FILE, max_length)
        self._classifier = Classifier(model, threads)
        if self._classifier.classes != len(self.labels):
            raise UserError(
                f"{folder / LABELS_FILE} names {len(self.labels)} labels, {model.name} has {self._classifier.classes}."
            )

    def classify(self, text: str) -> dict[str, Any]:
        """text, label, score (soft-max of that label's logit, in (0, 1]) and scores (of every label; they add to 1)."""
        logits = self._classifier.logits(np.array(self._tokenizer.encode(text).ids)).astype(np.float64)
        exps = np.exp(logits - logits.max())
        scores = dict(zip(self.labels, (exps / exps.sum()).tolist(), strict=True))
        label = self.labels[int(logits.argmax())]
        return {"text": text, "label": label, "score": scores[label], "scores": scores}


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


def sentences(arguments: list[str]) -> Iterator[str]:
    """The arguments or, without any, the lines of stdin that are not blank.

    Raises UserError for a blank argument and for bytes that are no UTF-8, whatever the locale says.
    """
    if any(not text.strip() for text in arguments):
        raise UserError("A sentence to classify is blank.")
    # An argument's undecodable bytes are lone surrogates: `surrogateescape` makes them bytes again.
    lines = (text.encode("utf-8", "surrogateescape") for text in arguments) if arguments else sys.stdin.buffer
    for line in lines:
        try:
            text = line.decode("utf-8").strip()
        except UnicodeDecodeError as error:
            raise UserError(f"A sentence is not UTF-8 text: {line[:60]!r}.") from error
        if text:
            yield text


def main(arguments: list[str] | None = None) -> int:
    """Prints one JSON line a sentence; 2 and one line on stderr if bundle or input are not fit."""
    parser = argparse.ArgumentParser(
        prog="python -m optim.predict",
        description="Classifies sentences with the bundle of a run. One line of JSON each: text, label, score, scores.",
    )
    parser.add_argument("bundle", type=Path, help="results/<run_id>/bundle")
    parser.add_argument("text", nargs="*", help="sentences; without any they are read from stdin, one a line")
    parser.add_argument("--threads", type=int, default=1, help="of the interpreter (default: 1)")
    options = parser.parse_intermixed_args(arguments)
    try:
        bundle = Bundle(options.bundle, threads=options.threads)
        for text in sentences(options.text):
            sys.stdout.buffer.write(json.dumps(bundle.classify(text), ensure_ascii=False).encode() + b"\n")
            sys.stdout.flush()  # line by line, for a reader at the other end of a pipe
    except UserError as error:
        print(f"error: {error}", file=sys.stderr)
        return 2
    except BrokenPipeError:  # the reader of stdout, `head` for one, has had enough
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
    return 0


if __name__ == "__main__":
    sys.exit(main())
