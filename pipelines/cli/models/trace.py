"""`alexnet trace`: from a release back to its model, shards, index, source and validation, every digest compared on the way."""

import argparse
import dataclasses
import hashlib
import subprocess
from collections import Counter
from collections.abc import Callable, Iterator, Mapping
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, field
from functools import partial
from pathlib import Path
from typing import Any, Literal

import pyarrow as pa
import pyarrow.compute as pc

from alexnet.config import read_json
from alexnet.errors import DataError, ParamsError
from alexnet.files.strict import loads, read_bytes, shown
from alexnet.shards.manifest import Manifest, Shard
from alexnet.shards.verify import verify
from pipelines.cli.models.folder import model_folder
from pipelines.cli.output import print_result
from pipelines.config import params, tree
from pipelines.publishing import provenance
from pipelines.publishing.provenance import Provenance
from pipelines.registry.release import MANIFEST, Release, is_signature
from pipelines.runtime.console import escaped, progress
from pipelines.sources.open import open_source
from pipelines.storage.bucket import data_bucket
from pipelines.validation import index
from pipelines.validation.report import ValidationReport

_THREADS = 8
State = Literal["right", "wrong", "absent"]


@dataclass(frozen=True)
class Finding:
    """A step of the chain: compared and right, or wrong, or absent: not at hand here. files: SHA-256 of what it names."""

    name: str
    state: State
    about: str
    files: Mapping[str, str] = field(default_factory=dict)


def trace(args: argparse.Namespace) -> int:
    """Prints every link; 1 if one is wrong."""
    folder = model_folder(args.model, args.offline)
    release = Release.from_manifest(read_bytes(folder / MANIFEST), str(folder / MANIFEST))
    chain = Chain(folder, release, quick=args.quick, image=args.image)
    links = list(chain.links())
    found: dict[str, Any] = {
        "name": release.name,
        "version": release.version,
        "links": [dataclasses.asdict(link) for link in links],
    }
    lines = [f"{link.name:12}{link.state:8}{escaped(link.about)}" for link in links]
    if args.image:
        found["image"] = chain.image_row()
        lines += ["", *(f"{name:12}{escaped(value)}" for name, value in found["image"].items())]
    print_result(args.json, found, "\n".join([f"{release.name}@{release.version}", *lines]))
    return int(any(link.state == "wrong" for link in links))


class Chain:
    """The links of one release.

    Args:
        folder: of the release, pulled.
        release: its manifest's.
        quick: compare sizes of shards and read no source, instead of every byte of both.
        image: the key of an image to find.
    """

    def __init__(self, folder: Path, release: Release, *, quick: bool, image: str | None) -> None:
        self.folder, self.release, self.quick, self.image = folder, release, quick, image
        self.rows: pa.Table | None = None  # of the index, those that are used
        self.shard_of: dict[str, str] = {}  # by key of an image

    def links(self) -> Iterator[Finding]:
        """Every link, in order; one that cannot be followed says why."""
        steps: dict[str, Callable[[], Finding]] = {
            "release": self._release,
            "code": self._code,
            "lineage": self._lineage,
            "model": self._model,
            "index": self._index,
            "shards": self._shards,
            "source": self._source,
            "validation": self._validation,
        }
        for name, step in steps.items():
            try:
                yield step()
            except (DataError, ParamsError, OSError) as error:
                yield Finding(name, "absent", f"{error}")
            except (LookupError, TypeError, ValueError, AttributeError) as error:  # of a file that somebody else wrote
                yield Finding(name, "wrong", f"a file of it has another form than this program writes: {shown(error)}")

    def image_row(self) -> dict[str, Any]:
        """What the index says of the image, and the shard it is in where shards were read."""
        rows = self.rows.filter(pc.equal(self.rows["key"], self.image)).to_pylist() if self.rows is not None else []
        if not rows:
            raise DataError(f"--image: {self.image}: the index of this release has no such key that is used")
        row: dict[str, Any] = rows[0] | {"shard": self.shard_of.get(str(self.image))}
        return row

    def _release(self) -> Finding:
        wrong = self.release.differences(self.folder)
        names = (path.relative_to(self.folder).as_posix() for path in self.folder.rglob("*"))
        signed = ", ".join(sorted(filter(is_signature, names))) or "no signature was asked for"
        about = f"{len(self.release.files)} files, as the manifest names them; {signed}"
        return Finding("release", "wrong", "; ".join(wrong)) if wrong else Finding("release", "right", about)

    def _code(self) -> Finding:
        made = read_json(Provenance, self.folder / provenance.NAME, "the release is older than this command", {"said": ""})
        if made.commit is None:
            return Finding("code", "absent", str(made))
        if made.changed:
            return Finding("code", "wrong", f"made from changed code: {made}")
        try:
            changed = provenance.changed_code(made.commit, self._lock())
        except (OSError, subprocess.SubprocessError):
            return Finding("code", "absent", f"commit {made.commit}, which this folder's git does not have")
        if changed:
            return Finding("code", "wrong", f"stages ran other code than commit {made.commit}: {', '.join(changed)}")
        return Finding("code", "right", f"commit {made.commit}; every stage in dvc.lock ran its code")

    def _lineage(self) -> Finding:
        lock = self._lock()
        wrong = provenance.changed_data(self.folder, lock)
        wrong += provenance.changed_params(tree.read(self.folder / params.FILE), lock)
        if wrong:
            return Finding(
                "lineage", "wrong", f"made from changed data or parameters: not as dvc.lock has them: {', '.join(wrong)}"
            )
        return Finding("lineage", "right", f"data and parameters are those of the {len(lock['stages'])} stages in dvc.lock")

    def _lock(self) -> tree.Tree:
        return tree.read(self.folder / "dvc.lock")

    def _model(self) -> Finding:
        files = {path: self.release.files[path].sha256 for path in ("model.safetensors", "config.json")}
        shards = self._manifest()
        synsets = loads(read_bytes(self.folder / "config.json"))["synsets"]
        if synsets != [dataclasses.asdict(each) for each in shards.synsets]:
            return Finding("model", "wrong", "its classes are not those of the shards", files)
        return Finding("model", "right", f"model.safetensors {files['model.safetensors']}, {len(synsets):,} classes", files)

    def _index(self) -> Finding:
        table = index.read(self.folder / "index.parquet")
        self.rows = table.filter(pc.is_in(table["action"], pa.array(["use", "repair"])))
        counts = Counter(zip(self.rows["split"].to_pylist(), self.rows["label"].to_pylist(), strict=True))
        listed = Counter[tuple[str, int]]()
        for split, shards in self._manifest().splits.items():
            for shard in shards:
                listed.update({(split, label): count for label, count in shard.labels.items()})
        files = {"index.parquet": self.release.files["index.parquet"].sha256}
        if +counts != +listed:
            return Finding("index", "wrong", "its images by split and class are not those of the shards", files)
        return Finding("index", "right", f"{len(table):,} images, {len(self.rows):,} of them in the shards", files)

    def _shards(self) -> Finding:
        manifest, bucket = self._manifest(), data_bucket()
        shards = [(split, shard) for split, found in manifest.splits.items() for shard in found]
        where, files = f"{bucket}/{manifest.prefix}", {shard.name: shard.sha256 for _, shard in shards}
        sizes = bucket.sizes(manifest.prefix)
        if not any(manifest.prefix + name in sizes for name in files):
            return Finding("shards", "absent", f"{len(files)} shards: none at {where}", files)
        wrong = [
            f"{shard.name} has another size" for _, shard in shards if sizes.get(manifest.prefix + shard.name) != shard.bytes
        ]
        if not self.quick and not wrong:
            with progress(sum(shard.bytes for _, shard in shards), "shards", "B") as advance:
                wrong = [fault for split, shard in shards for fault in self._shard_faults(manifest, split, shard, advance)]
        if wrong:
            return Finding("shards", "wrong", f"{where}: {'; '.join(wrong)}", files)
        how = "sizes" if self.quick else "digests, keys and labels"
        return Finding("shards", "right", f"{len(files)} shards at {where}, {how} as listed", files)

    def _shard_faults(self, manifest: Manifest, split: str, shard: Shard, advance: Callable[[int], None]) -> Iterator[str]:
        body = b"".join(data_bucket().stream(manifest.prefix + shard.name, 0, shard.bytes))
        advance(len(body))
        try:
            found = verify(memoryview(body), hashlib.sha256(body).hexdigest(), shard)
        except DataError as error:
            yield str(error)
            return
        self.shard_of |= dict.fromkeys(found.keys, shard.name)
        labels = self._labels(split)
        if others := [
            key for key, label in zip(found.keys, found.labels.tolist(), strict=True) if labels.get(key, label) != label
        ]:
            yield f"{shard.name}: the index has other labels for {', '.join(others[:3])}"
        if labels and (unknown := [key for key in found.keys if key not in labels]):
            yield f"{shard.name}: the index has no {', '.join(unknown[:3])}"

    def _labels(self, split: str) -> dict[str, int]:
        """Of a split's images by key; empty without an index."""
        if self.rows is None:
            return {}
        rows = self.rows.filter(pc.equal(self.rows["split"], split))
        return dict(zip(rows["key"].to_pylist(), rows["label"].to_pylist(), strict=True))

    def _source(self) -> Finding:
        config = params.load(self.folder / params.FILE).source
        if self.rows is None:
            return Finding("source", "absent", f"{config.name}: without index.parquet nothing says which files")
        if self.quick:
            return Finding("source", "absent", f"{config.name}: not read, as --quick asks")
        source = open_source(config)
        rows = self.rows.select(["path", "offset", "bytes", "sha256", "key"]).sort_by(
            [("path", "ascending"), ("offset", "ascending")]
        )
        with progress(len(rows), "source", "image") as advance, ThreadPoolExecutor(_THREADS) as pool:
            wrong = [key for key in pool.map(partial(_source_fault, source.read, advance), rows.to_pylist()) if key]
        if wrong:
            return Finding("source", "wrong", f"{config.name}: {len(wrong):,} images are others now: {', '.join(wrong[:3])}")
        return Finding("source", "right", f"{config.name}: {len(rows):,} images, every digest as in the index")

    def _validation(self) -> Finding:
        report = ValidationReport.read(self.folder / "validation.json")
        files = {"validation.json": self.release.files["validation.json"].sha256}
        found = self.release.files.get("index.parquet")
        if found and report.index_sha256 != found.sha256:
            return Finding("validation", "wrong", f"it is of another index, {report.index_sha256}", files)
        broken = "; ".join(rule.rule for rule in report.broken_rules()) or "no critical rule broken"
        docs = report.data_docs or "no place"
        about = f"of that index: {report.images:,} images read, {report.used:,} used; {broken}; Data Docs at {docs}"
        return Finding("validation", "right" if found else "absent", about, files)

    def _manifest(self) -> Manifest:
        return Manifest.read(self.folder / "shards.json")


def _source_fault(read: Callable[[str, int, int], bytes], advance: Callable[[int], None], row: dict[str, Any]) -> str | None:
    """The key of an image whose bytes are not the index's."""
    try:
        found = hashlib.sha256(read(row["path"], row["offset"], row["bytes"])).hexdigest()
    except DataError:
        found = ""
    advance(1)
    return None if found == row["sha256"] else str(row["key"])
