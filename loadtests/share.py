"""Who sends what of a plan when several Locust workers carry it out: every n-th arrival of each stream.

Together they send exactly what one process would have sent, whatever their number; each records its own part.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from itertools import islice
from pathlib import Path
from typing import Final, TypeVar

from pydantic import ValidationError

from loadtests.launch import Process
from loadtests.plan import LoadError, LoadPlan
from services.contracts.events import monotonic_clock_id

FIRST_WORKER: Final = 16
"""Workers' numbers in the history begin here, above every other load process's."""

Item = TypeVar("Item")


@dataclass(frozen=True, slots=True)
class Share:
    """The `index`-th of `count` equal shares; all of it when nobody else takes part."""

    index: int = 0
    count: int = 1

    def of(self, stream: Iterator[Item]) -> Iterator[Item]:
        """What of a stream is this share's: in order, disjoint from the others', and with them the whole."""
        return islice(stream, self.index, None, self.count)

    @property
    def process(self) -> int:
        """Number in the history's `process` column and in the high bits of the keys."""
        return int(Process.LOCUST) if self.count == 1 else FIRST_WORKER + self.index

    def part(self, out_dir: Path) -> Path:
        """The Arrow stream that this share's process writes."""
        return Process.LOCUST.part(out_dir) if self.count == 1 else out_dir / f"locust-{self.index}.arrow"


@dataclass(frozen=True, slots=True)
class Assignment:
    """What one Locust process has to do. `recorded`: with a history; `last`: the process ends with its load."""

    plan: LoadPlan
    share: Share
    recorded: bool
    last: bool

    def message(self) -> dict[str, str | int | bool]:
        """As the master sends it to a worker."""
        return {
            "plan": self.plan.model_dump_json(by_alias=True),
            "clock_id": monotonic_clock_id(),
            "index": self.share.index,
            "count": self.share.count,
            "recorded": self.recorded,
            "last": self.last,
        }

    @classmethod
    def from_message(cls, message: Mapping[str, str | int | bool]) -> Assignment:
        """What the master has sent; LoadError when it runs on another machine or release."""
        if message.get("clock_id") != monotonic_clock_id():
            raise LoadError(
                "this worker and its master read different clocks, so it cannot know when arrivals are due: "
                "start both on one machine"
            )
        try:
            return cls(
                LoadPlan.model_validate_json(str(message["plan"])),
                Share(int(message["index"]), int(message["count"])),
                bool(message["recorded"]),
                bool(message["last"]),
            )
        except (KeyError, ValidationError) as error:
            raise LoadError(f"the master's plan cannot be read; start both from one checkout: {error}") from error
