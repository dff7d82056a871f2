"""What the benches print follows from what they saw."""

from __future__ import annotations

from dataclasses import replace
from xml.etree import ElementTree

import pytest

from bench.bound import Budget, Rate
from bench.plot import drawing
from bench.scene import Answer, Scene
from bench.stage import LETTERS, TOKENS, answer
from bench.table import Row, table
from tests.emulators.timeline import Freshness

DISCORD = Budget(posts=Rate(5, 5.0), edits=Rate(5, 5.0))
SLACK = Budget(posts=Rate(20, 60.0), edits=Rate(100, 60.0), ends=Rate(20, 60.0), refills=True)
SPOKEN = 6.6  # seconds

FRESH = Freshness(first=0.1, mean=0.5, gap=1.0, last=0.1, whole=True)
WHOLE = Answer(asked=0.005, fresh=FRESH, ended=0.2, curve=((0.1, 0.5), (6.8, 1.0)))
SCENE = Scene(seconds=SPOKEN, answers=(WHOLE, WHOLE), calls=9, refused=0, processor=0.02)
ROW = Row("one channel", 2, "parley", SCENE, DISCORD, 2)


class TestBound:
    @pytest.mark.parametrize(("replies", "writes"), [(1, 1 + 6.6), (5, 5 + 6.6), (20, 6.6 + 6.6)])
    def test_replies_share_their_posts_and_what_edits_fit(
        self, replies: int, writes: float
    ) -> None:
        bound = DISCORD.bound(SPOKEN, replies, way=0.04)

        assert bound == pytest.approx(0.04 + SPOKEN / (2 * writes / replies))

    def test_a_stream_has_an_end_of_its_own(self) -> None:
        bound = SLACK.bound(SPOKEN, 2, way=0.04)

        assert bound == pytest.approx(0.04 + SPOKEN / (2 * (2 + 2 + 11) / 2))

    def test_a_rested_bucket_has_all_its_edits_too(self) -> None:
        bound = SLACK.bound(SPOKEN, 2, way=0.0, full=True)

        assert bound == pytest.approx(SPOKEN / (2 * (2 + 2 + 111) / 2))

    def test_the_last_reply_waits_for_the_last_round_of_posts(self) -> None:
        assert DISCORD.forced(SPOKEN, 20, way=0.04) == pytest.approx(15 - SPOKEN + 0.04)
        assert DISCORD.forced(SPOKEN, 5, way=0.04) == 0.04


class TestTable:
    def test_a_row_has_the_ratio_to_the_bound(self) -> None:
        cells = [cell.strip() for cell in table([ROW]).splitlines()[2].split("|")]

        assert cells[1:7] == [
            "2, one channel (D* 0.81 s)",
            "parley",
            "5.0 / 5.0",
            "100 / 100",
            "0.50",
            "0.62",
        ]

    def test_an_incomplete_reply_has_no_ratio(self) -> None:
        scene = replace(SCENE, answers=(WHOLE, replace(WHOLE, ended=None)))

        line = table([replace(ROW, scene=scene)]).splitlines()[2]

        assert "| (0.50)        | -     |" in line

    def test_what_nobody_ever_saw_has_no_figures(self) -> None:
        scene = replace(SCENE, answers=(Answer(None, None, None, ()),))

        assert "| (nan)" in table([replace(ROW, scene=scene)])


class TestDrawing:
    def test_it_is_an_svg_with_a_line_for_each_bot_and_the_model(self) -> None:
        rows = [ROW, replace(ROW, peer="naive"), replace(ROW, replies=20)]

        root = ElementTree.fromstring(drawing(rows))

        assert len(list(root.iter("{http://www.w3.org/2000/svg}polyline"))) == 3 + 2


class TestAnswer:
    def test_an_answer_has_200_tokens_and_its_question_s_number(self) -> None:
        said = answer([{"role": "user", "content": "Ann: question 17"}])

        assert len(said) == TOKENS * LETTERS
        assert said.startswith("Answer 17: ")
        assert said == said.strip()
