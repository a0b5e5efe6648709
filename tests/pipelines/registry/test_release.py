"""Manifests: what they say, and what they may not."""

import hashlib
import json
import subprocess
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from alexnet.errors import DataError
from pipelines.registry import release as releases
from pipelines.registry.release import PublishConfig

DIGEST = "ab" * 32


def make(folder: Path, **files: bytes) -> Path:
    for name, body in {"a.txt": b"alpha", "pictures/b.txt": b"beta", **files}.items():
        (folder / name).parent.mkdir(parents=True, exist_ok=True)
        (folder / name).write_bytes(body)
    return folder


def test_equal_content_is_the_same_version_and_the_same_manifest(tmp_path: Path) -> None:
    one = releases.of_folder("alexnet", make(tmp_path / "one"))
    again = releases.of_folder("alexnet", tmp_path / "one")
    other = releases.of_folder("alexnet", make(tmp_path / "other"))
    assert one == again == other
    assert one.manifest() == other.manifest()
    changed = releases.of_folder("alexnet", make(tmp_path / "changed", c=b""))
    assert changed.version != one.version


def test_the_version_can_be_checked_with_sha256sum_alone(tmp_path: Path) -> None:
    release = releases.of_folder("alexnet", make(tmp_path))
    subprocess.run(["sha256sum", "--check", "--strict", "--quiet", "SHA256SUMS"], cwd=tmp_path, check=True)
    assert hashlib.sha256((tmp_path / "SHA256SUMS").read_bytes()).hexdigest().startswith(release.version)


def test_a_manifest_reads_back(tmp_path: Path) -> None:
    release = releases.of_folder("alexnet", make(tmp_path))
    assert releases.parse(release.manifest(), "here") == release
    assert release.total_bytes == sum(path.stat().st_size for path in tmp_path.rglob("*") if path.is_file())


def test_a_folder_is_compared_file_by_file(tmp_path: Path) -> None:
    release = releases.of_folder("alexnet", make(tmp_path))
    (tmp_path / "manifest.json").write_bytes(release.manifest())
    assert releases.differences(tmp_path, release) == []
    (tmp_path / "a.txt").write_bytes(b"alphb")
    (tmp_path / "pictures/b.txt").unlink()
    (tmp_path / "extra").touch()
    assert releases.differences(tmp_path, release) == [
        "a.txt: changed",
        "extra: not in the manifest",
        "pictures/b.txt: missing",
    ]


def test_a_folder_with_a_link_is_no_release(tmp_path: Path) -> None:
    (tmp_path / "link").symlink_to("/etc/hostname")
    with pytest.raises(DataError, match="link: not a plain file"):
        releases.scan(tmp_path)


def tampered(tmp_path: Path, change: Any) -> bytes:
    tree = json.loads(releases.of_folder("alexnet", make(tmp_path)).manifest())
    change(tree)
    return json.dumps(tree).encode()


@pytest.mark.parametrize(
    "path",
    [
        "../escape",
        "/etc/passwd",
        "a/../../b",
        "a//b",
        ".hidden",
        "a\nb",
        "manifest.json",
        "signatures/x.sig",
        "",
        "a\\b",
        "\u202egpj.exe",
        "a/",
    ],
)
def test_a_manifest_cannot_name_a_path_outside_its_folder(tmp_path: Path, path: str) -> None:
    body = tampered(tmp_path, lambda tree: tree["files"].update({path: {"bytes": 1, "sha256": DIGEST}}))
    with pytest.raises(DataError, match="is no path of a release"):
        releases.parse(body, "here")


@pytest.mark.parametrize("path", ["A.txt", "a.txt/inside", "pictures"])
def test_a_manifest_cannot_name_a_path_twice(tmp_path: Path, path: str) -> None:
    body = tampered(tmp_path, lambda tree: tree["files"].update({path: {"bytes": 1, "sha256": DIGEST}}))
    with pytest.raises(DataError, match="two of its paths collide"):
        releases.parse(body, "here")


def test_a_changed_digest_or_version_is_seen_within_the_manifest_itself(tmp_path: Path) -> None:
    with pytest.raises(DataError, match="SHA256SUMS does not name its files"):
        releases.parse(tampered(tmp_path, lambda tree: tree["files"]["a.txt"].update(sha256=DIGEST)), "here")
    with pytest.raises(DataError, match="says version 0000000000000000, but its files make"):
        releases.parse(tampered(tmp_path, lambda tree: tree.update(version="0" * 16)), "here")


@pytest.mark.parametrize(
    ("change", "text"),
    [
        (lambda tree: tree.update(format=2), "format is 2, this program reads 1; install a newer one"),
        (lambda tree: tree.pop("files"), "not a manifest: KeyError"),
        (lambda tree: tree.update(files=[]), "not a manifest: AttributeError"),
        (lambda tree: tree["files"]["a.txt"].update(bytes="5"), "a.txt: must have bytes and a sha256"),
        (lambda tree: tree["files"]["a.txt"].update(sha256="AB"), "a.txt: must have bytes and a sha256"),
    ],
)
def test_what_is_wrong_in_a_manifest_is_named(tmp_path: Path, change: Any, text: str) -> None:
    with pytest.raises(DataError, match=f"here: {text}"):
        releases.parse(tampered(tmp_path, change), "here")


@given(
    st.binary(max_size=200)
    | st.recursive(st.none() | st.text() | st.integers(), lambda x: st.lists(x) | st.dictionaries(st.text(), x)).map(
        lambda x: json.dumps(x).encode()
    )
)
def test_no_bytes_at_all_make_the_parser_fail_otherwise(body: bytes) -> None:
    with pytest.raises(DataError):
        releases.parse(body, "here")


def test_references_name_a_model_and_what_of_it() -> None:
    assert releases.parse_reference("alexnet") == ("alexnet", "latest")
    assert releases.parse_reference("alexnet@champion") == ("alexnet", "champion")
    assert releases.parse_reference("alexnet@0123456789abcdef") == ("alexnet", "0123456789abcdef")
    for wrong in ("", "@", "alexnet@", "../x", "Alexnet@latest", "alexnet@a/b", "alexnet@latest@x"):
        with pytest.raises(DataError, match="write NAME, NAME@ALIAS or NAME@VERSION"):
            releases.parse_reference(wrong)


def test_names_in_params_are_checked() -> None:
    with pytest.raises(ValueError, match="alias: must be lower-case letters"):
        PublishConfig("alexnet", "Latest", None)
    with pytest.raises(ValueError, match="name: must be lower-case letters"):
        PublishConfig("a/b", "latest", None)
    with pytest.raises(ValueError, match=r"max_top1_error: must be null or a fraction in \[0, 1\], got 15.0"):
        PublishConfig("alexnet", "latest", 15.0)
    with pytest.raises(ValueError, match="alias"):
        PublishConfig("alexnet", "abcdef0123456789", None)  # reads as a version
