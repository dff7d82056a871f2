"""A model in Hugging Face's own format, run on this machine in a supervised process."""

from __future__ import annotations

import importlib.util
import logging
import re
import secrets
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from pathlib import Path

from bot.concurrency import do_nothing
from bot.errors import CannotStart
from bot.local.child_process import ChildProcess, JsonObject, LocalServer, starting, supervised
from bot.local.progress import Progress
from config.settings import Settings

log = logging.getLogger(__name__)

_ENVIRONMENT = {
    # A token that is saved on the machine is not used, only HF_TOKEN.
    "HF_HUB_DISABLE_IMPLICIT_TOKEN": "1",
    # Otherwise the library asks the Hub which coding agent uses it (bot/model/client.py).
    "HF_HUB_DISABLE_TELEMETRY": "1",
    # For pickled weights transformers would ask a service to convert them, and send it the token
    # (transformers 5.23, safetensors_conversion.py).
    "DISABLE_SAFETENSORS_CONVERSION": "1",
    # huggingface_hub then writes its progress bars to a pipe, too (utils/tqdm.py).
    "TQDM_POSITION": "-1",
}
_BAR = re.compile(r"(.{1,200}?): +(\d{1,3})%\|")
_MEMORY_HINT = "choose a smaller model, or a GGUF file of it (LOCAL_MODEL_PATH)"


@asynccontextmanager
async def serve(
    settings: Settings, *, progress: Progress = do_nothing
) -> AsyncIterator[LocalServer]:
    """Run TRANSFORMERS_MODEL while the context lasts.

    Requests are accepted at once and answered when the weights are read. Raises CannotStart for
    errors that are found before: not installed, not found, gated, too large.
    """
    if any(importlib.util.find_spec(each) is None for each in ("torch", "transformers")):
        raise CannotStart(
            "TRANSFORMERS_MODEL needs the packages torch and transformers:"
            " install requirements-transformers.txt as docs/models.md says"
        )
    name, key = settings.transformers_model, secrets.token_urlsafe(24)
    request: JsonObject = {
        "name": _absolute(name),
        "token": settings.hf_token,
        "context_tokens": settings.context_tokens,
        "max_tokens": settings.max_tokens,
        "api_key": key,
    }
    log.info("Examining %s", name)
    async with supervised(name, lambda port: _start({**request, "port": port}, progress)) as report:
        yield LocalServer(
            url=f"http://127.0.0.1:{report['port']}/v1",
            api_key=key,
            name=name,
            context_tokens=report["prompt_tokens"] + report["max_tokens"],
            max_tokens=report["max_tokens"],
            is_dialogue=report["is_dialogue"],
        )


def tells_progress(line: str, progress: Progress) -> bool:
    """Report a line that is a progress bar of tqdm to `progress`; False for any other line."""
    found = _BAR.match(line)
    if found:
        progress(found[1].strip(), int(found[2]) / 100)
    return bool(found)


def _absolute(name: str) -> str:
    """Return the absolute path of a folder, or a name unchanged. Raises CannotStart."""
    try:
        path = Path(name).expanduser()
        if not path.is_absolute() and not path.is_dir():
            return name
        any(path.iterdir())
    except (OSError, RuntimeError) as error:
        reason = error.strerror if isinstance(error, OSError) else error
        raise CannotStart(f"TRANSFORMERS_MODEL={name}: {reason}") from error
    return str(path.absolute())


async def _start(request: JsonObject, progress: Progress) -> ChildProcess:
    try:
        async with starting(
            "bot.local.transformers_process",
            environment=_ENVIRONMENT,
            is_error=lambda line: not tells_progress(line, progress),
            memory_hint=_MEMORY_HINT,
        ) as child:
            await child.send(request)
            # The weights are not read yet.
            child.report = await child.receive()
            if "error" in child.report:
                raise CannotStart(child.report["error"])
            log.info("%s", child.report["plan"])
            return child
    # Not ready in time, or the pipe was closed without a message.
    except OSError as error:
        raise CannotStart(f"{request['name']} did not start: {child.reason}") from error
