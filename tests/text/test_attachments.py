"""What of an answer becomes a file, under which name, and with what in it."""

from __future__ import annotations

import pytest

from bot.domain import Attachment
from bot.text.attachments import attachments

ROWS = 10  # of a page
LONG = "x = 1\n" * 2 * ROWS


def pages(text: str) -> int:
    return -(-len(text.split("\n")) // ROWS)


def is_narrow(table: str) -> bool:
    return all(len(row) <= 40 for row in table.split("\n"))


def made(answer: str) -> list[tuple[str, str]]:
    found = attachments(answer, pages=pages, shows_whole=is_narrow)
    return [(one.name, one.data.decode("utf-8-sig")) for one in found]


def fenced(code: str, language: str = "", fence: str = "```") -> str:
    return f"{fence}{language}\n{code}{fence}"


def test_code_that_needs_more_than_two_pages_is_a_file() -> None:
    answer = f"Here:\n\n{fenced(LONG, 'python')}\n\nThat is all."

    assert made(answer) == [("answer.py", LONG)]


def test_shorter_code_and_long_prose_are_none() -> None:
    short = fenced("x = 1\n" * ROWS, "python")

    assert made(f"{short}\n\n{short}\n\n" + "word\n\n" * 9 * ROWS) == []


@pytest.mark.parametrize(
    ("language", "name"),
    [
        ("Python", "answer.py"),
        ("c++", "answer.cpp"),
        ("yml", "answer.yaml"),
        ("", "answer.txt"),
        ("brainfuck", "answer.txt"),
        # What a double click would run.
        ("js", "answer.js.txt"),
        ("html", "answer.html.txt"),
        ("bat", "answer.txt"),
        ("vbs", "answer.txt"),
        ("csv", "answer.txt"),
        # What no language is.
        ("../../etc/passwd", "answer.txt"),
        ("py.exe", "answer.txt"),
        ("python title=@everyone", "answer.py"),
        ("<!channel>", "answer.txt"),
        ("constructor", "answer.txt"),
        ("\u202eyp", "answer.txt"),
    ],
)
def test_the_name_is_ours_whatever_the_language_is_called(language: str, name: str) -> None:
    assert made(fenced(LONG, language)) == [(name, LONG)]


def test_code_is_as_the_model_wrote_it_but_for_what_precedes_each_line() -> None:
    code = "".join(f"  if a_{n} < 1:  # **@everyone** `x` \\|\n\n" for n in range(ROWS))
    in_item = "".join(f"   {line}\n" if line else "\n" for line in code.split("\n")[:-1])
    in_quote = "".join(f"> {line}\n" for line in code.split("\n")[:-1])

    assert made(fenced(code, fence="~~~~")) == [("answer.txt", code)]
    assert made(f"1. So:\n\n   ```sh\n{in_item}   ```\n") == [("answer.sh", code)]
    assert made(f"> ```sh\n{in_quote}> ```\n") == [("answer.sh", code)]


def test_code_that_the_answer_does_not_close_is_none() -> None:
    assert made(f"```python\n{LONG}") == []
    assert made(f"```python\n{LONG}``") == []


def test_a_table_that_is_too_wide_or_too_long_is_a_file() -> None:
    wide = f"| one | {'long ' * 10}|\n|---|---|\n| 1 | 2 |"
    narrow = "| one | two |\n|---|---|\n"
    rows = "".join(f"| {n} | {n * n} |\n" for n in range(2 * ROWS))

    assert made(f"So:\n\n{wide}") == [("table.csv", f"one,{'long ' * 9}long\r\n1,2\r\n")]
    assert made(f"{narrow}| 1 | 2 |\n\nDone.") == []
    [(name, csv)] = made(f"{narrow}{rows}Done.")
    assert (name, csv.splitlines()[-1]) == ("table.csv", "19,361")


@pytest.mark.parametrize(
    ("cell", "value"),
    [
        ("**bold** and *slanted*", "bold and slanted"),
        ("`a\\|b` \\| c", "a|b | c"),
        ("[the docs](https://example.org/a_b)", "the docs (https://example.org/a_b)"),
        ("one<br>two<br/>three", "one two three"),
        (
            "~~old~~ 5 * 3 * 2 and snake_case_name __init__",
            "old 5 * 3 * 2 and snake_case_name __init__",
        ),
        (r"5 \* 3", "5 * 3"),
        ("", ""),
        ("-5.3 %", "-5.3 %"),
        ("+1,200", '"+1,200"'),
        ("-", "-"),
        ('say "no"', '"say ""no"""'),
    ],
)
def test_a_cell_has_its_words_alone(cell: str, value: str) -> None:
    answer = f"| a | {'wide ' * 10}| c |\n|---|---|---|\n| 1 | {cell} | 2 |"

    [(_, csv)] = made(answer)

    assert csv.split("\r\n")[1] == f"1,{value},2"


@pytest.mark.parametrize(
    "cell",
    [
        '=HYPERLINK("https://evil.example","x")',
        "@SUM(A1)",
        "+cmd\\|' /C calc'!A0",
        "-2+3+cmd\\|' /C calc'!A0",
        "**=1+1**",
        "`=1+1`",
        "\\=1+1",
        "<br>=1+1",
        "\t=1+1",
    ],
)
def test_no_cell_is_a_formula_of_a_spreadsheet(cell: str) -> None:
    answer = f"| a | {'wide ' * 10}|\n|---|---|\n| {cell} | 2 |"

    [(_, csv)] = made(answer)

    assert csv.split("\r\n")[1].lstrip('"').startswith("'")


def test_of_several_a_few_are_files_each_under_a_name_of_its_own() -> None:
    wide = f"| one | {'long ' * 10}|\n|---|---|\n| 1 | 2 |\n"
    answer = f"{fenced(LONG, 'py')}\n{wide}\n{fenced(LONG, 'sh')}\n{wide}\n{fenced(LONG)}\n"

    names = [name for name, _ in made(answer)]

    assert names == ["answer.py", "table.csv", "answer-2.sh", "table-2.csv"]


def test_what_is_next_to_each_other_is_not_mixed_up() -> None:
    wide = f"| one | {'long ' * 10}|\n|---|---|\n| 1 | 2 |\n"
    answer = (
        f"{fenced(LONG, 'py')}\n{wide}{fenced(LONG, 'sh')}\n```\n| no | table |\n|---|---|\n```"
    )

    assert [name for name, _ in made(answer)] == ["answer.py", "table.csv", "answer-2.sh"]
    assert made(answer)[2] == ("answer-2.sh", LONG)


@pytest.mark.parametrize("piece", ["`", "``", "**a", "~~", "[a](b", "![", "\\", "<br", "`a``b"])
def test_hostile_cells_take_no_longer_than_others(piece: str) -> None:
    cell = piece * (100_000 // len(piece))

    assert len(made(f"| a |\n|---|\n| {cell} |")[0][1]) > 50_000


def test_a_file_shows_none_of_its_content_in_a_log() -> None:
    assert repr(Attachment("answer.txt", b"secret")) == "Attachment(name='answer.txt')"
