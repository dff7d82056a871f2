"""The way between this machine and an address."""

from __future__ import annotations

import logging

import pytest

from bot.errors import CannotStart
from bot.proxy import proxy_for, warn_if_readable


@pytest.mark.parametrize(
    "proxy", ["http://[", "http://u:s3cret@a..b:80", "http://u:s3cret@a:x", "socks5://u:s3cret@a"]
)
def test_an_unusable_proxy_is_named_without_its_login(
    proxy: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("https_proxy", proxy)

    with pytest.raises(CannotStart, match="HTTPS_PROXY") as caught:
        proxy_for("https://models/v1")

    assert "s3cret" not in str(caught.value)


@pytest.mark.parametrize("proxy", ["http://u:s3cret@a:80", "u:s3cret@a:80"])
def test_a_proxy_may_stand_without_its_scheme(proxy: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("https_proxy", proxy)

    assert proxy_for("https://models/v1") == "http://u:s3cret@a:80"


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
