"""The way between this machine and an address."""

from __future__ import annotations

import logging

import pytest

from bot.proxy import warn_if_readable


@pytest.mark.parametrize(
    "url", ["http://models:8080/v1", "http://bot:s3cret@10.0.0.2", "ws://here"]
)
def test_a_secret_that_others_can_read_is_warned_of_by_its_name(
    url: str, caplog: pytest.LogCaptureFixture
) -> None:
    warn_if_readable("MODEL_API_KEY", by="MODEL_URL", url=url)

    (record,) = caplog.records
    assert record.levelno == logging.WARNING
    assert "MODEL_API_KEY" in record.getMessage()
    assert "MODEL_URL" in record.getMessage()
    assert "s3cret" not in record.getMessage()


@pytest.mark.parametrize(
    "url",
    [
        "",
        "https://models/v1",
        "http://localhost:1",
        "http://127.1.2.3",
        "http://[::1]:1",
        "wss://a",
    ],
)
def test_a_secret_that_nobody_else_can_read_is_not_warned_of(
    url: str, caplog: pytest.LogCaptureFixture
) -> None:
    warn_if_readable("MODEL_API_KEY", by="MODEL_URL", url=url)

    assert not caplog.records
