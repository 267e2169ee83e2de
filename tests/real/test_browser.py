"""The page of `report --html` in a real browser, without a screen and as it was written.

The browser is told what to do by its own protocol of messages, over two pipes.
"""

from __future__ import annotations

import base64
import contextlib
import fcntl
import json
import os
import select
import shutil
import struct
import subprocess
import tempfile
import time
import zlib
from pathlib import Path
from typing import Any, Dict, Iterator, List, Tuple

import pytest
from client import eventually
from conftest import environment, finished, new_repository

from .conftest import program

NAMES = ("chromium", "chromium-headless-shell", "chromium-browser", "google-chrome")
FLAGS = ("--headless", "--no-sandbox", "--disable-gpu", "--disable-quic", "--no-first-run", "--disable-sync",
         "--disable-background-networking", "--disable-component-update", "--remote-debugging-pipe")
LIMIT_S = 60
PHONE, DESK = 420, 1280         # columns of pixels
EVIL = ("<script>document.title = 'caught'</script>\"><img src=x onerror='document.title = 1'> "
        "& \x1b[31m \u2028 \u202egnp <a href='javascript:document.title = 2'>")
LONG = "x" * 3000


class Browser:
    """One browser and one page in it. `heard` is everything that it said beside its answers."""

    def __init__(self, place: str) -> None:
        ours, theirs = os.pipe(), os.pipe()         # to it, and from it
        pipes = [fcntl.fcntl(fd, fcntl.F_DUPFD, 20) for fd in (ours[0], theirs[1])]

        def as_three_and_four() -> None:
            os.dup2(pipes[0], 3)
            os.dup2(pipes[1], 4)
        self.process = subprocess.Popen(
            [program(*NAMES), *FLAGS, "--user-data-dir=" + place], preexec_fn=as_three_and_four,
            pass_fds=(3, 4), stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL,
            env=dict(os.environ, HOME=place), start_new_session=True)
        for fd in (*pipes, ours[0], theirs[1]):
            os.close(fd)
        self.to, self.answers = ours[1], theirs[0]
        self.heard: List[Dict[str, Any]] = []
        self.count, self.rest, self.session = 0, b"", {}

    def attach(self) -> None:
        """Make its page, and listen to it."""
        target = self("Target.createTarget", url="about:blank")["targetId"]
        attached = self("Target.attachToTarget", targetId=target, flatten=True)
        self.session = {"sessionId": attached["sessionId"]}
        for domain in ("Page", "Network", "Runtime", "Log"):
            self(domain + ".enable")

    def __call__(self, method: str, **params: Any) -> Dict[str, Any]:
        """The result of a method."""
        self.count += 1
        message = {"id": self.count, "method": method, "params": params, **self.session}
        os.write(self.to, json.dumps(message).encode() + b"\0")
        give_up = time.monotonic() + LIMIT_S
        while True:
            said = self.next(give_up)
            if said.get("id") == self.count:
                assert "error" not in said, said
                return said["result"]
            self.heard.append(said)

    def next(self, give_up: float) -> Dict[str, Any]:
        while b"\0" not in self.rest:
            left = max(0.0, give_up - time.monotonic())
            assert select.select([self.answers], [], [], left)[0], "the browser does not answer"
            more = os.read(self.answers, 1 << 16)
            assert more, "the browser has gone"
            self.rest += more
        message, _, self.rest = self.rest.partition(b"\0")
        return json.loads(message)

    def close(self) -> None:
        with contextlib.suppress(AssertionError, OSError):
            self("Browser.close")
        for fd in (self.to, self.answers):
            os.close(fd)
        try:
            self.process.wait(LIMIT_S)
        finally:
            self.process.kill()
            self.process.wait()

    def open(self, path: Path) -> None:
        """The page, once it is loaded."""
        self.heard.clear()
        self("Page.navigate", url=path.as_uri())
        eventually(lambda: self.tells("document.readyState + location.protocol") == "completefile:")

    def tells(self, expression: str) -> Any:
        """The value of an expression in the page, which itself runs nothing."""
        said = self("Runtime.evaluate", expression=expression, returnByValue=True)
        assert "exceptionDetails" not in said, said
        return said["result"].get("value")

    def looks(self, width: int, scheme: str = "light") -> None:
        self("Emulation.setDeviceMetricsOverride", width=width, height=900, deviceScaleFactor=1, mobile=False)
        self("Emulation.setEmulatedMedia", features=[{"name": "prefers-color-scheme", "value": scheme}])

    def picture(self, name: str = "") -> bytes:
        """What it shows, as PNG; for a person as well, where SCREENSHOTS names a directory."""
        png = base64.b64decode(self("Page.captureScreenshot")["data"])
        if os.environ.get("SCREENSHOTS") and name:
            Path(os.environ["SCREENSHOTS"], name + ".png").write_bytes(png)
        return png

    def corner(self, name: str = "") -> int:
        """How light the first pixel is, 0 to 255. Source: PNG, second edition, 7.2: before it there is
        none, so however its line is filtered it stands there as it is."""
        png, at, data = self.picture(name), 8, b""
        while at < len(png):
            size, kind = struct.unpack_from(">I4s", png, at)
            data += png[at + 8:at + 8 + size] if kind == b"IDAT" else b""
            at += size + 12
        return sum(zlib.decompress(data)[1:4]) // 3


@pytest.fixture(scope="module")
def browser() -> Iterator[Browser]:
    with contextlib.ExitStack() as made:
        place = tempfile.mkdtemp(prefix="browser-")
        made.callback(shutil.rmtree, place, ignore_errors=True)
        browser = Browser(place)
        made.callback(browser.close)
        browser.attach()
        yield browser


@pytest.fixture(scope="module")
def page(tmp_path_factory) -> Tuple[Path, List[str]]:
    """A page of five tasks that were told, changed and said what they could; their ids."""
    place = tmp_path_factory.mktemp("page")
    env, repo = environment(place, place / "root"), new_repository(place / "repo")
    tasks = [{"prompt": "Write the parser\nSHELL seq 300 > numbers.txt; seq -s, 500 > README\nSAY Done so."},
             {"prompt": "%s\nWRITE <b>.txt %s\nTELL x\nSAY %s" % (EVIL, EVIL, EVIL)},
             {"prompt": LONG + "\nWRITE long.txt %s\nSAY %s" % (LONG, LONG)},
             {"prompt": "設定ファイルを書く 🎉 and test it\nSAY 第一章から"},
             {"prompt": "Break something\nFAIL no %s" % EVIL}]
    ran = finished(["run", "-w", "--file", "-", "--json"], env, repo, json.dumps(tasks).encode())
    ids = [record["task_id"] for record in json.loads(ran.stdout)["tasks"]]
    path = place / "report.html"
    assert finished(["report", "--html", str(path), *ids], env, repo).returncode == 0
    return path, ids


def test_on_a_phone_the_page_does_not_scroll_sideways_and_all_its_text_is_in_sight(browser, page):
    browser.open(page[0])
    for width in (PHONE, DESK):
        browser.looks(width)
        browser.tells("document.querySelectorAll('details').forEach(one => one.open = true)")
        assert browser.tells("document.documentElement.scrollWidth") <= width
        browser.picture("light-%d" % width)
        out = browser.tells("[...document.querySelectorAll('body *')].filter(one => !one.closest('pre') && "
                            "one.getBoundingClientRect().right > innerWidth + 1).map(one => one.outerHTML)")
        assert out == []


def test_dark_is_dark_and_light_is_light(browser, page):
    browser.open(page[0])
    lights = []
    for scheme in ("dark", "light"):
        browser.looks(PHONE, scheme)
        lights.append(browser.corner(scheme))
        contrasts = browser.tells(CONTRASTS)
        assert min(contrasts.values()) > 4.5, contrasts
    assert lights[0] < 60 and lights[1] > 200


def test_nothing_leaves_the_page_and_what_a_task_wrote_does_nothing_on_it(browser, page):
    path, ids = page
    browser.looks(DESK)
    browser.open(path)
    title = browser.tells("document.title")
    assert title.startswith("5 tasks: 4 succeeded, 1 failed")
    assert browser.tells("document.scripts.length + document.images.length + document.links.length") == 0
    text = browser.tells("document.body.textContent")
    assert text.count("<script>document.title = 'caught'</script>") >= 5
    assert not {"\x1b", "\u202e"} & set(text)
    sent = [one["params"] for one in browser.heard if one["method"] == "Network.requestWillBeSent"]
    assert [one["request"]["url"] for one in sent] == [path.as_uri()]
    assert not [one for one in browser.heard if one["method"].startswith(("Log.", "Runtime.exception"))]


def test_the_timeline_has_a_bar_in_sight_for_each_task_that_leads_to_it(browser, page):
    path, ids = page
    browser.looks(PHONE)
    browser.open(path)
    bars = browser.tells(BARS)
    assert [bar["leads"] for bar in bars] == ["#" + task_id for task_id in ids]
    for bar in bars:
        assert bar["how"] == ("failed" if bar["leads"] == "#" + ids[-1] else "succeeded")
        assert 0 <= bar["left"] < bar["right"] <= PHONE and bar["high"] >= 8 and bar["seen"]
    assert sorted({bar["top"] for bar in bars}) == [bar["top"] for bar in bars]
    long = "document.querySelectorAll('svg div')[2]"
    assert browser.tells(long + ".scrollWidth > " + long + ".clientWidth")
    assert browser.tells("getComputedStyle(%s).textOverflow" % long) == "ellipsis"
    browser.tells("document.querySelectorAll('svg a')[2].dispatchEvent(new MouseEvent('click'))")
    assert browser.tells("location.hash") == "#" + ids[2]


BARS = """[...document.querySelectorAll('svg a')].map(link => {
    const bar = link.querySelector('rect:last-of-type'), at = bar.getBoundingClientRect();
    return {leads: link.getAttribute('href'), how: bar.getAttribute('class'), left: at.left, right: at.right,
            top: at.top, high: at.height, seen: getComputedStyle(bar).fill != 'none'}})"""
# How much lighter text is than what lies behind it, or darker. Source: WCAG 2.2, contrast ratio.
CONTRASTS = """(() => {
    const parts = text => [...text.match(/[\\d.]+/g).map(Number), 1].slice(0, 4);
    const over = (top, below) => [0, 1, 2].map(i => top[i] * top[3] + below[i] * (1 - top[3]));
    const linear = c => c <= .04045 ? c / 12.92 : ((c + .055) / 1.055) ** 2.4;
    const light = rgb => .05 + .2126 * linear(rgb[0] / 255) + .7152 * linear(rgb[1] / 255)
        + .0722 * linear(rgb[2] / 255);
    const probe = document.body.appendChild(document.createElement('i'));
    probe.style.color = 'Canvas';
    const canvas = parts(getComputedStyle(probe).color), found = {};
    probe.remove();
    for (const one of document.querySelectorAll('h1, h2, p, b, svg div, svg text, pre, .text, pre span')) {
        const style = getComputedStyle(one), behind = over(parts(style.backgroundColor), canvas);
        const [r, g, b, a] = parts(one.tagName == 'text' ? style.fill : style.color);
        const ratio = light(over([r, g, b, a * style.opacity], behind)) / light(behind);
        const name = one.tagName + '.' + one.getAttribute('class');
        found[name] = Math.min(Math.max(ratio, 1 / ratio), found[name] ?? 99);
    }
    return found })()"""
