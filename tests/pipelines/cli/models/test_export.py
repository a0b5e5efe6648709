"""The command's options; what it writes is tested with the exports."""

import pytest

from pipelines.cli import main as cli


def test_the_help_says_what_the_files_read_and_need(capsys: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(SystemExit, match="^0$"):
        cli.main(["export", "--help"])
    out = capsys.readouterr().out
    assert "opset 18" in out
    assert "alexnet-pipeline[export]" in out
