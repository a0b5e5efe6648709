"""The local store: starts once, keeps acknowledged objects, enforces identities, reports faults; and infra's templates."""

import dataclasses
import json
import os
import signal
import socket
import stat
import subprocess
import sys
import time
from concurrent.futures import ThreadPoolExecutor
from fnmatch import fnmatch
from pathlib import Path
from typing import Any

import psutil
import pytest
from botocore.exceptions import ClientError

from infra.daemon import Daemon, DaemonError
from infra.stack import Stack, StoreAccess, _client, main

ROOT = Path(__file__).parents[2]


def _pipeline_client(access: StoreAccess) -> Any:
    return _client(access.endpoint, access.access_key, access.secret_key)


def test_two_ups_at_once_start_one_server(stack: Stack) -> None:
    with ThreadPoolExecutor(2) as pool:
        first, second = pool.map(lambda _: stack.up(), range(2))
    assert first == second == stack.access()


def test_the_pipeline_reads_the_access_that_the_stack_writes(stack: Stack) -> None:
    from pipelines.runtime.environment import Store

    assert Store(**json.loads((stack.folder / "places.json").read_text())).endpoint == stack.up().endpoint


def test_a_store_that_runs_is_found_without_boto3(stack: Stack) -> None:
    """Which takes half a second to import, of the three that a run with nothing to do may take."""
    code = "import sys; from pathlib import Path; from infra.stack import Stack; assert Stack(Path(sys.argv[1])).access()\n"
    code += "import pipelines.cli.summary; print([name for name in ('boto3', 'dvc', 'torch', 'pandas') if name in sys.modules])"
    found = subprocess.run([sys.executable, "-c", code, str(stack.folder)], capture_output=True, text=True, cwd=ROOT)
    assert found.stdout == "[]\n", found.stderr


def test_credentials_are_random_and_readable_by_their_owner_alone(stack: Stack) -> None:
    for name in ("identities.json", "places.json"):
        assert stat.S_IMODE((stack.folder / name).stat().st_mode) == 0o600
    keys = {
        identity["credentials"][0]["secretKey"]
        for identity in json.loads((stack.folder / "identities.json").read_text())["identities"]
    }
    assert len(keys) == 2
    assert min(map(len, keys)) >= 40


def test_a_wrong_secret_is_refused(stack: Stack) -> None:
    access = stack.up()
    with pytest.raises(ClientError, match="SignatureDoesNotMatch"):
        _client(access.endpoint, access.access_key, "0" * 40).list_objects_v2(Bucket=access.bucket)


def test_the_pipelines_identity_writes_to_its_buckets_only(stack: Stack) -> None:
    access = stack.up()
    client = _pipeline_client(access)
    client.put_object(Bucket=access.bucket, Key="a/b", Body=b"1")
    client.delete_object(Bucket=access.bucket, Key="a/b")
    with pytest.raises(ClientError, match="AccessDenied"):
        client.create_bucket(Bucket="another")
    with pytest.raises(ClientError, match=r"AccessDenied|NoSuchBucket"):
        client.put_object(Bucket="another", Key="a", Body=b"1")


def test_a_conditional_write_has_one_winner(stack: Stack) -> None:
    access = stack.up()
    client = _pipeline_client(access)
    client.put_object(Bucket=access.registry, Key="once", Body=b"1", IfNoneMatch="*")
    with pytest.raises(ClientError, match="PreconditionFailed"):
        client.put_object(Bucket=access.registry, Key="once", Body=b"2", IfNoneMatch="*")
    client.delete_object(Bucket=access.registry, Key="once")


def test_acknowledged_objects_and_the_endpoint_survive_a_kill(tmp_path: Path) -> None:
    stack = Stack(tmp_path)
    access = stack.up()
    try:
        body = os.urandom(3_000_000)
        _pipeline_client(access).put_object(Bucket=access.bucket, Key="big", Body=body)
        os.kill(int((tmp_path / "server.pid").read_text()), signal.SIGKILL)
        again = stack.up()
        assert again == access
        assert _pipeline_client(again).get_object(Bucket=again.bucket, Key="big")["Body"].read() == body
        assert stack.down()
        assert stack.access() is None
        assert not stack.down()
    finally:
        stack.down()


def test_a_stale_process_id_is_not_killed(tmp_path: Path) -> None:
    stack = Stack(tmp_path)
    other = subprocess.Popen(["sleep", "60"], start_new_session=True)
    try:
        (tmp_path / "server.pid").write_text(str(other.pid))
        (tmp_path / "server.alive").touch()
        assert not stack.down()
        assert other.poll() is None
    finally:
        other.kill()
        other.wait()


@pytest.mark.parametrize("note", [b"", b"0", b"1", b"-1", b"\xff", b"%d"])
def test_the_server_is_ended_and_no_other_whatever_its_note_says(note: bytes, tmp_path: Path) -> None:
    """A signal to process group 1 would reach every process of the user."""
    with subprocess.Popen(["sleep", "60"], start_new_session=True) as other:
        server = Daemon(tmp_path, "server", "server")
        server.start(["sleep", "60"], {}, tmp_path)
        started = psutil.Process(server.pid)
        (tmp_path / "server.pid").write_bytes(note % other.pid if b"%" in note else note)
        assert server.stop(1.0)
        assert not server.is_running()
        assert not started.is_running() or started.status() == psutil.STATUS_ZOMBIE
        assert other.poll() is None
        other.kill()


@pytest.mark.slow
def test_damaged_notes_of_the_store_are_made_again(tmp_path: Path) -> None:
    stack = Stack(tmp_path)
    access = stack.up()
    try:
        for name in ("places.json", "ports.json", "identities.json"):
            (tmp_path / name).unlink()
        (tmp_path / "places.json").mkdir()
        os.mkfifo(tmp_path / "ports.json")
        (tmp_path / "identities.json").write_bytes(b'{"identities": [{"name": "admin", "credentials": [{"accessKey": 1}]}]}')
        again = stack.up()
        assert again.secret_key != access.secret_key
        _pipeline_client(again).put_object(Bucket=again.bucket, Key="a", Body=b"1")
    finally:
        stack.down()


def test_a_taken_port_is_reported_with_its_variable(tmp_path: Path) -> None:
    with socket.socket() as taken:
        taken.bind(("127.0.0.1", 0))
        taken.listen()
        port = taken.getsockname()[1]
        with pytest.raises(ValueError, match=f"port {port} is taken by another program; set ALEXNET_STACK_PORT"):
            Stack(tmp_path, port=port).up()


def test_a_server_that_ends_at_once_is_reported_with_its_last_error(tmp_path: Path) -> None:
    (tmp_path / "data").mkdir()
    (tmp_path / "data" / "filerldb2").write_text("not a folder")
    stack = Stack(tmp_path)
    with pytest.raises(DaemonError, match=r"local store: stopped at once: .*; see .*server\.log"):
        stack.up()
    assert not (tmp_path / "places.json").exists()


def test_a_value_that_is_no_port_is_refused(tmp_path: Path) -> None:
    reply = subprocess.run(
        [sys.executable, "-m", "infra.stack", "up"],
        env=os.environ | {"ALEXNET_STACK_PORT": "http"},
        capture_output=True,
        text=True,
        check=False,
    )
    assert reply.returncode == 1
    assert reply.stderr == "error: ALEXNET_STACK_PORT: must be a port number, got 'http'\n"


def test_the_buckets_of_the_users_store_are_made_once(
    stack: Stack, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    """As compose does whenever it starts; then nobody can delete a release."""
    access = stack.up()
    key, secret = stack.admin_key()
    names = {"bucket": "own-data", "registry": "own-registry", "access_key": key, "secret_key": secret}
    for name, value in dataclasses.replace(access, **names).environment().items():
        monkeypatch.setenv(name, value)
    for _ in range(2):
        assert main(["buckets"]) == 0
        assert capsys.readouterr().out == "buckets own-data and own-registry are there\n"
    admin = stack.admin()
    assert {"own-data", "own-registry"} <= {bucket["Name"] for bucket in admin.list_buckets()["Buckets"]}
    for name in ("alexnet/versions/1/model", "alexnet/probes/1"):
        admin.put_object(Bucket="own-registry", Key=name, Body=b"1")
    with pytest.raises(ClientError, match="AccessDenied"):
        admin.delete_object(Bucket="own-registry", Key="alexnet/versions/1/model")
    admin.delete_object(Bucket="own-registry", Key="alexnet/probes/1")
    monkeypatch.setenv("AWS_ACCESS_KEY_ID", access.access_key)
    monkeypatch.setenv("AWS_SECRET_ACCESS_KEY", access.secret_key)
    monkeypatch.setenv("ALEXNET_BUCKET", "not-mine")
    assert main(["buckets"]) == 1
    assert "makes no bucket: An error occurred (AccessDenied)" in capsys.readouterr().err
    monkeypatch.delenv("ALEXNET_BUCKET")
    assert main(["buckets"]) == 1
    assert capsys.readouterr().err == "error: ALEXNET_BUCKET is not set; name the bucket to make\n"


def test_files_that_git_ignores_are_not_copied_into_the_image() -> None:
    """Secrets and files of one machine are among them."""
    excluded = [line.removeprefix("**/") for line in (ROOT / ".dockerignore").read_text().split("\n")]
    ignored = (ROOT / ".gitignore").read_text().split()
    ignored += [f".dvc{line}" for line in (ROOT / ".dvc" / ".gitignore").read_text().split()]
    assert "infra/compose.env" in ignored
    assert [line for line in ignored if not any(fnmatch(line.strip("/"), pattern) for pattern in excluded)] == []


def test_a_daemons_children_in_other_process_groups_end_with_it(tmp_path: Path) -> None:
    """A scheduler's worker starts its runs so; one that is killed has no time to end them."""
    daemon = Daemon(tmp_path, "worker", "worker")
    program = "import subprocess, time; subprocess.Popen(['sleep', '797'], start_new_session=True); time.sleep(797)"
    daemon.start([sys.executable, "-c", program], {"PATH": os.defpath}, cwd=tmp_path)

    def sleepers() -> list[psutil.Process]:
        return [process for process in psutil.process_iter(["cmdline"]) if process.info["cmdline"] == ["sleep", "797"]]

    deadline = time.monotonic() + 30
    while not sleepers() and time.monotonic() < deadline:
        time.sleep(0.05)
    assert sleepers()
    assert daemon.stop(5.0)
    assert not [process for process in sleepers() if process.status() != psutil.STATUS_ZOMBIE]
