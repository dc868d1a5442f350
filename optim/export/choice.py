"""Which of several files is taken: by what each takes on a machine, and has right on held-out sentences."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from optim.common.errors import UserError, require_fraction, require_not_negative


@dataclass(frozen=True, kw_only=True)
class Choice:
    """The rule: of the candidates that lose little the fastest; of those as fast what answers most like the model.

    To be more accurate than the model that it was made of is luck, and earns a file nothing.
    """

    candidates: tuple[str, ...]  # options of conf/quant
    max_drop_points: float  # percentage points of accuracy below the model, or below the best where none is so near
    tie: float  # fraction of a latency within which another one is the same

    def __post_init__(self) -> None:
        require_not_negative("quant.max_drop_points", self.max_drop_points)
        require_fraction("quant.tie", self.tie)
        if len(set(self.candidates)) < max(2, len(self.candidates)):
            raise UserError(
                "quant.candidates must name two or more precisions, each once, as [int8,int8_static]; "
                f"got [{','.join(self.candidates)}]."
            )

    def taken(self, rows: Sequence[Mapping[str, Any]]) -> str:
        """The name of one; rows: name, latency_p50_ms, drop_points and agreement_fraction of each."""
        best, most = min(row["drop_points"] for row in rows), self.max_drop_points + 1e-6
        most += best if best > most else 0.0
        accurate = [row for row in rows if row["drop_points"] <= most]
        most_ms = (1 + self.tie) * min(row["latency_p50_ms"] for row in accurate)
        fast = [row for row in accurate if row["latency_p50_ms"] <= most_ms]
        return max(fast, key=_rank)["name"]


def _rank(row: Mapping[str, Any]) -> tuple[float, float]:
    """What answers more like the model first, then what is faster."""
    return row["agreement_fraction"], -row["latency_p50_ms"]


def row_text(row: Mapping[str, Any]) -> str:
    """What a candidate does, for people."""
    right = f"{row['accuracy_fraction']:.4f} of {row['examples']:,} held out"
    agrees, size = f"agrees {row['agreement_fraction']:.1%}", f"{row['file_bytes'] / 1e6:.2f} MB"
    return f"{row['latency_p50_ms']:.2f} ms, {right}, {agrees}, {size}"
