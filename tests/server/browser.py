"""A real browser, driven over the pipe that Chromium's developer tools speak on."""

from __future__ import annotations

import contextlib
import itertools
import json
import os
import shutil
import subprocess
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

FLAGS = (
    "--headless",
    "--no-sandbox",
    "--disable-gpu",
    "--disable-background-networking",
    "--disable-component-update",
    "--disable-sync",
    "--no-first-run",
    "--disable-dev-shm-usage",
    "--remote-debugging-pipe",
)


class Browser:
    """One page. `asked` are the URLs that it requested, `complaints` what its console says."""

    def __init__(self, to_browser: int, from_browser: int) -> None:
        self._out = os.fdopen(to_browser, "wb", buffering=0)
        self._in = os.fdopen(from_browser, "rb", buffering=0)
        self._buffer = b""
        self._ids = itertools.count(1)
        self._session: str | None = None
        self.asked: list[str] = []
        self.complaints: list[str] = []
        target = self._command("Target.createTarget", url="about:blank")["targetId"]
        attached = self._command("Target.attachToTarget", targetId=target, flatten=True)
        self._session = attached["sessionId"]
        for domain in ("Network", "Log", "Runtime", "Page"):
            self._command(f"{domain}.enable")

    def open(self, url: str) -> None:
        self._command("Page.navigate", url=url)

    def evaluate(self, script: str) -> Any:
        told = self._command(
            "Runtime.evaluate", expression=script, awaitPromise=True, returnByValue=True
        )
        assert "exceptionDetails" not in told, told
        return told["result"].get("value")

    def wait(self, script: str) -> Any:
        """Until the script's value is true."""
        for _ in range(150):
            # an element has no value of its own on this side of the pipe
            value = self.evaluate(f"((v) => v instanceof Node || v)({script})")
            if value:
                return value
            time.sleep(0.2)
        raise AssertionError(f"never true: {script}; the page says {self.complaints}")

    def press(self, key: str, code: int) -> None:
        for kind in ("keyDown", "keyUp"):
            self._command(
                "Input.dispatchKeyEvent",
                type=kind,
                key=key,
                code=key,
                windowsVirtualKeyCode=code,
                text="\r" if key == "Enter" else "",
            )

    def choose(self, selector: str, file: Path) -> None:
        """Gives a file to an input of the page."""
        found = self._command(
            "Runtime.evaluate", expression=f"document.querySelector('{selector}')"
        )
        place = found["result"]["objectId"]
        self._command("DOM.setFileInputFiles", files=[str(file)], objectId=place)

    def close(self) -> None:
        self._session = None
        with contextlib.suppress(OSError):
            self._command("Browser.close")
        self._out.close()
        self._in.close()

    def _command(self, method: str, **params: Any) -> dict[str, Any]:
        asked = next(self._ids)
        message: dict[str, Any] = {"id": asked, "method": method, "params": params}
        if self._session is not None:
            message["sessionId"] = self._session
        self._out.write(json.dumps(message).encode() + b"\0")
        while True:
            told = self._next()
            if told.get("id") == asked:
                assert "error" not in told, told
                return told["result"]
            self._note(told)

    def _next(self) -> dict[str, Any]:
        while b"\0" not in self._buffer:
            piece = self._in.read(65536)
            if not piece:
                raise ConnectionError("the browser is gone")
            self._buffer += piece
        message, _, self._buffer = self._buffer.partition(b"\0")
        return json.loads(message)

    def _note(self, told: dict[str, Any]) -> None:
        params = told.get("params", {})
        if told.get("method") == "Network.requestWillBeSent":
            self.asked.append(params["request"]["url"])
        elif told.get("method") == "Log.entryAdded":
            self.complaints.append(params["entry"]["text"])
        elif told.get("method") == "Runtime.exceptionThrown":
            self.complaints.append(str(params["exceptionDetails"]))


@contextlib.contextmanager
def browsing(profile: Path) -> Iterator[Browser]:
    found = shutil.which("chromium") or shutil.which("chromium-browser")
    assert found, "these tests need a browser: apt-get install chromium"
    theirs_in, ours_out = os.pipe()
    ours_in, theirs_out = os.pipe()
    line = f'exec "$@" 3<&{theirs_in} 4>&{theirs_out}'
    process = subprocess.Popen(
        ["bash", "-c", line, "browser", found, *FLAGS, f"--user-data-dir={profile}"],
        pass_fds=(theirs_in, theirs_out),
        stdout=subprocess.DEVNULL,
        stderr=subprocess.DEVNULL,
    )
    os.close(theirs_in)
    os.close(theirs_out)
    try:
        browser = Browser(ours_out, ours_in)
        yield browser
        browser.close()
        process.wait(20)
    finally:
        process.kill()
        process.wait()
