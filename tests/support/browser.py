"""A real browser, headless, with a profile of its own that is gone afterwards."""

from __future__ import annotations

import shutil
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from tempfile import TemporaryDirectory

import pytest
from selenium import webdriver

_NAMES = (("chromium", "chromium-browser", "google-chrome"), ("chromedriver", "chromium-driver"))
_FLAGS = (
    "--headless=new",
    "--no-sandbox",
    "--disable-gpu",
    "--disable-quic",
    "--no-first-run",
    "--disable-background-networking",
    "--disable-component-update",
    "--disable-sync",
)


@contextmanager
def browser(width: int = 1400, height: int = 1000) -> Iterator[webdriver.Chrome]:
    """Chromium with a window of this size in px; the test is skipped where there is none."""
    found = [next(filter(None, map(shutil.which, names)), None) for names in _NAMES]
    if None in found:
        pytest.skip("no Chromium with its driver on this machine")
    with TemporaryDirectory(prefix="anonlib-test-", ignore_cleanup_errors=True) as profile:
        options = webdriver.ChromeOptions()
        options.binary_location = str(found[0])
        options.set_capability("goog:loggingPrefs", {"browser": "ALL"})
        for flag in (*_FLAGS, f"--user-data-dir={Path(profile)}", f"--window-size={width},{height}"):
            options.add_argument(flag)
        driver = webdriver.Chrome(options=options, service=webdriver.ChromeService(found[1]))
        try:
            yield driver
        finally:
            driver.quit()
