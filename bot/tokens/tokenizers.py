"""Finds a model's own tokenizer in its folder or repository."""

from __future__ import annotations

import atexit
import logging
import re
import threading
from collections.abc import Callable
from pathlib import Path

from huggingface_hub import (
    get_hf_file_metadata,
    hf_hub_download,
    hf_hub_url,
    try_to_load_from_cache,
)
from huggingface_hub.utils.tqdm import disable_progress_bars

from bot.tokens.counters import TokenEstimator, read_tokenizer

log = logging.getLogger(__name__)

_FILE = "tokenizer.json"
# As the Hub names models; a provider may follow a colon.
_AT_THE_HUB = re.compile(r"\w[\w.-]*/[\w.-]+(:[\w.-]+)?")
_ETAG_SECONDS = 10.0
_READ_SECONDS = 5.0  # for which the process waits at its end for a reader
_REASON_LENGTH = 200  # characters, because a library may repeat the file or a text
_MOST_BYTES = 40_000_000  # of a tokenizer.json; the largest in use have 35 MB

# Python aborts if it ends while a thread is in the C++ code of a reader.
_reading = threading.Lock()
atexit.register(_reading.acquire, timeout=_READ_SECONDS)


def can_be_found(model: str) -> bool:
    """Whether a model is a folder with a tokenizer, or a name at the Hub."""
    # A folder's path may look like a name at the Hub.
    if _is_folder(model):
        return (Path(model) / _FILE).is_file()
    return bool(_AT_THE_HUB.fullmatch(model))


def find(
    model: str,
    *,
    token: str,
    data_dir: Path,
    endpoint: str | None,
    found: Callable[[TokenEstimator], object],
) -> threading.Thread:
    """Load the model's tokenizer in a thread of its own, and pass it to `found`.

    It is read from a model's folder, or fetched from the Hub (or `endpoint`) into `data_dir`. After
    a failure one log line reports that lengths are estimated.
    """
    # A daemon: a download that hangs must not keep the process from ending.
    thread = threading.Thread(
        target=_find,
        args=(model, found, token, data_dir / "hub", endpoint),
        name="tokenizer",
        daemon=True,
    )
    thread.start()
    return thread


def _find(
    model: str,
    found: Callable[[TokenEstimator], object],
    token: str,
    cache: Path,
    endpoint: str | None,
) -> None:
    try:
        path = _path_of(model, token, cache, endpoint)
        with _reading:
            counter = read_tokenizer(path)
        found(counter)
    # A tokenizer is optional: accept any failure, even a panic of a library in Rust.
    except BaseException as error:
        reason = f"pip install {error.name}" if isinstance(error, ImportError) else str(error)
        reason = (reason.strip() or type(error).__name__).partition("\n")[0][:_REASON_LENGTH]
        log.info("Prompt lengths for %s are estimated, without its tokenizer: %s", model, reason)
    else:
        log.info("Prompts for %s are counted by its own tokenizer (%s)", model, path.name)


def _is_folder(model: str) -> bool:
    try:
        return Path(model).is_dir()
    except OSError:  # the name is too long for a file
        return False


def _path_of(model: str, token: str, cache: Path, endpoint: str | None) -> Path:
    """Return the tokenizer's file, fetched if this machine has none. Raises any error."""
    if _is_folder(model):
        return Path(model) / _FILE
    model = model.partition(":")[0]
    known = try_to_load_from_cache(model, _FILE, cache_dir=cache)
    if isinstance(known, str):
        return Path(known)
    # False and not "": the library would send a token that it finds on the machine.
    secret = token or False
    url = hf_hub_url(model, _FILE, endpoint=endpoint)
    size = get_hf_file_metadata(url, token=secret, timeout=_ETAG_SECONDS).size
    if size is None or size > _MOST_BYTES:
        raise ValueError(f"{_FILE} has {size} bytes")
    # A progress bar would disturb the conversation in the terminal.
    disable_progress_bars()
    path = hf_hub_download(
        model, _FILE, cache_dir=cache, token=secret, endpoint=endpoint, etag_timeout=_ETAG_SECONDS
    )
    return Path(path)
