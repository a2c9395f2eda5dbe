"""A real Chromium without a window, driven over its pipe (Chrome DevTools Protocol): no package needed."""

import base64
import json
import os
import shutil
import subprocess
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any, BinaryIO

NAMES = ("chromium", "chromium-browser", "google-chrome", "google-chrome-stable")
PATH = next((path for name in NAMES if (path := shutil.which(name))), None)
QUIET = ("--headless=new", "--no-sandbox", "--disable-gpu", "--disable-dev-shm-usage", "--no-first-run", "--mute-audio",
         "--disable-background-networking", "--disable-component-update", "--disable-sync", "--no-proxy-server",
         "--host-resolver-rules=MAP * ~NOTFOUND", "--remote-debugging-pipe")  # fmt: skip


class Page:
    """One page: what it said on its console, what it asked of the network, and what a reader does on it."""

    def __init__(self, commands: BinaryIO, answers: BinaryIO) -> None:
        self._commands, self._answers, self._sent = commands, answers, 0
        self._session: str | None = None
        self.problems: list[str] = []
        self.requests: list[str] = []
        target = self.call("Target.createTarget", url="about:blank")["targetId"]
        self._session = self.call("Target.attachToTarget", targetId=target, flatten=True)["sessionId"]
        for domain in ("Page", "Runtime", "Network", "Log"):
            self.call(f"{domain}.enable")

    def call(self, method: str, **params: Any) -> dict[str, Any]:
        """Send a command and wait for its answer; events that come before are taken note of."""
        self._sent += 1
        message: dict[str, Any] = {"id": self._sent, "method": method, "params": params}
        if self._session:
            message["sessionId"] = self._session
        self._commands.write(json.dumps(message).encode() + b"\0")
        self._commands.flush()
        while True:
            answer = self._next()
            if answer.get("id") == self._sent:
                assert "error" not in answer, answer
                return dict(answer["result"])
            self._note(answer)

    def _next(self) -> dict[str, Any]:
        read = bytearray()
        while (byte := self._answers.read(1)) != b"\0":
            assert byte, "the browser has gone"
            read += byte
        return dict(json.loads(read))

    def _note(self, event: dict[str, Any]) -> None:
        params = event.get("params", {})
        match event.get("method"):
            case "Runtime.exceptionThrown":
                self.problems.append(str(params["exceptionDetails"]))
            case "Runtime.consoleAPICalled" if params["type"] in ("error", "warning", "assert"):
                self.problems.append(str([one.get("value", one.get("description")) for one in params["args"]]))
            case "Log.entryAdded" if params["entry"]["level"] in ("error", "warning"):
                self.problems.append(params["entry"]["text"])
            case "Network.requestWillBeSent":
                self.requests.append(params["request"]["url"])

    def run(self, expression: str) -> Any:
        """The value of an expression on the page; a promise is waited for."""
        found = self.call("Runtime.evaluate", expression=expression, returnByValue=True, awaitPromise=True)
        assert "exceptionDetails" not in found, found
        return found["result"].get("value")

    def wait(self, expression: str) -> Any:
        """Wait until an expression is true of the page, ten seconds at most."""
        return self.run(
            "new Promise((done, fail) => { const end = Date.now() + 10000; (function look() {"
            f" let found; try {{ found = ({expression}); }} catch {{ found = null; }}"
            " if (found) done(found); else if (Date.now() > end) fail(new Error('never: '"
            f" + {json.dumps(expression)})); else setTimeout(look, 10); }})(); }})"
        )

    def open(self, folder: Path, address: str = "") -> None:
        """Open a board from the disk."""
        self.call("Page.navigate", url="about:blank")
        self.call("Page.navigate", url=f"{folder.resolve().as_uri()}/index.html{address}")
        self.wait("document.documentElement.dataset.ready")

    def go(self, address: str) -> None:
        """Follow an address of the page."""
        self.run(f"location.hash = {json.dumps(address)}")

    def click(self, selector: str) -> None:
        """Press and release the left button over the middle of what a selector names."""
        found = json.dumps(selector)
        self.wait(f"document.querySelector({found})")
        x, y = self.run(
            f"(() => {{ const one = document.querySelector({found}); one.scrollIntoView({{ block: 'center' }});"
            " const box = one.getBoundingClientRect(); return [box.x + box.width / 2, box.y + box.height / 2]; })()"
        )
        for kind in ("mousePressed", "mouseReleased"):
            self.call("Input.dispatchMouseEvent", type=kind, x=x, y=y, button="left", clickCount=1)

    def choose(self, label: str, value: str) -> None:
        """Choose a value in the select with a label, as a reader does: it changes, and says so."""
        self.run(
            "(() => { const label = [...document.querySelectorAll('label')]"
            f".find((one) => one.textContent === {json.dumps(label)});"
            f" const control = document.getElementById(label.htmlFor); control.value = {json.dumps(value)};"
            " control.dispatchEvent(new Event('change', { bubbles: true })); })()"
        )

    def text(self, selector: str) -> str:
        """The text of what a selector names."""
        return str(self.run(f"document.querySelector({json.dumps(selector)})?.textContent ?? ''"))

    def press(self, key: str) -> None:
        """Press a key of the keyboard."""
        more = {"Enter": {"text": "\r", "windowsVirtualKeyCode": 13}, "Tab": {"windowsVirtualKeyCode": 9}}.get(key, {})
        for kind in ("keyDown", "keyUp"):
            self.call("Input.dispatchKeyEvent", type=kind, key=key, code=key, **more)

    def resize(self, width: int, height: int, *, phone: bool = False) -> None:
        """Give the page another size."""
        self.call("Emulation.setDeviceMetricsOverride", width=width, height=height, deviceScaleFactor=1, mobile=phone)

    def prefer(self, theme: str) -> None:
        """Let the system ask for light or dark."""
        self.call("Emulation.setEmulatedMedia", features=[{"name": "prefers-color-scheme", "value": theme}])

    def picture(self, path: Path, *, whole: bool = False) -> Path:
        """A PNG of what is seen, or of the whole page."""
        found = self.call("Page.captureScreenshot", captureBeyondViewport=whole)
        path.write_bytes(base64.b64decode(found["data"]))
        return path


@contextmanager
def opened(profile: Path) -> Iterator[Page]:
    """A page of a browser that ends with it.

    Args:
        profile: an empty folder for what a browser keeps.
    """
    assert PATH
    to_read, to_write = os.pipe(), os.pipe()  # the browser reads its commands from 3 and answers on 4

    def join() -> None:
        kept = os.dup(to_read[0]), os.dup(to_write[1])  # away from 3 and 4, which may be these very ones
        os.dup2(kept[0], 3)
        os.dup2(kept[1], 4)

    words = [PATH, *QUIET, f"--user-data-dir={profile}"]
    quiet = {"stdin": subprocess.DEVNULL, "stdout": subprocess.DEVNULL, "stderr": subprocess.DEVNULL}
    process = subprocess.Popen(words, preexec_fn=join, close_fds=False, **quiet)  # type: ignore[call-overload]
    os.close(to_read[0])
    os.close(to_write[1])
    with os.fdopen(to_read[1], "wb") as commands, os.fdopen(to_write[0], "rb") as answers:
        try:
            yield Page(commands, answers)
        finally:
            process.terminate()
            process.wait(20)
