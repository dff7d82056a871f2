"""The format of the log, without secrets and control characters."""

from __future__ import annotations

import logging
import sys
from contextlib import suppress

from bot.text.sanitize import one_line, strip_controls
from config.settings import Settings

_SHORTEST_SECRET = 6  # characters; masking a shorter one would mask ordinary words
_LIBRARIES = ("discord", "slack_bolt", "slack_sdk", "httpx2", "aiohttp")


def configure_logging(
    settings: Settings, *, to_file: bool = False, least: int = logging.DEBUG
) -> None:
    """Log to standard error, or `to_file` in DATA_DIR, at LOG_LEVEL and at least at `least`."""
    handler: logging.Handler = logging.StreamHandler(sys.stderr)
    if to_file:
        with suppress(OSError):
            settings.data_dir.mkdir(parents=True, exist_ok=True)
            path = settings.data_dir / "parley.log"
            handler = logging.FileHandler(path, encoding="utf-8", errors="backslashreplace")
    handler.setFormatter(MaskingFormatter(settings))
    # If the log cannot be written, on a full disk for instance, print no traceback for each line.
    logging.raiseExceptions = False
    level = max(logging.getLevelNamesMapping()[settings.log_level.upper()], least)
    logging.basicConfig(level=level, handlers=[handler])
    for library in _LIBRARIES:
        # At INFO they log each request, and at DEBUG tokens.
        lowest = logging.WARNING if level >= logging.INFO else logging.INFO
        logging.getLogger(library).setLevel(max(level, lowest))


class MaskingFormatter(logging.Formatter):
    """Formats a record as one line, then its traceback, with secrets and controls removed.

    The lines of a traceback are indented, so that only a record begins in the first column.
    """

    def __init__(self, settings: Settings) -> None:
        super().__init__("%(asctime)s %(levelname)s %(name)s: %(message)s")
        found = (secret for secret in settings.secrets if len(secret) >= _SHORTEST_SECRET)
        self._secrets = sorted(found, key=len, reverse=True)

    def formatMessage(self, record: logging.LogRecord) -> str:  # noqa: N802
        """Return the message in one line."""
        return one_line(super().formatMessage(record))

    def format(self, record: logging.LogRecord) -> str:
        """Return the whole entry."""
        line, *traceback = super().format(record).splitlines()
        entry = "\n".join([line, *(f"    {strip_controls(each)}" for each in traceback)])
        for secret in self._secrets:
            entry = entry.replace(secret, "***")
        return entry
