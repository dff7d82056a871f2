"""What others wrote and the page or its tests use is what they published."""

from __future__ import annotations

import hashlib
import json
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[2]


@pytest.mark.parametrize("folder", ["adapters/web/static/vendor", "tests/web/vendor"])
def test_vendored_files_have_the_listed_hashes_and_a_licence(folder: str) -> None:
    files = {path.name: path for path in (ROOT / folder).iterdir()}
    listed = json.loads(files.pop("vendored.json").read_text())

    for each in listed:
        assert hashlib.sha256(files.pop(each["file"]).read_bytes()).hexdigest() == each["sha256"]
        assert files.pop(f"{Path(each['file']).stem}.LICENSE.txt").read_text()
        assert each["package"]
        assert each["version"]
    assert not files
