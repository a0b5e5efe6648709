"""Every reader of bytes that somebody else may have written, each with bytes that it takes.

A reader works in the current folder, which is a test's own.
"""

import hashlib
import io
import json
import tarfile
from collections.abc import Callable
from dataclasses import asdict, dataclass, replace
from functools import cache
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import torch
from cryptography.hazmat.primitives.asymmetric import ec
from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey
from cryptography.hazmat.primitives.serialization import Encoding, PublicFormat
from PIL import Image

from alexnet.config import to_json
from alexnet.files.sealed import seal
from alexnet.images.inspect import ValidateConfig, inspect_image
from alexnet.images.resize import prepare
from alexnet.images.statistics import PixelStatistics, PixelSums
from alexnet.inference import from_torchvision
from alexnet.inference.photos import read_photo
from alexnet.inference.pretrained import Preprocessing, PretrainedConfig, load_pretrained, save_pretrained
from alexnet.model.network import initial_weights
from alexnet.shards.manifest import Manifest
from alexnet.shards.tar import index_tar, iter_headers
from alexnet.shards.verify import map_file, read_index, write_index
from alexnet.training.checkpoint import Checkpoints
from infra import repair
from pipelines.cli import make_ilsvrc, pictures
from pipelines.config import params
from pipelines.publish import lineage
from pipelines.registry import aliases, signing
from pipelines.registry.release import Release
from pipelines.shard import Task, _read_finished_shard
from pipelines.sources import class_names
from pipelines.sources.archives.devkit import ILSVRC2012, read_devkit
from pipelines.sources.base import Partition, SourceFile
from pipelines.validation import index
from pipelines.validation.report import ValidationReport
from pipelines.validation.scan_cache import ScanCache
from tests.support import sample_shards
from tests.support.trained_folder import PIXELS, VALIDATION

PARAMS = Path(__file__).parents[2] / "params.yaml"


@dataclass(frozen=True)
class Reader:
    """seeds: bytes that it takes. read: takes any bytes, or raises DataError or ParamsError. text: what it reads is text."""

    seeds: tuple[bytes, ...]
    read: Callable[[bytes], object]
    text: bool = False


def _of_file(read: Callable[[Path], object], name: str) -> Callable[[bytes], object]:
    """Reads bytes that stand in a file of this name."""

    def from_file(body: bytes) -> object:
        Path(name).write_bytes(body)
        return read(Path(name))

    return from_file


def _bytes_of(write: Callable[[Path], object], name: str = "seed") -> bytes:
    write(Path(name))
    return Path(name).read_bytes()


@cache
def _config() -> ValidateConfig:
    return params.load(PARAMS).validate


def _release_manifest() -> Reader:
    Path("release").mkdir(exist_ok=True)
    for name in ("model.safetensors", "README.md"):
        (Path("release") / name).write_text(name)
    body = Release.from_folder("alexnet", Path("release")).manifest()
    return Reader((body,), lambda data: Release.from_manifest(data, "here"), text=True)


def _alias() -> Reader:
    move = aliases._next(None, "0" * 16, "1" * 64, 1, aliases.Why("promote", "a reason"))
    body = to_json(move)
    old = json.dumps({"version": "0" * 16, "manifest_sha256": "1" * 64, "previous": None, "nonce": "2" * 16}).encode()
    return Reader((body, old), lambda data: aliases._parse(data, "here"), text=True)


def _signature() -> Reader:
    """By an elliptic curve key, which signs releases by a bundle and aliases without."""
    key = ec.generate_private_key(ec.SECP256R1())
    Path("key.pub").write_bytes(signing._pem(key.public_key()))
    public = signing.PublicKey(Path("key.pub"))
    Path("release").mkdir(exist_ok=True)
    (Path("release") / "a").write_text("a")
    release = Release.from_folder("alexnet", Path("release"))
    seeds = (signing._bundle(key, release), signing._sign(key, release.manifest()))
    return Reader(seeds, lambda data: public.verify(release.manifest(), data, "here"), text=True)


def _public_key() -> Reader:
    body = Ed25519PrivateKey.generate().public_key().public_bytes(Encoding.PEM, PublicFormat.SubjectPublicKeyInfo)
    return Reader((body,), _of_file(signing.PublicKey, "key.pub"), text=True)


def _model() -> tuple[bytes, bytes]:
    """config.json and model.safetensors of a small network."""
    given = params.load(PARAMS)
    model = replace(given.model, classes=3, kernels=(4, 8, 8, 8, 8), units=16)
    config = PretrainedConfig(model, sample_shards.make([1]).manifest().synsets, Preprocessing(256, "triangle"))
    save_pretrained(Path("model"), config, initial_weights(model, seed=1), torch.zeros(256, 256, 3))
    return Path("model/config.json").read_bytes(), Path("model/model.safetensors").read_bytes()


def _model_config() -> Reader:
    config, _ = _model()
    return Reader(
        (config,), lambda data: (Path("model/config.json").write_bytes(data), load_pretrained(Path("model"))), text=True
    )


def _model_weights() -> Reader:
    _, weights = _model()
    return Reader((weights,), lambda data: (Path("model/model.safetensors").write_bytes(data), load_pretrained(Path("model"))))


def _state_dict() -> Reader:
    _, weights = _model()
    return Reader((weights,), _of_file(from_torchvision.read_state_dict, "state.safetensors"))


def _labels() -> Reader:
    read = _of_file(from_torchvision.read_labels, "labels.txt")
    return Reader((b"n01440764 tench\nshark\n",), read, text=True)


def _manifest() -> Reader:
    body = _bytes_of(sample_shards.make([2, 2]).manifest().write)
    return Reader((body,), _of_file(Manifest.read, "manifest.json"), text=True)


def _shard() -> Reader:
    (body,) = sample_shards.make([2]).tars.values()
    return Reader((body,), lambda data: index_tar(data, "here"))


def _archive() -> Reader:
    body = make_ilsvrc.tar_of([("n1_1.JPEG", b"abc"), ("n1_2.JPEG", b"de")])
    return Reader((body,), lambda data: list(iter_headers(lambda at, size: data[at : at + size], 0, len(data), "here")))


def _shard_index() -> Reader:
    """What is sealed is believed to be ours; inside, it may be of another version."""
    made = sample_shards.make([2])
    Path("shard.tar").write_bytes(made.tars[made.shards[0].name])
    found = map_file(Path("shard.tar"))
    assert found is not None
    write_index(Path("index.json"), index_tar(found[0], "here"), found[1])
    tree = Path("index.json").read_bytes().partition(b"\n")[2]

    def read(data: bytes) -> object:
        Path("index.json").write_bytes(seal(data))
        return read_index(Path("index.json"), made.shards[0], found[1])

    return Reader((tree,), read, text=True)


class _Objects(dict[str, bytes]):
    """Objects by key, as a bucket has them."""

    def get(self, key: str, default: Any = None) -> Any:  # noqa: ARG002 - a dict's
        return self[key]

    def digest(self, key: str) -> tuple[str, int]:
        return hashlib.sha256(self[key]).hexdigest(), len(self[key])


def _side_file() -> Reader:
    made = sample_shards.make([2])
    sums = PixelSums(32)
    sums.add(np.zeros((32, 32, 3), np.uint8))
    shard = made.shards[0]
    side = {"shard": asdict(shard), "sums_sha256": hashlib.sha256(sums.to_bytes()).hexdigest()}
    task = Task("train", 0, pa.table({"label": [label for label, count in shard.labels.items() for _ in range(count)]}))
    job: Any = SimpleNamespace(prefix="", config=SimpleNamespace(side_px=32))

    def read(data: bytes) -> object:
        tar = made.tars[shard.name]
        bucket: Any = _Objects({"train-000000.json": data, "train-000000.npz": sums.to_bytes(), shard.name: tar})
        return _read_finished_shard(bucket, job, task)

    return Reader((json.dumps(side).encode(),), read, text=True)


def _pixels() -> Reader:
    small = replace(PIXELS, mean_image=np.full((8, 8, 3), 1, np.float32))
    return Reader((_bytes_of(small.write),), _of_file(PixelStatistics.read, "pixels.npz"))


def _rows(count: int) -> pa.Table:
    """Images without a fault."""
    row = dict.fromkeys(index.SCHEMA.names) | {"split": "train", "wnid": "a", "label": 0, "sha256": "0" * 64, "action": "use"}
    row |= {"offset": 0, "bytes": 9, "width": 4, "height": 4, "mode": "RGB", "format": "JPEG"}
    return pa.Table.from_pylist([row | {"key": f"k{n}", "path": f"{n}.jpg"} for n in range(count)], index.SCHEMA)


def _index() -> Reader:
    return Reader((_bytes_of(lambda path: index.write(_rows(3), path)),), _of_file(index.read, "index.parquet"))


def _scanned_rows() -> Reader:
    kept, partition = ScanCache(Path("scan")), Partition(())
    out = pa.BufferOutputStream()
    pq.write_table(_rows(3), out, compression="zstd")

    def read(data: bytes) -> object:
        path = kept._path(partition)
        path.parent.mkdir(exist_ok=True)
        path.write_bytes(data)
        return kept.read(partition, index.SCHEMA)

    return Reader((seal(out.getvalue().to_pybytes()),), read)


def _report() -> Reader:
    return Reader((_bytes_of(VALIDATION.write),), _of_file(ValidationReport.read, "validation.json"), text=True)


def _params() -> Reader:
    return Reader((PARAMS.read_bytes(),), _of_file(params.load, "params.yaml"), text=True)


def _lock() -> Reader:
    """After a repair there is a whole dvc.lock, or none."""
    lock = (
        "schema: '2.0'\nstages:\n  make:\n    cmd: x\n    deps:\n    - path: a\n      hash: md5\n      md5: "
        "0cc175b9c0f1b6a831c399e269772661\n      size: 1\n    outs:\n    - path: b\n      hash: md5\n      md5: "
        "92eb5ffee6ae2fec3ad71c777531578f\n      size: 1\n"
    )

    def read(data: bytes) -> object:
        Path("dvc.lock").write_bytes(data)
        repair.repair()
        return lineage(Path("dvc.lock").read_text(encoding="utf-8")) if Path("dvc.lock").exists() else None

    return Reader((lock.encode(),), read, text=True)


def _rwlock() -> Reader:
    def read(data: bytes) -> object:
        repair.RWLOCK.parent.mkdir(parents=True, exist_ok=True)
        repair.RWLOCK.write_bytes(data)
        return repair.repair()

    lock = {"write": {"/a": {"pid": 1, "cmd": "dvc repro"}}, "read": {"/b": [{"pid": 1, "cmd": "dvc repro"}]}}
    return Reader((json.dumps(lock).encode(),), read, text=True)


def _checkpoint() -> Reader:
    checkpoints = Checkpoints(Path("run"))
    checkpoints.save(1, {"a": torch.zeros(3)}, {"step": 1})
    state = Path("run/step-00000001/state.json").read_bytes()

    def read(data: bytes) -> object:
        checkpoints.save(1, {"a": torch.zeros(3)}, {"step": 1})
        Path("run/step-00000001/state.json").write_bytes(data)
        return Checkpoints(Path("run")).newest()

    return Reader((state,), read, text=True)


def _images() -> tuple[bytes, ...]:
    image, seeds = Image.effect_noise((40, 30), 50).convert("RGB"), []
    for kind in ("JPEG", "PNG", "GIF", "WEBP", "BMP", "TIFF", "PPM"):
        file = io.BytesIO()
        image.save(file, kind)
        seeds.append(file.getvalue())
    return (*seeds, pictures.jpeg(1))


def _image() -> Reader:
    """What has no fault can be prepared."""

    def read(data: bytes) -> object:
        report = inspect_image(data, "a.jpg", _config())
        return prepare(data, 32, "triangle") if report.faults <= {"wrong_format", "deep", "alpha", "gray", "tiny"} else None

    return Reader(_images(), read)


def _photo() -> Reader:
    return Reader(_images(), read_photo)


def _class_names(name: str, seed: bytes) -> Callable[[], Reader]:
    def make() -> Reader:
        def read(data: bytes) -> object:
            folder: Any = _Place({name: data})
            files = [SourceFile(name, len(data), "")]
            return class_names.read_class_names(folder, files, "here") or class_names.read_labels(folder, files, "here")

        return Reader((seed,), read, text=True)

    return make


class _Place(dict[str, bytes]):
    """Files by path, as a source's folder has them."""

    def read(self, path: str, start: int, size: int) -> bytes:
        return self[path][start : start + size]


def _devkit() -> Reader:
    made = make_ilsvrc.make(Path("archives"), make_ilsvrc.Recipe(synsets=3, images=1, val_images=1, size=(16, 16)))
    assert made.wnids
    body = (Path("archives") / ILSVRC2012.devkit).read_bytes()
    with tarfile.open(fileobj=io.BytesIO(body)) as archive:
        plain = io.BytesIO()
        with tarfile.open(fileobj=plain, mode="w") as copy:
            for member in archive:
                copy.addfile(member, archive.extractfile(member))
    return Reader((body, plain.getvalue()), lambda data: read_devkit(data, ILSVRC2012, "here"))


READERS: dict[str, Callable[[], Reader]] = {
    "a release's manifest": _release_manifest,
    "an alias": _alias,
    "a signature or bundle": _signature,
    "a public key": _public_key,
    "config.json of a model": _model_config,
    "model.safetensors": _model_weights,
    "a state dict to import": _state_dict,
    "a list of labels": _labels,
    "the shards' manifest": _manifest,
    "a shard's tar": _shard,
    "a tar of ImageNet's": _archive,
    "the stored index of a shard": _shard_index,
    "the side file of a shard": _side_file,
    "pixels.npz": _pixels,
    "index.parquet": _index,
    "scanned rows that are kept": _scanned_rows,
    "validation.json": _report,
    "params.yaml": _params,
    "dvc.lock": _lock,
    "DVC's rwlock": _rwlock,
    "the state of a checkpoint": _checkpoint,
    "an image of a source": _image,
    "a photograph to predict": _photo,
    "classes.json": _class_names("classes.json", b'{"n01440764": "tench", "1": ["n01443537", "goldfish"]}'),
    "words.txt": _class_names("words.txt", b"n01440764\ttench\nn01443537\tgoldfish\n"),
    "val_annotations.txt": _class_names("val_annotations.txt", b"val_0.JPEG\tn01440764\t1\t2\t3\t4\n"),
    "the devkit": _devkit,
}
