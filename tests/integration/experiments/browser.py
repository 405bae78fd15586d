"""A Chromium without a window, driven by its DevTools protocol over two pipes: no port, no driver, no network."""

from __future__ import annotations

import base64
import json
import os
import shutil
import subprocess
import tempfile
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from typing import Any, Final

PROGRAMS: Final = ("chromium-headless-shell", "chromium", "google-chrome")
MISSING: Final = "no Chromium: as root, apt-get install chromium-headless-shell (64 MB)"
ANSWERS_WITHIN_S: Final = 30
NO_NETWORK: Final = "MAP * ~NOTFOUND"
PIPES: Final = 'exec "$@" 3<&"$TO_BROWSER" 4>&"$FROM_BROWSER"'
"""Chromium reads commands from descriptor 3 and writes to 4, each message ended by a zero byte."""


def program() -> str | None:
    return next((found for name in PROGRAMS if (found := shutil.which(name))), None)


class Page:
    """One tab. `events` are all that it reported, in order."""

    def __init__(self, to_browser: int, from_browser: int) -> None:
        self._to = os.fdopen(to_browser, "wb", buffering=0)
        self._from = os.fdopen(from_browser, "rb", buffering=0)
        self._buffer = b""
        self._sent = 0
        self._session: str | None = None
        self.events: list[Mapping[str, Any]] = []
        target = self.call("Target.createTarget", url="about:blank")["targetId"]
        self._session = self.call("Target.attachToTarget", targetId=target, flatten=True)["sessionId"]
        for domain in ("Page", "Runtime", "Log", "Network"):
            self.call(f"{domain}.enable")

    def call(self, method: str, **parameters: Any) -> Any:
        """The command's result; AssertionError with the browser's words when it refuses."""
        self._sent += 1
        session = {"sessionId": self._session} if self._session else {}
        message = {"id": self._sent, "method": method, "params": parameters, **session}
        self._to.write(json.dumps(message).encode() + b"\0")
        while (answer := self._next()).get("id") != self._sent:
            self.events.append(answer)
        assert "error" not in answer, f"{method}: {answer['error']}"
        return answer["result"]

    def _next(self) -> Mapping[str, Any]:
        while b"\0" not in self._buffer:
            more = self._from.read(1 << 20)
            assert more, "the browser ended"
            self._buffer += more
        message, self._buffer = self._buffer.split(b"\0", 1)
        found: Mapping[str, Any] = json.loads(message)
        return found

    def open(self, path: Path) -> None:
        self.events.clear()
        self.call("Page.navigate", url=path.as_uri())
        while not any(event["method"] == "Page.loadEventFired" for event in self.events):
            self.events.append(self._next())

    def value(self, expression: str) -> Any:
        """What a JavaScript expression comes to."""
        found = self.call("Runtime.evaluate", expression=expression, returnByValue=True)
        assert "exceptionDetails" not in found, found
        return found["result"].get("value")

    def look(self, *, scheme: str = "light", media: str = "screen", width: int = 1280) -> None:
        """As a reader with this colour scheme, on this medium, in a window so wide (px)."""
        features = [{"name": "prefers-color-scheme", "value": scheme}]
        self.call("Emulation.setEmulatedMedia", media=media, features=features)
        self.call("Emulation.setDeviceMetricsOverride", width=width, height=900, deviceScaleFactor=1, mobile=False)

    def screenshot(self) -> bytes:
        """The whole page as PNG."""
        return base64.b64decode(self.call("Page.captureScreenshot", captureBeyondViewport=True)["data"])

    def press_tab(self) -> None:
        for kind in ("keyDown", "keyUp"):
            self.call("Input.dispatchKeyEvent", type=kind, key="Tab", code="Tab", windowsVirtualKeyCode=9)

    def close(self) -> None:
        self._to.close()
        self._from.close()


@contextmanager
def browsing(executable: str) -> Iterator[Page]:
    """A browser of its own, gone when this ends."""
    child_reads, to_browser = os.pipe()
    from_browser, child_writes = os.pipe()
    with tempfile.TemporaryDirectory(prefix="breakwater-browser-", ignore_cleanup_errors=True) as profile:
        options = ["--headless", "--remote-debugging-pipe", "--disable-gpu", "--no-first-run"]
        options += [f"--user-data-dir={profile}", f"--host-resolver-rules={NO_NETWORK}"]
        if os.geteuid() == 0:
            options.append("--no-sandbox")  # Chromium refuses to run as root otherwise
        process = subprocess.Popen(
            ["/bin/bash", "-c", PIPES, "browser", executable, *options],
            pass_fds=(child_reads, child_writes),
            env={**os.environ, "TO_BROWSER": str(child_reads), "FROM_BROWSER": str(child_writes)},
            stdout=subprocess.DEVNULL,
            stderr=subprocess.DEVNULL,
        )
        os.close(child_reads)
        os.close(child_writes)
        page = Page(to_browser, from_browser)
        try:
            yield page
        finally:
            page.close()
            process.terminate()
            process.wait(ANSWERS_WITHIN_S)
