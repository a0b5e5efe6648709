"""The synsets in meta.mat of ImageNet's development kit, read by a process of its own: a damaged file can crash scipy's reader.

python -m pipelines.sources.archives.synsets ILSVRC2012 <meta.mat
"""

import io
import json
import resource
import subprocess
import sys
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

_MEMORY = 1 << 30  # bytes that the file may take, at most
_SECONDS = 120  # to read it, on a machine that does other things too; a good one takes one
_SHOWN = 200  # characters of an error


@dataclass(frozen=True)
class KitSynset:
    """A class. number: its id in the development kit."""

    number: int
    wnid: str
    words: str
    train_images: int


def read_synsets(meta: bytes, year: str) -> list[KitSynset]:
    """The synsets without children, in the order of the file. Raises ValueError for a file that holds none, or is damaged."""
    command = [sys.executable, "-m", __name__, year]
    try:
        done = subprocess.run(command, input=meta, capture_output=True, timeout=_SECONDS, check=False)
    except subprocess.TimeoutExpired:
        raise ValueError(f"not read in {_SECONDS} s") from None
    if done.returncode < 0:
        raise ValueError("its reader crashed")
    if done.returncode:
        raise ValueError(done.stderr.decode(errors="replace").strip()[-_SHOWN:])
    return [KitSynset(**each) for each in json.loads(done.stdout)]


def main(year: str) -> None:
    """Prints the synsets of the file in stdin as JSON, or in stderr why there are none."""
    from scipy.io import loadmat

    has = int(Path("/proc/self/statm").read_text(encoding="ascii").split()[0]) * resource.getpagesize()
    limit = resource.getrlimit(resource.RLIMIT_AS)[1]
    resource.setrlimit(resource.RLIMIT_AS, (has + _MEMORY if limit < 0 else min(has + _MEMORY, limit), limit))
    try:
        rows: Any = loadmat(io.BytesIO(sys.stdin.buffer.read()), squeeze_me=True)["synsets"]
        leaves = [row for row in rows if int(row["num_children"]) == 0]
        found = [
            KitSynset(int(row[f"{year}_ID"]), str(row["WNID"]), str(row["words"]), int(row["num_train_images"]))
            for row in leaves
        ]
    except Exception as error:  # noqa: BLE001 - loadmat raises anything on a damaged file
        sys.exit(f"{type(error).__name__}: {str(error)[:_SHOWN]}")
    print(json.dumps([asdict(each) for each in found]))


if __name__ == "__main__":
    main(sys.argv[1])
