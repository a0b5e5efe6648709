"""DVC's remote: where `dvc push` and `dvc pull` keep outputs, in the bucket that the pipeline uses.

    python -m infra.remote

names it in .dvc/config.local, which git ignores: the bucket of ALEXNET_BUCKET, reached as the AWS variables say when DVC runs,
or that of the running local stack. `python -m infra.stack up` does the same for its own store. No credential is written: of the
local store DVC gets the path of a file that only its owner may read.
"""

import os
import sys
from configparser import ConfigParser, ParsingError
from contextlib import suppress
from pathlib import Path

from infra import state

NAME = "store"
DVC = Path(".dvc")
STACK = Path(".local/stack/places.json")
_CREDENTIALS = "credentials"  # beside places.json, in the form of ~/.aws/credentials
_PREFIX = "dvc"  # of the bucket's keys


def configure(bucket: str, options: dict[str, str], dvc: Path = DVC) -> str:
    """Makes the bucket DVC's remote `store`, and its default unless another is chosen. Returns its address."""
    url = f"s3://{bucket}/{_PREFIX}"
    # verify: DVC compares what it pulls with its digest, which it otherwise does not.
    remote = {"url": url, "verify": "true"} | options
    if _configured(dvc) == remote:
        return url
    from dvc.config import Config  # a second to import

    with Config(str(dvc), validate=False).edit("local") as config:
        config.setdefault("remote", {})[NAME] = remote
        config.setdefault("core", {}).setdefault("remote", NAME)
    return url


def _configured(dvc: Path) -> dict[str, str] | None:
    """The remote as it stands; None where there is none, or no remote is the default."""
    config = ConfigParser(interpolation=None)
    with suppress(ParsingError, UnicodeDecodeError):
        config.read(dvc / "config.local", encoding="utf-8")
    section = f"'remote \"{NAME}\"'"
    return dict(config[section]) if section in config and config.has_option("core", "remote") else None


def configure_local(places: Path = STACK, dvc: Path = DVC) -> str:
    """The same for the local store that `places` describes. Raises FileNotFoundError unless it runs."""
    found = state.read_json(places)
    if not isinstance(found, dict):
        raise FileNotFoundError(places)
    credentials = places.absolute().with_name(_CREDENTIALS)
    text = f"[default]\naws_access_key_id = {found['access_key']}\naws_secret_access_key = {found['secret_key']}\n"
    state.write(credentials, text.encode(), 0o600)
    options = {"endpointurl": found["endpoint"], "region": found["region"], "credentialpath": str(credentials)}
    return configure(found["bucket"], options, dvc)


def main() -> int:
    """The command line. Returns the exit status."""
    bucket, endpoint, region = map(os.environ.get, ("ALEXNET_BUCKET", "AWS_ENDPOINT_URL", "AWS_REGION"))
    if not DVC.is_dir():
        print("error: .dvc: no such folder; run in a checkout", file=sys.stderr)
        return 1
    try:
        # An address with a password in it stays in the environment, where DVC finds it too.
        given = {"endpointurl": endpoint, "region": region}
        options = {name: value for name, value in given.items() if value and "@" not in value}
        url = configure(bucket, options) if bucket else configure_local()
    except FileNotFoundError:
        print("error: ALEXNET_BUCKET is not set and no local store runs; name a bucket, or `make up`", file=sys.stderr)
        return 1
    print(f"dvc's remote `{NAME}` is {url}; `dvc push`, `dvc pull`")
    return 0


if __name__ == "__main__":
    sys.exit(main())
