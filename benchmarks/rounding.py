"""What four bits cost a finished student, by where they are and how they are rounded: a bullet of docs/methods.md.

python benchmarks/rounding.py results/RUN_ID [--samples 48]      the run's stages must still be in its cache

Of each way the file's size, its accuracy on all scored sentences, and how often it answers as the Keras student does.
Nothing is trained; litert-quantizer's GPTQ takes minutes.
"""

from __future__ import annotations

import argparse
import json
import sys
import tempfile
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np

ROOT = Path(__file__).parent.parent
sys.path[:0] = [str(ROOT)]

from optim.data.tokens import Tokens  # noqa: E402
from optim.encoder import store  # noqa: E402
from optim.encoder.tensorflow import prepare_tensorflow  # noqa: E402
from optim.export.bundle import MODEL_FILE  # noqa: E402
from optim.export.flatbuffer import with_lookups, without_zero_scales  # noqa: E402
from optim.export.quantize import _quantized, _samples  # noqa: E402
from optim.measure.file import dev_logits  # noqa: E402
from optim.measure.runtime import Classifier  # noqa: E402
from optim.train.prune import prunable  # noqa: E402

BLOCK = "BLOCKWISE_32"
LEAST_AND_GREATEST = "min_max_uniform_quantize"


@dataclass(frozen=True)
class Way:
    """Bits of kernels and embeddings, and litert-quantizer's rounding of both."""

    name: str
    kernel_bits: int = 4
    embedding_bits: int = 4
    kernels: str = LEAST_AND_GREATEST
    embeddings: str = LEAST_AND_GREATEST
    calibrated: bool = False


WAYS = (
    Way("8 bits", 8, 8),
    Way("4-bit embeddings", 8, 4),
    Way("4-bit kernels", 4, 8),
    Way("4 bits"),
    Way("4 bits, OCTAV", kernels="OCTAV", embeddings="OCTAV"),
    Way("4 bits, GPTQ for kernels", kernels="GPTQ", calibrated=True),
)


def main() -> None:
    """Writes and scores a file for each way, in a folder that goes."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("run", type=Path, help="a run folder")
    parser.add_argument("--samples", type=int, default=48, help="training sentences that GPTQ is shown")
    args = parser.parse_args()
    result = json.loads((args.run / "result.json").read_text(encoding="utf-8"))
    stages = Path(result["cfg"]["cache_dir"]).expanduser() / "stages"
    folder = {key.split("-")[0]: stages / key for key in result["cost"]["stages"]}
    folder.setdefault("student", folder["teacher"])  # where nothing is pruned, cut or taught, they are one
    tokens = stages / json.loads((folder["student"] / "stage.json").read_text(encoding="utf-8"))["key"]["tokens"]
    dev, keras = Tokens.load(tokens / "dev.npz"), np.load(folder["student"] / "dev.npy").argmax(axis=1)
    prepare_tensorflow()
    kernels = prunable(store.load(folder["student"]))
    samples = _samples(Tokens.load(tokens / "train.npz"), args.samples, seed=0)
    print(f"Keras: accuracy {np.mean(keras == dev.labels):.4f} of {len(dev):,}")
    with tempfile.TemporaryDirectory() as where:
        for way in WAYS:
            path = Path(where) / MODEL_FILE
            path.write_bytes(made(folder["float32"] / MODEL_FILE, way, kernels, samples))
            own = dev_logits(Classifier(path, 1), dev, progress=lambda *_: None).argmax(axis=1)
            print(f"{way.name}: {path.stat().st_size:,} bytes, accuracy {np.mean(own == dev.labels):.4f}, "
                  f"agrees {np.mean(own == keras):.4f}", flush=True)  # fmt: skip


def made(float32: Path, way: Way, kernels: Sequence[str], samples: list[dict[str, np.ndarray]]) -> bytes:
    """The file of a way, as `quant=int4_emb4` and its like write it but for the rounding."""
    from litert_quantizer import qtyping, quantizer

    blocks, row = qtyping.QuantGranularity[BLOCK], qtyping.QuantGranularity.CHANNELWISE
    product, lookup = qtyping.TFLOperationName.FULLY_CONNECTED, qtyping.TFLOperationName.EMBEDDING_LOOKUP
    recipe = quantizer.Quantizer(bytearray(with_lookups(float32.read_bytes())))
    recipe.add_dynamic_config(".*", product, num_bits=8)
    for name in kernels if way.kernel_bits == 4 else ():
        recipe.add_dynamic_config(f"/{name}/", product, 4, blocks, way.kernels)
    recipe.add_dynamic_config(
        ".*", lookup, way.embedding_bits, blocks if way.embedding_bits == 4 else row, way.embeddings
    )
    return without_zero_scales(_quantized(recipe, samples if way.calibrated else []))


if __name__ == "__main__":
    main()
