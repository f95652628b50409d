"""Pages as a browser reads them, and what may be in them."""

from __future__ import annotations

from html.parser import HTMLParser

from batchrunner.report.html import Html

VOID = {"meta", "link", "br"}
TAGS = VOID | {
    "html", "head", "title", "style", "body", "header", "main", "footer", "nav", "section", "article", "h1", "h2", "h3",
    "h4", "p", "a", "dl", "dt", "dd", "div", "span", "i", "figure", "figcaption", "svg", "table", "caption", "thead",
    "tbody", "tr", "th", "td", "pre",
}  # fmt: skip
ATTRIBUTES = {
    "lang", "charset", "http-equiv", "content", "name", "rel", "href", "class", "id", "role", "tabindex", "scope",
    "aria-label", "aria-labelledby", "data-head",
}  # fmt: skip


class NoCharts:
    """Where no charts can be drawn: what is around them is tested here, they are in tests/real."""

    def draw(self, chart: object) -> dict[str, Html]:
        return {"wide": Html("<svg></svg>"), "narrow": Html("<svg></svg>")}


class Read(HTMLParser):
    """A page as a browser reads it: its elements, and its text without markup."""

    def __init__(self, written: str) -> None:
        super().__init__(convert_charrefs=True)
        self.tags: set[str] = set()
        self.attributes: set[str] = set()
        self.links: list[str] = []
        self.open: list[str] = []
        self.text = ""
        self.feed(written)
        self.close()

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.tags.add(tag)
        self.attributes |= {name for name, _ in attrs}
        self.links += [value or "" for name, value in attrs if name in ("href", "src", "action")]
        if tag not in VOID:
            self.open.append(tag)

    def handle_endtag(self, tag: str) -> None:
        assert self.open.pop() == tag

    def handle_data(self, data: str) -> None:
        if self.open[-1:] not in (["style"], ["title"]):
            self.text += data
