"""What watches a process from outside, beside its metrics: OpenTelemetry and Sentry, if set up."""

from __future__ import annotations

import logging
import os
from collections.abc import AsyncIterator
from contextlib import AsyncExitStack, asynccontextmanager

from bot import __version__
from config.settings import Settings

log = logging.getLogger(__name__)

# An OpenTelemetry SDK reads its own variables. These say that there is a collector.
_ENDPOINTS = ("OTEL_EXPORTER_OTLP_ENDPOINT", "OTEL_EXPORTER_OTLP_TRACES_ENDPOINT")
_MISSING = (
    "%s needs the extra `%s`, which is not installed, so it is not used:"
    " python -m pip install --require-hashes -r requirements-%s.lock"
)


@asynccontextmanager
async def watched(settings: Settings) -> AsyncIterator[None]:
    """Send spans and errors of the block where the operator wants them; else import nothing."""
    async with AsyncExitStack() as stack:
        is_disabled = os.environ.get("OTEL_SDK_DISABLED", "").strip().lower() == "true"
        endpoint = next((it for it in _ENDPOINTS if os.environ.get(it, "").strip()), "")
        if endpoint and not is_disabled:
            try:
                from bot.app import traces
            except ImportError:
                log.warning(_MISSING, endpoint, "otel", "otel")
            else:
                await stack.enter_async_context(traces.sending(version=__version__))
        if settings.sentry_dsn:
            try:
                from bot.app import sentry
            except ImportError:
                log.warning(_MISSING, "SENTRY_DSN", "sentry", "sentry")
            else:
                await stack.enter_async_context(sentry.sending(settings, version=__version__))
        yield
