"""How every emulator is served, who calls it, and what it tells when it is left."""

from __future__ import annotations

from collections.abc import AsyncIterator, Sequence
from contextlib import asynccontextmanager

from aiohttp import web

from tests.emulators.faults import Faults


@asynccontextmanager
async def served(
    app: web.Application, *, seconds: float = 0.2, auto_decompress: bool = True
) -> AsyncIterator[str]:
    """Serve on loopback, and yield the address; calls that run at the end have these seconds."""
    runner = web.AppRunner(
        app, access_log=None, shutdown_timeout=seconds, auto_decompress=auto_decompress
    )
    await runner.setup()
    try:
        await web.TCPSite(runner, "127.0.0.1", 0).start()
        yield f"http://127.0.0.1:{runner.addresses[0][1]}"
    finally:
        await runner.cleanup()


def port(request: web.Request) -> int:
    """Return the port at the caller's end of the connection; 0 when the caller has left."""
    name = request.transport and request.transport.get_extra_info("peername")
    return int(name[1]) if name else 0


def judge(*, unknown: Sequence[str], violations: Sequence[str], faults: Faults) -> None:
    """Raise AssertionError by what was noted while an emulator ran."""
    assert not unknown, f"the bot called what is not emulated: {unknown}"
    assert not violations, f"against the platform's rules: {violations}"
    in_vain = faults.in_vain()
    assert not in_vain, f"faults that no call met: {in_vain}"
