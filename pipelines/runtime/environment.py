"""Where things are on this machine: buckets, credentials, the source, devices, workers. Never a number that changes a result.

With ALEXNET_BUCKET set, the standard AWS variables say how to reach it. Without it, the local stack is used if it runs.
A variable that is empty is as one that is not set.
"""

import os
import platform
import re
import urllib.parse
from dataclasses import dataclass
from pathlib import Path
from typing import TypeVar

from alexnet.config import read_json
from alexnet.errors import DataError
from alexnet.files.strict import shown

N = TypeVar("N", int, float)
LOCAL = Path(".local")  # everything this checkout keeps for itself and git ignores
_EXPERIMENT = "DVC_EXP_BASELINE_REV"  # DVC sets it for the stages of an experiment
# A DVC experiment may run in a temporary copy of the checkout; DVC_ROOT is the checkout that it was started in.
CHECKOUT = Path(os.environ["DVC_ROOT"] if _EXPERIMENT in os.environ else "")
SHARED = CHECKOUT / LOCAL  # the store, and what any run of the checkout may take: sources, shards, checkpoints
_LOOPBACK = ("localhost", "127.0.0.1", "::1")
_AWS = ("AWS_ACCESS_KEY_ID", "AWS_SECRET_ACCESS_KEY", "AWS_SESSION_TOKEN", "AWS_PROFILE", "AWS_ENDPOINT_URL")
_REGION = re.compile("[A-Za-z][A-Za-z0-9-]{0,61}[A-Za-z0-9]")
_THREADS = 1024  # at most, for any pool
_MOST = 10**9  # of a number: what waits so long, or so many, is as good as without an end
_USER = re.compile(r"([\"']?\w+://)?\S+@(?=\S)")
STACK = SHARED / "stack" / "places.json"  # written by `python -m infra.stack up` when the store is healthy


@dataclass(frozen=True)
class Store:
    """How to reach the object store, and the names of its two buckets."""

    bucket: str
    registry: str
    endpoint: str | None
    access_key: str | None  # None: boto3's own chain of credentials
    secret_key: str | None
    region: str | None

    def __repr__(self) -> str:
        return f"Store(bucket={self.bucket!r}, registry={self.registry!r}, endpoint={without_user(self.endpoint or '')!r})"


def without_user(text: str) -> str:
    """The text without the user and password that an address in it may hold, however it is written."""
    return _USER.sub(r"\1", text)


def store() -> Store:
    """The object store named by the environment, else that of the running local stack."""
    bucket = os.environ.get("ALEXNET_BUCKET")
    if bucket:
        return _named_store(_bucket("ALEXNET_BUCKET"), _bucket("ALEXNET_REGISTRY", bucket))
    if not STACK.exists():
        raise DataError(
            "no bucket: ALEXNET_BUCKET is not set and no local stack runs; "
            "run `make up`, or set ALEXNET_BUCKET (and ALEXNET_REGISTRY, AWS_ENDPOINT_URL, AWS_ACCESS_KEY_ID, ...)"
        )
    return read_json(Store, STACK, "`make up` writes it again")


def store_of(bucket: str) -> Store:
    """The store of a bucket that is named in a command: as `store` finds it, else what the AWS variables say."""
    try:
        return store()
    except DataError:
        return _named_store(bucket, bucket)


def _named_store(bucket: str, registry: str) -> Store:
    """The store that the AWS variables say how to reach; boto3 itself reads AWS_DEFAULT_REGION and not AWS_REGION."""
    for name in _AWS:
        if (value := os.environ.get(name, "")) != value.strip() or not value.isprintable():  # not shown: it may be a secret
            raise DataError(f"{name}: has a line break, a control character, or a space at an end; take it out")
    for name in ("AWS_REGION", "AWS_DEFAULT_REGION"):
        if (region := os.environ.get(name)) and not _REGION.fullmatch(region):
            raise DataError(f"{name}: must be a region, such as us-east-1, got {region!r}")
    endpoint = os.environ.get("AWS_ENDPOINT_URL") or None
    if endpoint and not re.match(r"https?://[^/]", endpoint):
        raise DataError(f"AWS_ENDPOINT_URL: must start with http:// or https://, got {without_user(endpoint)!r}")
    if endpoint and not _is_address(endpoint):
        raise DataError(f"AWS_ENDPOINT_URL: must be an address, such as http://127.0.0.1:8333, got {without_user(endpoint)!r}")
    return Store(bucket, registry, endpoint, None, None, os.environ.get("AWS_REGION") or None)


def _is_address(url: str) -> bool:
    try:
        parts = urllib.parse.urlsplit(url)
        return bool(parts.hostname) and parts.port != 0 and not re.search(r"\s", url)
    except ValueError:  # a port that is none, an IPv6 address without its end
        return False


def _bucket(variable: str, default: str = "") -> str:
    """The bucket that a variable names."""
    name = os.environ.get(variable) or default
    if re.fullmatch(r"[A-Za-z0-9][\w.-]{2,254}|arn:[\w:/-]*:accesspoint[/:][\w-]+", name):
        return name
    plain = re.sub(r"^(s3://|arn:aws[\w-]*:s3:::)", "", name.strip()).partition("/")[0].partition("\n")[0]
    advice = f"write {plain}" if len(plain) > 2 else "it takes 3 characters or more"
    raise DataError(f"{variable}: {name!r} is no bucket's name; {advice}, without s3://, slashes, a prefix or spaces")


def reach_loopback_directly() -> None:
    """Keeps what this process and those that it starts ask of this machine out of a proxy, which could not reach it."""
    for name in ("NO_PROXY", "no_proxy"):
        given = [host.strip() for host in os.environ.get(name, "").split(",") if host.strip()]
        os.environ[name] = ",".join(dict.fromkeys([*given, *_LOOPBACK]))


def source() -> str | None:
    """ALEXNET_SOURCE: the folder, archive folder or s3:// prefix the source `folder`, `imagenet` or `webdataset` reads."""
    place = os.environ.get("ALEXNET_SOURCE")
    return str(CHECKOUT / place) if place and "://" not in place else place


def is_experiment() -> bool:
    """Whether DVC runs this as an experiment."""
    return _EXPERIMENT in os.environ


def publishes() -> bool:
    """ALEXNET_PUBLISH: whether the run ends with a release, yes or no; unless set, it does but in a DVC experiment."""
    text = os.environ.get("ALEXNET_PUBLISH") or ("no" if is_experiment() else "yes")
    if text not in ("yes", "no"):
        raise DataError(f"ALEXNET_PUBLISH: must be yes or no, got {text!r}")
    return text == "yes"


def logs_json() -> bool:
    """ALEXNET_LOG: whether a stage prints `json`, an object a line, or `text`, as it does unless this is set."""
    text = os.environ.get("ALEXNET_LOG") or "text"
    if text not in ("text", "json"):
        raise DataError(f"ALEXNET_LOG: must be text or json, got {text!r}")
    return text == "json"


def run_id() -> str | None:
    """ALEXNET_RUN, which the lines of a run have in common in a log of JSON: a flow's id, or when `make run` began."""
    return os.environ.get("ALEXNET_RUN") or None


def workers() -> int:
    """ALEXNET_WORKERS: threads for decoding and resizing; all the cores this process may use unless set."""
    cores = len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1
    return read_number("ALEXNET_WORKERS", cores, least=1, most=_THREADS)


def streams() -> int:
    """ALEXNET_STREAMS: shards that are fetched at the same time; 16 unless set."""
    return read_number("ALEXNET_STREAMS", 16, least=1, most=_THREADS)


def dask() -> str | None:
    """ALEXNET_DASK: the address of a Dask scheduler, whose workers then validate and shard instead of threads here."""
    text = os.environ.get("ALEXNET_DASK")
    if text and not re.fullmatch(r"(tcp|tls|ucx)://[\w.:\[\]-]+:[0-9]{1,5}", text):
        raise DataError(f"ALEXNET_DASK: must be a scheduler's address, such as tcp://10.0.0.1:8786, got {text!r}")
    return text or None


def devices() -> list[str]:
    """ALEXNET_DEVICES: a device for every process, such as `cuda:0,cuda:1`; every GPU up to two, else the CPU, unless set."""
    text = os.environ.get("ALEXNET_DEVICES")
    if not text:
        import torch  # only the stages that train or run the network ask

        return [f"cuda:{i}" for i in range(min(2, torch.cuda.device_count()))] or ["cpu"]
    names = [name.strip() for name in text.split(",")]
    if not all(re.fullmatch(r"cpu|cuda(:[0-9]{1,4})?", name) for name in names):
        raise DataError(f"ALEXNET_DEVICES: must name devices, such as cpu, cuda:0 or cuda:0,cuda:1, got {text!r}")
    names = ["cuda:0" if name == "cuda" else name for name in names]
    if gpus := [int(name.removeprefix("cuda:")) for name in names if name != "cpu"]:
        import torch  # as above

        count = torch.cuda.device_count()
        if max(gpus) >= count:
            there = f"cuda:0 to cuda:{count - 1}" if count > 1 else "cuda:0" if count else "no GPU"
            raise DataError(f"ALEXNET_DEVICES: names cuda:{max(gpus)}, but torch sees {there}; name what is there, or cpu")
    return names


def machine() -> str:
    """The first device, for people: the name of a GPU, or processor and threads."""
    if (device := devices()[0]) != "cpu":
        import torch  # as above

        return str(torch.cuda.get_device_name(device))
    try:
        lines = Path("/proc/cpuinfo").read_text(encoding="utf-8").splitlines()
        name = next(line.partition(":")[2].strip() for line in lines if line.startswith("model name"))
    except (OSError, StopIteration):
        name = platform.processor() or platform.machine()
    return f"{name}, {workers()} threads"


@dataclass(frozen=True)
class TrainedOn:
    """training.json: what a network was trained on, by the run that finished it. machine: as `machine` names it."""

    machine: str
    processes: int
    torch: str


def device_of_rank(local_rank: int, local_size: int) -> tuple[str, bool]:
    """The device of one of this machine's ranks, in turn from ALEXNET_DEVICES or all GPUs; whether another shares that GPU."""
    if os.environ.get("ALEXNET_DEVICES"):
        names = devices()
    else:
        import torch  # as above

        names = [f"cuda:{i}" for i in range(torch.cuda.device_count())] or ["cpu"]
    taken = [names[rank % len(names)] for rank in range(local_size)]
    name = taken[local_rank]
    return name, name != "cpu" and taken.count(name) > 1


def processes() -> int | None:
    """ALEXNET_PROCESSES: 1 holds both towers in one process, also on two devices; a process a device unless set."""
    text = os.environ.get("ALEXNET_PROCESSES") or None
    if text not in (None, "1"):
        raise DataError(
            f"ALEXNET_PROCESSES: must be 1 where it is set, got {text!r}; more are named by ALEXNET_DEVICES or torchrun"
        )
    return None if text is None else 1


def timeout_seconds() -> float:
    """ALEXNET_TIMEOUT: seconds that a process waits for another; 60 unless set."""
    return read_number("ALEXNET_TIMEOUT", 60.0, least=10)


def store_seconds() -> float:
    """ALEXNET_STORE_MINUTES: how long a stage waits for a store that has answered and no longer does; 10 minutes unless set."""
    return read_number("ALEXNET_STORE_MINUTES", 10.0, least=0) * 60


def restarts() -> int:
    """ALEXNET_RESTARTS: how often training starts its processes again without a newer checkpoint; 2 unless set."""
    return read_number("ALEXNET_RESTARTS", 2, least=0)


def checkpoint_seconds() -> float:
    """ALEXNET_CHECKPOINT_MINUTES: time between checkpoints of training; 5 minutes unless set."""
    return read_number("ALEXNET_CHECKPOINT_MINUTES", 5.0, least=0) * 60


def read_number(name: str, default: N, least: int, most: int = _MOST) -> N:
    """The variable as a number of the default's type. Raises DataError unless it is from `least` to `most`."""
    kind, text = type(default), os.environ.get(name) or str(default)
    try:
        number = kind(text if text.isascii() and "_" not in text else "")
    except ValueError:
        number = kind(-1)
    if not least <= number <= most:
        limit = f"at most {most}" if number > most else f"at least {least}"
        raise DataError(f"{name}: must be a {'whole ' if kind is int else ''}number of {limit}, got {shown(text)}")
    return number
