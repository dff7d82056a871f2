"""The process that reads one file: its bytes come in, and JSON objects go out, one per line."""

from __future__ import annotations

import json
import mimetypes
import sys
from collections.abc import Iterator, Mapping
from itertools import islice

from bot.files.formats import MOST_CHARACTERS, READERS
from bot.files.kinds import Problem, Unreadable, kind_of
from bot.text.sanitize import strip_controls, whole_characters

_MOST_PARTS = 80  # pages, slides or sheets
# By RLIMIT_…: in bytes, files and seconds of a CPU. No size: nothing can be written to a file.
_LIMITS = {"AS": 300_000_000, "CPU": 10, "FSIZE": 0, "NOFILE": 32, "CORE": 0}
# The libraries use these if they are there, and do without them; numpy alone exceeds the memory.
_UNUSED = ("numpy", "pandas", "lxml", "PIL")
_REFUSED = ("socket.", "subprocess.", "os.system", "os.exec", "os.posix_spawn", "os.fork")
_MODULES = (".py", ".pyc", ".so")


def main() -> None:
    """Report the limits that this system does not have, and what was read of standard input."""
    reports = read(sys.stdin.buffer.read(), suffix=sys.argv[1])
    _write({"unlimited": _limit()})
    sys.modules.update(dict.fromkeys(_UNUSED))  # type: ignore[arg-type]
    mimetypes.init(())  # openpyxl would open the system's list
    sys.addaudithook(_refuse)
    for report in reports:
        _write(report)


def read(data: bytes, *, suffix: str) -> Iterator[Mapping[str, object]]:
    """Yield fields of FileText, each `part`, and as `problem` why there are no more, if so."""
    try:
        unit, total, texts = READERS[kind_of(data, suffix=suffix)](data)
        yield {"unit": unit, "total": total}
        room = MOST_CHARACTERS
        for text in islice(texts, _MOST_PARTS):
            whole = strip_controls(whole_characters(text)).strip()
            yield {"part": whole[:room], "is_cut": len(whole) > room}
            room -= len(whole)
            if room <= 0:
                break
        yield {"problem": Problem.EMPTY.name}
    except Unreadable as error:
        yield {"problem": error.args[0].name}
    except ImportError:
        yield {"problem": Problem.MISSING.name}
    except MemoryError:
        yield {"problem": Problem.HEAVY.name}
    # No library tells what a hostile file may bring it to raise.
    except Exception:
        yield {"problem": Problem.DAMAGED.name}


def _limit() -> list[str]:
    """Set the limits of this process; returns those that the system does not have."""
    try:
        import resource
    except ImportError:  # Windows
        return [*_LIMITS]
    missing = []
    for name, most in _LIMITS.items():
        try:
            resource.setrlimit(getattr(resource, f"RLIMIT_{name}"), (most, most))
        except (AttributeError, ValueError, OSError):  # macOS sets no limit of memory
            missing.append(name)
    return missing


def _refuse(event: str, arguments: tuple[object, ...]) -> None:
    """Refuse connections, processes, and to open any file but a module of Python."""
    is_other_file = event == "open" and not str(arguments[0]).endswith(_MODULES)
    if is_other_file or event.startswith(_REFUSED):
        raise PermissionError(event)


def _write(report: Mapping[str, object]) -> None:
    sys.stdout.buffer.write(json.dumps(report, ensure_ascii=False).encode() + b"\n")
    sys.stdout.buffer.flush()


if __name__ == "__main__":
    main()
