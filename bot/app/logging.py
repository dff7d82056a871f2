"""The format of the log, without secrets and control characters."""

from __future__ import annotations

import json
import logging
import os
import sys
from contextlib import suppress
from datetime import UTC, datetime
from io import TextIOWrapper
from logging.handlers import RotatingFileHandler, WatchedFileHandler
from pathlib import Path

from bot import audit
from bot.app.platforms import all_specs
from bot.concurrency import turn_in_work
from bot.errors import CannotStart
from bot.text.sanitize import one_line, strip_controls
from config.settings import Settings

_log = logging.getLogger(__name__)

_SHORTEST_SECRET = 6  # characters; masking a shorter one would mask ordinary words
_LOG_BYTES = 10_000_000  # of parley.log, before it becomes parley.log.1
_TIME = len("2026-11-23 12:00:00,000")
_LIBRARIES = ("httpx2", "aiohttp")


def configure_logging(
    settings: Settings, *, to_file: bool = False, least: int = logging.DEBUG
) -> None:
    """Log to standard error, or `to_file` in DATA_DIR, at LOG_LEVEL and at least at `least`.

    What is for auditors goes to AUDIT_FILE, too. Raises CannotStart if that cannot be opened.
    """
    handler: logging.Handler = logging.StreamHandler(sys.stderr)
    if to_file:
        with suppress(OSError):
            settings.data_dir.mkdir(parents=True, exist_ok=True)
            file = settings.data_dir / "parley.log"
            handler = RotatingFileHandler(
                file, "a", _LOG_BYTES, 1, encoding="utf-8", errors="backslashreplace"
            )
    in_color = not to_file and sys.stderr.isatty() and not os.environ.get("NO_COLOR")
    as_json = settings.log_format == "json"
    plain = ColorFormatter if in_color else MaskingFormatter
    handler.setFormatter((JsonFormatter if as_json and not to_file else plain)(settings))
    # If the log cannot be written, on a full disk for instance, print no traceback for each line.
    logging.raiseExceptions = False
    level = max(logging.getLevelNamesMapping()[settings.log_level.upper()], least)
    handler.setLevel(level)
    logging.basicConfig(level=level, handlers=[handler])
    if settings.audit_file:
        try:
            auditing = _AuditFile(settings.audit_file)
        except OSError as error:
            name, reason = str(settings.audit_file), error.strerror
            raise CannotStart(f"AUDIT_FILE={name!r} cannot be opened: {reason}") from error
        auditing.setFormatter((JsonFormatter if as_json else MaskingFormatter)(settings))
        logging.getLogger(audit.NAME).addHandler(auditing)
        logging.getLogger(audit.NAME).setLevel(logging.INFO)
    loggers = (name for spec in all_specs() for name in spec.loggers)
    for library in (*_LIBRARIES, *loggers):
        # At INFO they log each request, and at DEBUG tokens.
        lowest = logging.WARNING if level >= logging.INFO else logging.INFO
        logging.getLogger(library).setLevel(max(level, lowest))


class _AuditFile(WatchedFileHandler):
    """A file that may be renamed meanwhile, and whose disk may be full: that stops nothing."""

    def __init__(self, path: Path) -> None:
        super().__init__(path, "a", encoding="utf-8", errors="backslashreplace")
        self._fails = False

    def _open(self) -> TextIOWrapper:
        # Who has asked for what is for this user and their group.
        os.close(os.open(self.baseFilename, os.O_WRONLY | os.O_APPEND | os.O_CREAT, 0o640))
        return super()._open()

    def emit(self, record: logging.LogRecord) -> None:
        """Write a line, also after a rename; log the first failure of several."""
        failed, self._fails = self._fails, False
        try:
            super().emit(record)
        # Opening the new file is outside of what the library handles (Python 3.11 to 3.14).
        except OSError:
            self._fails = True
        if self._fails and not failed:
            _log.error("AUDIT_FILE cannot be written: lines for auditors are missing there")

    def handleError(self, record: logging.LogRecord) -> None:  # noqa: N802
        """Note that the line is not written."""
        self._fails = True


class MaskingFormatter(logging.Formatter):
    """Formats a record as one line, then its traceback, with secrets and controls removed.

    The lines of a traceback are indented, so that only a record begins in the first column. The id
    of the current turn is appended to messages that do not contain it.
    """

    def __init__(self, settings: Settings) -> None:
        super().__init__("%(asctime)s %(levelname)s %(name)s: %(message)s")
        found = (secret for secret in settings.secrets if len(secret) >= _SHORTEST_SECRET)
        self._secrets = sorted(found, key=len, reverse=True)

    def formatMessage(self, record: logging.LogRecord) -> str:  # noqa: N802
        """Return the message in one line."""
        line, turn = one_line(super().formatMessage(record)), turn_in_work.get()
        return line if turn in line else f"{line} (turn {one_line(turn)})"

    def format(self, record: logging.LogRecord) -> str:
        """Return the whole entry."""
        line, *traceback = super().format(record).splitlines()
        entry = "\n".join([line, *(f"    {strip_controls(each)}" for each in traceback)])
        return self.masked(entry)

    def masked(self, text: str) -> str:
        """Return a text without the secrets of the settings."""
        for secret in self._secrets:
            text = text.replace(secret, "***")
        return text


class ColorFormatter(MaskingFormatter):
    """The same in colour: warnings are yellow, and errors red."""

    def format(self, record: logging.LogRecord) -> str:
        """Return the whole entry."""
        entry = super().format(record)
        if record.levelno < logging.WARNING:
            return f"\x1b[2m{entry[:_TIME]}\x1b[0m{entry[_TIME:]}"
        color = 31 if record.levelno >= logging.ERROR else 33
        return f"\x1b[{color}m{entry}\x1b[0m"


class JsonFormatter(MaskingFormatter):
    """Formats a record as one JSON object: time, level, logger, message, turn, and its figures."""

    def format(self, record: logging.LogRecord) -> str:
        """Return the whole entry."""
        entry: dict[str, object] = {
            "time": datetime.fromtimestamp(record.created, UTC).isoformat(timespec="milliseconds"),
            "level": record.levelname.lower(),
            "logger": record.name,
            "message": self.masked(one_line(record.getMessage())),
        }
        if turn := turn_in_work.get():
            entry["turn"] = turn
        entry |= getattr(record, "figures", {})
        if record.exc_info:
            entry["traceback"] = self.masked(strip_controls(self.formatException(record.exc_info)))
        return json.dumps(entry, ensure_ascii=False)
