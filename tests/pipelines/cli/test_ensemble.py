"""What `alexnet ensemble` prints; what it measures is tested with the evaluate stage."""

from pipelines.cli.ensemble import text
from tests.support.trained_folder import RESULTS


def test_every_protocol_has_a_line_with_the_interval() -> None:
    lines = text("test", RESULTS.protocols).splitlines()
    assert lines[0].startswith("test images  ")
    assert lines[1].split() == ["center", "crop", "10.00%", "(5.00", "to", "25.00%)", "0.00%", "0.5000", "5.00%"]
    assert lines[2].startswith("five crops ")
