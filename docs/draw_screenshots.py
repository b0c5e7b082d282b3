"""Draw the pictures of docs/report.md from a real report: the top of the page, on a desk and on a phone.

python docs/draw_screenshots.py experiments/NAME        (needs playwright and a Chromium; see requirements.txt)
"""

from __future__ import annotations

import io
import shutil
import sys
from pathlib import Path

from PIL import Image

ROOT = Path(__file__).resolve().parents[1]
sys.path.insert(0, str(ROOT))
# name: width and height of the window, and of the part that is drawn; dots for each pixel of the page
SHOTS = {"report_desktop": (1280, 1500, 1), "report_phone": (390, 1200, 2)}


def main(argv: list[str]) -> int:
    """Write the report anew and photograph it."""
    from playwright.sync_api import sync_playwright

    from kaizen.page.report import write_report

    page_path = write_report(Path(argv[0]).resolve())
    with sync_playwright() as driver:
        browser = driver.chromium.launch(
            executable_path=shutil.which("chromium"), args=["--no-sandbox", "--disable-gpu"]
        )
        for name, (width, height, dots) in SHOTS.items():
            page = browser.new_page(viewport={"width": width, "height": height}, device_scale_factor=dots)
            page.goto(page_path.as_uri())
            with Image.open(io.BytesIO(page.screenshot())) as shot:
                shot.convert("RGB").save(ROOT / "docs" / "images" / f"{name}.png", optimize=True)
            page.close()
        browser.close()
    return 0


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
