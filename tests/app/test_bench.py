"""What the benches print follows from what they saw."""

from __future__ import annotations

from dataclasses import replace

import pytest

from bench.bound import Budget, Rate
from bench.freshness import Freshness
from bench.scene import Answer, Scene
from bench.table import Row, table
from bench.tokens import KINDS, main
from tests.tokens.test_estimate import v3

DISCORD = Budget(posts=Rate(5, 5.0), edits=Rate(5, 5.0))
SLACK = Budget(posts=Rate(20, 60.0), edits=Rate(100, 60.0), ends=Rate(20, 60.0), refills=True)
SPOKEN = 6.6  # seconds

FRESH = Freshness(first=0.1, mean=0.5, gap=1.0, last=0.1, whole=True)
WHOLE = Answer(asked=0.005, fresh=FRESH, ended=0.2, curve=((0.1, 0.5), (6.8, 1.0)))
SCENE = Scene(seconds=SPOKEN, answers=(WHOLE, WHOLE), calls=9, refused=0, processor=0.02)
ROW = Row("one channel", 2, "parley", SCENE, DISCORD, 2)


@pytest.mark.parametrize(("replies", "writes"), [(1, 1 + 6.6), (5, 5 + 6.6), (20, 6.6 + 6.6)])
def test_replies_share_their_posts_and_what_edits_fit(replies: int, writes: float) -> None:
    bound = DISCORD.bound(SPOKEN, replies, way=0.04)

    assert bound == pytest.approx(0.04 + SPOKEN / (2 * writes / replies))


def test_a_stream_has_an_end_of_its_own() -> None:
    bound = SLACK.bound(SPOKEN, 2, way=0.04)

    assert bound == pytest.approx(0.04 + SPOKEN / (2 * (2 + 2 + 11) / 2))


def test_the_last_reply_waits_for_the_last_round_of_posts() -> None:
    assert DISCORD.forced(SPOKEN, 20, way=0.04) == pytest.approx(15 - SPOKEN + 0.04)
    assert DISCORD.forced(SPOKEN, 5, way=0.04) == 0.04


def test_a_row_has_the_ratio_to_the_bound() -> None:
    cells = [cell.strip() for cell in table([ROW]).splitlines()[2].split("|")]

    assert cells[1:7] == [
        "2, one channel (D* 0.81 s)",
        "parley",
        "5.0 / 5.0",
        "100 / 100",
        "0.50",
        "0.62",
    ]


def test_a_budget_that_refills_is_compared_with_all_that_it_had_saved() -> None:
    cells = [cell.strip() for cell in table([replace(ROW, budget=SLACK)]).split("|")]

    assert "1.04, rested 5.1" in cells


def test_an_incomplete_reply_has_no_ratio() -> None:
    scene = replace(SCENE, answers=(WHOLE, replace(WHOLE, ended=None)))

    line = table([replace(ROW, scene=scene)]).splitlines()[2]

    assert "| (0.50)        | -     |" in line


def test_it_tells_for_each_kind_of_text_what_is_too_long(
    capsys: pytest.CaptureFixture[str],
) -> None:
    main([v3(), v3().with_name("tekken_240911.json")], texts=2 * len(KINDS), seed=1, more=None)

    first, _, *rows = [line.split("|") for line in capsys.readouterr().out.splitlines()]
    assert first == [f"2 tokenizers, {2 * len(KINDS)} texts"]
    assert [row[1].strip() for row in rows] == list(KINDS)
    assert {row[1].strip() for row in rows if row[3].strip() == "0"} >= {
        "English",
        "code",
        "JSON",
    }
