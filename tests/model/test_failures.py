"""Each failure of the table, by a server that really fails so, and the table in the docs."""

from __future__ import annotations

import shlex
import shutil
import socket
import ssl
import subprocess
import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from pathlib import Path

import huggingface_hub.constants
import pytest

from bot.domain import Message
from bot.errors import CannotStart, ModelError
from bot.model.failures import FAILURES, Failure
from bot.model.retrying import is_transient
from tests.emulators.model import ModelEmulator
from tests.support.model import open_model

ASK = "POST /v1/chat/completions"
KEY = "hf_thisMustNotBeTold"  # made up
PROMPT = [Message("user", "What is a secret question?")]
DOCS = Path(__file__).parents[2] / "docs" / "operating.md"

HTML = {"Content-Type": "text/html; charset=utf-8"}


def _status(status: int) -> Callable[[ModelEmulator], object]:
    return lambda emulator: emulator.fail(ASK, status=status)


def _long(emulator: ModelEmulator) -> None:
    emulator.context = 3


def _mute(emulator: ModelEmulator) -> None:
    emulator.answer = ""


def _thoughtful(emulator: ModelEmulator) -> None:
    emulator.answer, emulator.finish_reason = "", "length"


def _slow(emulator: ModelEmulator) -> None:
    emulator.answer, emulator.delay = "on and " * 100, 0.1


# How the emulated server fails so; nothing where it is not even asked.
FAULTS: dict[str, Callable[[ModelEmulator], object] | None] = {
    "401": lambda it: it.fail_as("wrong key"),
    "402": lambda it: it.fail_as("no credit"),
    "403": lambda it: it.fail_as("forbidden token"),
    "gated": lambda it: it.fail_as("gated model"),
    "404": lambda it: it.fail_as("unsupported model"),
    "413": _long,
    "422": lambda it: it.fail_as("invalid", times=2),
    "429": lambda it: it.fail_as("too many requests"),
    "503": lambda it: it.fail_as("loading"),
    "3xx": lambda it: it.fail(ASK, status=301, headers={"Location": "https://example.com/"}),
    "page": lambda it: it.fail(ASK, status=200, body="<!doctype html>", headers=HTML),
    "4xx": _status(418),
    "5xx": _status(502),
    "unreachable": None,
    "certificate": None,
    "plain": None,
    "tls": None,
    "closed": lambda it: it.fail_as("end before headers", times=2),
    "cut": lambda it: it.fail_as("reset in the stream"),
    "endless": lambda it: it.fail_as("end without done"),
    "event": lambda it: it.fail(ASK, "error_event", at_delta=1, body={"error": "It broke."}),
    "garbage": lambda it: it.fail_as("half a line"),
    "silence": lambda it: it.fail_as("silence in the stream"),
    "slow": _slow,
    "empty": _mute,
    "thought": _thoughtful,
    "offline": None,
}


# Seconds of silence, and of a whole answer, where they are what fails: the machine may be busy.
TIMEOUTS = {"silence": (2.0, 60.0), "slow": (60.0, 2.0)}


async def failure_at(url: str, *, own: bool, name: str = "") -> ModelError:
    silence, whole = TIMEOUTS.get(name, (60.0, 60.0))
    async with open_model(
        base_url=url,
        model="org/model:fast",
        api_key=KEY,
        own=own,
        idle_timeout=silence,
        total_timeout=whole,
    ) as model:
        with pytest.raises(ModelError) as raised:
            _ = [delta async for delta in model.stream(PROMPT)]
    return raised.value


def cure(failure: Failure, *, own: bool) -> str:
    text = failure.cure if own else failure.router or failure.cure
    return text.format(model="org/model")


def assert_reported(error: ModelError, name: str, *, own: bool) -> None:
    """Check an error and its line for the operator against the table."""
    assert type(error) is FAILURES[name].error
    assert error.apology != ModelError.apology
    assert cure(FAILURES[name], own=own) in str(error)
    assert "\n" not in str(error)
    assert KEY not in str(error)
    assert "secret" not in str(error)


@pytest.mark.parametrize("own", [True, False])
@pytest.mark.parametrize("name", [name for name, way in FAULTS.items() if way])
async def test_a_server_that_fails_so_is_reported_with_its_cure(name: str, own: bool) -> None:
    flavour = "llama.cpp" if name == "413" else "router"
    async with ModelEmulator(flavour=flavour) as emulator:  # type: ignore[arg-type]
        emulator.models = ["org/model", "org/other"]  # a single one would be asked instead
        way = FAULTS[name]
        assert way is not None
        way(emulator)

        error = await failure_at(emulator.url, own=own, name=name)

    assert_reported(error, name, own=own)


@pytest.mark.parametrize("own", [True, False])
async def test_a_server_that_is_not_there_is_reported_with_its_cure(own: bool) -> None:
    with socket.socket() as taken:
        taken.bind(("127.0.0.1", 0))  # bound and not listening: connections are refused
        url = f"http://127.0.0.1:{taken.getsockname()[1]}/v1"

        assert_reported(await failure_at(url, own=own), "unreachable", own=own)


def make_certificate(folder: Path) -> ssl.SSLContext:
    """Return what a server with a certificate of its own speaks, which is at folder/own.pem."""
    if not shutil.which("openssl"):
        pytest.skip("the program openssl, which makes a certificate, is not installed")
    key, own = folder / "key.pem", folder / "own.pem"
    command = (
        "openssl req -x509 -newkey rsa:2048 -nodes -days 2 -subj /CN=127.0.0.1"
        f" -addext subjectAltName=IP:127.0.0.1 -keyout {key} -out {own}"
    )
    subprocess.run(shlex.split(command), check=True, capture_output=True)
    speaks = ssl.create_default_context(ssl.Purpose.CLIENT_AUTH)
    speaks.load_cert_chain(own, key)
    return speaks


@pytest.mark.parametrize("own", [True, False])
async def test_a_certificate_that_is_not_trusted_is_reported_with_its_cure(
    own: bool, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    async with ModelEmulator(flavour="router", tls=make_certificate(tmp_path)) as emulator:
        emulator.models, emulator.answer = ["org/model"], ""
        error = await failure_at(emulator.url, own=own)
        asked = list(emulator.requests)
        # The cure cures.
        monkeypatch.setenv("SSL_CERT_FILE", str(tmp_path / "own.pem"))
        cured = await failure_at(emulator.url, own=own)

    assert_reported(error, "certificate", own=own)
    assert "(self-signed certificate)" in str(error)
    assert not is_transient(error), "nobody waits for what an operator has to mend"
    assert asked == []
    assert_reported(cured, "empty", own=own)


@pytest.mark.parametrize("made", [False, True])
async def test_a_file_without_certificates_stops_the_start(
    made: bool, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    file = tmp_path / "none.pem"
    if made:
        file.write_text("no certificate")
    monkeypatch.setenv("SSL_CERT_FILE", str(file))
    with pytest.raises(CannotStart, match="SSL_CERT_FILE"):
        await failure_at("https://127.0.0.1:1/v1", own=True)


@pytest.mark.parametrize("own", [True, False])
async def test_https_where_http_is_spoken_is_reported_with_its_cure(own: bool) -> None:
    async with ModelEmulator(flavour="router") as emulator:
        error = await failure_at(emulator.url.replace("http:", "https:"), own=own)

    assert_reported(error, "plain", own=own)
    assert not is_transient(error), "nobody waits for what an operator has to mend"


@contextmanager
def serve_bytes(said: bytes) -> Iterator[str]:
    """Answer each connection with these bytes."""

    def serve() -> None:
        with suppress(OSError):  # closed
            while True:
                talk = door.accept()[0]
                with suppress(OSError), talk:
                    if talk.recv(65_536):
                        talk.sendall(said)

    with socket.create_server(("127.0.0.1", 0)) as door:
        thread = threading.Thread(target=serve)
        thread.start()
        yield "http://{}:{}/v1".format(*door.getsockname())
        door.shutdown(socket.SHUT_RDWR)
    thread.join()


@pytest.mark.parametrize(
    ("name", "said"),
    [
        # nginx's words and Go's, and an alert of TLS.
        (
            "tls",
            b"HTTP/1.1 400 Bad Request\r\nContent-Type: text/html\r\nConnection: close\r\n\r\n"
            b"<title>400 The plain HTTP request was sent to HTTPS port</title>",
        ),
        (
            "tls",
            b"HTTP/1.0 400 Bad Request\r\n\r\nClient sent an HTTP request to an HTTPS server.\n",
        ),
        ("garbage", b"\x15\x03\x01\x00\x02\x02\x46"),
    ],
)
async def test_a_server_that_speaks_https_is_reported_with_its_cure(name: str, said: bytes) -> None:
    with serve_bytes(said) as url:
        error = await failure_at(url, own=True)

    assert_reported(error, name, own=True)
    assert "https://" in str(error)


@pytest.mark.parametrize("own", [True, False])
@pytest.mark.parametrize(
    "said",
    [
        b"SSH-2.0-OpenSSH_9.9\r\n",
        b"-ERR unknown command 'POST'\r\n",
        b"HTTP/1.1 200 OK\r\nX: " + b"x" * 100_000 + b"\r\n\r\n",
    ],
)
async def test_what_is_no_http_is_reported_with_its_cure(said: bytes, own: bool) -> None:
    with serve_bytes(said) as url:
        assert_reported(await failure_at(url, own=own), "garbage", own=own)


async def test_offline_mode_is_reported_with_its_cure(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(huggingface_hub.constants, "HF_HUB_OFFLINE", True)
    async with ModelEmulator(flavour="router") as emulator:
        error = await failure_at(emulator.url, own=False)

    assert_reported(error, "offline", own=False)
    assert not is_transient(error), "nobody waits for what an operator has to mend"
    assert emulator.requests == []


def test_each_failure_of_the_table_has_its_way() -> None:
    assert FAULTS.keys() == FAILURES.keys()


def test_each_cure_names_what_can_be_set_or_done() -> None:
    words = (
        "HF_",
        "MODEL_",
        "MAX_TOKENS",
        "CONTEXT_TOKENS",
        "REPLY_TIMEOUT",
        "HTTPS_PROXY",
        "SSL_",
    )
    for failure in FAILURES.values():
        for text in (failure.cure, failure.router or failure.cure):
            assert any(word in text for word in (*words, "https://", "server's log")), text


def cure_cells(failure: Failure) -> str:
    """Return the end of a failure's line in the docs."""
    router = "the same" if failure.router in ("", failure.cure) else failure.router
    cells = f"| `{failure.error.__name__}` | {failure.cure} | {router} |"
    return cells.replace("{model}", "MODEL")


def error_row(failure: Failure) -> str:
    """Return the line of a failure's error in the docs."""
    again = "yes" if is_transient(failure.error("")) else "no"
    return f"| `{failure.error.__name__}` | {failure.error.apology} | {again} |"


def rows(head: str) -> list[str]:
    """Return the lines of a table in the docs, without its head."""
    _, _, found = DOCS.read_text(encoding="utf-8").partition(f"\n{head}\n")
    return found.partition("\n\n")[0].splitlines()[1:]


def test_the_docs_have_each_failure_as_it_is() -> None:
    cures = rows(
        "| what happens | error | the cure with `MODEL_URL` | the cure with Hugging Face |"
    )

    assert {row[row.index("| `") :] for row in cures} == {*map(cure_cells, FAILURES.values())}


def test_the_docs_have_what_people_read_of_each_error() -> None:
    errors = rows("| error | what the person reads | asked again |")

    assert sorted(errors) == sorted({error_row(failure) for failure in FAILURES.values()})
