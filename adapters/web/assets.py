"""The page's own files; browsers ask each time whether they have changed."""

from __future__ import annotations

import hashlib
import json
import re
from collections.abc import Awaitable, Callable, Mapping
from functools import cache
from html import escape, unescape
from pathlib import Path

from aiohttp import web

from bot.languages import accepted, catalogue, known, spoken

FOLDER = Path(__file__).parent / "static"
_CHOICE = "language"  # the cookie that the page sets, if a person chooses another language
# What people read in a file of HTML: between two tags, and in some attributes.
_WORDS = re.compile(r">([^<>]+)<|\s(?:title|placeholder|aria-label|label)=\"([^\"]+)\"")
_SAID_BY_SCRIPTS = re.compile(r"\bt\(\s*(\"(?:[^\"\\]|\\.)*\")")


def language_of(request: web.Request) -> str:
    """Return the language that a person has chosen in the page, or else in their browser."""
    chosen = known(request.cookies.get(_CHOICE))
    return chosen or accepted(request.headers.get("Accept-Language", ""))


def serve(name: str) -> Callable[[web.Request], Awaitable[web.Response]]:
    """Return a handler that serves one page, in the language of the request."""

    async def page(request: web.Request) -> web.Response:
        language = spoken()
        text, tag = translated(name, language)
        headers = {
            "ETag": tag,
            "Cache-Control": "no-cache",
            "Vary": "Cookie, Accept-Language, Accept-Encoding",
            "Content-Language": language,
        }
        if tag in request.headers.get("If-None-Match", ""):
            return web.Response(status=304, headers=headers)
        response = web.Response(text=text, content_type="text/html", headers=headers)
        response.enable_compression()
        return response

    return page


@cache
def translated(name: str, language: str) -> tuple[str, str]:
    """Return a page with what its scripts say, and a tag of both."""
    words, text = catalogue(language), (FOLDER / name).read_text(encoding="utf-8")

    def said(found: re.Match[str]) -> str:
        whole, sentence = found[0], found[1] or found[2]
        words_alone = sentence.strip()
        key = " ".join(unescape(words_alone).split())
        return whole.replace(words_alone, escape(words[key])) if key in words else whole

    head, body, rest = text.partition("</head>")
    text = "".join(_WORDS.sub(said, part) for part in (head, body, rest))
    text = text.replace('<html lang="en">', f'<html lang="{language}">', 1)
    if scripted := {it: words[it] for it in _of_scripts() if it in words}:
        # A block of data, which no policy takes for a script. "<" could end it.
        data = json.dumps(scripted, ensure_ascii=False).replace("<", "\\u003c")
        block = f'<script type="application/json" id="words">{data}</script>\n</head>'
        text = text.replace("</head>", block, 1)
    return text, f'"{hashlib.sha256(text.encode()).hexdigest()[:24]}"'


@cache
def _of_scripts() -> Mapping[str, None]:
    """Return the sentences that the page's scripts say, in their order."""
    texts = (path.read_text(encoding="utf-8") for path in sorted(FOLDER.glob("*.js")))
    return {json.loads(one): None for it in texts for one in _SAID_BY_SCRIPTS.findall(it)}
