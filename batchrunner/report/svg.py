"""SVG as the charts' renderer gives it, made fit for a page: known elements only, colours that follow the page's."""

from __future__ import annotations

import xml.etree.ElementTree as ET

from batchrunner.report.html import Html

INK, MUTED, GRID, ACCENT, LIMIT = "#000001", "#000002", "#000003", "#000004", "#000005"
"""Stand for colours of the page: a chart is drawn once for light, dark and print."""
TONES = {"good": "#000006", "bad": "#000007", "warn": "#000008", "": "#000009"}
COLOURS = {
    INK: "var(--ink)",
    MUTED: "var(--muted)",
    GRID: "var(--line)",
    ACCENT: "var(--accent)",
    LIMIT: "var(--limit)",
    TONES["good"]: "var(--good)",
    TONES["bad"]: "var(--bad)",
    TONES["warn"]: "var(--warn)",
    TONES[""]: "var(--muted)",
}
ELEMENTS = frozenset({"svg", "g", "path", "rect", "line", "text", "tspan", "circle", "defs", "clipPath"})
ATTRIBUTES = frozenset(
    {
        "viewBox", "transform", "d", "x", "y", "x1", "y1", "x2", "y2", "dx", "dy", "cx", "cy", "r", "width", "height",
        "fill", "fill-opacity", "stroke", "stroke-width", "stroke-dasharray", "stroke-opacity", "stroke-miterlimit",
        "opacity", "text-anchor", "font-size", "font-family", "font-weight", "font-style", "id", "clip-path",
    }
)  # fmt: skip


def cleaned(drawn: str, *, prefix: str) -> Html:
    """The drawing without whatever a chart does not need, its ids beginning with `prefix`; hidden from a screen
    reader, for which the page has the same as a table."""
    root = ET.fromstring(drawn)
    _strip(root, prefix)
    width = float(root.attrib.pop("width", "0") or 0)
    root.attrib.pop("height", None)
    root.set("aria-hidden", "true")
    root.set("focusable", "false")
    root.set("style", f"max-width:{width:.0f}px")
    return Html(ET.tostring(root, encoding="unicode"))


def _strip(found: ET.Element, prefix: str) -> None:
    found.tag = _local(found.tag)
    for name in [*found.attrib]:
        value = found.attrib.pop(name)
        if name in ATTRIBUTES:
            found.set(name, _value(name, value, prefix))
    for child in [*found]:
        if _local(child.tag) in ELEMENTS and child.get("display") != "none":
            _strip(child, prefix)
        else:
            found.remove(child)


def _value(name: str, value: str, prefix: str) -> str:
    if name == "id":
        return prefix + value
    return COLOURS.get(value.lower(), value.replace("url(#", f"url(#{prefix}"))


def _local(tag: str) -> str:
    return tag.rpartition("}")[2]
