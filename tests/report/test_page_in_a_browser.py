"""The page of a run in a real browser: nothing is wider than the window, narrow or wide, light or dark."""

import json
import re
import shutil
import subprocess

import pytest

BROWSER = next(filter(None, map(shutil.which, ("chromium", "chromium-browser", "google-chrome"))), None)
MEASURE = """<script>addEventListener("load", () => {
  const tables = [...document.querySelectorAll(".figures table")].map(t => Math.ceil(t.getBoundingClientRect().right));
  document.title = JSON.stringify({window: innerWidth, page: document.documentElement.scrollWidth, tables: tables});
})</script>"""


@pytest.mark.skipif(BROWSER is None, reason="no Chromium is installed")
@pytest.mark.parametrize(("width", "flags"), [(500, []), (800, ["--force-dark-mode"]), (1300, [])])
def test_no_table_of_results_is_cut_off(finished, tmp_path, width, flags):
    page = (finished[0] / "report.html").read_text()
    (tmp_path / "page.html").write_text(page.replace("</body>", MEASURE + "</body>"))
    command = [
        BROWSER,
        "--headless",
        "--no-sandbox",
        "--disable-gpu",
        f"--window-size={width},900",
        "--dump-dom",
        *flags,
    ]
    done = subprocess.run(
        [*command, f"--user-data-dir={tmp_path / 'profile'}", (tmp_path / "page.html").as_uri()],
        capture_output=True,
        text=True,
        timeout=120,
        check=False,
    )
    title = re.search(r"<title>(\{.*?\})</title>", done.stdout)
    assert title, done.stderr[-1000:]
    found = json.loads(title[1])
    assert len(found["tables"]) >= 4, "the columns that do not fit stand in tables below"
    assert found["page"] <= found["window"] and max(found["tables"]) <= found["window"]
