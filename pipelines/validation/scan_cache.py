"""The rows of the partitions of a source that validate has scanned, on the disk until the index is written.

They depend on the source's files, on what counts as a fault, and on the code and the codecs; not on the policy.
"""

import hashlib
import json
import shutil
from dataclasses import dataclass
from importlib.metadata import version
from pathlib import Path

import pyarrow as pa
import pyarrow.parquet as pq

from alexnet import images
from alexnet.files.atomic import atomic_write_bytes
from alexnet.files.sealed import read_sealed, seal
from alexnet.images.inspect import ValidateConfig
from pipelines import sources
from pipelines.runtime import environment
from pipelines.sources.base import Partition
from pipelines.sources.open import Source

FOLDER = environment.LOCAL / "validate"


@dataclass(frozen=True)
class ScanCache:
    """A folder of Parquet files, each named by the digest of its partition."""

    folder: Path

    def read(self, partition: Partition, schema: pa.Schema) -> pa.Table | None:
        """The rows of a partition; None if there are none, or their file is damaged or of another schema."""
        data = read_sealed(self._path(partition))
        if data is None:
            return None
        rows = pq.read_table(pa.BufferReader(data))
        return rows if rows.schema.equals(schema) else None

    def write(self, partition: Partition, rows: pa.Table) -> None:
        """Writes the rows of a partition."""
        out = pa.BufferOutputStream()
        pq.write_table(rows, out, compression="zstd")
        atomic_write_bytes(self._path(partition), seal(out.getvalue().to_pybytes()))

    def clear(self) -> None:
        """Removes the rows of this scan and of all others."""
        shutil.rmtree(FOLDER, ignore_errors=True)

    def _path(self, partition: Partition) -> Path:
        return self.folder / f"{hashlib.sha256(repr(partition).encode()).hexdigest()[:32]}.parquet"


def open_scan_cache(name: str, source: Source, config: ValidateConfig, listing: bytes = b"") -> ScanCache:
    """The cache of a source as it is now, scanned by this code. The rows of all other scans are removed.

    listing: the fetch stage's, which a `--rehash` changes when a content has.
    """
    inputs = {
        "listing": hashlib.sha256(listing).hexdigest(),
        "name": name,
        "files": [(file.path, file.size, file.stamp) for file in source.files()],
        "classes": sorted(source.class_names()),
        "config": [config.min_side_px, config.max_aspect, config.max_pixels],
        "code": [path.read_text(encoding="utf-8") for path in _code()],
        "codecs": [version(codec) for codec in ("pillow", "simplejpeg")],
    }
    own = hashlib.sha256(json.dumps(inputs, sort_keys=True).encode()).hexdigest()[:32]
    for other in FOLDER.glob("*"):
        if other.name != own:
            shutil.rmtree(other, ignore_errors=True)
    return ScanCache(FOLDER / own)


def _code() -> list[Path]:
    here = Path(__file__)
    folders = sorted(path for package in (images, sources) for path in Path(package.__path__[0]).rglob("*.py"))
    return [here, here.with_name("index.py"), *folders]
