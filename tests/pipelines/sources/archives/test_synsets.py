"""A damaged meta.mat is refused; read by scipy within this process, some such files end it."""

from pathlib import Path

import pytest

from pipelines.cli.make_ilsvrc import meta_mat
from pipelines.sources.archives.devkit import ILSVRC2012
from pipelines.sources.archives.synsets import KitSynset, read_synsets
from tests.support.stage_folder import make_small_ilsvrc


def test_synsets_are_read_and_zeros_among_them_are_refused(tmp_path: Path) -> None:
    made = make_small_ilsvrc(tmp_path)
    whole = meta_mat(made, ILSVRC2012)
    expected = {KitSynset(made.ids[label], wnid, f"thing {label}, object {label}", 4) for label, wnid in enumerate(made.wnids)}
    assert set(read_synsets(whole, "ILSVRC2012")) == expected
    for start in (382, 900, len(whole) // 2):  # the first two end scipy 1.17's process
        with pytest.raises(ValueError, match=r"^(its reader crashed|\w+: .*|\w+)$"):
            read_synsets(whole[:start] + bytes(8) + whole[start + 8 :], "ILSVRC2012")
    with pytest.raises(ValueError, match="ILSVRC2010_ID"):
        read_synsets(whole, "ILSVRC2010")
