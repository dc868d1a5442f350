"""The one use of what is private to wandb-workspaces: nothing public writes a report's spec without a server."""

from __future__ import annotations

from typing import Any


def spec_of(report: Any) -> dict[str, Any] | None:
    """The spec that `report.save()` would send, as JSON; None where this version of the package has no such thing.

    report: a `wandb_workspaces.reports.v2.Report`. Known to work with wandb-workspaces 0.4.13.
    """
    model = getattr(report, "_to_model", None)
    return None if model is None else model().model_dump(by_alias=True, exclude_none=True, mode="json")
