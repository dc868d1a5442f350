"""Writes the golden checkpoints of this folder: tiny random PyTorch models of transformers, inputs, and their outputs.

The tests load them with neither PyTorch nor transformers. To make them again, in an environment of its own:

    pip install torch==2.13.0 transformers==5.23.0    # the CPU build of torch will do
    python tests/golden/make_golden.py

Each folder has `config.json`, `model.safetensors` and `cases.npz`; `versions.json` says what made them.

    bert          BertForSequenceClassification, names under `bert.`
    distilbert    DistilBertForSequenceClassification, names under `distilbert.`
    bert_encoder  BertModel without a classifier, names without a prefix (the layout of sentence-transformers)
    mobilebert    MobileBertForSequenceClassification, names under `mobilebert.`
    mpnet         MPNetForSequenceClassification, names under `mpnet.`; padded with id 1, as its positions ask for

cases.npz: `input_ids`, `attention_mask` int32 [sentences, length], padded on the right with id 0; then `logits` float32
[sentences, classes], or for bert_encoder `mean` (of the last states of the real tokens) and `pooled` (the pooler's
output), both [sentences, width]. For mobilebert `logits` are those of each sentence alone, and `padded` those of the
batch, which differ: Hugging Face's trigram reads the vector of [PAD] behind a padded sentence. For mpnet there are also
`distances` and `buckets`, int32 [n]: the bucket of each signed distance.
"""

from __future__ import annotations

import json
import platform
from pathlib import Path

import numpy as np
import torch
import transformers

HERE = Path(__file__).parent
SEED = 20
CLASSES = 3
VOCABULARY_SIZE, POSITION_COUNT, WIDTH, HEADS, FFN_WIDTH = 100, 64, 32, 4, 64
LENGTHS = (17, 1, 9, 24, 2, 24)  # real tokens per sentence; the batch is padded to the longest


def bert_config(layers: int) -> transformers.BertConfig:
    """A small BERT. Every dropout rate is another number, so that a test sees one in the wrong place."""
    return transformers.BertConfig(
        vocab_size=VOCABULARY_SIZE,
        max_position_embeddings=POSITION_COUNT,
        hidden_size=WIDTH,
        num_hidden_layers=layers,
        num_attention_heads=HEADS,
        intermediate_size=FFN_WIDTH,
        layer_norm_eps=1e-3,  # not the usual 1e-12: one that is ignored must show
        hidden_dropout_prob=0.11,
        attention_probs_dropout_prob=0.12,
        classifier_dropout=0.13,
        num_labels=CLASSES,
    )


def distilbert_config(layers: int) -> transformers.DistilBertConfig:
    """A DistilBERT of the same size."""
    return transformers.DistilBertConfig(
        vocab_size=VOCABULARY_SIZE,
        max_position_embeddings=POSITION_COUNT,
        dim=WIDTH,
        n_layers=layers,
        n_heads=HEADS,
        hidden_dim=FFN_WIDTH,
        dropout=0.14,
        attention_dropout=0.15,
        seq_classif_dropout=0.16,
        num_labels=CLASSES,
    )


def mobilebert_config(layers: int) -> transformers.MobileBertConfig:
    """A MobileBERT: no two of its widths are the same."""
    return transformers.MobileBertConfig(
        vocab_size=VOCABULARY_SIZE,
        max_position_embeddings=POSITION_COUNT,
        embedding_size=12,
        hidden_size=WIDTH,
        intra_bottleneck_size=16,
        num_hidden_layers=layers,
        num_attention_heads=HEADS,
        intermediate_size=24,
        num_feedforward_networks=3,
        hidden_dropout_prob=0.17,
        attention_probs_dropout_prob=0.18,
        classifier_dropout=0.19,
        classifier_activation=False,
        num_labels=CLASSES,
    )


def mpnet_config(layers: int) -> transformers.MPNetConfig:
    """A small MPNet."""
    return transformers.MPNetConfig(
        vocab_size=VOCABULARY_SIZE,
        max_position_embeddings=POSITION_COUNT,
        hidden_size=WIDTH,
        num_hidden_layers=layers,
        num_attention_heads=HEADS,
        intermediate_size=FFN_WIDTH,
        layer_norm_eps=1e-3,
        hidden_dropout_prob=0.21,
        attention_probs_dropout_prob=0.22,
        num_labels=CLASSES,
    )


def redraw(model: torch.nn.Module, generator: torch.Generator) -> None:
    """Draws every parameter from a normal: as initialized, biases are 0 and scales 1, and nobody would miss them.

    MobileBERT's are smaller: nothing divides by a deviation in it, so large ones would grow from layer to layer.
    """
    kernel = 0.16 if isinstance(model, transformers.MobileBertPreTrainedModel) else 0.25
    for name, parameter in model.named_parameters():
        is_scale = name.endswith("norm.weight") or name.endswith("LayerNorm.weight")
        mean, deviation = (1.0, 0.3) if is_scale else (0.0, 0.5 if "embeddings" in name else kernel)
        parameter.data.normal_(mean, deviation, generator=generator)


def sentences(generator: torch.Generator) -> tuple[torch.Tensor, torch.Tensor]:
    """Ids and masks, int64 [sentences, length]: random ids from 1 up, with the padding id 0 behind them."""
    shape = (len(LENGTHS), max(LENGTHS))
    mask = (torch.arange(shape[1]) < torch.tensor(LENGTHS)[:, None]).long()
    return torch.randint(1, VOCABULARY_SIZE, shape, generator=generator) * mask, mask


def answers(model: torch.nn.Module, ids: torch.Tensor, mask: torch.Tensor) -> dict[str, np.ndarray]:
    """What the model says, under the names of cases.npz."""
    with torch.no_grad():
        output = model(input_ids=ids, attention_mask=mask)
    if hasattr(output, "logits"):
        return {"logits": output.logits.numpy()}
    real = mask[:, :, None]
    mean = (output.last_hidden_state * real).sum(1) / real.sum(1)
    return {"mean": mean.numpy(), "pooled": output.pooler_output.numpy()}


def answers_alone(model: torch.nn.Module, ids: torch.Tensor, mask: torch.Tensor) -> dict[str, np.ndarray]:
    """What the model says of each sentence without padding, and as `padded` of the batch."""
    rows = [answers(model, ids[i : i + 1, :n], mask[i : i + 1, :n]) for i, n in enumerate(LENGTHS)]
    alone = {name: np.concatenate([row[name] for row in rows]) for name in rows[0]}
    return {**alone, "padded": answers(model, ids, mask)["logits"]}


def of_mpnet(model: torch.nn.Module, ids: torch.Tensor, mask: torch.Tensor) -> dict[str, np.ndarray]:
    """Its answers, and T5's buckets as it has them: 32, as all published MPNets."""
    distances = torch.arange(-300, 301)
    buckets = type(model.mpnet.encoder).relative_position_bucket(distances, num_buckets=32)
    return {**answers(model, ids, mask), "distances": distances.int().numpy(), "buckets": buckets.int().numpy()}


def write(folder: str, model: transformers.PreTrainedModel, generator: torch.Generator) -> float:
    """Redraws, runs and saves `model`; returns how far its float32 answers lie from its own float64 ones."""
    redraw(model.eval(), generator)
    ids, mask = sentences(generator)
    model.save_pretrained(HERE / folder)
    ask = {"mobilebert": answers_alone, "mpnet": of_mpnet}.get(folder, answers)
    if folder == "mpnet":
        ids = torch.where(mask.bool(), ids.clamp(min=2), torch.tensor(1))
    single = ask(model, ids, mask)
    integers = {"input_ids": ids.numpy().astype(np.int32), "attention_mask": mask.numpy().astype(np.int32)}
    np.savez_compressed(HERE / folder / "cases.npz", **integers, **single)
    double = ask(model.double(), ids, mask)
    return max(float(np.abs(single[name] - double[name]).max()) for name in single)


def main() -> None:
    """Writes the five folders and versions.json."""
    generator = torch.Generator().manual_seed(SEED)
    models = {
        "bert": transformers.BertForSequenceClassification(bert_config(2)),
        "distilbert": transformers.DistilBertForSequenceClassification(distilbert_config(2)),
        "bert_encoder": transformers.BertModel(bert_config(1)),
        "mobilebert": transformers.MobileBertForSequenceClassification(mobilebert_config(2)),
        "mpnet": transformers.MPNetForSequenceClassification(mpnet_config(2)),
    }
    errors = {folder: write(folder, model, generator) for folder, model in models.items()}
    versions = {
        "python": platform.python_version(),
        "torch": torch.__version__,
        "transformers": transformers.__version__,
        "numpy": np.__version__,
    }
    report = {"versions": versions, "seed": SEED, "float32_error_max": errors}
    (HERE / "versions.json").write_text(json.dumps(report, indent=2) + "\n", encoding="utf-8")
    print(json.dumps(report, indent=2))


if __name__ == "__main__":
    main()
