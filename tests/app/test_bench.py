"""What the benches print follows from what they saw."""

from __future__ import annotations

import os
from collections.abc import Sequence
from dataclasses import dataclass, field, replace
from types import SimpleNamespace
from typing import cast
from xml.etree import ElementTree

import pytest

from bench.bound import Budget, Rate
from bench.freshness import Freshness
from bench.plot import drawing
from bench.scene import Answer, Scene, play
from bench.stage import LETTERS, TOKENS, Question, Stage, answer
from bench.table import Row, table
from bench.tokens import KINDS, main
from tests.emulators.model.asked import Asked
from tests.emulators.timeline import Delta, Moment
from tests.tokens.test_estimate import v3

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


@dataclass
class FakeStage:
    """A platform where one bot has asked the model and shown something; every question is 7."""

    texts: tuple[str, ...]
    spoken: str = "Answer 7: one.\n\nTwo."
    made: list[FakeCall] = field(default_factory=list)

    def __post_init__(self) -> None:
        asked = Asked("POST /", at=2.0, headers={}, finished=True)
        asked.body = {"messages": [{"role": "user", "content": "question 7"}]}
        asked.deltas = [Delta(3.0, self.spoken)]
        self.model = SimpleNamespace(requests=[asked])

    async def ask(self, numbers: Sequence[int]) -> list[Question]:
        self.made += [FakeCall(limited=False), FakeCall(limited=True)]
        return [Question(number, at=1.9, channel="1", id=str(number)) for number in numbers]

    def moments(self, question: Question) -> list[Moment]:
        return [Moment(4.0 + n, "post", str(n), text) for n, text in enumerate(self.texts)]

    def stoppable(self, question: Question) -> bool:
        return False

    def calls(self) -> list[FakeCall]:
        return self.made


@dataclass
class FakeCall:
    limited: bool


class TestScene:
    @pytest.mark.parametrize(
        ("texts", "incomplete"),
        [
            (("Answer 7: one.\n\nTwo.",), 0),
            (("Answer 7: one.", "Two."), 0),
            (("Answer 7: one. Two.",), 1),
            (("Answer 7: one.",), 1),
            (("Answer 7: one.\n\nTwo.", "Two."), 1),
        ],
    )
    async def test_an_answer_is_complete_as_the_model_gave_it(
        self, monkeypatch: pytest.MonkeyPatch, texts: tuple[str, ...], incomplete: int
    ) -> None:
        monkeypatch.setattr("bench.scene.QUIET", 0.0)

        scene = await play(cast("Stage", FakeStage(texts)), os.getpid(), [7], idle=0.0)

        assert scene.incomplete == incomplete

    async def test_it_counts_calls_refusals_and_what_the_process_took(self) -> None:
        stage = FakeStage(("Answer 7: one.\n\nTwo.",), made=[FakeCall(limited=True)])

        scene = await play(cast("Stage", stage), os.getpid(), [7], idle=0.0)

        (answer,) = scene.answers
        assert (scene.calls, scene.refused) == (2, 1)
        assert answer.asked == pytest.approx(0.1)
        assert answer.ended == pytest.approx(1.0)
        assert scene.processor > 0


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

    def test_a_budget_that_refills_is_compared_with_all_that_it_had_saved(self) -> None:
        cells = [cell.strip() for cell in table([replace(ROW, budget=SLACK)]).split("|")]

        assert "1.04, rested 5.1" in cells

    def test_the_end_that_the_budget_forces_is_told(self) -> None:
        assert "end ≥ 3.4 s)" in table([replace(ROW, sharing=15)])

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


class TestTokens:
    def test_it_tells_for_each_kind_of_text_what_is_too_long(
        self, capsys: pytest.CaptureFixture[str]
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

    def test_a_text_that_needs_more_is_too_long(
        self, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
    ) -> None:
        monkeypatch.setattr("bench.tokens.estimate", lambda text: 1)

        main([v3()], texts=len(KINDS), seed=1, more=None)

        assert "| English | 1 | 1 | 0." in capsys.readouterr().out
