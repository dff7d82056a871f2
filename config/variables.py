"""How the text of a variable is read; each parser raises ValueError with the problem."""

from __future__ import annotations

import ipaddress
import re
from collections.abc import Callable, Collection, Iterable, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, TypeVar
from urllib.parse import SplitResult, urlsplit

ON = ("on", "true", "yes", "1")
_FILE_BYTES = 65_536  # of the longest secret, with room to spare
# An address of Sentinels: scheme, login, hosts with commas between, and the rest.
SENTINELS = re.compile(r"(rediss?)\+sentinel://([^/?#]*@)?([^/?#@]*)(.*)", re.DOTALL)

_N = TypeVar("_N", int, float)
_T = TypeVar("_T")


@dataclass(frozen=True, slots=True)
class IdForm:
    """What an id looks like on one platform: a pattern, an example, and what people call it.

    Ids like `around` are of what such places are in; alone they name no place.
    """

    pattern: str
    example: str
    noun: str = ""
    around: str = ""

    def fits(self, text: str, *, around: bool = False) -> bool:
        """Whether a text looks like such an id; with `around`, also like one of those."""
        patterns = [self.pattern, self.around] if around and self.around else [self.pattern]
        return any(re.fullmatch(pattern, text) for pattern in patterns)


def setting(
    default: object, parse: Callable[[str], object], meaning: str, *, secret: bool = False
) -> Any:
    """Return the field of a variable: its default, how its text is read, and what it means."""
    return field(default=default, repr=not secret, metadata={"meaning": meaning, "parse": parse})


def like(pattern: str, problem: str) -> Callable[[str], str]:
    """Parse texts like a pattern; others raise ValueError with the problem."""

    def parse(text: str) -> str:
        if not re.fullmatch(pattern, text, re.DOTALL):
            raise ValueError(problem)
        return text

    return parse


# Bytes of the environment that are not UTF-8 arrive as halves of surrogate pairs.
whole_text = like("[^\0\ud800-\udfff]*", "is no text: it has a NUL or a byte that is not UTF-8")
word = like("[!-~]*", "has a blank or a special character in it")


def file_text(path: str) -> str:
    """Return what a file has, without the end of its last line. ValueError never shows it."""
    try:
        file = Path(path).expanduser()
        # A pipe might never end.
        if not file.is_file():
            raise ValueError("is not a file")
        with file.open("rb") as stream:
            content = stream.read(_FILE_BYTES + 1)
    except (OSError, RuntimeError) as error:
        reason = getattr(error, "strerror", "there is no such home")
        raise ValueError(f"cannot be read: {reason}") from None
    if len(content) > _FILE_BYTES:
        raise ValueError(f"has more than {_FILE_BYTES} bytes in it")
    try:
        text = whole_text(content.decode("utf-8-sig")).rstrip("\r\n")
    except UnicodeError:
        raise ValueError("is not a text in UTF-8") from None
    if not text.strip():
        raise ValueError("is empty")
    return text


def words(text: str) -> tuple[str, ...]:
    """Return words with commas between them."""
    return tuple(word(part.strip()) for part in text.split(",") if part.strip())


def url(*schemes: str, beside_token: bool = False) -> Callable[[str], str]:
    """Parse an address with one of these schemes."""

    def parse(text: str) -> str:
        if checked_address(text, schemes).username is not None and beside_token:
            raise ValueError("holds a user name, which cannot be sent beside the platform's token")
        return text

    return parse


def checked_address(text: str, schemes: tuple[str, ...]) -> SplitResult:
    """Return the parts of an address. Raises ValueError, without the address in its text."""
    try:
        parts = urlsplit(word(text))
        _ = parts.port
    except ValueError:
        raise ValueError("is not an address") from None
    if parts.scheme not in schemes:
        raise ValueError(f"does not begin with {' or '.join(f'{it}://' for it in schemes)}")
    if not (parts.path if parts.scheme == "unix" else parts.hostname):
        raise ValueError("names no server")
    if parts.scheme != "unix":
        host_name(parts.hostname or "")
    return parts


def each_server(url: str) -> list[str]:
    """Return an address for each Sentinel that an address names; other addresses as they are."""
    if not (found := SENTINELS.fullmatch(url)):
        return [url]
    scheme, login, hosts, rest = found.groups("")
    return [f"{scheme}://{login}{host}{rest}" for host in hosts.split(",")]


def host_name(text: str) -> str:
    """Return a host name or an IP address."""
    # For a name that is not valid, the resolver raises UnicodeError, which is no OSError.
    labels = text.removesuffix(".").split(".")
    if len(text) > 253 or not all(re.fullmatch(r"[A-Za-z0-9_-]{1,63}", it) for it in labels):
        try:
            ipaddress.ip_address(text)
        except ValueError:
            raise ValueError("is not a host name or an IP address") from None
    return text


def within(least: float, most: float, kind: Callable[[str], _N] = int) -> Callable[[str], _N]:
    """Parse a number in these bounds."""

    def parse(text: str) -> _N:
        try:
            number = kind(text)
        except ValueError:
            raise ValueError(f"is not a {'whole ' if kind is int else ''}number") from None
        if not least <= number <= most:
            raise ValueError(f"is not from {least} to {most}")
        return number

    return parse


port_number = within(0, 65535)


def _choice(values: Mapping[str, _T], problem: str) -> Callable[[str], _T]:
    """Parse one of these words, in any case."""

    def parse(text: str) -> _T:
        if text.lower() not in values:
            raise ValueError(problem)
        return values[text.lower()]

    return parse


_SWITCH = dict.fromkeys(ON, True) | dict.fromkeys(("off", "false", "no", "0"), False)
switch = _choice(_SWITCH, "is neither on nor off")
switch_or_auto = _choice({"auto": None, **_SWITCH}, "is none of auto, on and off")


def one_of(choices: Collection[str]) -> Callable[[str], str]:
    """Parse one of these words, in any case."""
    return _choice({it: it for it in choices}, f"is none of {', '.join(choices)}")


@dataclass(frozen=True, slots=True)
class NumbersById:
    """Parses whole numbers by ids of one kind, such as "T0123ABCD=7, 81384788765712384=90"."""

    kind: str
    least: int
    most: int

    def __call__(self, text: str, forms: Iterable[IdForm] = ()) -> tuple[tuple[str, int], ...]:
        """Return the pairs; each id names a place, and has one of these forms, if there are any."""
        known, number, found = tuple(forms), within(self.least, self.most), dict[str, int]()
        for part in filter(None, map(str.strip, text.split(","))):
            one, _, written = map(str.strip, part.partition("="))
            if known and not any(form.fits(one) for form in known):
                such_as = " or ".join(form.example for form in known)
                raise ValueError(f"has {one[:80]!r}, which is no id of a {self.kind}: {such_as}")
            if one in found:
                raise ValueError(f"names {one} twice")
            try:
                found[one] = number(written)
            except ValueError as error:
                raise ValueError(f"has {part[:80]!r} in it: the number {error}") from None
        if not found:
            raise ValueError("has no id in it")
        return tuple(found.items())


@dataclass(frozen=True, slots=True)
class Ids:
    """Parses ids of one kind, such as "person", with commas between them."""

    kind: str

    def __call__(self, text: str, forms: Iterable[IdForm] = ()) -> tuple[str, ...]:
        """Return the ids; each has one of these forms, if there are any."""
        ids = tuple(part.strip() for part in text.split(",") if part.strip())
        if not ids:
            raise ValueError("has no id in it: leave it empty if nobody is to be named")
        if re.search(r"[\s;]", "".join(ids)):
            raise ValueError("needs commas, and nothing else, between its ids")
        known = tuple(forms)
        for one in ids if known else ():
            if not any(form.fits(one, around=True) for form in known):
                examples = dict.fromkeys(form.example for form in known if form.example)
                such_as = f"of a {self.kind}, such as {' or '.join(examples)}"
                raise ValueError(f"has {one[:80]!r}, which is no id {such_as}")
        return ids
