"""Shows the state of this machine's process and of its queue, from /metrics."""

from __future__ import annotations

import asyncio
import math
from collections import defaultdict
from collections.abc import Mapping
from typing import TextIO

import aiohttp
from prometheus_client.parser import text_string_to_metric_families

from bot.app.platforms import all_specs
from bot.errors import CannotStart
from bot.proxy import EVERYWHERE
from config.settings import Settings

PAUSE_SECONDS = 2.0  # between two readings at a terminal
_TIMEOUT_SECONDS = 5.0
_CLEAR = "\x1b[H\x1b[2J"
_OUTCOMES = ("done", "stopped", "failed", "dead")

# The value of each metric, by its labels.
Metrics = Mapping[str, Mapping[tuple[tuple[str, str], ...], float]]


async def show_status(settings: Settings, output: TextIO) -> None:
    """Print the status once, or at a terminal again and again until cancelled.

    Raises CannotStart if no process of these settings answers on this machine.
    """
    while True:
        text = describe(await _read(settings))
        if not output.isatty():
            output.write(text)
            return
        output.write(f"{_CLEAR}{text}\nCtrl-C ends this.\n")
        output.flush()
        await asyncio.sleep(PAUSE_SECONDS)


async def _read(settings: Settings) -> Metrics:
    host, port = settings.metrics_host, settings.metrics_port
    if port is None:
        host, port = settings.host, settings.port
    if not port:
        raise CannotStart(
            "PORT=0 means any port: call this with PORT=NUMBER before it, as the bot's log says "
            'after "Listening on"'
        )
    host = EVERYWHERE.get(host, host)
    url = f"http://{f'[{host}]' if ':' in host else host}:{port}/metrics"
    timeout = aiohttp.ClientTimeout(total=_TIMEOUT_SECONDS)
    try:
        async with aiohttp.ClientSession(timeout=timeout) as session, session.get(url) as response:
            response.raise_for_status()
            found: dict[str, dict[tuple[tuple[str, str], ...], float]] = defaultdict(dict)
            for family in text_string_to_metric_families(await response.text()):
                for sample in family.samples:
                    found[sample.name][tuple(sorted(sample.labels.items()))] = sample.value
            return found
    except (aiohttp.ClientError, TimeoutError, ValueError) as error:
        raise CannotStart(
            f"no running bot answers at {url} ({type(error).__name__}): start one with "
            "`python -m bot run`, and set PORT or METRICS_PORT as for that bot"
        ) from error


def describe(metrics: Metrics) -> str:
    """Return the status as lines of text."""
    (build, *_) = metrics.get("parley_build_info") or [()]
    versions = dict(build)
    waiting = _total(metrics, "parley_turns_waiting")
    lines = [
        f"Parley {versions.get('version', '?')}, Python {versions.get('python', '?')}",
        f"Waiting: {_whole(waiting)}" + (" (the store is away)" if math.isnan(waiting) else ""),
        "",
        f"{'':10}{'hears':>7}{'running':>9}{'waits':>9}{'done':>8}{'failed':>8}"
        f"{'first':>9}{'delay':>9}{'429':>6}",
    ]
    for name in (spec.name for spec in all_specs()):
        of = {"platform": name}
        hears = _total(metrics, "parley_platform_connected", **of)
        ended = {it: _total(metrics, "parley_turns_total", outcome=it, **of) for it in _OUTCOMES}
        running = _total(metrics, "parley_turns_running", **of)
        if not (hears or running > 0 or sum(ended.values())):
            continue
        lines.append(
            f"{name:10}{'yes' if hears else 'no':>7}{_whole(running):>9}"
            f"{_seconds(_total(metrics, 'parley_queue_age_seconds', **of)):>9}"
            f"{_whole(ended['done'] + ended['stopped']):>8}"
            f"{_whole(ended['failed'] + ended['dead']):>8}"
            f"{_seconds(_mean(metrics, 'parley_reply_first_text_seconds', **of)):>9}"
            f"{_seconds(_mean(metrics, 'parley_reply_token_delay_seconds', **of)):>9}"
            f"{_whole(_total(metrics, 'parley_writes_total', result='limited', **of)):>6}"
        )
    primaries = [dict(it)["address"] for it in metrics.get("parley_store_primary") or ()]
    script = f"Store: {_seconds(_mean(metrics, 'parley_store_seconds'))} for a script"
    lines += ["", ", primary ".join([script, *primaries])]
    for labels, seconds in (metrics.get("parley_model_first_token_seconds_sum") or {}).items():
        number = metrics["parley_model_first_token_seconds_count"][labels]
        model = dict(labels).get("model", "")
        failures = _total(metrics, "parley_model_failures_total", model=model)
        lines.append(
            f"Model {model}: {_whole(number)} answers, the first token after "
            f"{_seconds(seconds / number if number else math.nan)}, {_whole(failures)} failures"
        )
    return "\n".join(lines) + "\n"


def _total(metrics: Metrics, metric: str, /, **labels: str) -> float:
    """Return the sum of the samples with these labels."""
    wanted = set(labels.items())
    return sum(value for key, value in (metrics.get(metric) or {}).items() if wanted <= set(key))


def _mean(metrics: Metrics, metric: str, /, **labels: str) -> float:
    count = _total(metrics, f"{metric}_count", **labels)
    return _total(metrics, f"{metric}_sum", **labels) / count if count else math.nan


def _whole(number: float) -> str:
    return "?" if math.isnan(number) else f"{number:.0f}"


def _seconds(seconds: float) -> str:
    if math.isnan(seconds):
        return "-"
    return f"{seconds * 1000:.0f} ms" if seconds < 1 else f"{seconds:.1f} s"
