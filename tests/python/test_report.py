#!/usr/bin/env python3
"""Look at report.html in a real browser: headless Chromium, as a phone and a desktop show it, light and dark.

    MAGIC_BIN=target/debug/magic python3 tests/python/test_report.py [DIR ...]

Merges small models that come with the tests, and opens each page, and those in the folders DIR of other merges. No
page may be wider than the window, log anything, ask for anything but itself, or have text that cannot be read on its
ground. Screenshots go to target/report. Needs the standard library and a `chromium`, whose path MAGIC_CHROMIUM may
give; without one the tests are skipped, and say so.

The browser is spoken to over its pipe, in the DevTools protocol: no driver, no package.
"""

import base64
import html.parser
import itertools
import json
import os
import shutil
import subprocess
import sys
import tempfile
from pathlib import Path

ROOT = Path(__file__).resolve().parents[2]
MAGIC = Path(os.environ.get("MAGIC_BIN") or ROOT / "target/release/magic").resolve()
GOLDEN = ROOT / "tests/golden"
SHOTS = ROOT / "target/report"
WINDOWS = {"phone": (390, 844, True), "desktop": (1280, 900, False)}


def chromium():
    names = [os.environ.get("MAGIC_CHROMIUM"), "chromium", "chromium-browser", "google-chrome", "chrome"]
    return next((found for name in names if name and (found := shutil.which(name))), None)


class Browser:
    """Chromium without a window. Events that come in between are kept."""

    def __init__(self, path, folder):
        (read, to), (came, write) = os.pipe(), os.pipe()

        def pipes():
            # Copies first: 3 and 4 may be among what was opened.
            ends = os.dup(read), os.dup(write)
            os.dup2(ends[0], 3)
            os.dup2(ends[1], 4)

        flags = ["--headless=new", "--no-sandbox", "--disable-gpu", "--hide-scrollbars", "--no-first-run"]
        flags += ["--disable-extensions", "--remote-debugging-pipe", f"--user-data-dir={folder}"]
        self.process = subprocess.Popen(
            [path, *flags], preexec_fn=pipes, close_fds=False, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL
        )
        os.close(read), os.close(write)
        self.to, self.came = os.fdopen(to, "wb", buffering=0), os.fdopen(came, "rb")
        self.numbers, self.events, self.rest = itertools.count(1), [], b""
        target = self.call("Target.createTarget", url="about:blank")["targetId"]
        self.session = None
        self.session = self.call("Target.attachToTarget", targetId=target, flatten=True)["sessionId"]
        for domain in ("Page", "Runtime", "Log", "Network"):
            self.call(f"{domain}.enable")

    session = None

    def message(self):
        while b"\0" not in self.rest:
            piece = self.came.read1(1 << 20)
            assert piece, "the browser has gone"
            self.rest += piece
        text, self.rest = self.rest.split(b"\0", 1)
        return json.loads(text)

    def call(self, method, **params):
        number = next(self.numbers)
        command = {"id": number, "method": method, "params": params}
        if self.session:
            command["sessionId"] = self.session
        self.to.write(json.dumps(command).encode() + b"\0")
        while True:
            message = self.message()
            if message.get("id") == number:
                assert "error" not in message, f"{method}: {message['error']}"
                return message["result"]
            self.events.append(message)

    def wait(self, event):
        while all(message.get("method") != event for message in self.events):
            self.events.append(self.message())

    def value(self, expression):
        found = self.call("Runtime.evaluate", expression=expression, returnByValue=True)
        assert "exceptionDetails" not in found, found
        return found["result"]["value"]

    def open(self, url, window, dark):
        """Shows a page; what it asked for, and what it said."""
        width, height, mobile = WINDOWS[window]
        scheme = {"name": "prefers-color-scheme", "value": "dark" if dark else "light"}
        self.call("Emulation.setEmulatedMedia", features=[scheme])
        self.call("Emulation.setDeviceMetricsOverride", width=width, height=height, deviceScaleFactor=1, mobile=mobile)
        self.events.clear()
        self.call("Page.navigate", url=url)
        self.wait("Page.loadEventFired")
        self.value("1")  # what is on its way comes before the answer
        asked = [m["params"]["request"]["url"] for m in self.events if m.get("method") == "Network.requestWillBeSent"]
        told = ("Runtime.consoleAPICalled", "Runtime.exceptionThrown", "Log.entryAdded")
        return asked, [m["params"] for m in self.events if m.get("method") in told]

    def shot(self, path):
        size = self.call("Page.getLayoutMetrics")["cssContentSize"]
        clip = {"x": 0, "y": 0, "width": size["width"], "height": size["height"], "scale": 1}
        picture = self.call("Page.captureScreenshot", format="png", captureBeyondViewport=True, clip=clip)
        path.write_bytes(base64.b64decode(picture["data"]))

    def close(self):
        self.to.close()
        self.process.terminate()
        self.process.wait(20)


# What cannot be read: the contrast of each text with the ground under it, as WCAG 2 has it; 4.5 is enough for any size.
CONTRAST = """(() => {
  const rgb = text => (text.match(/[\\d.]+/g) || []).map(Number);
  const light = ([r, g, b]) => [r, g, b].map(c => c / 255)
    .map(c => c <= 0.04045 ? c / 12.92 : ((c + 0.055) / 1.055) ** 2.4)
    .reduce((sum, c, i) => sum + c * [0.2126, 0.7152, 0.0722][i], 0);
  const ground = element => {
    for (; element; element = element.parentElement) {
      const color = rgb(getComputedStyle(element).backgroundColor);
      if (color.length == 3 || color[3] == 1) return color;
    }
    return [255, 255, 255];
  };
  const walker = document.createTreeWalker(document.body, NodeFilter.SHOW_TEXT);
  let worst = [100, ''];
  while (walker.nextNode()) {
    const text = walker.currentNode.data.trim(), element = walker.currentNode.parentElement;
    if (!text || ['title', 'style'].includes(element.localName)) continue;
    const style = getComputedStyle(element);
    const [a, b] = [light(rgb(element instanceof SVGElement ? style.fill : style.color)), light(ground(element))];
    const contrast = (Math.max(a, b) + 0.05) / (Math.min(a, b) + 0.05);
    if (contrast < worst[0]) worst = [contrast, text.slice(0, 60)];
  }
  return worst;
})()"""


class Balanced(html.parser.HTMLParser):
    """Checks that every element ends where it should."""

    EMPTY = {"meta", "wbr", "br"}

    def __init__(self):
        super().__init__()
        self.open = []

    def handle_starttag(self, tag, attrs):
        if tag not in self.EMPTY:
            self.open.append(tag)

    def handle_startendtag(self, tag, attrs):
        pass

    def handle_endtag(self, tag):
        assert self.open.pop() == tag, f"</{tag}> at {self.getpos()}"


def merge(out, models, *args):
    command = [MAGIC, "merge", "--device", "cpu", "--base", models / "base", "--out", out]
    for number in range(3):
        command += ["--model", models / f"expert{number}"]
    done = subprocess.run([str(word) for word in [*command, *args]], capture_output=True, text=True, timeout=600)
    assert done.returncode == 0, done.stderr[-2000:]
    return out


def merges(folder):
    """Folders of merges, by what they are called."""
    llama, clip = GOLDEN / "fsc/llama", GOLDEN / "fsc/clip_vision"
    data = [word for k in range(3) for word in ("--data", llama / f"task{k}.safetensors")]
    wsc = ("--param", "density=0.3", "--calibrate", "wsc")
    return {
        "ties": merge(folder / "ties", GOLDEN / "mergekit/models", "--method", "ties", *wsc),
        "plain": merge(folder / "plain", clip, "--method", "task_arithmetic"),
        "auto": merge(folder / "auto", llama, "--method", "linear", "--calibrate", "auto", *data),
    }


def main():
    browser = chromium()
    if not browser:
        print("skipped: there is no chromium; install one, or name it in MAGIC_CHROMIUM")
        return
    SHOTS.mkdir(parents=True, exist_ok=True)
    with tempfile.TemporaryDirectory(prefix="magic-report-") as folder:
        folder = Path(folder)
        pages = merges(folder) | {Path(path).resolve().name: Path(path).resolve() for path in sys.argv[1:]}
        browser = Browser(browser, folder / "profile")
        try:
            failed = sum(look(browser, name, page / "report.html") for name, page in pages.items())
        finally:
            browser.close()
    print(f"{len(pages)} pages, {len(pages) * 2 * len(WINDOWS)} views, {failed} wrong; screenshots: {SHOTS}")
    sys.exit(1 if failed else 0)


def look(browser, name, page):
    """How many views of a page are not as they should be."""
    parser = Balanced()
    parser.feed(page.read_text())
    parser.close()
    assert not parser.open, f"{name}: {parser.open} do not end"
    failed = 0
    for window, dark in itertools.product(WINDOWS, (False, True)):
        url, view = page.as_uri(), f"{name}-{window}-{'dark' if dark else 'light'}"
        asked, said = browser.open(url, window, dark)
        wide = browser.value("document.scrollingElement.scrollWidth - innerWidth")
        charts = browser.value("document.querySelectorAll('figure svg').length")
        contrast, text = browser.value(CONTRAST)
        browser.shot(SHOTS / f"{view}.png")
        wrong = []
        if asked != [url]:
            wrong.append(f"asks for {asked}")
        if said:
            wrong.append(f"says {said}")
        if wide > 0:
            wrong.append(f"is {wide} pixels wider than the window")
        if charts < 3 and (page.parent / "magic.json").exists():
            wrong.append(f"has {charts} charts")
        if contrast < 4.5:
            wrong.append(f"has text with a contrast of {contrast:.2f}: {text}")
        print(f"{'failed' if wrong else 'passed':7} {view}{': ' if wrong else ''}{'; '.join(wrong)}", flush=True)
        failed += bool(wrong)
    return failed


if __name__ == "__main__":
    main()
