"""Finds a GGUF file by its name at the Hugging Face Hub, and downloads it once."""

from __future__ import annotations

import asyncio
import io
import re
import threading
from collections.abc import Iterable, Iterator, Sequence
from contextlib import contextmanager
from functools import partial
from pathlib import Path
from typing import Any

import httpx2
from huggingface_hub import HfApi, hf_hub_download
from huggingface_hub import errors as hub
from huggingface_hub.file_download import repo_folder_name
from tqdm import tqdm

from bot.errors import CannotStart
from bot.local.progress import Progress
from bot.text.sanitize import one_line
from config.settings import Settings

VARIABLE = "LOCAL_MODEL_PATH"
_ETAG_SECONDS = 10.0
_LISTED = 12  # names of files that an error shows
# The names that llama.cpp's `gguf-split` gives to parts; llama.cpp loads the others by the first.
_PART = re.compile(r"-(\d{5})-of-(\d{5})\.gguf$", re.IGNORECASE)


async def fetch(settings: Settings, *, progress: Progress, endpoint: str | None = None) -> Path:
    """Return the file of a name in LOCAL_MODEL_PATH, downloaded if DATA_DIR has none.

    If a model has several parts, returns the first; `mmproj_beside` it is downloaded, too, unless
    VISION is off. `endpoint` is another address of the Hub. A cancelled download is continued by
    the next call. Raises CannotStart.
    """
    name, cache = str(settings.local_model_path), settings.data_dir / "hub"
    repo, _, quantisation = name.rpartition(":")
    if known := _cached(repo, quantisation, cache):
        return known
    cancelled = threading.Event()
    try:
        bar = _bar_class(progress, cancelled)
        with explain_denied_access(f"{VARIABLE}={name}", repo):
            download = partial(_download, repo, quantisation, settings)
            return await asyncio.to_thread(download, endpoint=endpoint, bar=bar)
    # The library's errors of the connection are its HTTP client's.
    except (hub.HFValidationError, OSError, ValueError, RuntimeError, httpx2.HTTPError) as error:
        reason = one_line(str(error)) or type(error).__name__
        raise CannotStart(f"{VARIABLE}={name} cannot be downloaded: {reason}") from error
    finally:
        cancelled.set()


@contextmanager
def explain_denied_access(setting: str, repo: str) -> Iterator[None]:
    """Raise CannotStart if a repository is gated or cannot be found."""
    try:
        yield
    except hub.GatedRepoError as error:
        raise CannotStart(
            f"{setting} is gated: accept its license at https://huggingface.co/{repo}"
            " and set HF_TOKEN to a token of that account"
        ) from error
    except hub.RepositoryNotFoundError as error:
        raise CannotStart(
            f"{setting} does not exist at Hugging Face, or HF_TOKEN may not see it"
        ) from error


def choose(files: Iterable[str], quantisation: str) -> list[str]:
    """Return the file of this quantisation, or its parts in order; empty if there is none."""
    word = re.compile(rf"(?<![a-z0-9]){re.escape(quantisation)}(?![a-z0-9_])", re.IGNORECASE)
    models = [file for file in files if file.lower().endswith(".gguf") and "mmproj" not in file]
    found = sorted((file for file in models if word.search(file)), key=lambda it: (len(it), it))
    if not found:
        return []
    part = _PART.search(found[0])
    if not part:
        return found[:1]
    stem = found[0][: part.start()]
    return sorted(file for file in found if file.startswith(stem) and _PART.search(file))


def mmproj_beside(model: Path) -> Path | None:
    """Return the file with which a downloaded model sees, if it has one."""
    snapshot = next(folder for folder in model.parents if folder.parent.name == "snapshots")
    return next(map(Path, _mmproj(map(str, snapshot.rglob("*")))), None)


def _mmproj(files: Iterable[str]) -> list[str]:
    found = [it for it in files if re.search(r"mmproj[^/]*\.gguf$", it, re.IGNORECASE)]
    # Every CPU computes with F16, and few with BF16.
    return sorted(found, key=lambda it: (not re.search("[^b]f16", it.lower()), it))[:1]


def _cached(repo: str, quantisation: str, cache: Path) -> Path | None:
    """Return a downloaded file, so that the start does not depend on the Hub."""
    snapshots = cache / repo_folder_name(repo_id=repo, repo_type="model") / "snapshots"
    for snapshot in sorted(snapshots.glob("*")):
        files = [str(file.relative_to(snapshot)) for file in snapshot.rglob("*.gguf")]
        chosen = choose(files, quantisation)
        part = _PART.search(chosen[0]) if chosen else None
        if chosen and len(chosen) == (int(part[2]) if part else 1):
            return snapshot / chosen[0]
    return None


def _download(
    repo: str, quantisation: str, settings: Settings, *, endpoint: str | None, bar: type[tqdm]
) -> Path:
    # False and not "": the library would send a token that it finds on the machine.
    secret = settings.hf_token or False
    # `list_repo_files` would try for 23 seconds if the Hub is away (huggingface_hub 2.4).
    about = HfApi(endpoint=endpoint, token=secret).model_info(repo, timeout=_ETAG_SECONDS)
    files = [each.rfilename for each in about.siblings or ()]
    chosen = choose(files, quantisation)
    if not chosen:
        raise ValueError(_no_such(files, quantisation))
    # The mmproj comes first: a model that is there counts as downloaded.
    wanted = [] if settings.vision is False or settings.local_mmproj_path else _mmproj(files)
    paths = [
        hf_hub_download(
            *(repo, file),
            cache_dir=settings.data_dir / "hub",
            token=secret,
            endpoint=endpoint,
            etag_timeout=_ETAG_SECONDS,
            tqdm_class=bar,
        )
        for file in (*wanted, *chosen)
    ]
    return Path(paths[len(wanted)])


def _no_such(files: Sequence[str], quantisation: str) -> str:
    models = [file for file in files if file.lower().endswith(".gguf")]
    if not models:
        return "it has no GGUF file; the maker or others often have one under a name with -GGUF"
    more = ", …" if len(models) > _LISTED else ""
    return f"it has no {quantisation}, but {', '.join(models[:_LISTED])}{more}"


def _bar_class(progress: Progress, cancelled: threading.Event) -> type[tqdm]:
    """Return a class of progress bars that report to `progress` instead of being shown."""

    class Bar(tqdm):  # type: ignore[misc]
        # It would start a thread.
        monitor_interval = 0

        def __init__(self, *arguments: Any, **chosen: Any) -> None:
            super().__init__(*arguments, **{**chosen, "file": io.StringIO()})

        def update(self, n: float | None = 1) -> Any:
            # The thread of a download can only be ended from inside.
            if cancelled.is_set():
                raise RuntimeError("the download was cancelled")
            return super().update(n)

        def display(self, *_: Any, **__: Any) -> None:
            done = min(self.n / self.total, 1.0) if self.total else None
            # The file's name, or the end of its address.
            progress(f"Downloading {one_line(self.desc).rpartition('/')[2]}", done)

    return Bar
