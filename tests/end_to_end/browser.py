"""A browser to be driven by a test: Chromium through chromedriver, whose protocol is JSON over HTTP."""

import base64
import contextlib
import json
import pathlib
import re
import shutil
import subprocess
import tempfile
import time
import urllib.error
import urllib.request

_QUIET = "--headless=new --disable-gpu --disable-quic --no-first-run --disable-background-networking"
_QUIET += " --disable-component-update --disable-sync --no-sandbox --disable-dev-shm-usage"
_ELEMENT = "element-6066-11e4-a52e-4f735466cecf"  # the key by which the protocol marks an element


def missing():
    """What of Chromium and chromedriver is not installed; None if both are."""
    chromium = shutil.which("chromium") or shutil.which("chromium-browser") or shutil.which("google-chrome")
    absent = [
        name for name, path in (("Chromium", chromium), ("chromedriver", shutil.which("chromedriver"))) if not path
    ]
    return f"{' and '.join(absent)} are not installed" if absent else None


class Browser:
    """One window.

    Args:
        session: its address at chromedriver.
    """

    def __init__(self, session):
        self._session = session

    def go(self, url):
        """Loads a page."""
        _call(f"{self._session}/url", {"url": url})

    def run(self, script, *arguments):
        """What a script returns; it is a function's body."""
        return _call(f"{self._session}/execute/sync", {"script": script, "args": arguments})

    def find(self, css):
        """The address of the first element."""
        found = _call(f"{self._session}/element", {"using": "css selector", "value": css})
        return f"{self._session}/element/{found[_ELEMENT]}"

    def click(self, css):
        """Clicks on the middle of an element, if nothing covers it."""
        _call(f"{self.find(css)}/click", {})

    def type(self, css, text):
        """Types into a field; for a file, its path."""
        _call(f"{self.find(css)}/value", {"text": text})

    def press(self, key):
        """Presses a key, at whatever has the focus."""
        actions = [{"type": "keyDown", "value": key}, {"type": "keyUp", "value": key}]
        _call(f"{self._session}/actions", {"actions": [{"type": "key", "id": "keys", "actions": actions}]})

    def texts(self, css):
        """The text of each element."""
        return self.run("return [...document.querySelectorAll(arguments[0])].map(one => one.textContent.trim())", css)

    def until(self, script, *arguments, seconds=20):
        """Waits until a script returns something true, and returns it."""
        end = time.monotonic() + seconds
        while True:
            found = self.run(script, *arguments)
            if found or time.monotonic() > end:
                assert found, f"not within {seconds} s: {script}\n{self.run('return document.body.innerText')}"
                return found
            time.sleep(0.05)

    def complaints(self):
        """What the console says of errors since it was last asked."""
        lines = _call(f"{self._session}/se/log", {"type": "browser"})
        return [line["message"] for line in lines if line["level"] in ("SEVERE", "WARNING")]

    def screenshot(self, path):
        """Writes what is to be seen as a PNG."""
        pathlib.Path(path).write_bytes(base64.b64decode(_call(f"{self._session}/screenshot")))


@contextlib.contextmanager
def browser(width, height, phone=False):
    """A window of that size; a phone also has fingers, and no mouse."""
    driver = subprocess.Popen(["chromedriver", "--port=0"], stdout=subprocess.PIPE, text=True)
    with tempfile.TemporaryDirectory(ignore_cleanup_errors=True) as profile:
        try:
            port = next(found[1] for line in driver.stdout if (found := re.search(r"successfully on port (\d+)", line)))
            options = {"args": [*_QUIET.split(), f"--user-data-dir={profile}", f"--window-size={width},{height}"]}
            if phone:
                options["mobileEmulation"] = {"deviceMetrics": {"width": width, "height": height, "pixelRatio": 2}}
            wanted = {"goog:chromeOptions": options, "goog:loggingPrefs": {"browser": "ALL"}}
            base = f"http://127.0.0.1:{port}/session"
            session = f"{base}/{_call(base, {'capabilities': {'alwaysMatch': wanted}})['sessionId']}"
            try:
                if not phone:
                    _call(f"{session}/window/rect", {"width": width, "height": height})
                yield Browser(session)
            finally:
                _call(session, method="DELETE")
        finally:
            driver.terminate()
            driver.wait(20)
            driver.stdout.close()


def _call(url, content=None, method=None):
    data = None if content is None else json.dumps(content).encode()
    request = urllib.request.Request(url, data, {"Content-Type": "application/json"}, method=method)
    try:
        with urllib.request.build_opener(urllib.request.ProxyHandler({})).open(request, timeout=60) as answer:
            return json.load(answer)["value"]
    except urllib.error.HTTPError as error:
        with error:
            raise AssertionError(json.load(error)["value"]["message"]) from None
