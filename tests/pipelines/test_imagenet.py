import hashlib
import json
import tarfile
from collections.abc import Callable
from contextlib import closing
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from alexnet.errors import DataError
from alexnet.images import KINDS
from alexnet.shards import Manifest
from alexnet.tarindex import index_tar
from pipelines import fetch, index, params, shard, validate
from pipelines.bucket import Bucket
from pipelines.places import Store
from pipelines.sources import ArchiveConfig, Source, SourceConfig, forward, open_source
from pipelines.sources.devkit import ILSVRC2010, ILSVRC2012
from pipelines.sources.imagenet import ArchivesSource
from tests import ilsvrc
from tests.faultproxy import Fault, FaultProxy, Request
from tests.workplace import INDEX, MANIFEST, PIXELS, REPORT, make_workplace

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
    made = ilsvrc.make(tmp_path, synsets=5)
    source = opened(tmp_path, monkeypatch)
    rows = {row["key"]: row for row in indexed(source)}
    assert len(rows) == source.count() == 5 * (4 + 2)
    images = {key: (wnid, "train", data) for wnid, some in made.train.items() for key, data in some}
    labels = dict(zip((key for key, _ in made.val), range(10), strict=True))
    images |= {key: (made.wnids[labels[key] % 5], "val", data) for key, data in made.val}
    for key, (wnid, split, data) in images.items():
        row = rows[key]
        assert (row["wnid"], row["label"], row["split"]) == (wnid, made.wnids.index(wnid), split)
        assert row["path"] == (ILSVRC2012.train if split == "train" else ILSVRC2012.val)
        assert source.read(row["path"], row["offset"], row["bytes"]) == data
        assert row["fault"] is None
    assert source.names() == {wnid: f"thing {i}, object {i}" for i, wnid in enumerate(made.wnids)}
    assert sorted(path.name for path in tmp_path.iterdir()) == sorted([ILSVRC2012.devkit, ILSVRC2012.train, ILSVRC2012.val])


def test_the_year_2010_has_other_names(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    ilsvrc.make(tmp_path, year=ILSVRC2010)
    assert len(indexed(opened(tmp_path, monkeypatch))) == 18


def test_validation_images_may_lie_in_one_folder_where_the_devkit_labels_them(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    made = ilsvrc.make(tmp_path / "archives")
    expected = {
        row["key"]: (row["wnid"], row["split"], row["sha256"]) for row in indexed(opened(tmp_path / "archives", monkeypatch))
    }
    for wnid, images in made.train.items():
        (tmp_path / "flat/train" / wnid).mkdir(parents=True)
        for key, data in images:
            (tmp_path / "flat/train" / wnid / f"{key}.JPEG").write_bytes(data)
    (tmp_path / "flat/val").mkdir()
    for key, data in made.val:
        (tmp_path / "flat/val" / f"{key}.JPEG").write_bytes(data)
    (tmp_path / "flat" / ILSVRC2012.devkit).write_bytes((tmp_path / "archives" / ILSVRC2012.devkit).read_bytes())
    rows = indexed(opened(tmp_path / "flat", monkeypatch))
    assert {row["key"]: (row["wnid"], row["split"], row["sha256"]) for row in rows} == expected


@pytest.mark.filterwarnings("ignore")  # Pillow's, of the EXIF; the stage silences them
def test_every_planted_fault_is_found_and_none_is_invented(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    assert set(ilsvrc.PLANTABLE) == set(KINDS)
    made = ilsvrc.make(tmp_path, synsets=40, images=5, plant=[*ilsvrc.PLANTABLE, *ilsvrc.PLANTABLE])
    rows = indexed(opened(tmp_path, monkeypatch), DROPPING)
    expected = {key: DROPPING.worst(kinds) for key, kinds in made.faults.items()}  # type: ignore[arg-type]
    assert {row["key"]: row["fault"] for row in rows if row["fault"]} | {
        key: kind for key, kind in expected.items() if kind == "leaked" and key.startswith("ILSVRC")
    } == expected
    assert set(expected.values()) == set(KINDS) - {"deep", "alpha", "palette"}  # wrong_format comes before these
    assert all(row["action"] == ("use" if not row["fault"] else DROPPING.policy[row["fault"]]) for row in rows)


def test_archives_make_the_shards_that_a_folder_makes(
    tmp_path: Path, fresh_store: Store, bucket: Bucket, monkeypatch: pytest.MonkeyPatch
) -> None:
    made = ilsvrc.make(tmp_path / "archives", images=6)
    for wnid, images in made.train.items():
        for key, data in images:
            (tmp_path / "unpacked/train" / wnid).mkdir(parents=True, exist_ok=True)
            (tmp_path / "unpacked/train" / wnid / f"{key}.JPEG").write_bytes(data)
    for number, (key, data) in enumerate(made.val):
        wnid = made.wnids[number % 3]
        (tmp_path / "unpacked/val" / wnid).mkdir(parents=True, exist_ok=True)
        (tmp_path / "unpacked/val" / wnid / f"{key}.JPEG").write_bytes(data)
    (tmp_path / "unpacked" / ILSVRC2012.devkit).write_bytes((tmp_path / "archives" / ILSVRC2012.devkit).read_bytes())
    for path in (tmp_path / "archives").iterdir():
        bucket.upload(path, f"raw/{path.name}")
    outcomes = []
    for name, source in (("a", tmp_path / "archives"), ("b", tmp_path / "unpacked"), ("c", f"s3://{bucket.name}/raw")):
        (tmp_path / name).mkdir()
        workplace = make_workplace(tmp_path / name, fresh_store, Path(), monkeypatch)
        monkeypatch.setenv("ALEXNET_SOURCE", str(source))
        workplace.params(source={"name": "imagenet"})
        fetch.main(Path("artifacts/source.json"))
        given = params.load()
        index.write(validate.look_at_all(open_source(given.source), given.source, given.validate), INDEX)
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
    ilsvrc.make(tmp_path / "archives", images=6)
    for path in (tmp_path / "archives").iterdir():
        bucket.upload(path, f"raw/{path.name}")

    def run(name: str) -> tuple[bytes, ...]:
        given = params.load()
        index.write(validate.look_at_all(open_source(given.source), given.source, given.validate), INDEX)
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
            workplace = make_workplace(tmp_path / name, store, Path(), monkeypatch)
            monkeypatch.setenv("ALEXNET_SOURCE", f"s3://{bucket.name}/raw")
            monkeypatch.setenv("ALEXNET_WORKERS", "1")
            monkeypatch.setattr(shard, "_AHEAD", 1)  # which requests fail goes by their number
            workplace.params(source={"name": "imagenet"})
            proxy.faults = cut
            outcomes.append(run(name))
        assert len(proxy.seen) > 40
    assert outcomes[0] == outcomes[1]


@pytest.mark.slow
@pytest.mark.filterwarnings("ignore")
def test_a_thousand_synsets_with_every_fault_come_through_as_expected(
    tmp_path: Path, fresh_store: Store, bucket: Bucket, monkeypatch: pytest.MonkeyPatch
) -> None:
    made = ilsvrc.make(tmp_path / "archives", synsets=1000, images=4, val_images=1, plant=ilsvrc.PLANTABLE * 3)
    (tmp_path / "work").mkdir()
    workplace = make_workplace(tmp_path / "work", fresh_store, tmp_path / "archives", monkeypatch)
    policy = {**DROPPING.policy, "leaked": "repair"}
    ranges = {each: {"min": 1, "max": 10} for each in ("train_per_class", "val_per_class")}
    workplace.params(
        source={"name": "imagenet"},
        validate={"policy": policy, "counts": {"classes": 1000, **ranges}},
        shard={"train_shards": 16, "val_shards": 4},
    )
    validate.main(INDEX, REPORT)
    shard.main(INDEX, MANIFEST, PIXELS)
    config = params.load().validate
    expected = {key: config.worst(kinds) for key, kinds in made.faults.items()}  # type: ignore[arg-type]
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
    made = ilsvrc.make(tmp_path / "archives", plant=["unknown_class"])
    (tmp_path / "work").mkdir()
    workplace = make_workplace(tmp_path / "work", fresh_store, tmp_path / "archives", monkeypatch)
    workplace.params(source={"name": "imagenet"})
    with pytest.raises(DataError, match="is unknown_class"):
        validate.main(INDEX, REPORT)
    assert json.loads(REPORT.read_text())["faults"]["unknown_class"]["keys"] == list(made.faults)


def damaged(root: Path, name: str, change: Callable[[bytes], bytes]) -> None:
    (root / name).write_bytes(change((root / name).read_bytes()))


def rewritten(name: str, replaced: bytes) -> Callable[[Path], None]:
    return lambda root: damaged(root, name, lambda data: replaced)


def vars_of(info: tarfile.TarInfo, **values: object) -> None:
    for name, value in values.items():
        setattr(info, name, value)


TRAIN, VAL, KIT = ILSVRC2012.train, ILSVRC2012.val, ILSVRC2012.devkit
LINK = ilsvrc.tar_of([("a", b"")], lambda info: vars_of(info, type=tarfile.SYMTYPE, linkname="/etc/passwd"))
DEVICE = ilsvrc.tar_of([("n01440764.tar", b"")], lambda info: vars_of(info, type=tarfile.BLKTYPE))


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
            rewritten(VAL, ilsvrc.tar_of([("../../x.JPEG", b"1")])),
            r"member '../../x\.JPEG' at byte 0; allowed: ILSVRC2012_val_0",
        ),
        (rewritten(VAL, ilsvrc.tar_of([("/etc/passwd", b"1")])), "member '/etc/passwd' at byte 0; allowed"),
        (rewritten(VAL, LINK), "member 'a' at byte 0 is no regular file"),
        (rewritten(TRAIN, DEVICE), "member 'n01440764.tar' at byte 0 is no regular file"),
        (rewritten(TRAIN, ilsvrc.tar_of([("n1.tar", b"")])), r"member 'n1\.tar' at byte 0; allowed: n00000000\.tar"),
        (
            rewritten(TRAIN, ilsvrc.tar_of([("n01440764.tar", ilsvrc.tar_of([("x.JPEG", b"")]))])),
            r"member 'x\.JPEG' at byte 512; allowed: n00000000_0\.JPEG",
        ),
        (rewritten(KIT, b"no gzip"), "ILSVRC2012_devkit_t12.tar.gz: damaged: .*; fetch it again"),
        (lambda root: damaged(root, KIT, lambda d: d[:-30]), "ILSVRC2012_devkit_t12.tar.gz: damaged"),
    ],
)
def test_damage_is_named_and_harms_nothing(
    change: Callable[[Path], None], message: str | None, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    ilsvrc.make(tmp_path / "in")
    change(tmp_path / "in")
    if message is None:  # damage inside an image is the image's fault
        assert [row["fault"] for row in indexed(opened(tmp_path / "in", monkeypatch)) if row["fault"]]
        return
    source = opened(tmp_path / "in", monkeypatch)
    with pytest.raises(DataError, match=message):
        indexed(source)
    assert [path.name for path in tmp_path.iterdir()] == ["in"]


def kit(root: Path, **files: bytes) -> None:
    import gzip

    names = {"meta": ILSVRC2012.meta, "truth": ILSVRC2012.truth}
    (root / KIT).write_bytes(gzip.compress(ilsvrc.tar_of([(names[name], body) for name, body in files.items()])))


@pytest.mark.parametrize(
    ("files", "message"),
    [
        ({"meta": b""}, "has no ILSVRC2012_devkit_t12/data/ILSVRC2012_validation_ground_truth.txt; is it another year's"),
        ({"meta": b"no matlab", "truth": b"1\n"}, "meta.mat holds no list of synsets: "),
        ({"meta": b"MADE", "truth": b"1\none\n"}, "ground_truth.txt: invalid literal .*; it should hold one id a line"),
        (
            {"meta": b"MADE", "truth": b"1\n9\n"},
            "ground_truth.txt has id 9, which is no synset's; the kit is not the one of ILSVRC2012",
        ),
    ],
)
def test_another_devkit_is_refused_before_any_work(
    files: dict[str, bytes], message: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    made = ilsvrc.make(tmp_path)
    meta = ilsvrc.meta_mat(made, [3, 1, 2])
    kit(tmp_path, **{name: meta if body == b"MADE" else body for name, body in files.items()})
    with pytest.raises(DataError, match=message):
        opened(tmp_path, monkeypatch).files()


def test_known_digests_are_checked_and_read_once(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, fresh_store: Store) -> None:
    ilsvrc.make(tmp_path / "in")
    (tmp_path / "work").mkdir()
    make_workplace(tmp_path / "work", fresh_store, tmp_path / "in", monkeypatch)
    md5 = hashlib.md5((tmp_path / "in" / VAL).read_bytes()).hexdigest()
    opened(tmp_path / "in", monkeypatch, ArchiveConfig(VAL, md5)).files()
    with pytest.raises(
        DataError, match=rf"{VAL}: MD5 is {md5}, its publisher's is 0+; fetch it again, or change source\.archives"
    ):
        opened(tmp_path / "in", monkeypatch, ArchiveConfig(VAL, "0" * 32)).files()
    monkeypatch.setattr(forward, "walk", None)
    source = opened(tmp_path / "in", monkeypatch, ArchiveConfig(VAL, md5))
    assert isinstance(source, ArchivesSource)
    monkeypatch.setattr(type(source.tree), "stream", None)  # a second look would fail
    source.files()


def test_a_place_without_imagenet_says_what_it_needs(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (tmp_path / "a.txt").write_text("")
    with pytest.raises(DataError, match="has neither archives nor unpacked images; imagenet needs ILSVRC2012_img_train.tar, "):
        opened(tmp_path, monkeypatch)
    monkeypatch.delenv("ALEXNET_SOURCE")
    with pytest.raises(DataError, match="ALEXNET_SOURCE: not set; `imagenet` reads the archives"):
        open_source(SourceConfig("imagenet", 0.25, ()))


@settings(deadline=None, max_examples=60)
@given(st.data())
def test_no_damage_to_a_tar_raises_anything_but_a_named_error(data: st.DataObject) -> None:
    whole = bytearray(ilsvrc.tar_of([("ILSVRC2012_val_00000001.JPEG", b"abc"), ("ILSVRC2012_val_00000002.JPEG", b"de")]))
    for _ in range(data.draw(st.integers(1, 4))):
        whole[data.draw(st.integers(0, 2048))] = data.draw(st.integers(0, 255))
    cut = bytes(whole[: data.draw(st.integers(0, len(whole)))])
    try:
        found = list(forward.walk(iter([cut]), 0, len(cut), "here"))
    except DataError as error:
        assert str(error).startswith("here: ")  # noqa: PT017 - it need not be raised
        return
    assert len(found) <= 2
