"""A note of which anything changed counts as missing."""

from pathlib import Path

from alexnet.files.sealed import read_sealed, seal


def test_a_note_reads_back_and_no_flipped_bit_is_believed(tmp_path: Path) -> None:
    path = tmp_path / "note"
    assert read_sealed(path) is None
    sealed = seal(b"labels: 1 2 3")
    path.write_bytes(sealed)
    assert read_sealed(path) == b"labels: 1 2 3"
    for bit in range(8 * len(sealed)):
        changed = bytearray(sealed)
        changed[bit // 8] ^= 1 << bit % 8
        path.write_bytes(changed)
        assert read_sealed(path) is None
    for size in range(len(sealed)):
        path.write_bytes(sealed[:size])
        assert read_sealed(path) is None
