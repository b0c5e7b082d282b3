"""Pages from parts: whatever is not made here is text and is escaped, so no name can become markup."""

from __future__ import annotations

import base64
import re
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from html import escape
from pathlib import Path

STYLE = Path(__file__).with_name("style.css")
VOID = {"meta", "img", "br"}
# Nothing is loaded and nothing runs, whatever may have found its way into the page.
POLICY = "default-src 'none'; img-src data:; style-src 'unsafe-inline'"

# Control characters, halves of characters, and those that turn around what follows.
UNWRITABLE = re.compile(r"[\x00-\x08\x0b-\x1f\x7f-\x9f\ud800-\udfff\u202a-\u202e\u2066-\u2069\ufffe\uffff]")


class Html(str):
    """Markup that stands in a page as it is; every other string is escaped."""

    __slots__ = ()


Content = str | int | None


@dataclass(frozen=True)
class Section:
    """A part of a page.

    Attributes:
        title: its heading.
        lead: one sentence that says what it means.
        body: its parts.
        link: what the table of contents calls it; empty: it is not listed.
    """

    title: str
    lead: Content
    body: Sequence[Html]
    link: str = ""


def text(content: Content) -> Html:
    """Text as it looks in a page; what HTML cannot say, or what turns the writing around, becomes U+FFFD."""
    if isinstance(content, Html):
        return content
    return Html(escape(UNWRITABLE.sub("\ufffd", "" if content is None else str(content))))


def tag(name: str, /, *content: Content, **attributes: Content | float | bool) -> Html:
    """An element. `class_` is class, `aria_label` aria-label; attributes that are None or False are left out."""
    parts = [name]
    for key, value in attributes.items():
        if value is not None and value is not False:
            key = key.rstrip("_").replace("_", "-")
            parts.append(key if value is True else f'{key}="{text(str(value))}"')
    opening = " ".join(parts)
    return Html(f"<{opening}>" if name in VOID else f"<{opening}>{joined(content)}</{name}>")


def joined(parts: Iterable[Content]) -> Html:
    """One part after the other."""
    return Html("".join(map(text, parts)))


def table(
    caption: str, columns: Sequence[Content], rows: Iterable[Sequence[Content]], kind: str = "", wide: bool = False
) -> Html:
    """A table in a box of its own, in which it scrolls where it is wider than the page.

    Args:
        caption: what the table shows.
        columns: headings; the first is that of the rows' headings.
        rows: cells; the first of each row is its heading. A cell of `td` elements stands as it is.
        kind: class of the table.
        wide: it takes the whole width.
    """
    heads = [tag("th", column, scope="col") for column in columns]
    lines = []
    for first, *cells in rows:
        row = [cell if isinstance(cell, Html) and cell.startswith("<td") else tag("td", cell) for cell in cells]
        lines.append(tag("tr", tag("th", first, scope="row"), *row))
    parts = (tag("caption", caption), tag("thead", tag("tr", *heads)), tag("tbody", *lines))
    inner = tag("table", *parts, class_=kind or None)
    return scrolling(inner, caption, "wide" if wide else "")


def scrolling(inner: Html, name: str, kind: str = "") -> Html:
    """What is wider than a narrow page scrolls in a box of its own; with a focus, so that the keyboard can do it."""
    return tag("div", inner, class_=f"scroll {kind}".strip(), tabindex="0", role="region", aria_label=name)


def pairs(items: Iterable[tuple[Content, Content]], kind: str = "facts") -> Html:
    """Names and what they mean, or their values."""
    rows = (tag("div", tag("dt", name), tag("dd", value)) for name, value in items)
    return tag("dl", *rows, class_=kind)


def figure(picture: Html, caption: Content, *more: Html, kind: str = "") -> Html:
    """A picture with a title above it and what belongs to it below."""
    return tag("figure", tag("figcaption", caption), picture, *more, class_=kind or None)


def image(data: bytes, kind: str, alt: str, width: int, height: int) -> Html:
    """A picture inside the page. `kind` is png or jpeg."""
    source = f"data:image/{kind};base64,{base64.b64encode(data).decode()}"
    return tag("img", src=source, alt=alt, width=width, height=height)


def big_number(value: str, name: str, meaning: Content, note: str = "") -> Html:
    """A figure to see first, with what it means."""
    return tag(
        "div",
        tag("p", value, class_="value"),
        tag("h3", name, tag("small", f" {note}") if note else None),
        tag("p", meaning),
        class_="big",
    )


def grid(parts: Iterable[Html], kind: str = "") -> Html:
    """Parts side by side, as many as fit."""
    return tag("div", *parts, class_=f"grid {kind}".strip())


def paragraph(*content: Content, kind: str | None = None) -> Html:
    """A paragraph."""
    return tag("p", *content, class_=kind)


def page(kind: str, title: str, header: Sequence[Html], sections: Sequence[Section], footer: Content) -> str:
    """A whole page that needs nothing beside it.

    Args:
        kind: what sort of page it is, above the title.
        title: of the window and the only h1.
        header: what stands below the title.
        sections: from top to bottom.
        footer: the last line.
    """
    names = _names([section.link or section.title for section in sections])
    links = [tag("a", part.link, href=f"#{name}") for part, name in zip(sections, names, strict=True) if part.link]
    contents = tag("nav", *links, aria_label="contents")
    top = tag("header", paragraph(kind, kind="kind"), tag("h1", title), *header, contents)
    body = [
        tag(
            "section",
            tag("h2", section.title, id=name),
            paragraph(section.lead, kind="lead") if section.lead else None,
            *section.body,
            aria_labelledby=name,
        )
        for section, name in zip(sections, names, strict=True)
    ]
    head = (
        tag("meta", charset="utf-8"),
        tag("meta", name="viewport", content="width=device-width, initial-scale=1"),
        tag("meta", http_equiv="Content-Security-Policy", content=POLICY),
        tag("meta", name="color-scheme", content="light dark"),
        tag("title", title),
        tag("style", Html(STYLE.read_text(encoding="utf-8"))),
    )
    document = tag("html", tag("head", *head), tag("body", top, tag("main", *body), tag("footer", footer)), lang="en")
    return f"<!DOCTYPE html>\n{document}\n"


def _names(titles: Sequence[str]) -> list[str]:
    """Names to link to, each different from the others."""
    names: list[str] = []
    for title in titles:
        name = re.sub(r"[^a-z0-9]+", "-", title.lower()).strip("-") or "part"
        names.append(f"{name}-{len(names)}" if name in names else name)
    return names
