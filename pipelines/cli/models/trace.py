"""`alexnet trace`: from a release back to its model, shards, index, source and validation, every digest compared on the way."""

import argparse
import dataclasses
import hashlib
import subprocess
from collections import Counter
from collections.abc import Callable, Iterator, Mapping, Sequence
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
from pipelines.runtime.errors import Unreachable
from pipelines.sources.layout import some
from pipelines.sources.open import open_source
from pipelines.storage.bucket import data_bucket
from pipelines.validation import index
from pipelines.validation.report import ValidationReport

_THREADS = 8
State = Literal["right", "wrong", "not compared", "skipped"]
_INCOMPLETE = 3  # exit status


@dataclass(frozen=True)
class Finding:
    """A step of the chain: compared and right or wrong, or not compared, and why. files: SHA-256 of what it names."""

    name: str
    state: State
    about: str
    files: Mapping[str, str] = field(default_factory=dict)


def trace(args: argparse.Namespace) -> int:
    """Prints every link. 0: all were compared and are right; 1: one is wrong; 3: one could not be compared."""
    folder = model_folder(args.model, args.offline)
    release = Release.from_manifest(read_bytes(folder / MANIFEST), str(folder / MANIFEST))
    chain = Chain(folder, release, quick=args.quick, image=args.image)
    links = list(chain.links())
    found: dict[str, Any] = {
        "name": release.name,
        "version": release.version,
        "links": [dataclasses.asdict(link) for link in links],
    }
    status, summary = _outcome(links)
    lines = [f"{link.name:12}{link.state:14}{escaped(link.about)}" for link in links] + summary
    if args.image:
        found["image"] = chain.image_row()
        lines += ["", *(f"{name:12}{escaped(value)}" for name, value in found["image"].items())]
    print_result(args.json, found, "\n".join([f"{release.name}@{release.version}", *lines]))
    return status


def _outcome(links: Sequence[Finding]) -> tuple[int, list[str]]:
    """The exit status, and the lines that say it."""
    wrong, unknown = ([link.name for link in links if link.state == state] for state in ("wrong", "not compared"))
    summary = [f"differs: {', '.join(wrong)}"] if wrong else []
    summary += [f"could not be compared: {', '.join(unknown)}"] if unknown else []
    return 1 if wrong else _INCOMPLETE if unknown else 0, summary


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
                says = f"{error.filename}: {error.strerror}" if isinstance(error, OSError) and error.filename else str(error)
                yield Finding(name, "not compared", says)
            except (LookupError, TypeError, ValueError, AttributeError) as error:  # of a file that somebody else wrote
                yield Finding(name, "wrong", f"a file of it has another form than this program writes: {shown(error)}")

    def image_row(self) -> dict[str, Any]:
        """What the index says of the image, and the shard it is in where shards were read."""
        if self.rows is None:
            raise DataError(f"--image: {self.image}: without the index of this release nothing says where images come from")
        rows = self.rows.filter(pc.equal(self.rows["key"], self.image)).to_pylist()
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
        made = read_json(Provenance, self._file(provenance.NAME), "publish the release again", {"said": ""})
        if made.commit is None:
            return Finding("code", "not compared", f"the release names no commit: {made}")
        if made.changed:
            return Finding("code", "wrong", f"made from changed code: {made}")
        try:
            changed = provenance.changed_code(made.commit, self._lock())
        except (OSError, subprocess.SubprocessError) as error:
            about = f"commit {made.commit}: git said: {provenance.said(error)}; run this where git has it (git fetch)"
            return Finding("code", "not compared", about)
        if changed:
            return Finding("code", "wrong", f"stages ran other code than commit {made.commit}: {', '.join(changed)}")
        return Finding("code", "right", f"commit {made.commit}; every stage in dvc.lock ran its code")

    def _lineage(self) -> Finding:
        lock = self._lock()
        wrong = provenance.changed_data(self.folder, lock)
        wrong += provenance.changed_params(tree.read(self._file(str(params.FILE))), lock)
        if wrong:
            return Finding(
                "lineage", "wrong", f"made from changed data or parameters: not as dvc.lock has them: {', '.join(wrong)}"
            )
        return Finding("lineage", "right", f"data and parameters are those of the {len(lock['stages'])} stages in dvc.lock")

    def _lock(self) -> tree.Tree:
        return tree.read(self._file("dvc.lock"))

    def _file(self, name: str) -> Path:
        """Of the release. Raises DataError where it has no such file."""
        if not (self.folder / name).exists():
            raise DataError(f"the release has no {name}")
        return self.folder / name

    def _model(self) -> Finding:
        files = {path: self.release.files[path].sha256 for path in ("model.safetensors", "config.json")}
        shards = self._manifest()
        synsets = loads(read_bytes(self._file("config.json")))["synsets"]
        if synsets != [dataclasses.asdict(each) for each in shards.synsets]:
            return Finding("model", "wrong", "its classes are not those of the shards", files)
        return Finding("model", "right", f"model.safetensors {files['model.safetensors']}, {len(synsets):,} classes", files)

    def _index(self) -> Finding:
        table = index.read(self._file("index.parquet"))
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
        there = [(split, shard) for split, shard in shards if manifest.prefix + shard.name in sizes]
        wrong = [f"{shard.name} has another size" for _, shard in there if sizes[manifest.prefix + shard.name] != shard.bytes]
        if not self.quick and not wrong:
            with progress(sum(shard.bytes for _, shard in there), "shards", "B") as advance:
                wrong = [fault for split, shard in there for fault in self._shard_faults(manifest, split, shard, advance)]
        if wrong:
            return Finding("shards", "wrong", f"{where}: {'; '.join(wrong)}", files)
        how = "sizes" if self.quick else "digests, keys and labels"
        if missing := [name for name in files if manifest.prefix + name not in sizes]:
            rest = f"; the others: {how} as listed" if there else ""
            about = f"{len(missing):,} of {len(files):,} shards are not at {where}: {some(missing)}{rest}"
            return Finding("shards", "not compared", f"{about}; set ALEXNET_BUCKET to the bucket that has them", files)
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
        config = params.load(self._file(str(params.FILE))).source
        if self.rows is None:
            return Finding("source", "not compared", f"{config.name}: without the index nothing says which files")
        if self.quick:
            return Finding("source", "skipped", f"{config.name}: not read, as --quick asks")
        source = open_source(config)
        sizes = {file.path: file.size for file in source.folder.list()}
        rows = self.rows.select(["path", "offset", "bytes", "sha256", "key"]).sort_by(
            [("path", "ascending"), ("offset", "ascending")]
        )
        with progress(len(rows), "source", "image") as advance, ThreadPoolExecutor(_THREADS) as pool:
            found = list(pool.map(partial(_image_state, source.read, sizes, advance), rows.to_pylist()))
        wrong, unread = ([about for state, about in found if state == other] for other in ("wrong", "not compared"))
        if wrong:
            about = f"{config.name}: {len(wrong):,} of {len(rows):,} images are others now: {some(wrong)}"
            return Finding("source", "wrong", about)
        if unread:
            rest = "; the others are as in the index" if len(unread) < len(rows) else ""
            about = f"{config.name}: {len(unread):,} of {len(rows):,} images cannot be read: {unread[0]}{rest}"
            return Finding("source", "not compared", about)
        return Finding("source", "right", f"{config.name}: {len(rows):,} images, every digest as in the index")

    def _validation(self) -> Finding:
        report = ValidationReport.read(self._file("validation.json"))
        files = {"validation.json": self.release.files["validation.json"].sha256}
        found = self.release.files.get("index.parquet")
        if not found:
            raise DataError("the release has no index.parquet that it could be of")
        if report.index_sha256 != found.sha256:
            return Finding("validation", "wrong", f"it is of another index, {report.index_sha256}", files)
        broken = "; ".join(rule.rule for rule in report.broken_rules()) or "no critical rule broken"
        docs = report.data_docs or "no place"
        about = f"of that index: {report.images:,} images read, {report.used:,} used; {broken}; Data Docs at {docs}"
        return Finding("validation", "right", about, files)

    def _manifest(self) -> Manifest:
        return Manifest.read(self._file("shards.json"))


def _image_state(
    read: Callable[[str, int, int], bytes], sizes: Mapping[str, int], advance: Callable[[int], None], row: dict[str, Any]
) -> tuple[State, str]:
    """Whether the source has the bytes of an image of the index, and its key; or why they cannot be read.

    sizes: of the source's files. Raises Unreachable where its store does not answer, for then all others would wait in vain.
    """
    advance(1)
    path, size = str(row["path"]), row["bytes"]
    if path not in sizes:
        return "not compared", f"{path} is not there"
    key = str(row["key"])
    if row["offset"] == 0 and sizes[path] != size:
        return "wrong", key
    try:
        digest = hashlib.sha256(read(path, row["offset"], size)).hexdigest()
    except Unreachable:
        raise
    except DataError as error:
        return "not compared", str(error)
    return "right" if digest == row["sha256"] else "wrong", key
