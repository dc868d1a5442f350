"""The folder that ships: a .tflite file, its tokenizer, its labels.

model.tflite    inputs input_ids and attention_mask, output logits (optim/measure/runtime.py); with
                export.compress=zstd the bundle has model.tflite.zst in its place, which unpacks to it
tokenizer.json  the model's tokenizer, in the format of the `tokenizers` library
labels.json     {"labels": ["negative", "positive"], "max_length": 128}: the names of the classes in the order of the
                logits, and the number of tokens at which a sentence is cut, [CLS] and [SEP] included
README.md       the model card, with the Python that tokenizes and runs the file without this program
measure.py      times the file on the machine it lies on, by NumPy and LiteRT alone (optim/measure/device.py)
bench.json      how it was timed here, for measure.py, and how long the scored sentences are
trained_on.json {"data": ["reviews"]}: what it must not be scored on (optim/encoder/origin.py)
"""

from __future__ import annotations

import json
from pathlib import Path

from optim.common.errors import UserError
from optim.common.text import is_unicode
from optim.export.compress import SUFFIX

MODEL_FILE, TOKENIZER_FILE, LABELS_FILE = ("model.tflite", "tokenizer.json", "labels.json")
COMPRESSED_FILE = MODEL_FILE + SUFFIX
MOST_TOKENS = 2**31 - 1  # of a sentence, as LiteRT counts them
BUNDLE = "bundle"  # in a run folder


SNIPPET = """import json

import numpy as np{more}
from ai_edge_litert.interpreter import Interpreter
from tokenizers import Tokenizer

folder = "."  # where this README lies
with open(f"{{folder}}/labels.json", encoding="utf-8") as file:
    names = json.load(file)
tokenizer = Tokenizer.from_file(f"{{folder}}/tokenizer.json")
tokenizer.enable_truncation(names["max_length"])
tokenizer.no_padding()
{load}

ids = np.array([tokenizer.encode("a charming film").ids], np.int32)  # [1, length], any length up to max_length
logits = run(input_ids=ids, attention_mask=np.ones_like(ids))["logits"][0]
print(names["labels"][int(logits.argmax())])
"""
LOAD = 'run = Interpreter(model_path=f"{folder}/model.tflite").get_signature_runner()'
UNPACK = """with open(f"{folder}/model.tflite.zst", "rb") as file:
    content = zstandard.ZstdDecompressor().decompress(file.read())
run = Interpreter(model_content=content).get_signature_runner()"""


def snippet(*, compressed: bool) -> str:
    """Python that classifies a sentence with the files of a bundle, by LiteRT, NumPy and tokenizers alone.

    compressed: the file is model.tflite.zst, which takes the package zstandard too.
    """
    return SNIPPET.format(more="\nimport zstandard" if compressed else "", load=UNPACK if compressed else LOAD)


def bundle_of(folder: Path) -> Path:
    """The bundle itself: a run folder is taken for the one that it holds."""
    inner = folder / BUNDLE
    return inner if inner.is_dir() and not (folder / LABELS_FILE).exists() else folder


def model_in(folder: Path) -> Path:
    """The file of a bundle: the compressed one where there is no other."""
    compressed = folder / COMPRESSED_FILE
    return compressed if compressed.is_file() and not (folder / MODEL_FILE).is_file() else folder / MODEL_FILE


def is_whole(folder: Path) -> bool:
    """Whether a bundle has its file, tokenizer and labels, none of them empty."""
    parts = (model_in(folder), folder / TOKENIZER_FILE, folder / LABELS_FILE)
    return all(path.is_file() and path.stat().st_size > 0 for path in parts)


def write_labels(path: Path, *, labels: list[str], max_length: int) -> None:
    """Writes the labels.json of a bundle."""
    path.write_text(json.dumps({"labels": labels, "max_length": max_length}, ensure_ascii=False) + "\n", "utf-8")


def read_labels(path: Path) -> tuple[list[str], int]:
    """(labels, max_length) of a labels.json. Raises UserError if it holds anything else."""
    form = f'{path} must be like {{"labels": ["negative", "positive"], "max_length": 128}}.'
    try:
        content = json.loads(path.read_text("utf-8"))
        labels, max_length = content["labels"], content["max_length"]
        fits = isinstance(labels, list) and len(set(labels)) == len(labels) >= 2 and type(max_length) is int
        fits = fits and all(isinstance(x, str) and is_unicode(x) for x in labels) and 3 <= max_length <= MOST_TOKENS
    except (ValueError, KeyError, TypeError) as error:
        raise UserError(form) from error
    if not fits:
        raise UserError(form)
    return labels, max_length
