"""A Hugging Face folder -> the files of the other runtimes, by the Python of requirements.txt.

python convert.py FOLDER CALIBRATION     CALIBRATION: a JSON list of training sentences, for OpenVINO's int8

Writes into FOLDER what is not there yet: model.onnx, int8.onnx (ONNX Runtime's dynamic quantization), model.xml, and
int8.xml (NNCF's post-training quantization for transformers).
"""

# pyright: reportMissingImports=false
from __future__ import annotations

import json
import sys
from pathlib import Path

import numpy as np


def main() -> None:
    """Each from the one before it."""
    folder, calibration = Path(sys.argv[1]), Path(sys.argv[2])
    made = {"model.onnx": to_onnx, "int8.onnx": to_onnx_int8, "model.xml": to_openvino, "int8.xml": to_openvino_int8}
    for name, make in made.items():
        if not (folder / name).exists():
            make(folder, calibration)


def to_onnx(folder: Path, _: Path) -> None:
    """Batch and length are free."""
    import torch
    from transformers import AutoModelForSequenceClassification

    model = AutoModelForSequenceClassification.from_pretrained(folder, attn_implementation="eager").eval()
    ids = torch.ones(2, 16, dtype=torch.long)
    free = {"input_ids": {0: "batch", 1: "length"}, "attention_mask": {0: "batch", 1: "length"}}
    torch.onnx.export(model, (ids, ids), str(folder / "model.onnx"), input_names=list(free), output_names=["logits"],
                      dynamic_axes={**free, "logits": {0: "batch"}}, opset_version=17, dynamo=False)  # fmt: skip


def to_onnx_int8(folder: Path, _: Path) -> None:
    """Weights of every product, one scale an output; activations by each call."""
    from onnxruntime.quantization import QuantType, quantize_dynamic

    quantize_dynamic(folder / "model.onnx", folder / "int8.onnx", weight_type=QuantType.QInt8, per_channel=True)


def to_openvino(folder: Path, _: Path) -> None:
    """From the ONNX file; float32, not the half precision that is the default."""
    import openvino as ov

    ov.save_model(ov.convert_model(folder / "model.onnx"), folder / "model.xml", compress_to_fp16=False)


def to_openvino_int8(folder: Path, calibration: Path) -> None:
    """With 300 training sentences, as NNCF's own default."""
    import nncf
    import openvino as ov
    from tokenizers import Tokenizer

    tokenizer = Tokenizer.from_file(str(folder / "tokenizer.json"))
    tokenizer.no_padding()
    rows = [np.array([tokenizer.encode(text).ids]) for text in json.loads(calibration.read_text(encoding="utf-8"))]
    given = nncf.Dataset([{"input_ids": row, "attention_mask": np.ones_like(row)} for row in rows])
    model = ov.Core().read_model(folder / "model.xml")
    quantized = nncf.quantize(model, given, model_type=nncf.ModelType.TRANSFORMER, subset_size=len(rows))
    ov.save_model(quantized, folder / "int8.xml", compress_to_fp16=False)


if __name__ == "__main__":
    main()
