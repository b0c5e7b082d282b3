"""What mkdocs does beside its plugins: equations become MathML, and files outside docs/ become part of the site."""

from __future__ import annotations

import html
import re
from pathlib import Path
from typing import Any

from latex2mathml.converter import convert
from mkdocs.exceptions import PluginError
from mkdocs.structure.files import File, Files

ROOT = Path(__file__).resolve().parent.parent
OUTSIDE = ["CONTRIBUTING.md", "CHANGELOG.md", *(f"imgs/{path.name}" for path in sorted((ROOT / "imgs").glob("*.png")))]
INLINE = re.compile(r'<span class="arithmatex">\\\((.*?)\\\)</span>', re.DOTALL)
BLOCK = re.compile(r'<div class="arithmatex">\s*\\\[(.*?)\\\]\s*</div>', re.DOTALL)


def on_files(files: Files, config: Any) -> Files:
    """Take in what lies beside docs/."""
    for name in OUTSIDE:
        files.append(File.generated(config, name, abs_src_path=str(ROOT / name)))
    return files


def on_page_markdown(markdown: str, **_: Any) -> str:
    """Links hold in the repository; on the site all pages and pictures have one root."""
    for name in OUTSIDE:
        markdown = markdown.replace(f"](../{name})", f"]({name})")
    return markdown.replace("](docs/", "](")


def on_page_content(content: str, **_: Any) -> str:
    """Equations to MathML: nothing has to be loaded to draw them."""
    content = INLINE.sub(lambda found: mathml(found[1], "inline"), content)
    return BLOCK.sub(lambda found: f'<div class="equation">{mathml(found[1], "block")}</div>', content)


def mathml(latex: str, display: str) -> str:
    """An equation. Raises PluginError where it holds a command that is not understood."""
    text = html.unescape(latex).strip()
    drawn = convert(text, display=display)
    if "\\" in drawn:
        raise PluginError(f"not understood in this equation: {text}")
    return drawn
