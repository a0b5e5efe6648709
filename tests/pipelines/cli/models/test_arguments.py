"""The help of the commands for released models."""

import pytest

from pipelines.cli import main as cli


@pytest.mark.parametrize(
    "command", ["pull", "verify", "releases", "show-release", "promote", "rollback", "history", "drift", "predict", "features"]
)
def test_help_gives_an_example_and_the_keys_of_the_json(command: str, capsys: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(SystemExit) as ended:
        cli.main([command, "--help"])
    text = capsys.readouterr().out
    assert ended.value.code == 0
    assert f"usage: alexnet {command}" in text
    assert f"\n  alexnet {command} " in text
    assert "\n--json: " in text
