"""One file in one runtime, in a process of its own: reads commands on stdin, a JSON a line, and answers likewise.

Started by benchmarks/peers/bench.py, by the Python of this project for `litert`, by that of requirements.txt for the rest:

python contender.py KIND FILE TOKENIZER TEXTS THREADS      FILE of litert: a bundle; TEXTS: a JSON list of sentences

{"do": "padded", "length": 128, "calls": 50} -> {"ms": [...]}      one sentence of so many tokens, again and again
{"do": "texts"}                              -> {"seconds": 1.2}   each sentence at its own length, from text to label
{"do": "batch", "size": 32}                  -> {"seconds": 0.7}   all of them, sorted by length, so many at once; litert:
                                                                    as optim.predict does, an interpreter a thread
{"do": "labels"}                             -> {"labels": [...]}
"""

# ruff: noqa: E501
# pyright: reportMissingImports=false
from __future__ import annotations

import json
import os
import sys
import time
from collections.abc import Callable
from pathlib import Path

import numpy as np

Run = Callable[[np.ndarray, np.ndarray], np.ndarray]  # ids and mask, int32 [batch, length] -> logits [batch, classes]


def litert(path: str, threads: int) -> Run:
    """This project's file; its graph has one sentence."""
    from optim.export.bundle import model_in
    from optim.measure.runtime import Classifier

    classifier = Classifier(model_in(Path(path)), threads)
    return lambda ids, mask: np.stack([classifier.logits(row[: m.sum()]) for row, m in zip(ids, mask, strict=True)])


def onnx(path: str, threads: int) -> Run:
    """ONNX Runtime, all of its graph optimizations."""
    import onnxruntime

    options = onnxruntime.SessionOptions()
    options.intra_op_num_threads, options.inter_op_num_threads = threads, 1
    session = onnxruntime.InferenceSession(path, options, providers=["CPUExecutionProvider"])
    whole = {entry.name for entry in session.get_inputs()}

    def run(ids, mask):
        given = {"input_ids": ids.astype(np.int64), "attention_mask": mask.astype(np.int64)}
        return session.run(None, {name: given[name] for name in whole})[0]

    return run


def openvino(path: str, threads: int, precision: str = "f32") -> Run:
    """OpenVINO, told to answer one call soon; precision: of float products, f32 or bf16."""
    import openvino as ov

    core = ov.Core()
    config = {"INFERENCE_NUM_THREADS": threads, "PERFORMANCE_HINT": "LATENCY", "INFERENCE_PRECISION_HINT": precision}
    request = core.compile_model(path, "CPU", config).create_infer_request()

    def run(ids, mask):
        given = {"input_ids": ids.astype(np.int64), "attention_mask": mask.astype(np.int64)}
        return next(iter(request.infer(given).values()))

    return run


def torch(path: str, threads: int, how: str = "float32") -> Run:
    """PyTorch and transformers; how: float32, bfloat16, or int8, its dynamic quantization of linear layers."""
    import torch
    from transformers import AutoModelForSequenceClassification

    torch.set_num_threads(threads)
    model = AutoModelForSequenceClassification.from_pretrained(path).eval()
    if how == "int8":
        model = torch.ao.quantization.quantize_dynamic(model, {torch.nn.Linear}, dtype=torch.qint8)
    elif how == "bfloat16":
        model = model.to(torch.bfloat16)

    @torch.inference_mode()
    def run(ids, mask):
        given = {"input_ids": torch.from_numpy(ids).long(), "attention_mask": torch.from_numpy(mask).long()}
        return model(**given).logits.float().numpy()

    return run


KINDS: dict[str, Callable[[str, int], Run]] = {
    "litert": litert,
    "onnx": onnx,
    "openvino": openvino,
    "openvino-bf16": lambda path, threads: openvino(path, threads, "bf16"),
    "torch": torch,
    "torch-bf16": lambda path, threads: torch(path, threads, "bfloat16"),
    "torch-int8": lambda path, threads: torch(path, threads, "int8"),
}


class Contender:
    """What the commands do."""

    def __init__(self, run: Run, tokenizer: str, texts: list[str]) -> None:
        from tokenizers import Tokenizer

        self.run, self.texts = run, texts
        self.tokenizer = Tokenizer.from_file(tokenizer)
        self.tokenizer.no_padding()
        self.tokenizer.enable_truncation(128)

    def padded(self, length: int, calls: int) -> dict:
        """Milliseconds of each call."""
        words = self.tokenizer.encode(" ".join(self.texts)).ids
        ids = np.array([words[:length]], np.int32)
        times = []
        for _ in range(calls):
            start = time.perf_counter()
            self.run(ids, np.ones_like(ids))
            times.append(1e3 * (time.perf_counter() - start))
        return {"ms": times}

    def labels(self) -> dict:
        """The answer to each sentence."""
        return {"labels": [self._label(text) for text in self.texts]}

    def texts_one_by_one(self) -> dict:
        """Seconds from the first text to the last label."""
        start = time.perf_counter()
        for text in self.texts:
            self._label(text)
        return {"seconds": time.perf_counter() - start}

    def batch(self, size: int) -> dict:
        """Seconds from all texts to all labels."""
        start = time.perf_counter()
        rows = [one.ids for one in self.tokenizer.encode_batch(self.texts)]
        order = sorted(range(len(rows)), key=lambda i: len(rows[i]))
        for first in range(0, len(order), size):
            chosen = [rows[i] for i in order[first : first + size]]
            width = max(map(len, chosen))
            mask = np.array([[1] * len(row) + [0] * (width - len(row)) for row in chosen], np.int32)
            ids = np.array([row + [0] * (width - len(row)) for row in chosen], np.int32)
            self.run(ids, mask).argmax(axis=1)
        return {"seconds": time.perf_counter() - start}

    def _label(self, text: str) -> int:
        ids = np.array([self.tokenizer.encode(text).ids], np.int32)
        return int(self.run(ids, np.ones_like(ids))[0].argmax())


class Ours(Contender):
    """This project's own way with many sentences."""

    def __init__(self, run: Run, tokenizer: str, texts: list[str], bundle: str, threads: int) -> None:
        from optim.predict import Classifier

        super().__init__(run, tokenizer, texts)
        self.classify = Classifier(bundle, workers=threads)

    def batch(self, size: int) -> dict:
        """Whatever the size: its file has one sentence."""
        start = time.perf_counter()
        self.classify(self.texts)
        return {"seconds": time.perf_counter() - start}


def main() -> None:
    """Answers until stdin ends."""
    kind, path, tokenizer, words, threads = sys.argv[1:]
    sys.path.insert(0, str(Path(__file__).parents[2]))
    out = os.fdopen(os.dup(1), "w")
    os.dup2(2, 1)  # what a library prints is no answer
    run, texts = KINDS[kind](path, int(threads)), json.loads(Path(words).read_text(encoding="utf-8"))
    ours = kind == "litert"
    contender = Ours(run, tokenizer, texts, path, int(threads)) if ours else Contender(run, tokenizer, texts)
    does = {"padded": contender.padded, "texts": contender.texts_one_by_one, "batch": contender.batch,
            "labels": contender.labels}  # fmt: skip
    print(json.dumps({"ready": True}), file=out, flush=True)
    for line in sys.stdin:
        command = json.loads(line)
        print(json.dumps(does[command.pop("do")](**command)), file=out, flush=True)


if __name__ == "__main__":
    main()
