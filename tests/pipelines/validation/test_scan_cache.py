from pathlib import Path

from alexnet.images import container, inspect
from pipelines.sources import levels
from pipelines.sources.base import Partition
from pipelines.validation import index, scan_cache


def test_a_damaged_file_of_the_scan_cache_is_scanned_again(tmp_path: Path) -> None:
    folder, partition = scan_cache.ScanCache(tmp_path), Partition(path="a")
    assert folder.read(partition, index.SCANNED) is None
    rows = index.SCANNED.empty_table()
    folder.write(partition, rows)
    assert folder.read(partition, index.SCANNED) == rows
    assert folder.read(partition, index.SCHEMA) is None
    (file,) = tmp_path.iterdir()
    file.write_bytes(file.read_bytes()[:-9])
    assert folder.read(partition, index.SCANNED) is None


def test_rows_of_other_code_are_not_kept() -> None:
    """All that says what an image is, and which images there are."""
    assert {Path(str(module.__file__)) for module in (container, inspect, levels, index, scan_cache)} <= {*scan_cache._code()}
