"""`model=tiny`: a checkpoint of random weights and a small vocabulary, made here, for tests."""

from __future__ import annotations

import hashlib
import json
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from optim.common.build import method
from optim.common.errors import UserError
from optim.encoder.assets import Checkpoint, LocalCheckpoint, built, make_tokenizer


@method("model", "tiny")
def tiny_checkpoint(
    *,
    name: str,
    family: str,
    layers: int,
    width: int,
    heads: int,
    ffn_width: int,
    position_count: int,
    seed: int,
    path: str | None,
    pooling: str,
) -> Checkpoint:
    """A random checkpoint of `family` (bert or distilbert) with a vocabulary of a few hundred pieces, for tests."""
    if path is not None:
        return LocalCheckpoint(name, Path(path), pooling)
    if family not in ("bert", "distilbert"):
        raise UserError(f"model.family must be bert or distilbert, got {family!r}.")
    if heads < 1 or width % heads:
        raise UserError(f"model.heads must divide model.width, got {heads} heads for width {width}.")
    return TinyCheckpoint(name, family, layers, width, heads, ffn_width, position_count, seed, pooling)


@dataclass(frozen=True)
class TinyCheckpoint:
    """A checkpoint of random weights and a small vocabulary of its own."""

    name: str
    family: str
    layers: int
    width: int
    heads: int
    ffn_width: int
    position_count: int
    seed: int
    pooling: str

    def fingerprint(self) -> dict[str, Any]:
        """Every number that it is made from."""
        words = hashlib.sha256("\n".join(tiny_vocabulary()).encode()).hexdigest()
        return {"source": "tiny", **self.__dict__, "vocabulary_sha256": words}

    def fetch(self, cache_dir: Path) -> Path:
        """The folder, written by this very class."""
        return built(cache_dir, self.name, self.fingerprint(), self._write)

    def _write(self, folder: Path) -> None:
        from safetensors.numpy import save_file

        (folder / "config.json").write_text(json.dumps(self._config(), indent=2) + "\n", encoding="utf-8")
        (folder / "vocab.txt").write_text("\n".join(tiny_vocabulary()) + "\n", encoding="utf-8")
        save_file(self._weights(), folder / "model.safetensors")
        make_tokenizer(folder)

    def _config(self) -> dict[str, Any]:
        words, positions = len(tiny_vocabulary()), self.position_count
        shared = {"model_type": self.family, "vocab_size": words, "max_position_embeddings": positions}
        if self.family == "distilbert":
            sizes = {"n_layers": self.layers, "n_heads": self.heads, "dim": self.width, "hidden_dim": self.ffn_width}
            return {**shared, **sizes, "activation": "gelu"}
        sizes = {"num_hidden_layers": self.layers, "num_attention_heads": self.heads, "hidden_size": self.width}
        return {**shared, **sizes, "intermediate_size": self.ffn_width, "hidden_act": "gelu", "layer_norm_eps": 1e-12}

    def _weights(self) -> dict[str, Any]:
        """Tensors under Hugging Face's names, PyTorch's [out, in]; BERT's initialization, normal of 0.02."""
        import numpy as np

        rng = np.random.default_rng(self.seed)
        weights = {}
        for name, shape in self._shapes().items():
            if "norm" in name.lower():
                weights[f"{name}.weight"], weights[f"{name}.bias"] = np.ones(shape), np.zeros(shape)
                continue
            weights[f"{name}.weight"] = rng.normal(0.0, 0.02, shape)
            if "embeddings" not in name:
                weights[f"{name}.bias"] = np.zeros(shape[0])
        return {name: value.astype(np.float32) for name, value in weights.items()}

    def _shapes(self) -> dict[str, tuple[int, ...]]:
        from optim.encoder.checkpoint import TABLES

        width, ffn = self.width, self.ffn_width
        special = {
            "word_embeddings": (len(tiny_vocabulary()), width),
            "position_embeddings": (self.position_count, width),
            "ffn_in": (ffn, width),
            "ffn_out": (width, ffn),
        }
        shapes: dict[str, tuple[int, ...]] = {}
        for layer, prefix in TABLES[self.family].items():
            kind = layer.removeprefix("layer{i}_")
            if kind == "classifier" or (kind == "pooler" and self.family == "distilbert"):
                continue  # as in the published checkpoints: these belong to a task
            shape = (width,) if kind.endswith("norm") else special.get(kind, (width, width))
            for index in range(self.layers if "{i}" in prefix else 1):
                shapes[prefix.format(i=index)] = shape
        if self.family == "bert":
            shapes["embeddings.token_type_embeddings"] = (2, width)
        return shapes


def tiny_vocabulary() -> list[str]:
    """The pieces of `tiny`: BERT's special tokens, single characters (alone and inside a word), common words."""
    characters = "abcdefghijklmnopqrstuvwxyz0123456789"
    special = ["[PAD]", "[UNK]", "[CLS]", "[SEP]", "[MASK]"]
    return [*special, *".,!?'\"-:;()&$%#@/*+=", *characters, *(f"##{c}" for c in characters), *COMMON_WORDS.split()]


COMMON_WORDS = """
the and of to in is it that this with as for was on but an are be by at from his he has its have not one film movie
all who you they so like about more when out or her what their there up if some even can just only than into would
time no good which do we most make much will too very she well any other also been had them get were after how over
story characters two because really off then first people way does made such being where could better little never
ever enough plot character these many see work life while scenes man still through love something acting here both
us new best those between own world great another look funny bad comedy director audience fun drama cast scene action
old ending full without may bit few watch before every nothing long same real me less feel years dull boring moving
charming brilliant terrible awful wonderful excellent poor worst beautiful hilarious weak strong fresh smart clever
tedious mess masterpiece waste disappointing enjoyable predictable touching powerful silly stupid lovely perfect
hate loved liked worth avoid young girl boy war family heart mind music performance script
##ed ##ing ##ly ##er ##est ##ness
""".strip()
