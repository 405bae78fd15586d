"""What the terminal shows: progress by component, tables, and one clear line for a failure."""

from __future__ import annotations

import time
from types import TracebackType
from typing import Final

from rich.console import Console
from rich.markup import escape
from rich.status import Status

COMPONENT_WIDTH: Final = 18

out = Console(highlight=False)
err = Console(stderr=True, highlight=False)


class Steps:
    """Progress, one line per finished component with its time; a spinner on a terminal, plain lines elsewhere."""

    def __init__(self, console: Console = out) -> None:
        self._console = console
        self._status: Status | None = None
        self._began = time.monotonic()

    def __enter__(self) -> Steps:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._stop()

    def begin(self, component: str, what: str) -> None:
        self._stop()
        if self._console.is_terminal:
            self._status = self._console.status(escape(f"{component:<{COMPONENT_WIDTH}} {what}"))
            self._status.start()

    def done(self, component: str, what: str) -> None:
        self._stop()
        now = time.monotonic()
        self._console.print(
            f"[green]●[/] {escape(f'{component:<{COMPONENT_WIDTH}} {what}')}  [dim]{now - self._began:.1f} s[/]",
            soft_wrap=True,
        )
        self._began = now

    def note(self, text: str) -> None:
        self.note_line(f"[yellow]![/] {escape(text)}")

    def note_line(self, text: str) -> None:
        self._stop()
        self._console.print(text, soft_wrap=True)

    def _stop(self) -> None:
        if self._status is not None:
            self._status.stop()
            self._status = None
