"""Downloads files from the hosts of a platform, and from no others."""

from __future__ import annotations

import ipaddress
import socket
from collections.abc import AsyncGenerator, Collection, Mapping

import aiohttp
from aiohttp.abc import ResolveResult
from aiohttp.resolver import ThreadedResolver
from yarl import URL

from bot.errors import MessageGone, WriteFailed, WriteRefused
from bot.proxy import proxy_for

_CHUNK = 65_536  # bytes
_REDIRECTS = 3
_TIMEOUT = aiohttp.ClientTimeout(total=None, connect=10.0, sock_read=10.0)
_ERRORS = {404: MessageGone, 410: MessageGone, 429: WriteFailed}  # of a status


class _PublicResolver(ThreadedResolver):
    """Refuses names that lead to this machine or to its network."""

    async def resolve(
        self, host: str, port: int = 0, family: socket.AddressFamily = socket.AF_INET
    ) -> list[ResolveResult]:
        found = await super().resolve(host, port, family)
        if not all(ipaddress.ip_address(one["host"]).is_global for one in found):
            raise OSError(f"{host} has a private address")
        return found


async def download(
    address: str,
    *,
    hosts: Collection[str],
    api_url: str = "",
    headers: Mapping[str, str] | None = None,
) -> AsyncGenerator[bytes]:
    """Yield the bytes at an address of these hosts, by HTTPS; redirects stay there.

    `api_url` is the address of the platform's API if the operator has set one: a file may come from
    its origin, too, wherever that is. The `headers` are sent with each request. Raises MessageGone,
    WriteRefused, and WriteFailed if a later attempt may succeed.
    """
    own = URL(api_url).origin() if api_url else None
    try:
        url = URL(address)
        for _ in range(_REDIRECTS + 1):
            is_own = url.absolute and url.origin() == own
            if not is_own and not (url.scheme == "https" and url.host in hosts):
                raise WriteRefused(f"a file is at another host: {url.host}")
            proxy = proxy_for(str(url))
            resolver = None if is_own or proxy else _PublicResolver()
            async with (
                aiohttp.ClientSession(
                    connector=aiohttp.TCPConnector(resolver=resolver),
                    cookie_jar=aiohttp.DummyCookieJar(),
                    timeout=_TIMEOUT,
                    # A small file could become a large one.
                    auto_decompress=False,
                ) as session,
                session.get(
                    url,
                    headers={"Accept-Encoding": "identity", **(headers or {})},
                    proxy=proxy,
                    allow_redirects=False,
                ) as response,
            ):
                if "Location" in response.headers:
                    url = url.join(URL(response.headers["Location"]))
                    continue
                if response.status != 200:
                    default = WriteFailed if response.status >= 500 else WriteRefused
                    kind = _ERRORS.get(response.status, default)
                    raise kind(f"HTTP {response.status} from {url.host}")
                async for chunk in response.content.iter_chunked(_CHUNK):
                    yield chunk
                return
    except (aiohttp.ClientError, OSError, TimeoutError) as error:
        # Their texts may contain an address that is a secret.
        raise WriteFailed(f"{url.host} cannot be reached ({type(error).__name__})") from error
    except ValueError as error:
        raise WriteRefused("a file has no valid address") from error
    raise WriteRefused(f"{url.host} redirects again and again")
