"""What the steps of a walk-forward run say, as lines for people."""

from __future__ import annotations

from services.contracts.events import Event


def of(event: Event) -> tuple[str, str] | None:
    """What it is about, and what happened; None for what only fills the time."""
    data = event.data
    match event.kind:
        case "loaded":
            line = ("snapshot", f"{data['rows']:,} flights of {data['batches']} closed batches, as of one moment")
        case "transformed":
            rejected = ", ".join(f"{count:,} {reason}" for reason, count in data["rejected"].items()) or "none"
            line = ("features", f"{data['rows']:,} rows in {data['months']} months; rejected: {rejected}")
        case "split_trained":
            metrics = f"AUC {data['auc']:.4f}, log loss {data['logloss']:.4f}"
            line = (f"split {data['month']}", f"{metrics}, learned from {data['rows']:,} rows before it")
        case "combined":
            metrics = f"AUC {data['auc']:.4f}, log loss {data['logloss']:.4f}"
            line = ("ensemble", f"{metrics} on the last month, of the models tested on {', '.join(data['bases'])}")
        case "promoted":
            line = ("promotion", f"{data['version']} is in production: {data['reason']}")
        case "kept":
            line = ("promotion", f"{data['version']} stays registered: {data['reason']}")
        case _:
            return None
    return line
