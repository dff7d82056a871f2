"""Downloads files from the hosts of a platform, and from no others."""

from __future__ import annotations

import ipaddress
import socket
from collections.abc import AsyncGenerator, Collection, Mapping

import aiohttp
from yarl import URL

from bot.errors import MessageGone, WriteFailed, WriteRefused
from bot.proxy import proxy_for

_CHUNK = 65_536  # bytes
_REDIRECTS = 3
_TIMEOUT = aiohttp.ClientTimeout(total=None, connect=10.0, sock_read=10.0)
_ERRORS = {404: MessageGone, 410: MessageGone, 429: WriteFailed}  # of a status
# Of the addresses for the public (2000::/3): what stands for others, or for nothing (IANA's
# registries of special-purpose addresses). With 2001::/23, Teredo is among them; 2002::/16 is 6to4.
_SPECIAL = tuple(
    map(
        ipaddress.ip_network,
        ("192.0.0.0/24", "192.88.99.0/24", "2001::/23", "2001:db8::/32", "2002::/16", "3fff::/20"),
    )
)
_PUBLIC = ipaddress.IPv6Network("2000::/3")
# The middle of ISATAP's addresses, which end with one of IPv4 (RFC 5214, section 6.1).
_ISATAP = (0x0000_5EFE, 0x0200_5EFE)
# Azure's platform answers each of its machines there.
_OF_CLOUDS = (ipaddress.IPv4Address("168.63.129.16"),)


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
            opened = None if is_own or proxy else public_socket
            async with (
                aiohttp.ClientSession(
                    connector=aiohttp.TCPConnector(socket_factory=opened),
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


def public_socket(address: aiohttp.AddrInfoType) -> socket.socket:
    """Return a socket for an address to which the caller connects next. Raises OSError."""
    host = address[4][0]
    if not is_public(str(host)):
        raise OSError("this is no public address")
    return socket.socket(*address[:3])  # family, type and protocol


def is_public(address: str) -> bool:
    """Whether an IP address belongs to the Internet, in no form that stands for another one."""
    try:
        ip = ipaddress.ip_address(address)
    except ValueError:
        return False
    if not ip.is_global or ip.is_multicast or ip in _OF_CLOUDS:
        return False
    if any(ip in network for network in _SPECIAL if network.version == ip.version):
        return False
    return ip.version == 4 or (ip in _PUBLIC and int(ip) >> 32 & 0xFFFF_FFFF not in _ISATAP)
