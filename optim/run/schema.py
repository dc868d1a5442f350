"""What result.json holds, key by key: docs/result.md for people, docs/result.schema.json for programs.

python -m optim.run.schema DIR      writes both into DIR; a test looks that those of docs are these

The classes say what a finished point holds; of a failed one the parts are empty. Every key has its unit in its name.
"""

from __future__ import annotations

import dataclasses
import json
import sys
import types
import typing
from collections.abc import Mapping
from dataclasses import dataclass
from functools import cache
from pathlib import Path
from typing import Annotated, Any

from optim.run.result import DONE, FAILED, SCHEMA, Result

OPTIONAL = "optional"  # a mark: the key is only there where it has something to say


@dataclass
class Machine:
    """The machine that measured."""

    cpu: Annotated[str, "the processor's name"]
    isa: Annotated[list[str], "its instruction sets that matter to int8 and bfloat16"]
    id: Annotated[str, "of machines that are alike: latencies are compared within one"]
    cores: Annotated[int, "that this process may use"]
    load_average: Annotated[list[float], "over 1, 5 and 15 minutes, before the run began"]
    versions: Annotated[dict[str, str], "of Python and the packages that make and run the file"]


@dataclass
class Data:
    """The sentences."""

    name: Annotated[str, "of the data set"]
    digest: Annotated[str, "sha256 of all sentences and labels"]
    train_examples: Annotated[int, "sentences to train, the slice among them that judges each epoch"]
    dev_examples: Annotated[int, "sentences to score, which choose nothing"]
    labels: Annotated[list[str], "the classes in the order of the logits"]
    dev_unknown_token_fraction: Annotated[float, "of dev's tokens that the vocabulary lacks"]
    dev_tokens_mean: Annotated[float, "tokens of a dev sentence"]
    dev_lengths: Annotated[list[int], "how many dev sentences have 0, 1, 2, ... tokens"]
    augmented_examples: Annotated[int, "sentences made from train that the student learnt from"]
    unlabelled_examples: Annotated[int, "sentences of distill.unlabelled that it learnt from"]
    augmented_left_out: Annotated[dict[str, int], "why made sentences were left out -> how many", OPTIONAL]
    unlabelled_left_out: Annotated[dict[str, int], "the same of distill.unlabelled", OPTIONAL]
    dev_in_train_examples: Annotated[int, "dev sentences that stand in train too, however they are spelt"]
    trained_on: Annotated[list[str], "every data set that the weights have learnt from"]


@dataclass
class OfClass:
    """One class."""

    label: Annotated[str, "its name"]
    examples: Annotated[int, "sentences of dev that have it"]
    answered: Annotated[int, "how often it was the answer"]
    precision: Annotated[float | None, "of its answers that are right; null where there are none"]
    recall: Annotated[float | None, "of its sentences that are right; null where there are none"]
    f1: Annotated[float | None, "of both"]


@dataclass
class OfKind:
    """The sentences of one class, or of some lengths, beside the teacher."""

    kind: Annotated[str, "tokens or class"]
    value: Annotated[str, "how many tokens, or which class"]
    examples: Annotated[int, "such sentences of dev"]
    accuracy_fraction: Annotated[float, "of them"]
    ci95_low: Annotated[float, "Wilson's 95 % interval of it"]
    ci95_high: Annotated[float, "its upper end"]
    teacher_accuracy_fraction: Annotated[float, "of the first teacher on them, as Keras"]
    change_points: Annotated[float, "percentage points above the teacher"]
    change_low_points: Annotated[float, "95 % interval of it (Agresti & Min 2005)"]
    change_high_points: Annotated[float, "its upper end"]
    p: Annotated[float, "McNemar's of the two"]


@dataclass
class Quality:
    """How right the file is, on dev."""

    accuracy_fraction: Annotated[float, "of dev that the file has right"]
    examples: Annotated[int, "dev sentences"]
    ci95_low: Annotated[float, "Wilson's 95 % interval of the accuracy"]
    ci95_high: Annotated[float, "its upper end"]
    mcc: Annotated[float, "Matthews' correlation, of several classes (Gorodkin 2004)"]
    macro_f1: Annotated[float, "mean of the classes' F1"]
    classes: Annotated[list[OfClass], "each class"]
    confusion: Annotated[list[list[int]], "how often each label (row) was given each answer (column)"]
    kinds: Annotated[list[OfKind], "accuracy by length and by class, beside the teacher's"]
    teacher_accuracy_fraction: Annotated[float, "of the first teacher, as Keras"]
    ensemble_accuracy_fraction: Annotated[float | None, "of the mean of several teachers; null for one"]
    taught: Annotated[bool, "whether a teacher's answers or states were learnt from"]
    student_accuracy_fraction: Annotated[float, "of the student as Keras, before any file"]
    untaught_accuracy_fraction: Annotated[float | None, "of the same student under distill=none; null if not made"]
    untaught_p: Annotated[float | None, "McNemar's p of the two"]
    teacher_helps: Annotated[bool | None, "whether the taught one has more of dev right; null if not known"]
    agreement_fraction: Annotated[float, "of dev that file and Keras student answer alike"]


@dataclass
class Structure:
    """What the student is built of."""

    heads: Annotated[list[int], "of each layer"]
    ffn_widths: Annotated[list[int], "feed-forward columns of each layer"]
    width: Annotated[int, "hidden units"]
    vocabulary_size: Annotated[int, "words, pieces and special tokens"]


@dataclass
class Candidate:
    """One of the files that `quant=int8_auto` tried, on the machine and at the length of `speed`."""

    name: Annotated[str, "the option of quant"]
    taken: Annotated[bool, "whether this point's file is that one"]
    latency_p50_ms: Annotated[float, "in turns with the other candidates"]
    drop_points: Annotated[float, "percentage points of accuracy below the Keras student, on the same sentences"]
    examples: Annotated[int, "sentences of train that no weight has learnt from"]
    accuracy_fraction: Annotated[float, "of them that it has right"]
    agreement_fraction: Annotated[float, "of them that it answers as the Keras student"]
    file_bytes: Annotated[int, "of it"]


@dataclass
class Size:
    """How large the file is, and the model in it."""

    file_bytes: Annotated[int, "of model.tflite"]
    gzip_bytes: Annotated[int, "of it after gzip"]
    zstd_bytes: Annotated[int, "of it after zstd, level 3"]
    compressed_bytes: Annotated[int | None, "of model.tflite.zst, where the bundle has that"]
    parameters: Annotated[int, "of the student"]
    zeroed_fraction: Annotated[float, "of its prunable weights that are zero"]
    effective_parameters: Annotated[int, "parameters that are not zero"]
    structure: Annotated[Structure, "what the student is built of"]
    candidates: Annotated[list[Candidate], "the files of which this one was chosen", OPTIONAL]


@dataclass
class Speed:
    """Milliseconds of one sentence on `threads` threads, warm, in turns with the float32 file of the same student."""

    latency_p50_ms: Annotated[float, "at sequence_length tokens"]
    latency_p90_ms: Annotated[float, "at sequence_length tokens"]
    latency_p99_ms: Annotated[float, "at sequence_length tokens; of few hundred calls a rough figure"]
    calls: Annotated[int, "that were counted"]
    threads: Annotated[int, "of the interpreter"]
    sequence_length: Annotated[int, "tokens"]
    float32_latency_p50_ms: Annotated[float, "of the float32 file"]
    speedup_vs_float32: Annotated[float, "float32_latency_p50_ms / latency_p50_ms"]
    median_length: Annotated[int, "tokens of the median dev sentence"]
    median_length_latency_p50_ms: Annotated[float, "at that length"]
    median_length_float32_latency_p50_ms: Annotated[float, "of the float32 file at that length"]
    dev_mix_latency_p50_ms: Annotated[float, "over dev sentences at their own lengths, one after another"]
    dev_mix_latency_p99_ms: Annotated[float, "its 99th percentile: a long sentence"]
    length_change_p50_ms: Annotated[float, "how much of that median is the change of length from call to call"]
    zeros_accelerated: Annotated[
        bool | None, "whether zeros make the file faster; null where nothing is zero or another machine timed it"
    ]
    zeros_speedup: Annotated[float | None, "latency of the same file without zeros / that of this one"]
    decompress_p50_ms: Annotated[float | None, "to unpack model.tflite.zst"]


@dataclass
class Memory:
    """Resident memory of a fresh process with Python, NumPy and LiteRT in it."""

    peak_rss_bytes: Annotated[int, "after running the file"]
    baseline_rss_bytes: Annotated[int, "before loading it"]


@dataclass
class Cost:
    """Seconds that its stages took, whenever that was."""

    teacher_s: Annotated[float, "the fits of all teachers"]
    student_s: Annotated[float, "the student and what it learns from; 0 where the teacher is the student"]
    export_s: Annotated[float, "the files"]
    measure_s: Annotated[float, "the figures"]
    cached: Annotated[dict[str, bool], "stage -> whether this run found it in the cache"]
    stages: Annotated[dict[str, float], "stage -> its seconds"]


PARTS: dict[str, type] = {
    "machine": Machine,
    "data": Data,
    "quality": Quality,
    "size": Size,
    "speed": Speed,
    "memory": Memory,
    "cost": Cost,
}
TOP = {  # of the keys of Result
    "schema": f"{SCHEMA}: the version of this description",
    "run_id": "hash of what the settings mean; the name of the run folder",
    "status": f"{DONE} or {FAILED}",
    "error": "what ended a failed run; null otherwise",
    "choices": "the option of each group; hub and replaced: what a missing hub made of the defaults",
    "cfg": "the whole config, composed",
    "seed": "of the student's fit",
    "command": "what runs this point again",
    **{name: (part.__doc__ or "") for name, part in PARTS.items()},
}


def schema() -> dict[str, Any]:
    """The JSON Schema (draft 2020-12) of result.json."""
    hints, names = typing.get_type_hints(Result), [f.name for f in dataclasses.fields(Result)]
    top = {name: _type(hints[name]) | {"description": TOP[name]} for name in names if name not in PARTS}
    top |= {"schema": {"const": SCHEMA}, "status": {"enum": [DONE, FAILED]}}
    parts = {name: _object(part) for name, part in PARTS.items()}
    full = {name: {"$ref": f"#/$defs/{name}"} for name in PARTS}
    return {
        "$schema": "https://json-schema.org/draft/2020-12/schema",
        "title": "result.json of DistilBERT-Optim",
        "type": "object",
        "properties": {**top, **{name: {"type": "object"} for name in PARTS}},
        "required": names,
        "additionalProperties": False,
        "if": {"properties": {"status": {"const": DONE}}},
        "then": {"properties": full},
        "$defs": parts,
    }


def lacking(content: Mapping[str, Any]) -> list[str]:
    """What a finished point must hold and lacks, or holds as a word: `cfg`, `speed.latency_p50_ms as a number`."""
    empty = [name for name in ("choices", "cfg", *PARTS) if not (isinstance(content.get(name), dict) and content[name])]
    there = [(part, content[part]) for part in _required() if part not in empty]
    lost = [f"{part}.{key}" for part, own in there for key in _required()[part] if key not in own]
    return empty + lost + [f"{part}.{key} as a number" for part, own in there for key in _numbers().get(part, ())
                           if key in own and not isinstance(own[key], (int, float))]  # fmt: skip


@cache
def _required() -> dict[str, list[str]]:
    """The keys that each part must hold."""
    return {"choices": ["model", "data"], "cfg": ["distill"], **{
        name: _object(part)["required"] for name, part in PARTS.items()}}  # fmt: skip


@cache
def _numbers() -> dict[str, list[str]]:
    """The keys of each part that hold a number, whatever the point."""
    return {name: [key for key, hint, _, _ in _fields(part) if _type(hint).get("type") in ("integer", "number")]
            for name, part in PARTS.items()}  # fmt: skip


def _object(part: type) -> dict[str, Any]:
    """The schema of a class: no key more, and none less but those marked optional."""
    fields = _fields(part)
    return {
        "type": "object",
        "description": part.__doc__,
        "properties": {name: _type(hint) | {"description": about} for name, hint, about, _ in fields},
        "required": [name for name, _, _, optional in fields if not optional],
        "additionalProperties": False,
    }


def _fields(part: type) -> list[tuple[str, Any, str, bool]]:
    """(key, type, what it is, whether it may be missing) of a class."""
    hints = typing.get_type_hints(part, include_extras=True)
    found = [(name, *typing.get_args(hint)) for name, hint in hints.items()]
    return [(name, kind, about, OPTIONAL in more) for name, kind, about, *more in found]


def _type(hint: Any) -> dict[str, Any]:
    """The schema of a type of Python."""
    if dataclasses.is_dataclass(hint) and isinstance(hint, type):
        return _object(hint)
    origin, options = typing.get_origin(hint), typing.get_args(hint)
    if origin in (types.UnionType, typing.Union):
        return {"anyOf": [_type(option) for option in options]}
    if origin is list:
        return {"type": "array", "items": _type(options[0])}
    if origin is dict:
        return {"type": "object", **({} if options[1] is Any else {"additionalProperties": _type(options[1])})}
    return {"type": _NAMES[hint]}


_NAMES = {str: "string", int: "integer", float: "number", bool: "boolean", types.NoneType: "null"}


def page() -> str:
    """The same for people."""
    lines = [
        "# result.json",
        "",
        "One file for each point, `results/<run_id>/result.json`. Written by `python -m optim.run.schema docs` from",
        "`optim/run/schema.py`; [result.schema.json](result.schema.json) is the same as a JSON Schema.",
        "",
        "| key | what it is |",
        "|---|---|",
        *(f"| `{f.name}` | {_cell(TOP[f.name])} |" for f in dataclasses.fields(Result)),
    ]
    inner = {"quality.classes": OfClass, "quality.kinds": OfKind, "size.structure": Structure,
             "size.candidates": Candidate}  # fmt: skip
    for name, part in {**PARTS, **inner}.items():
        rows = [f"| `{key}` | {_spoken(hint)} | {_cell(about)}{', or the key is missing' * optional} |"
                for key, hint, about, optional in _fields(part)]  # fmt: skip
        lines += ["", f"## {name}", "", part.__doc__ or "", "", "| key | type | what it is |", "|---|---|---|", *rows]
    return "\n".join([*lines, ""])


def _cell(text: str) -> str:
    return text.replace("|", "\\|")


def _spoken(hint: Any) -> str:
    """A type in a word or two."""
    kind = _type(hint)
    if "anyOf" in kind:
        return " or ".join(option["type"] for option in kind["anyOf"])
    if kind["type"] == "array":
        items = "lists" if kind["items"]["type"] == "array" else kind["items"]["type"]
        return f"list of {items}"
    inner = kind.get("additionalProperties")
    return f"text -> {inner['type']}" if inner else kind["type"]


def main() -> int:
    """Writes both files into the folder that is named."""
    folder = Path(sys.argv[1])
    (folder / "result.md").write_text(page(), encoding="utf-8")
    (folder / "result.schema.json").write_text(json.dumps(schema(), indent=1) + "\n", encoding="utf-8")
    return 0


if __name__ == "__main__":
    sys.exit(main())
