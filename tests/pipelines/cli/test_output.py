"""What commands print."""

import json

import pytest

from pipelines.cli.output import print_result
from pipelines.runtime.console import escaped


def test_a_program_gets_json_and_people_get_text(capsys: pytest.CaptureFixture[str]) -> None:
    print_result(True, {"b": "\x1b", "a": 1}, "text")
    assert json.loads(capsys.readouterr().out) == {"a": 1, "b": "\x1b"}
    print_result(False, {}, "text")
    print_result(False, {}, "")
    assert capsys.readouterr().out == "text\n"


def test_lines_and_columns_stay_and_nothing_else_steers(capsys: pytest.CaptureFixture[str]) -> None:
    print_result(False, {}, "latest\x1b[31m\t1\nnext\r2")
    assert capsys.readouterr().out == "latest\\x1b[31m\t1\nnext\\r2\n"


@pytest.mark.parametrize("text", ["\x1b[2J", "a\nb", "\r", "\x07", "\x9b31m", "\u202e", "\udcff", "\u2028"])
def test_what_could_steer_a_terminal_is_an_escape(text: str) -> None:
    assert escaped(text).isascii()
    assert escaped(text).isprintable()


def test_letters_of_any_script_stay() -> None:
    assert escaped("Größe 猫 · кот.jpg") == "Größe 猫 · кот.jpg"
