import gzip
import hashlib
import json
import os
import shutil
import subprocess
import sys
import tarfile
import tracemalloc
from collections.abc import Callable
from contextlib import closing
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

from alexnet.errors import DataError
from alexnet.images.inspect import FAULTS
from alexnet.shards.manifest import Manifest
from alexnet.shards.tar import index_tar
from pipelines import fetch, shard, validate
from pipelines.cli import pictures
from pipelines.cli.make_ilsvrc import Contents, tar_of
from pipelines.config import params
from pipelines.runtime.environment import Store
from pipelines.sources.archives import imagenet
from pipelines.sources.archives.devkit import ILSVRC2010, ILSVRC2012
from pipelines.sources.base import ArchiveConfig, SourceConfig
from pipelines.sources.open import Source, open_source
from pipelines.storage.bucket import Bucket
from pipelines.validation import index
from tests.support.fault_proxy import Fault, FaultProxy, Request
from tests.support.stage_folder import INDEX, MANIFEST, PIXELS, REPORT, make_small_ilsvrc, make_stage_folder

CONFIG = params.load().validate
DROPPING = replace(
    CONFIG, policy=CONFIG.policy | {kind: "drop" for kind, what in CONFIG.policy.items() if what == "stop"} | {"grey": "repair"}
)
NO_STORE = Store("b", "r", None, None, None, None)


def opened(root: Path, monkeypatch: pytest.MonkeyPatch, *archives: ArchiveConfig) -> Source:
    monkeypatch.setenv("ALEXNET_SOURCE", str(root))
    return open_source(SourceConfig("imagenet", 0.25, archives))


def indexed(source: Source, config: Any = CONFIG) -> list[dict[str, Any]]:
    rows: list[dict[str, Any]] = index.complete(index.scan(source, config), config, 0.25).to_pylist()
    return rows


def test_archives_are_read_in_place(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    made = make_small_ilsvrc(tmp_path, synsets=5)
    source = opened(tmp_path, monkeypatch)
    rows = {row["key"]: row for row in indexed(source)}
    assert len(rows) == source.num_images() == 5 * (4 + 2)
    images = {key: (wnid, "train", data) for wnid, some in made.train.items() for key, data in some}
    labels = dict(zip((key for key, _ in made.val), range(10), strict=True))
    images |= {key: (made.wnids[labels[key] % 5], "val", data) for key, data in made.val}
    for key, (wnid, split, data) in images.items():
        row = rows[key]
        assert (row["wnid"], row["label"], row["split"]) == (wnid, made.wnids.index(wnid), split)
        assert row["path"] == (ILSVRC2012.train if split == "train" else ILSVRC2012.val)
        assert source.read(row["path"], row["offset"], row["bytes"]) == data
        assert row["fault"] is None
    assert source.class_names() == {wnid: f"thing {i}, object {i}" for i, wnid in enumerate(made.wnids)}
    assert sorted(path.name for path in tmp_path.iterdir()) == sorted([ILSVRC2012.devkit, ILSVRC2012.train, ILSVRC2012.val])


def truth(made: Contents) -> dict[str, tuple[str, str, str]]:
    """wnid, split and digest by key of what was made without faults."""
    found = {key: (wnid, "train", data) for wnid, images in made.train.items() for key, data in images}
    found |= {key: (made.wnids[i % len(made.wnids)], "val", data) for i, (key, data) in enumerate(made.val)}
    return {key: (wnid, split, hashlib.sha256(data).hexdigest()) for key, (wnid, split, data) in found.items()}


def labels(rows: list[dict[str, Any]]) -> dict[str, tuple[str, str, str]]:
    return {row["key"]: (row["wnid"], row["split"], row["sha256"]) for row in rows}


def test_the_year_2010_has_folders_gzipped_images_and_patches(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    made = make_small_ilsvrc(tmp_path, year=ILSVRC2010)
    source = opened(tmp_path, monkeypatch)
    rows = indexed(source)
    assert labels(rows) == truth(made)
    assert {row["path"] for row in rows} == {ILSVRC2010.train, ILSVRC2010.val, ILSVRC2010.patches}
    for row in rows:
        data = source.read(row["path"], row["offset"], row["bytes"])  # as the shard stage does
        assert (hashlib.sha256(data).hexdigest(), row["fault"]) == (row["sha256"], None)
    assert [file.path for file in source.files()] == sorted(ILSVRC2010.archives)
    (tmp_path / "patch_images.tar").unlink()
    with pytest.raises(DataError, match=r"has no patch_images\.tar; imagenet needs ILSVRC2010_images_train\.tar, "):
        indexed(opened(tmp_path, monkeypatch))


@pytest.mark.parametrize("packed", [gzip.compress(bytes(300_000_000)), b"\x1f\x8bno gzip"], ids=["bomb", "none"])
def test_what_does_not_unpack_is_no_image(packed: bytes, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    made = make_small_ilsvrc(tmp_path, year=ILSVRC2010)
    wnid = made.wnids[0]
    inner = tar_of([(f"{wnid}/{wnid}_0.JPEG", packed)])
    (tmp_path / ILSVRC2010.train).write_bytes(tar_of([(f"{wnid}.tar", inner)]))
    (row,) = (row for row in indexed(opened(tmp_path, monkeypatch)) if row["split"] == "train")
    assert row["fault"] == "not_an_image"


def test_a_large_archive_is_cut_where_images_begin(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    made = make_small_ilsvrc(tmp_path, images=30, val_images=30)
    whole = indexed(opened(tmp_path, monkeypatch))
    monkeypatch.setattr(imagenet, "_PARTITION_BYTES", 8_000)
    source = opened(tmp_path, monkeypatch)
    parts = list(source.partitions())
    assert len(parts) > 4 * len(made.wnids)
    assert sum(part.is_last for part in parts) == 1 + len(made.wnids)
    assert indexed(source) == whole


def test_a_tar_inside_an_image_is_not_taken_for_members(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    make_small_ilsvrc(tmp_path)
    lure = tar_of([(f"ILSVRC2012_val_{i:08}.JPEG", b"x") for i in range(1, 60)])
    (tmp_path / VAL).write_bytes(tar_of([("ILSVRC2012_val_00000001.JPEG", lure), ("ILSVRC2012_val_00000002.JPEG", b"")]))
    monkeypatch.setattr(imagenet, "_PARTITION_BYTES", 8_000)
    with pytest.raises(DataError, match=f"{VAL}: member 'ILSVRC2012_val_00000001.JPEG' at byte 0 reaches over the end"):
        indexed(opened(tmp_path, monkeypatch))


def unpack(made: Contents, archives: Path, root: Path, flat: bool = False) -> Path:
    """The made images in folders, with the devkit beside them."""
    for key, (wnid, split, _) in truth(made).items():
        data = dict(made.val if split == "val" else made.train[wnid])[key]
        folder = root / split / ("" if flat and split == "val" else wnid)
        folder.mkdir(parents=True, exist_ok=True)
        (folder / f"{key}.JPEG").write_bytes(data)
    shutil.copy(archives / KIT, root / KIT)
    return root


@pytest.mark.parametrize("flat", [False, True], ids=["in folders", "flat"])
def test_an_unpacked_archive_is_the_same_source(flat: bool, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    made = make_small_ilsvrc(tmp_path / "archives")
    source = opened(unpack(made, tmp_path / "archives", tmp_path / "unpacked", flat), monkeypatch)
    assert labels(indexed(source)) == truth(made)
    assert source.class_names() == {wnid: f"thing {i}, object {i}" for i, wnid in enumerate(made.wnids)}


def test_unpacked_images_that_the_devkit_contradicts_have_no_label(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    made = make_small_ilsvrc(tmp_path / "archives", val_images=3)
    root = unpack(made, tmp_path / "archives", tmp_path / "unpacked")
    first, second, _ = made.wnids
    (root / "train/n00000001").mkdir()
    image = pictures.jpeg(1)
    (root / "train/n00000001/n00000001_7.JPEG").write_bytes(image)  # a class that the kit does not have
    (root / "train" / first / f"{second}_77.JPEG").write_bytes(image + b"1")  # another class's image
    val = made.val[1][0]
    (root / "val" / second / f"{val}.JPEG").rename(root / "val" / first / f"{val}.JPEG")
    (root / "val/ILSVRC2012_val_00000099.JPEG").write_bytes(image + b"2")  # a number that the kit does not have
    (root / "val/strange.JPEG").write_bytes(image + b"3")
    rows = {row["key"]: row for row in indexed(opened(root, monkeypatch), DROPPING)}
    wrong = {"n00000001_7", f"{second}_77", val, "ILSVRC2012_val_00000099", "strange"}
    assert {key for key, row in rows.items() if row["fault"] == "unknown_class"} == wrong
    assert {rows[key]["label"] for key in wrong} == {-1}
    expected = truth(made)
    assert {key: made.wnids[row["label"]] for key, row in rows.items() if key not in wrong} == {
        key: wnid for key, (wnid, _, _) in expected.items() if key not in wrong
    }


def test_an_unpacked_class_without_images_is_named(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    made = make_small_ilsvrc(tmp_path / "archives")
    root = unpack(made, tmp_path / "archives", tmp_path / "unpacked")
    (root / "train" / made.wnids[1]).rename(root / "train/n00000001")
    with pytest.raises(DataError, match=f"no images in class train/{made.wnids[1]}; add some"):
        opened(root, monkeypatch).files()


def test_flat_validation_images_without_a_devkit_are_refused(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    made = make_small_ilsvrc(tmp_path / "archives")
    root = unpack(made, tmp_path / "archives", tmp_path / "unpacked", flat=True)
    (root / KIT).unlink()
    with pytest.raises(
        DataError, match=r"val/ILSVRC2012_val_0+1\.JPEG: nothing tells the classes of the images in val/; put ILSVRC2012_devkit"
    ):
        opened(root, monkeypatch).files()


def test_a_half_unpacked_place_is_refused(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    made = make_small_ilsvrc(tmp_path / "archives")
    root = unpack(made, tmp_path / "archives", tmp_path / "unpacked")
    shutil.rmtree(root / "val")
    shutil.copy(tmp_path / "archives" / VAL, root / VAL)
    with pytest.raises(DataError, match=f"has {VAL} beside an unpacked train/; .*: unpack both or neither"):
        opened(root, monkeypatch)


@pytest.mark.filterwarnings("ignore")  # Pillow's, of the EXIF; the stage silences them
def test_every_planted_fault_is_found_and_none_is_invented(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    made = make_small_ilsvrc(tmp_path, synsets=40, images=5, plant=FAULTS * 2)
    rows = indexed(opened(tmp_path, monkeypatch), DROPPING)
    # What leaked is dropped from the training set alone.
    expected = {key: kinds for key, kinds in made.faults.items() if kinds != {"leaked"} or not key.startswith("ILSVRC")}
    assert {row["key"]: set(row["faults"].split(",")) for row in rows if row["faults"]} == expected
    assert set.union(*expected.values()) == set(FAULTS)
    worst = {key: DROPPING.worst(kinds) for key, kinds in expected.items()}
    assert {row["key"]: row["fault"] for row in rows if row["fault"]} == worst
    assert all(row["action"] == ("use" if not row["fault"] else DROPPING.policy[row["fault"]]) for row in rows)


def test_archives_make_the_shards_that_a_folder_makes(
    tmp_path: Path, fresh_store: Store, bucket: Bucket, monkeypatch: pytest.MonkeyPatch
) -> None:
    made = make_small_ilsvrc(tmp_path / "archives", images=6)
    unpack(made, tmp_path / "archives", tmp_path / "unpacked")
    for path in (tmp_path / "archives").iterdir():
        bucket.upload(path, f"raw/{path.name}")
    outcomes = []
    for name, source in (("a", tmp_path / "archives"), ("b", tmp_path / "unpacked"), ("c", f"s3://{bucket.name}/raw")):
        (tmp_path / name).mkdir()
        stage_folder = make_stage_folder(tmp_path / name, fresh_store, Path(), monkeypatch)
        monkeypatch.setenv("ALEXNET_SOURCE", str(source))
        stage_folder.params(source={"name": "imagenet"}, model={"classes": 3})
        fetch.main(*(Path(f"artifacts/{name}.json") for name in ("source", "listing", "purpose")))
        given = params.load()
        index.write(validate.build_index(open_source(given.source), given.source, given.validate), INDEX)
        if name == "a":
            shard.main(INDEX, MANIFEST, PIXELS)
            keys = {key: bucket.get(key) for key in bucket.sizes("shards/")}
            for key in keys:
                bucket.delete(key)
        else:
            shard.main(INDEX, MANIFEST, PIXELS)
        outcomes.append((MANIFEST.read_bytes(), PIXELS.read_bytes()))
    manifest = Manifest.read(MANIFEST)
    assert outcomes[0] == outcomes[1] == outcomes[2]
    assert {key: bucket.get(key) for key in bucket.sizes("shards/")} == keys
    found = [
        key for each in manifest.splits["train"] for key in index_tar(bucket.get(manifest.prefix + each.name), "shard").keys
    ]
    assert sorted(found) == sorted(key for images in made.train.values() for key, _ in images)
    assert manifest.synsets[2].name == "thing 2, object 2"


@pytest.mark.slow
def test_a_network_that_cuts_stalls_and_garbles_changes_no_byte(
    tmp_path: Path, fresh_store: Store, bucket: Bucket, monkeypatch: pytest.MonkeyPatch
) -> None:
    make_small_ilsvrc(tmp_path / "archives", images=6)
    for path in (tmp_path / "archives").iterdir():
        bucket.upload(path, f"raw/{path.name}")

    def run(name: str) -> tuple[bytes, ...]:
        given = params.load()
        index.write(validate.build_index(open_source(given.source), given.source, given.validate), INDEX)
        if name == "b":
            proxy.faults = garbled
        shard.main(INDEX, MANIFEST, PIXELS)
        outcome = (INDEX.read_bytes(), MANIFEST.read_bytes(), PIXELS.read_bytes())
        for key in bucket.sizes("shards/"):
            bucket.delete(key)
        return outcome

    def cut(request: Request) -> Fault | None:
        turn = request.number % 4 if request.method == "GET" and "/raw/" in request.path else 3
        return [Fault(status=503, code="SlowDown"), Fault(cut_at=700), Fault(cut_at=300, how="reset"), None][turn]

    def garbled(request: Request) -> Fault | None:
        is_image = request.method == "GET" and "_img_" in request.path
        return Fault(flip_at=400) if is_image and request.number % 7 == 0 else None

    with closing(FaultProxy(fresh_store.endpoint or "")) as proxy:
        outcomes = []
        for name, store in (("a", fresh_store), ("b", replace(fresh_store, endpoint=proxy.endpoint))):
            (tmp_path / name).mkdir()
            stage_folder = make_stage_folder(tmp_path / name, store, Path(), monkeypatch)
            monkeypatch.setenv("ALEXNET_SOURCE", f"s3://{bucket.name}/raw")
            monkeypatch.setenv("ALEXNET_WORKERS", "1")
            monkeypatch.setattr(shard, "_AHEAD", 1)  # which requests fail goes by their number
            stage_folder.params(source={"name": "imagenet"})
            proxy.faults = cut
            outcomes.append(run(name))
        assert len(proxy.seen) > 40
    assert outcomes[0] == outcomes[1]


@pytest.mark.slow
@pytest.mark.filterwarnings("ignore")
def test_a_thousand_synsets_with_every_fault_come_through_as_expected(
    tmp_path: Path, fresh_store: Store, bucket: Bucket, monkeypatch: pytest.MonkeyPatch
) -> None:
    made = make_small_ilsvrc(tmp_path / "archives", synsets=1000, images=4, val_images=1, plant=FAULTS * 3)
    (tmp_path / "work").mkdir()
    stage_folder = make_stage_folder(tmp_path / "work", fresh_store, tmp_path / "archives", monkeypatch)
    policy = {**DROPPING.policy, "leaked": "repair"}
    ranges = {each: {"min": 1, "max": 10} for each in ("train_per_class", "val_per_class")}
    stage_folder.params(
        source={"name": "imagenet"},
        validate={"policy": policy, "counts": {"classes": 1000, **ranges}},
        shard={"train_shards": 16, "val_shards": 4},
    )
    validate.main(INDEX, REPORT)
    shard.main(INDEX, MANIFEST, PIXELS)
    config = params.load().validate
    expected = {key: config.worst(kinds) for key, kinds in made.faults.items()}
    rows = {row["key"]: row for row in index.read(INDEX).to_pylist()}
    assert {key: row["fault"] for key, row in rows.items() if row["fault"]} == expected
    manifest = Manifest.read(MANIFEST)
    found: dict[str, int] = {}
    for shards in manifest.splits.values():
        for each in shards:
            members = index_tar(bucket.get(manifest.prefix + each.name), each.name)
            found |= dict(zip(members.keys, members.labels.tolist(), strict=True))
    used = {key: row["label"] for key, row in rows.items() if config.policy.get(row["fault"], "repair") == "repair"}
    assert found == used
    assert all(made.wnids[label] == rows[key]["wnid"] for key, label in found.items())


def test_the_stage_names_an_image_without_a_label(tmp_path: Path, fresh_store: Store, monkeypatch: pytest.MonkeyPatch) -> None:
    made = make_small_ilsvrc(tmp_path / "archives", plant=("unknown_class",))
    (tmp_path / "work").mkdir()
    stage_folder = make_stage_folder(tmp_path / "work", fresh_store, tmp_path / "archives", monkeypatch)
    stage_folder.params(source={"name": "imagenet"})
    with pytest.raises(DataError, match="is unknown_class"):
        validate.main(INDEX, REPORT)
    assert json.loads(REPORT.read_text())["faults"]["unknown_class"]["keys"] == list(made.faults)


def damaged(root: Path, name: str, change: Callable[[bytes], bytes]) -> None:
    (root / name).write_bytes(change((root / name).read_bytes()))


def rewritten(name: str, replaced: bytes) -> Callable[[Path], None]:
    return lambda root: damaged(root, name, lambda data: replaced)


def sized(size: int, name: str = "ILSVRC2012_val_00000001.JPEG") -> bytes:
    """A tar whose one header, of a right checksum, tells this size; below zero as numbers of base 256 can be."""
    info = tarfile.TarInfo(name)
    info.size = size
    return info.tobuf(tarfile.GNU_FORMAT) + bytes(10 * 512)


def vars_of(info: tarfile.TarInfo, **values: object) -> None:
    for name, value in values.items():
        setattr(info, name, value)


TRAIN, VAL, KIT = ILSVRC2012.train, ILSVRC2012.val, ILSVRC2012.devkit
LINK = tar_of([("a", b"")], lambda info: vars_of(info, type=tarfile.SYMTYPE, linkname="/etc/passwd"))
HARD_LINK = tar_of([("n01440764.tar", b"")], lambda info: vars_of(info, type=tarfile.LNKTYPE, linkname="/etc/passwd"))
FOLDER = tar_of([("val/", b"")])
DEVICE = tar_of([("n01440764.tar", b"")], lambda info: vars_of(info, type=tarfile.BLKTYPE))


@pytest.mark.parametrize(
    ("change", "message"),
    [
        (lambda root: (root / VAL).unlink(), "has no ILSVRC2012_img_val.tar; imagenet needs ILSVRC2012_img_train.tar, "),
        (lambda root: (root / KIT).unlink(), "has no ILSVRC2012_devkit_t12.tar.gz"),
        (
            lambda root: damaged(root, TRAIN, lambda d: d[: len(d) // 2]),
            "ILSVRC2012_img_train.tar: member .* the archive is cut",
        ),
        (lambda root: damaged(root, VAL, lambda d: d[: len(d) // 2]), "ILSVRC2012_img_val.tar: .* the archive is cut"),
        (lambda root: damaged(root, VAL, lambda d: d[:512] + b"x" * 100 + d[612:]), None),
        (
            lambda root: damaged(root, VAL, lambda d: b"x" + d[1:]),
            "ILSVRC2012_img_val.tar: no tar header at byte 0: bad checksum",
        ),
        (
            rewritten(VAL, tar_of([("../../x.JPEG", b"1")])),
            r"member '../../x\.JPEG' at byte 0; allowed: ILSVRC2012_val_0",
        ),
        (rewritten(VAL, tar_of([("/etc/passwd", b"1")])), "member '/etc/passwd' at byte 0; allowed"),
        (rewritten(VAL, LINK), "member 'a' at byte 0 is no regular file"),
        (rewritten(VAL, FOLDER), "member 'val' at byte 0 is no regular file"),
        (
            rewritten(VAL, sized(-512)),
            "member 'ILSVRC2012_val_00000001.JPEG' at byte 0 has a size of -512; the archive is damaged",
        ),
        (rewritten(VAL, sized(-1)), "at byte 0 has a size of -1; the archive is damaged"),
        (rewritten(TRAIN, sized(-1024, "n01440764.tar")), "member 'n01440764.tar' at byte 0 has a size of -1,024"),
        (rewritten(TRAIN, HARD_LINK), "member 'n01440764.tar' at byte 0 is no regular file"),
        (rewritten(TRAIN, tar_of([("../n01440764.tar", b"")])), r"member '\.\./n01440764\.tar' at byte 0; allowed"),
        (rewritten(TRAIN, tar_of([("/n01440764.tar", b"")])), r"member '/n01440764\.tar' at byte 0; allowed: n0"),
        (rewritten(TRAIN, DEVICE), "member 'n01440764.tar' at byte 0 is no regular file"),
        (rewritten(TRAIN, tar_of([("n1.tar", b"")])), r"member 'n1\.tar' at byte 0; allowed: n00000000\.tar"),
        (
            rewritten(TRAIN, tar_of([("n01440764.tar", tar_of([("x.JPEG", b"")]))])),
            r"member 'x\.JPEG' at byte 512; allowed: n00000000_0\.JPEG",
        ),
        (rewritten(KIT, b"no gzip"), "ILSVRC2012_devkit_t12.tar.gz: damaged: .*; fetch it again"),
        (lambda root: damaged(root, KIT, lambda d: d[:-30]), "ILSVRC2012_devkit_t12.tar.gz: damaged"),
    ],
)
def test_damage_is_named_and_harms_nothing(
    change: Callable[[Path], None], message: str | None, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    make_small_ilsvrc(tmp_path / "in")
    change(tmp_path / "in")
    if message is None:  # damage inside an image is the image's fault
        assert [row["fault"] for row in indexed(opened(tmp_path / "in", monkeypatch)) if row["fault"]]
        return
    with pytest.raises(DataError, match=message):
        indexed(opened(tmp_path / "in", monkeypatch))
    assert [path.name for path in tmp_path.iterdir()] == ["in"]


def test_a_member_larger_than_any_image_is_not_read(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    make_small_ilsvrc(tmp_path)
    size = 129 << 20
    with (tmp_path / VAL).open("wb") as file:
        file.write(sized(size)[:512])
        file.truncate(size + 2048)
    tracemalloc.start()
    with pytest.raises(DataError, match="at byte 0 has 135,266,304 bytes, more than any image"):
        indexed(opened(tmp_path, monkeypatch))
    assert tracemalloc.get_traced_memory()[1] < 64 << 20
    tracemalloc.stop()


SCAN = """
import sys
from pathlib import Path
from pipelines.validation import index
from pipelines.config import params
from pipelines.sources.base import SourceConfig
from pipelines.sources.open import Source, open_source
source = open_source(SourceConfig("imagenet", 0.25, ()))
rows = sum(batch.num_rows for batch in index.scan(source, params.load(Path(sys.argv[1])).validate))
peak = next(line for line in Path("/proc/self/status").read_text().splitlines() if line.startswith("VmHWM"))
print(rows, int(peak.split()[1]) >> 10)
"""


@pytest.mark.slow
def test_threads_that_meet_the_largest_images_together_have_less_than_400_mib(tmp_path: Path) -> None:
    side = int(CONFIG.max_pixels**0.5)
    draw = "import sys; from PIL import Image; Image.effect_noise((SIDE, SIDE), 9).convert('RGB').save(sys.argv[1], HOW)"
    for name, how in (("a.jpg", "progressive=True, subsampling=0, quality=60"), ("b.png", "compress_level=1")):
        code = draw.replace("SIDE", str(side)).replace("HOW", how)
        subprocess.run([sys.executable, "-c", code, tmp_path / name], check=True)
    large = [(tmp_path / name).read_bytes() for name in ("a.jpg", "b.png")] * 2
    made = make_small_ilsvrc(tmp_path / "in", synsets=4, images=4)
    tars = []
    for wnid, data in zip(made.wnids, large, strict=True):
        inner = tar_of([*((f"{key}.JPEG", image) for key, image in made.train[wnid]), (f"{wnid}_9.JPEG", data)])
        tars.append((f"{wnid}.tar", inner))
    (tmp_path / "in" / TRAIN).write_bytes(tar_of(tars))
    environment = os.environ | {"ALEXNET_SOURCE": str(tmp_path / "in"), "ALEXNET_WORKERS": "4"}
    command = [sys.executable, "-c", SCAN, "params.yaml"]
    printed = subprocess.run(command, capture_output=True, check=True, env=environment).stdout.split()
    assert int(printed[0]) == 4 * 5 + 8
    assert int(printed[1]) < 400


def test_a_damaged_devkit_is_refused_before_any_work(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    make_small_ilsvrc(tmp_path)
    (tmp_path / KIT).write_bytes(b"no gzip")
    with pytest.raises(DataError, match=f"{KIT}: damaged"):
        opened(tmp_path, monkeypatch).files()


def test_known_digests_are_checked_and_read_once(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, fresh_store: Store) -> None:
    make_small_ilsvrc(tmp_path / "in")
    (tmp_path / "work").mkdir()
    make_stage_folder(tmp_path / "work", fresh_store, tmp_path / "in", monkeypatch)
    md5 = hashlib.md5((tmp_path / "in" / VAL).read_bytes()).hexdigest()
    opened(tmp_path / "in", monkeypatch, ArchiveConfig(VAL, md5)).files()
    with pytest.raises(
        DataError, match=rf"{VAL}: MD5 is {md5}, its publisher's is 0+; fetch it again, or change source\.archives"
    ):
        opened(tmp_path / "in", monkeypatch, ArchiveConfig(VAL, "0" * 32)).files()
    source = opened(tmp_path / "in", monkeypatch, ArchiveConfig(VAL, md5))
    monkeypatch.setattr(hashlib, "md5", None)  # a second digest would fail
    source.files()


def test_a_place_without_imagenet_says_what_it_needs(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (tmp_path / "a.txt").write_text("")
    needs = "has neither archives nor unpacked images of both splits; imagenet needs ILSVRC2012_img_train.tar, "
    with pytest.raises(DataError, match=needs):
        opened(tmp_path, monkeypatch)
    (tmp_path / "train/n01440764").mkdir(parents=True)
    (tmp_path / "train/n01440764/n01440764_1.JPEG").write_bytes(b"")
    with pytest.raises(DataError, match=needs):
        opened(tmp_path, monkeypatch)
    with pytest.raises(
        DataError, match=r"source\.archives: 'ILSVRC2012_img_vall\.tar' is no archive of imagenet; allowed: ILS"
    ):
        opened(tmp_path, monkeypatch, ArchiveConfig("ILSVRC2012_img_vall.tar", "0" * 32))
    monkeypatch.delenv("ALEXNET_SOURCE")
    with pytest.raises(
        DataError, match="ALEXNET_SOURCE: not set; the source `imagenet` reads the folder or s3://BUCKET/PREFIX that it names"
    ):
        open_source(SourceConfig("imagenet", 0.25, ()))
