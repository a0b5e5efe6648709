"""Manifests: what they say, and what they may not."""

import dataclasses
import hashlib
import json
import subprocess
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from alexnet.errors import DataError
from pipelines.registry.release import PublishConfig, Release, parse_reference, scan

DIGEST = "ab" * 32
PUBLISHED = b"""{
 "files": {
  "SHA256SUMS": {
   "bytes": 153,
   "sha256": "767cfc6bb2d0e3c7d58c8b643fe592aaeae11b2e4a07bb288d6e1d02a45b4b0c"
  },
  "a.txt": {
   "bytes": 5,
   "sha256": "8ed3f6ad685b959ead7022518e1af76cd816f8e8ec7ccdda1ed4018e8f2223f8"
  },
  "pictures/b.txt": {
   "bytes": 4,
   "sha256": "f44e64e75f3948e9f73f8dfa94721c4ce8cbb4f265c4790c702b2d41cfbf2753"
  }
 },
 "format": 1,
 "name": "alexnet",
 "version": "767cfc6bb2d0e3c7"
}
"""


def make(folder: Path, **files: bytes) -> Path:
    for name, body in {"a.txt": b"alpha", "pictures/b.txt": b"beta", **files}.items():
        (folder / name).parent.mkdir(parents=True, exist_ok=True)
        (folder / name).write_bytes(body)
    return folder


def test_equal_content_is_the_same_version_and_the_same_manifest(tmp_path: Path) -> None:
    one = Release.from_folder("alexnet", make(tmp_path / "one"))
    again = Release.from_folder("alexnet", tmp_path / "one")
    other = Release.from_folder("alexnet", make(tmp_path / "other"))
    assert one == again == other
    assert one.manifest() == other.manifest()
    changed = Release.from_folder("alexnet", make(tmp_path / "changed", c=b""))
    assert changed.version != one.version


def test_the_version_can_be_checked_with_sha256sum_alone(tmp_path: Path) -> None:
    release = Release.from_folder("alexnet", make(tmp_path))
    subprocess.run(["sha256sum", "--check", "--strict", "--quiet", "SHA256SUMS"], cwd=tmp_path, check=True)
    assert hashlib.sha256((tmp_path / "SHA256SUMS").read_bytes()).hexdigest().startswith(release.version)


def test_a_manifest_reads_back(tmp_path: Path) -> None:
    release = Release.from_folder("alexnet", make(tmp_path))
    assert Release.from_manifest(release.manifest(), "here") == release
    assert release.total_bytes == sum(path.stat().st_size for path in tmp_path.rglob("*") if path.is_file())


def test_a_manifest_that_was_published_before_is_read_and_written_alike() -> None:
    """Its bytes are what aliases hold the digest of and what signatures are over."""
    release = Release.from_manifest(PUBLISHED, "here")
    assert (release.name, release.version) == ("alexnet", "767cfc6bb2d0e3c7")
    assert release.manifest() == PUBLISHED


def test_a_folder_is_compared_file_by_file(tmp_path: Path) -> None:
    release = Release.from_folder("alexnet", make(tmp_path))
    (tmp_path / "manifest.json").write_bytes(release.manifest())
    assert release.differences(tmp_path) == []
    (tmp_path / "a.txt").write_bytes(b"alphb")
    (tmp_path / "pictures/b.txt").unlink()
    (tmp_path / "extra").touch()
    assert release.differences(tmp_path) == [
        "a.txt: changed",
        "extra: not in the manifest",
        "pictures/b.txt: missing",
    ]


def test_a_folder_with_a_link_is_no_release(tmp_path: Path) -> None:
    (tmp_path / "link").symlink_to("/etc/hostname")
    with pytest.raises(DataError, match="link: not a plain file"):
        scan(tmp_path)


def tampered(tmp_path: Path, change: Any) -> bytes:
    tree = json.loads(Release.from_folder("alexnet", make(tmp_path)).manifest())
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
        "Manifest.json",
        "Signatures/0123456789abcdef.sig",
        "con",
        "pictures/LPT1.png",
        "a.",
        "x/" * 400 + "a",
    ],
)
def test_a_manifest_cannot_name_a_path_outside_its_folder(tmp_path: Path, path: str) -> None:
    body = tampered(tmp_path, lambda tree: tree["files"].update({path: {"bytes": 1, "sha256": DIGEST}}))
    with pytest.raises(DataError, match="is no path of a release"):
        Release.from_manifest(body, "here")


@pytest.mark.parametrize("path", ["A.txt", "a.txt/inside", "pictures"])
def test_a_manifest_cannot_name_a_path_twice(tmp_path: Path, path: str) -> None:
    body = tampered(tmp_path, lambda tree: tree["files"].update({path: {"bytes": 1, "sha256": DIGEST}}))
    with pytest.raises(DataError, match="two of its paths collide"):
        Release.from_manifest(body, "here")


def test_a_changed_digest_or_version_is_seen_within_the_manifest_itself(tmp_path: Path) -> None:
    with pytest.raises(DataError, match="SHA256SUMS does not name its files"):
        Release.from_manifest(tampered(tmp_path, lambda tree: tree["files"]["a.txt"].update(sha256=DIGEST)), "here")
    with pytest.raises(DataError, match="says version 0000000000000000, but its files make"):
        Release.from_manifest(tampered(tmp_path, lambda tree: tree.update(version="0" * 16)), "here")


@pytest.mark.parametrize(
    ("change", "text"),
    [
        (lambda tree: tree.update(format=2), r"\.format: must be one of 1, got 2; it is damaged, or of a newer program"),
        (lambda tree: tree.pop("files"), ": missing files"),
        (lambda tree: tree.update(more=1), ": unknown more"),
        (lambda tree: tree.update(files=[]), r"\.files: must be a mapping, got \[\]"),
        (lambda tree: tree["files"]["a.txt"].update(bytes="5"), r"\.files\.a\.txt\.bytes: must be a whole number, got '5'"),
        (lambda tree: tree["files"]["a.txt"].update(bytes=-1), r"\.files\.a\.txt\.bytes: must be at least 0, got -1"),
        (lambda tree: tree["files"]["a.txt"].update(sha256="AB"), r"\.files\.a\.txt\.sha256: must be 64 digits 0-9a-f, got"),
    ],
)
def test_what_is_wrong_in_a_manifest_is_named(tmp_path: Path, change: Any, text: str) -> None:
    with pytest.raises(DataError, match=f"^here{text}"):
        Release.from_manifest(tampered(tmp_path, change), "here")


@given(
    st.binary(max_size=200)
    | st.recursive(st.none() | st.text() | st.integers(), lambda x: st.lists(x) | st.dictionaries(st.text(), x)).map(
        lambda x: json.dumps(x).encode()
    )
)
def test_no_bytes_at_all_make_the_parser_fail_otherwise(body: bytes) -> None:
    with pytest.raises(DataError):
        Release.from_manifest(body, "here")


def test_references_name_a_model_and_what_of_it() -> None:
    assert parse_reference("alexnet") == ("alexnet", "latest")
    assert parse_reference("alexnet@champion") == ("alexnet", "champion")
    assert parse_reference("alexnet@0123456789abcdef") == ("alexnet", "0123456789abcdef")
    for wrong in ("", "@", "alexnet@", "../x", "Alexnet@latest", "alexnet@a/b", "alexnet@latest@x"):
        with pytest.raises(DataError, match="write NAME, NAME@ALIAS or NAME@VERSION"):
            parse_reference(wrong)


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"alias": "Latest"}, "alias: must be lower-case letters"),
        ({"name": "a/b"}, "name: must be lower-case letters"),
        ({"alias": "abcdef0123456789"}, "alias"),  # reads as a version
        ({"alias": "champion"}, "alias: must not be champion, which follows a rule of its own"),
        ({"max_top1_error": 15.0}, r"max_top1_error: must be null or a fraction in \[0, 1\], got 15.0"),
        ({"margin": -0.1}, r"margin: must be a fraction in \[0, 1\], got -0.1"),
    ],
)
def test_names_in_params_are_checked(changes: dict[str, Any], message: str) -> None:
    config = PublishConfig("alexnet", "latest", (), None, must_beat_baselines=True, margin=0.01)
    with pytest.raises(ValueError, match=message):
        dataclasses.replace(config, **changes)
