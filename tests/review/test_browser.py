"""A person at the page, in a real browser: what is decided there is in the manifest, and in the audit's figures."""

from __future__ import annotations

import os
import re
import shutil
import signal
import subprocess
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from tempfile import TemporaryDirectory
from threading import Thread
from typing import ClassVar

import pytest
from selenium import webdriver
from selenium.webdriver import ActionChains
from selenium.webdriver.common.by import By
from selenium.webdriver.support.ui import WebDriverWait

from anonlib.audit.review_queue import judged_so_far
from anonlib.config import JobConfig
from anonlib.job import Job
from tests.review.conftest import FACE
from tests.support import photos
from tests.support.forgery import check
from tests.support.runs import by_key, released

COMMAND = "from anonlib.cli import main; main()"
_NAMES = (("chromium", "chromium-browser", "google-chrome"), ("chromedriver", "chromium-driver"))
_FLAGS = "headless=new no-sandbox disable-gpu disable-quic no-first-run window-size=1400,1000"
_FLAGS += " disable-background-networking disable-component-update disable-sync"


@contextmanager
def browser() -> Iterator[webdriver.Chrome]:
    """Chromium, headless, its profile gone afterwards; the test is skipped where there is none."""
    found = [next(filter(None, map(shutil.which, names)), None) for names in _NAMES]
    if None in found:
        pytest.skip("no Chromium with its driver on this machine")
    with TemporaryDirectory(prefix="anonlib-test-", ignore_cleanup_errors=True) as profile:
        options = webdriver.ChromeOptions()
        options.binary_location = str(found[0])
        options.set_capability("goog:loggingPrefs", {"browser": "ALL"})
        for flag in (*_FLAGS.split(), f"user-data-dir={profile}"):
            options.add_argument(f"--{flag}")
        driver = webdriver.Chrome(options=options, service=webdriver.ChromeService(found[1]))
        try:
            yield driver
        finally:
            driver.quit()


@pytest.fixture
def served(reviewed: JobConfig, tmp_path: Path) -> Iterator[tuple[str, subprocess.Popen[str]]]:
    """`anonlib review` in a process of its own, and the address that it prints."""
    (tmp_path / "job.yaml").write_text(reviewed.to_yaml())
    process = subprocess.Popen(
        [sys.executable, "-c", COMMAND, "review", str(tmp_path / "job.yaml"), "--who", "AB"],
        stdout=subprocess.PIPE,
        text=True,
        env=os.environ | {"PYTHONPATH": os.pathsep.join(sys.path)},
    )
    assert process.stdout is not None
    try:
        yield re.search(r"http\S+", process.stdout.readline())[0], process  # type: ignore[index]
    finally:
        process.kill()
        process.wait()
        process.stdout.close()


def drag(page: webdriver.Chrome, box: tuple[int, int, int, int]) -> None:
    """Draw a box, given in px of the image, on the released image."""
    svg = page.find_element(By.CSS_SELECTOR, "#view-released svg")
    area = page.execute_script("const r = arguments[0].getBoundingClientRect(); return [r.width, r.height]", svg)
    height, width = photos.astronaut().shape[:2]
    corners = [(x * area[0] / width - area[0] / 2, y * area[1] / height - area[1] / 2) for x, y in (box[:2], box[2:])]
    (x0, y0), (x1, y1) = [(round(x), round(y)) for x, y in corners]
    ActionChains(page).move_to_element_with_offset(svg, x0, y0).click_and_hold().move_by_offset(
        x1 - x0, y1 - y0
    ).release().perform()


class Other(BaseHTTPRequestHandler):
    """Another user's server on this machine: it keeps what browsers send it."""

    seen: ClassVar[list[str]] = []

    def do_GET(self) -> None:
        self.seen.append(f"{self.path} {self.headers}")
        self.send_response(200)
        self.send_header("Content-Type", "text/html")
        self.end_headers()
        self.wfile.write(b"<!doctype html><link rel=icon href='data:,'><title>other</title>")

    def log_message(self, *_: object) -> None:
        """Nothing is printed."""


def gets_nothing_at_another_port(page: webdriver.Chrome) -> None:
    """The same browser visits a page at another port of 127.0.0.1, which asks for the state and for an original."""
    review, ours = page.current_window_handle, page.current_url
    token = page.execute_script("return sessionStorage.getItem('token')")
    assert len(token) > 30
    server = ThreadingHTTPServer(("127.0.0.1", 0), Other)
    Thread(target=server.serve_forever, daemon=True).start()
    try:
        page.switch_to.new_window("tab")
        page.get(f"http://127.0.0.1:{server.server_port}/")
        assert page.execute_script("return [document.cookie, sessionStorage.length, document.referrer]") == ["", 0, ""]
        script = """
            const [url, mode, done] = arguments;
            fetch(url, { mode, credentials: "include" }).then((answer) => answer.text(), () => "refused").then(done);
        """
        for path in ("state", "image/0/original"):
            assert page.execute_async_script(script, f"{ours}{path}", "cors") == "refused"
            assert page.execute_async_script(script, f"{ours}{path}", "no-cors") in ("", "refused")
    finally:
        server.shutdown()
        server.server_close()
        page.close()
        page.switch_to.window(review)
        page.get_log("browser")  # what was refused is no fault of the page's
    assert Other.seen
    for request in Other.seen:
        assert token not in request and "cookie" not in request.lower() and "authorization" not in request.lower()


def test_a_face_that_a_person_finds_is_hidden_and_counted(
    reviewed: JobConfig, served: tuple[str, subprocess.Popen[str]]
) -> None:
    address, process = served
    with browser() as page:
        wait = WebDriverWait(page, 30, poll_frequency=0.05)
        page.get(address)
        assert "#" in address and page.get_cookies() == []

        def text(element: str) -> str:
            return page.find_element(By.ID, element).text

        def press(verdict: str) -> None:
            """When it can be pressed; done when another image is shown."""
            place = text("place")
            button = wait.until(
                lambda _: next(
                    (
                        found
                        for found in page.find_elements(By.CSS_SELECTOR, f".{verdict}:enabled")
                        if found.is_displayed()
                    ),
                    None,
                )
            )
            button.click()
            wait.until(lambda _: text("place") != place)

        wait.until(lambda _: text("place"))
        assert "#" not in page.current_url
        gets_nothing_at_another_port(page)
        page.refresh()
        wait.until(lambda _: text("place"))
        judged = 0
        while text("name") != "astronaut":
            press("confirmed")
            judged += 1
        wait.until(lambda _: page.find_element(By.CSS_SELECTOR, "#view-released svg").is_displayed())
        assert not page.find_element(By.CSS_SELECTOR, "#verdicts .mask").is_enabled()
        drag(page, FACE)
        last = judged == 6
        if last:
            page.find_element(By.CSS_SELECTOR, "#verdicts .mask").click()
        else:
            press("mask")
        wait.until(lambda _: f"{judged + 1} of 7 judged, 1 with a real face left" in text("bound"))
        wait.until(lambda _: page.find_elements(By.CSS_SELECTOR, "#verdicts .confirmed:enabled"))  # it is on the screen
        page.find_element(By.ID, "open-apply").click()
        page.find_element(By.ID, "apply-go").click()
        wait.until(lambda _: text("apply-title") == "Applied")
        assert "astronaut: released, 1 drawn face hidden" in text("apply-text")
        assert [entry for entry in page.get_log("browser") if entry["level"] == "SEVERE"] == []

    row = by_key(Path(reviewed.output.uri))["astronaut"]
    (face,) = row["faces"]
    assert row["review"] == "masked" and face["method"] == "solid"
    assert max(abs(a - b) for a, b in zip(face["box"], FACE, strict=True)) <= 3
    pixels = photos.decoded(released(Path(reviewed.output.uri))["astronaut"])
    assert (pixels[90:160, 195:255] == 127).all()
    check(Path(reviewed.output.uri))
    figures = judged_so_far(Job(reviewed))
    assert (figures.judged, figures.wrong) == (judged + 1, 1)
    process.send_signal(signal.SIGINT)
    assert process.wait(20) == 0
