"""What `alexnet ensemble` prints; what it measures is tested with the evaluate stage."""

from pathlib import Path

import pytest

from pipelines.cli.ensemble import text
from pipelines.cli.main import main
from tests.support.trained_folder import RESULTS


def test_every_protocol_has_a_line_with_the_interval() -> None:
    lines = text("test", RESULTS.protocols).splitlines()
    assert lines[0].startswith("test images  ")
    assert lines[1].split() == ["center", "crop", "10.00%", "(5.00", "to", "25.00%)", "0.00%", "0.5000", "5.00%"]
    assert lines[2].startswith("five crops ")


def test_a_folder_that_is_there_is_not_replaced(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    (tmp_path / "precious").touch()
    assert main(["ensemble", "artifacts/model", "--to", str(tmp_path)]) == 1
    assert f"{tmp_path}: exists; name a folder to make" in capsys.readouterr().err
    assert (tmp_path / "precious").exists()
