"""P7: a reader takes what it wrote; of any other bytes it says what is wrong, in bounded memory and time. See fuzz.py."""

from pathlib import Path

import pytest

from tests.faults.fuzz import fuzz
from tests.faults.readers import READERS

EXAMPLES = 12  # `make fuzz` tries thousands
SLOW = ("params.yaml", "dvc.lock")  # seconds, of a YAML parser in Python


@pytest.mark.parametrize("name", READERS)
def test_a_reader_takes_what_it_wrote(name: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    reader = READERS[name]()
    for seed in reader.seeds:
        reader.read(seed)


@pytest.mark.parametrize("name", [pytest.param(name, marks=[pytest.mark.slow] * (name in SLOW)) for name in READERS])
def test_only_named_errors_in_bounded_memory_and_time(name: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    assert sum(fuzz(READERS[name](), EXAMPLES).values()) >= EXAMPLES // 2
