"""The shapes of an encoder's kernels, known before its graph is built, so that masks which do not fit are refused."""

from __future__ import annotations

from optim.encoder.architecture import Architecture

Shapes = dict[str, tuple[int, int]]  # name of a Dense -> (inputs, outputs) of its kernel


def prunable_shapes(shape: Architecture) -> Shapes:
    """Those of every Dense that `graph.classifier` builds but the classifier, under its names."""
    narrow = shape.bottleneck.width if shape.bottleneck else shape.width
    shapes: Shapes = {}
    if shape.bottleneck:
        shapes["embedding_transformation"] = (3 * shape.bottleneck.embedding_width, shape.width)
    for index, (heads, ffn) in enumerate(zip(shape.heads, shape.ffn_widths, strict=True)):
        inner = heads * shape.head_width
        shapes |= {f"layer{index}_{part}": kernel for part, kernel in _layer(shape, narrow, inner, ffn).items()}
    if shape.family != "mobilebert":
        shapes["pooler"] = (shape.width, shape.width)
    return shapes


def _layer(shape: Architecture, narrow: int, inner: int, ffn: int) -> Shapes:
    """Those of one layer, whose attention has the width `inner`."""
    shapes = {"query": (narrow, inner), "key": (narrow, inner), "value": (shape.width, inner)}
    shapes["attention_output"] = (inner, narrow)
    networks = ["ffn"]
    if shape.bottleneck:
        shapes |= {"bottleneck_in": (shape.width, narrow), "bottleneck_attention": (shape.width, narrow)}
        shapes["bottleneck_out"] = (narrow, shape.width)
        networks += [f"ffn{j}" for j in range(shape.bottleneck.ffn_count - 1)]
    for name in networks:
        shapes |= {f"{name}_in": (narrow, ffn), f"{name}_out": (ffn, narrow)}
    return shapes
