"""The report, opened by a real browser without a network. Runs where Chromium is installed."""

from __future__ import annotations

import importlib.util
import json
import os
import shutil
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from analysis.__main__ import main

CHROMIUM = shutil.which("chromium") or shutil.which("chromium-browser") or shutil.which("google-chrome")
MAKER = Path(__file__).parents[1] / "unit" / "analysis" / "synthetic_sweep.py"
FLAGS = (
    "--headless", "--no-sandbox", "--disable-gpu", "--disable-background-networking", "--disable-component-update",
    "--disable-sync", "--no-first-run", "--proxy-server=127.0.0.1:9", "--remote-debugging-pipe",
)  # fmt: skip
AXES = ["prompts_seen", "tokens", "device_seconds"]
SHOWN = (
    "[...document.querySelectorAll('.choice')].filter(e => getComputedStyle(e).display != 'none')"
    ".map(e => e.classList[1])"
)
NARROWEST = "Math.min(...[...document.querySelectorAll('figure svg')].map(e => e.clientWidth || 999))"

pytestmark = pytest.mark.skipif(
    CHROMIUM is None, reason="chromium is not on PATH: the report was not opened in a browser"
)


class Browser:
    """One tab of Chromium, driven by its own protocol over two pipes: messages are JSON that end in a zero byte."""

    def __init__(self, profile: Path) -> None:
        theirs_in, self.out = os.pipe()
        self.incoming, theirs_out = os.pipe()
        shell = f'exec "$0" "$@" 3<&{theirs_in} 4>&{theirs_out} 2>"{profile}.log"'
        command = ["bash", "-c", shell, str(CHROMIUM), *FLAGS, f"--user-data-dir={profile}", "about:blank"]
        self.process = subprocess.Popen(command, pass_fds=(theirs_in, theirs_out))
        os.close(theirs_in)
        os.close(theirs_out)
        self.stream = os.fdopen(self.incoming, "rb")
        self.number, self.session, self.events = 0, "", []
        targets = self.call("Target.getTargets")["targetInfos"]
        tab = next(target["targetId"] for target in targets if target["type"] == "page")
        self.session = self.call("Target.attachToTarget", targetId=tab, flatten=True)["sessionId"]
        for domain in ("Page", "Runtime", "Log", "Network"):
            self.call(f"{domain}.enable")

    def call(self, method: str, **parameters: Any) -> dict[str, Any]:
        self.number += 1
        message = {"id": self.number, "method": method, "params": parameters}
        os.write(self.out, json.dumps(message | ({"sessionId": self.session} if self.session else {})).encode() + b"\0")
        while True:
            answer = self.receive()
            if answer.get("id") == self.number:
                assert "error" not in answer, answer
                return answer["result"]

    def receive(self) -> dict[str, Any]:
        """The next message; what is no answer is kept as an event."""
        content = bytearray()
        while (byte := self.stream.read(1)) != b"\0":
            assert byte, "the browser has ended"
            content += byte
        message = json.loads(content)
        if "method" in message:
            self.events.append(message)
        return message

    def open(self, page: Path) -> None:
        self.events = []
        self.call("Page.navigate", url=page.as_uri())
        while not any(event["method"] == "Page.loadEventFired" for event in self.events):
            self.receive()

    def value(self, expression: str) -> Any:
        return self.call("Runtime.evaluate", expression=expression, returnByValue=True)["result"].get("value")

    def press(self, key: str) -> None:
        code = {"Tab": 9, "ArrowRight": 39, "ArrowLeft": 37, "Enter": 13}[key]
        text = {"text": "\r"} if key == "Enter" else {}
        self.call("Input.dispatchKeyEvent", type="keyDown", key=key, code=key, windowsVirtualKeyCode=code, **text)
        self.call("Input.dispatchKeyEvent", type="keyUp", key=key, code=key, windowsVirtualKeyCode=code)

    def close(self) -> None:
        self.call("Browser.close")
        self.process.wait(30)
        os.close(self.out)
        self.stream.close()


@pytest.fixture(scope="module")
def page(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A report of a synthetic sweep whose responses try to run a script."""
    if "synthetic_sweep" not in sys.modules:
        spec = importlib.util.spec_from_file_location("synthetic_sweep", MAKER)
        sys.modules["synthetic_sweep"] = module = importlib.util.module_from_spec(spec)
        spec.loader.exec_module(module)
    maker = sys.modules["synthetic_sweep"]
    attack = (
        "<script>document.title = 'owned'</script><img src=http://127.0.0.1:9/x onerror=\"document.title='owned'\">"
    )
    arms = {
        "ppo": maker.Arm("ppo", (0.1, 0.2), edit=lambda rows: rows.assign(response=attack + "w" * 400)),
        "dpo": maker.Arm("dpo", (0.1, 0.1)),
    }
    folder = tmp_path_factory.mktemp("sweep")
    maker.Sweep(folder, arms).write()
    assert main(["report", str(folder)]) == 0
    return folder / "report" / "report.html"


@pytest.fixture(scope="module")
def chromium(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Browser]:
    browser = Browser(tmp_path_factory.mktemp("browser") / "profile")
    yield browser
    browser.close()


@pytest.fixture
def browser(chromium: Browser, page: Path) -> Browser:
    """A wide, light window with the report just opened."""
    chromium.call("Emulation.setEmulatedMedia", media="screen", features=[scheme("light")])
    resize(chromium, 1280)
    chromium.open(page)
    return chromium


def accessible(browser: Browser) -> Iterator[tuple[str, str, dict[str, Any]]]:
    """Role, name and properties of what a screen reader is given."""
    for node in browser.call("Accessibility.getFullAXTree")["nodes"]:
        if not node["ignored"] and "name" in node:
            properties = {item["name"]: item["value"].get("value") for item in node.get("properties", [])}
            yield node["role"]["value"], node["name"]["value"], properties


def scheme(name: str) -> dict[str, str]:
    return {"name": "prefers-color-scheme", "value": name}


def resize(browser: Browser, width: int) -> None:
    browser.call("Emulation.setDeviceMetricsOverride", width=width, height=900, deviceScaleFactor=1, mobile=False)


def test_page_loads_alone_says_nothing_and_runs_nothing(browser: Browser, page: Path):
    requests = [event for event in browser.events if event["method"] == "Network.requestWillBeSent"]
    assert [event["params"]["request"]["url"] for event in requests] == [page.as_uri()]
    spoken = ("Runtime.consoleAPICalled", "Runtime.exceptionThrown", "Log.entryAdded")  # a refusal by the policy too
    assert [event for event in browser.events if event["method"] in spoken] == []
    assert browser.value("document.title") == "PPO or DPO: synthetic"
    assert browser.value("document.querySelectorAll('svg').length") == 6
    assert browser.value("document.scripts.length + document.images.length") == 0


def test_keyboard_chooses_the_axis_of_the_curves(browser: Browser):
    assert browser.value(SHOWN) == AXES[:1]
    for _ in range(40):
        browser.press("Tab")
        if browser.value("document.activeElement.id") == "axis-prompts_seen":
            break
    else:
        pytest.fail("the choice cannot be reached by the tabulator key")
    assert browser.value("getComputedStyle(document.activeElement).outlineStyle") == "solid"
    for axis in (*AXES[1:], AXES[0]):
        browser.press("ArrowRight")
        assert browser.value(SHOWN) == [axis]
    browser.press("ArrowLeft")
    assert browser.value(SHOWN) == AXES[-1:]


def test_screen_reader_is_told_of_the_choice_and_of_what_is_shown(browser: Browser):
    browser.value("document.getElementById('axis-tokens').click()")
    nodes = list(accessible(browser))
    assert any(role == "group" and name == "Compare the arms at equal" for role, name, _ in nodes)
    radios = {name: properties["checked"] for role, name, properties in nodes if role == "radio"}
    assert radios == {"prompts": "false", "tokens": "true", "device-seconds": "false"}
    pictures = [name for role, name, _ in nodes if role == "image" and "one line an arm" in name]
    frontier, curve = pictures  # the curves that are not shown are not read out
    assert frontier.startswith("Mean measure over the KL to the base")
    assert curve.startswith("Mean measure over tokens generated and trained on, one line an arm. ppo ")
    assert browser.value("document.querySelector('.choices').getAttribute('aria-live')") == "polite"


def test_details_open_by_keyboard(browser: Browser):
    browser.value("document.querySelector('.appendices summary').focus()")
    browser.press("Enter")
    assert browser.value("document.querySelector('.appendices details').open")


@pytest.mark.parametrize("width", [390, 768, 1280])
def test_nothing_makes_the_page_wider_than_the_window(browser: Browser, width: int):
    resize(browser, width)
    browser.value("document.querySelectorAll('details').forEach(item => item.open = true)")
    assert browser.value("innerWidth") == width
    page = "document.documentElement"
    assert browser.value(f"{page}.scrollWidth - {page}.clientWidth") == 0
    assert browser.value(NARROWEST) > 340


@pytest.mark.parametrize(("width", "told"), [(390, True), (1280, False)])
def test_what_scrolls_sideways_says_so_and_only_that(browser: Browser, width: int, told: bool):
    resize(browser, width)
    region = "document.querySelector('.drawing')"
    assert browser.value(f"{region}.scrollWidth > {region}.clientWidth") is told
    assert browser.value(f"{region}.querySelector('.more').checkVisibility()") is told


def test_dark_is_dark(browser: Browser):
    figure = "document.querySelector('#frontier ~ figure svg')"
    ink = f"getComputedStyle(document.body).color + getComputedStyle({figure}).color"
    paper = "getComputedStyle(document.body).backgroundColor"
    assert browser.value(paper) == "rgb(253, 253, 251)"
    light = browser.value(ink)
    browser.call("Emulation.setEmulatedMedia", media="screen", features=[scheme("dark")])
    assert browser.value(paper) == "rgb(21, 23, 26)"
    assert browser.value(ink) == 2 * "rgb(230, 230, 225)" != light


def test_print_is_light_with_the_default_curve_and_open_appendices(browser: Browser):
    browser.value("document.getElementById('axis-tokens').click()")
    browser.call("Emulation.setEmulatedMedia", media="print", features=[scheme("dark")])
    assert browser.value(SHOWN) == AXES[:1]
    assert browser.value("getComputedStyle(document.body).backgroundColor") == "rgb(255, 255, 255)"
    assert browser.value("document.getElementById('limits').checkVisibility({contentVisibilityAuto: true})")
    assert browser.value("document.getElementById('limits').getBoundingClientRect().height") > 0
