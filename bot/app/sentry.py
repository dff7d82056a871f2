"""Sends errors to Sentry: where they arose, without what people wrote."""

from __future__ import annotations

import asyncio
import json
import logging
import sys
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from typing import Any

from sentry_sdk import Client
from sentry_sdk.utils import event_from_exception

from bot.app.logging import MaskingFormatter
from bot.concurrency import turn_in_work
from bot.errors import ParleyError
from config.settings import Settings

_FLUSH_SECONDS = 1.0  # at the end, of the 25 in which a process must end
_OURS = ("bot", "adapters", "parley")  # loggers whose messages are sentences of this source


@asynccontextmanager
async def sending(settings: Settings, *, version: str) -> AsyncIterator[None]:
    """Send what the block logs as an error, and the error that ends it, to SENTRY_DSN.

    A thread of the SDK sends them; if Sentry is slow, what does not fit into its queue is dropped.
    """
    # A client alone: `sentry_sdk.init` would make it that of all libraries. Without integrations it
    # reads no request, no header and no arguments of the process.
    client = Client(
        dsn=settings.sentry_dsn,
        release=f"parley@{version}",
        server_name="",
        default_integrations=False,
        auto_enabling_integrations=False,
        include_local_variables=False,
        max_breadcrumbs=0,
        auto_session_tracking=False,
        send_client_reports=False,
        enable_backpressure_handling=False,
    )
    sender = _Sender(client, MaskingFormatter(settings))
    logging.getLogger().addHandler(sender)
    try:
        yield
    except ParleyError:
        raise
    except Exception:
        ends = logging.LogRecord(
            "bot", logging.ERROR, "", 0, "The process ends", (), sys.exc_info()
        )
        sender.handle(ends)
        raise
    finally:
        logging.getLogger().removeHandler(sender)
        await asyncio.to_thread(client.close, timeout=_FLUSH_SECONDS)


class _Sender(logging.Handler):
    """Sends the kind of an error, its traceback and, if it is ours, its sentence without values.

    Those, the text of an error and the messages of libraries may quote people.
    """

    def __init__(self, client: Client, formatter: MaskingFormatter) -> None:
        super().__init__(logging.ERROR)
        self._client = client
        self._masked = formatter.masked

    def emit(self, record: logging.LogRecord) -> None:
        # Its own errors would not end.
        if record.name.startswith("sentry_sdk"):
            return
        event: dict[str, Any] = {"level": record.levelname.lower(), "logger": record.name}
        if record.name.partition(".")[0] in _OURS:
            event["logentry"] = {"message": str(record.msg)}
        elif not record.exc_info:
            return
        if turn := turn_in_work.get():
            event["tags"] = {"turn": turn}
        try:
            if record.exc_info and record.exc_info[1]:
                found, _ = event_from_exception(record.exc_info, self._client.options)
                for one in found["exception"]["values"]:
                    one["value"] = ""
                event["exception"] = found["exception"]
            written = json.dumps(event, ensure_ascii=False)
            self._client.capture_event(json.loads(self._masked(written)))
        except Exception:
            self.handleError(record)
