"""The web page: HTTP and server-sent events in and out, replies in the streams of their threads."""

from __future__ import annotations

from adapters.web.platform import WebPlatform

__all__ = ["WebPlatform"]
