"""Log lines as JSON on standard error. What is logged is chosen at the call: no headers, no bodies, no secrets."""

from __future__ import annotations

import logging
import sys
from datetime import UTC, datetime

import orjson


class JsonFormatter(logging.Formatter):
    """One object a line: time (UTC), level, logger, replica, message, then `extra={"fields": {...}}` and the traceback.

    experiments/logs.py reads these lines.
    """

    def __init__(self, replica: str) -> None:
        super().__init__()
        self._replica = replica

    def format(self, record: logging.LogRecord) -> str:
        line = {
            "time": datetime.fromtimestamp(record.created, UTC).isoformat(timespec="milliseconds"),
            "level": record.levelname.lower(),
            "logger": record.name,
            "replica": self._replica,
            "message": record.getMessage(),
            **getattr(record, "fields", {}),
        }
        if record.exc_info:
            line["traceback"] = self.formatException(record.exc_info)
        return orjson.dumps(line).decode()


def configure(replica: str) -> None:
    """Make this the process's only log output."""
    handler = logging.StreamHandler(sys.stderr)
    handler.setFormatter(JsonFormatter(replica))
    logging.basicConfig(level=logging.INFO, handlers=[handler], force=True)
