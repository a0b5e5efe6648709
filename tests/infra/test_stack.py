"""The local store: starts once, stays healthy, keeps what it was given, and says what is wrong."""

import json
import os
import signal
import socket
import stat
import subprocess
import sys
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import pytest
from botocore.exceptions import ClientError

from infra.stack import Places, Stack, StackError, _client


def _pipeline_client(places: Places) -> Any:
    return _client(places.endpoint, places.access_key, places.secret_key)


def test_two_ups_at_once_start_one_server(stack: Stack) -> None:
    with ThreadPoolExecutor(2) as pool:
        first, second = pool.map(lambda _: stack.up(), range(2))
    assert first == second == stack.places()


def test_the_places_are_those_that_the_pipeline_reads(stack: Stack) -> None:
    from pipelines.places import Store

    assert Store(**json.loads((stack.folder / "places.json").read_text())).endpoint == stack.up().endpoint


def test_credentials_are_random_and_their_owner_alone_may_read_them(stack: Stack) -> None:
    for name in ("identities.json", "places.json"):
        assert stat.S_IMODE((stack.folder / name).stat().st_mode) == 0o600
    keys = {
        identity["credentials"][0]["secretKey"]
        for identity in json.loads((stack.folder / "identities.json").read_text())["identities"]
    }
    assert len(keys) == 2
    assert min(map(len, keys)) >= 40


def test_a_wrong_secret_is_refused(stack: Stack) -> None:
    places = stack.up()
    with pytest.raises(ClientError, match="SignatureDoesNotMatch"):
        _client(places.endpoint, places.access_key, "0" * 40).list_objects_v2(Bucket=places.bucket)


def test_the_pipelines_identity_writes_to_its_buckets_and_makes_none(stack: Stack) -> None:
    places = stack.up()
    client = _pipeline_client(places)
    client.put_object(Bucket=places.bucket, Key="a/b", Body=b"1")
    client.delete_object(Bucket=places.bucket, Key="a/b")
    with pytest.raises(ClientError, match="AccessDenied"):
        client.create_bucket(Bucket="another")
    with pytest.raises(ClientError, match=r"AccessDenied|NoSuchBucket"):
        client.put_object(Bucket="another", Key="a", Body=b"1")


def test_a_conditional_write_has_one_winner(stack: Stack) -> None:
    places = stack.up()
    client = _pipeline_client(places)
    client.put_object(Bucket=places.registry, Key="once", Body=b"1", IfNoneMatch="*")
    with pytest.raises(ClientError, match="PreconditionFailed"):
        client.put_object(Bucket=places.registry, Key="once", Body=b"2", IfNoneMatch="*")
    client.delete_object(Bucket=places.registry, Key="once")


def test_what_was_acknowledged_outlives_a_kill_and_the_endpoint_stays(tmp_path: Path) -> None:
    stack = Stack(tmp_path)
    places = stack.up()
    try:
        body = os.urandom(3_000_000)
        _pipeline_client(places).put_object(Bucket=places.bucket, Key="big", Body=body)
        os.kill(int((tmp_path / "server.pid").read_text()), signal.SIGKILL)
        again = stack.up()
        assert again == places
        assert _pipeline_client(again).get_object(Bucket=again.bucket, Key="big")["Body"].read() == body
        assert stack.down()
        assert stack.places() is None
        assert not stack.down()
    finally:
        stack.down()


def test_a_stale_process_id_of_another_program_is_left_alone(tmp_path: Path) -> None:
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


def test_a_taken_port_is_named_with_the_variable_that_moves_it(tmp_path: Path) -> None:
    with socket.socket() as taken:
        taken.bind(("127.0.0.1", 0))
        taken.listen()
        port = taken.getsockname()[1]
        with pytest.raises(StackError, match=f"port {port} is taken by another program; set ALEXNET_STACK_PORT"):
            Stack(tmp_path, port=port).up()


def test_a_server_that_ends_at_once_is_reported_with_its_last_words(tmp_path: Path) -> None:
    (tmp_path / "data").mkdir()
    (tmp_path / "data" / "filerldb2").write_text("not a folder")
    stack = Stack(tmp_path)
    with pytest.raises(StackError, match=r"local store: stopped at once: .*; see .*server\.log"):
        stack.up()
    assert not (tmp_path / "places.json").exists()


def test_a_port_that_is_none_is_refused(tmp_path: Path) -> None:
    reply = subprocess.run(
        [sys.executable, "-m", "infra.stack", "up"],
        env=os.environ | {"ALEXNET_STACK_PORT": "http"},
        capture_output=True,
        text=True,
        check=False,
    )
    assert reply.returncode == 1
    assert reply.stderr == "error: ALEXNET_STACK_PORT: must be a port number, got 'http'\n"
