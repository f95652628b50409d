"""Texts that try to be more than text where they are shown: in a page, in a chart, on a terminal."""

from __future__ import annotations

from typing import Any

TEXTS = (
    "<script>alert(1)</script>",
    "</pre></article><script src=//example.com/x.js></script>",
    '"><img src=x onerror=alert(1)>',
    "' onmouseover='alert(1)",
    "</style><style>body{display:none}</style>",
    "</title><svg/onload=alert(1)>",
    "<iframe src=javascript:alert(1)></iframe>",
    "<a href='javascript:alert(1)'>x</a>",
    "<!--<script>-->",
    "]]><script>alert(1)</script>",
    "<math><mtext></p><script>alert(1)</script>",
    "<meta http-equiv=refresh content=0;url=//example.com>",
    "<base href=//example.com/>",
    "<link rel=stylesheet href=//example.com/x.css>",
    "<form action=//example.com><input name=q>",
    "&lt;script&gt;alert(1)&lt;/script&gt;",
    "&#60;script&#62;",
    "{{7*7}}${7*7}<%= 7 %>",
    "\\u003cscript\\u003ealert(1)",
    "<scr\x00ipt>alert(1)</scr\x00ipt>",
    "\x1b[2J\x1b]0;owned\x07",
    "\u202egnp.exe\u202c",
    "javascript:alert(1)",
    "url(//example.com/x.png)",
    "url(#c1-clip0)",
    '"+alert(1)+"',
    "'];alert(1)//",
    '\\";alert(1)//',
    "lone \ud800 half",
    "\u2028\u2029",
    "\U0001f600 naïve 日本語 عربى",
    "A" * 5_000,
)


def row(number: int, text: str, status: str = "exhausted") -> dict[str, Any]:
    """The facts of an outcome, every text of it hostile."""
    sound = text.encode("utf-8", "replace").decode()  # No column of a table holds half a character.
    good = status == "succeeded"
    return {
        "item_id": f"{number} {sound}",
        "row": number,
        "input_file": sound,
        "input_line": number + 1,
        "status": status,
        "text": sound,
        "finish_reason": sound,
        "model": sound,
        "provider": "openai",
        "agent_id": sound,
        "prompt_tokens": 10,
        "completion_tokens": 5,
        "total_tokens": 15,
        "cost_usd": 0.001,
        "origin": "sent",
        "attempts": 2,
        "http_status": 200 if good else 500,
        "error_type": None if good else sound,
        "error": None if good else sound,
        "started_at": 1_764_000_000_000_000 + number * 500_000,
        "finished_at": 1_764_000_001_000_000 + number * 500_000,
        "latency_s": 0.1 * (number + 1),
        "first_token_s": 0.05 * (number + 1),
        "request_key": f"{number:032x}",
    }
