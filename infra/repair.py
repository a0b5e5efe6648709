"""DVC's own files after a kill. DVC writes its lock files in place, and believes what lies in its cache.

    python -m infra.repair

The flow runs it first, as does `infra.repro`. It removes locks without a living owner, puts back a copy of dvc.lock where
that was cut short, and compares every object of the cache with its digest: a damaged one is made again from the workspace, or
removed, so that DVC makes or pulls it again.
"""

import hashlib
import json
import os
import re
import shutil
import subprocess
import sys
import sysconfig
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import psutil
import yaml

from infra import bytecode, state

LOCK = Path("dvc.lock")
COPY = Path(".local/dvc.lock")  # of the last dvc.lock that was whole
CONFIG = Path(".dvc/config.local")
RWLOCK = Path(".dvc/tmp/rwlock")
CACHE = Path(".dvc/cache/files/md5")
CODE = (Path("alexnet"), Path("pipelines"))  # what stages import


def repair() -> list[str]:
    """Repairs what is damaged in this checkout, and says what. Does nothing while DVC runs here."""
    if _dvc_runs_here():
        return []
    return [*_repair_rwlock(), *_repair_lock(), *_repair_cache(), *_repair_bytecode()]


def repair_packages(since: float) -> None:
    """Removes damaged bytecode of installed packages that was written since then, as a full disk leaves it, and says so."""
    for path in bytecode.remove_truncated(Path(sysconfig.get_path("purelib")), since):
        print(f"dvc: {path}: was cut short; removed, run again", flush=True)


def allow_no_git() -> Iterator[str]:
    """Lets DVC run where git does not: in a downloaded ZIP, or another user's checkout. Only its experiments need git."""
    command = ["git", "rev-parse", "--git-dir"]
    try:
        said = subprocess.run(command, capture_output=True, text=True, errors="replace", check=False)
        reason = said.stderr.strip().partition("\n")[0] if said.returncode else ""
    except OSError as error:
        reason = f"git: {error.strerror}"
    config = state.read(CONFIG) or b""
    if reason and b"no_scm" not in config:
        subprocess.run(
            [sys.executable, "-m", "dvc", "config", "--local", "core.no_scm", "true"], capture_output=True, check=True
        )
        yield f"runs without git, and has no experiments; git said: {reason}"
    elif not reason and b"no_scm" in config:
        subprocess.run([sys.executable, "-m", "dvc", "config", "--local", "-u", "core.no_scm"], capture_output=True, check=True)


def _repair_rwlock() -> Iterator[str]:
    if not os.path.lexists(RWLOCK):
        return
    try:
        locks = state.read_json(RWLOCK)
        kept: dict[str, Any] = {
            "write": {path: owner for path, owner in locks.get("write", {}).items() if _lives(owner)},
            "read": {path: living for path, owners in locks.get("read", {}).items() if (living := [*filter(_lives, owners)])},
        }
    except (ValueError, TypeError, KeyError, AttributeError, OverflowError):
        state.remove(RWLOCK)
        yield f"{RWLOCK}: was damaged; removed, no DVC runs here"
        return
    kept = {mode: paths for mode, paths in kept.items() if paths}
    if kept != {mode: paths for mode, paths in locks.items() if paths}:
        state.write(RWLOCK, json.dumps(kept).encode())
        yield f"{RWLOCK}: removed the locks of processes that have ended"


def _repair_lock() -> Iterator[str]:
    if LOCK.is_dir():  # whose files may be the user's
        sys.exit(f"{LOCK}: is a folder, where DVC keeps a file; move it away, then run this again")
    text, copy = state.read(LOCK), state.read(COPY)
    if text is not None and (text == copy or _is_whole(text, copy or b"")):
        if text != copy:
            COPY.parent.mkdir(exist_ok=True)
            state.write(COPY, text)
    elif os.path.lexists(LOCK) and copy is not None and _is_whole(copy):
        state.write(LOCK, copy)
        yield f"{LOCK}: was damaged; its last whole copy is back"
    elif os.path.lexists(LOCK):
        LOCK.unlink()
        yield f"{LOCK}: was damaged, and there is no copy; removed, DVC finds what it has made in its cache"


def _is_whole(text: bytes, copy: bytes = b"") -> bool:
    """Whether DVC reads this as a lock, and it is not the first part of the copy."""
    from dvc.schema import COMPILED_LOCKFILE_SCHEMA  # a second to import
    from dvc.utils.serialize import ParseError, parse_yaml  # which refuses more than PyYAML does, such as a key twice
    from voluptuous import Invalid

    try:
        COMPILED_LOCKFILE_SCHEMA(parse_yaml(text.decode(), LOCK))
    except (ValueError, RecursionError, ParseError, Invalid):
        return False
    return text.endswith(b"\n") and not (copy.startswith(text) and copy != text)


def _repair_cache() -> Iterator[str]:
    with ThreadPoolExecutor() as pool:
        objects = sorted(path for path in CACHE.glob("[0-9a-f][0-9a-f]/*") if len(_digest_of(path)) == 32)
        damaged = [path for path, digest in zip(objects, pool.map(_md5, objects), strict=True) if digest != _digest_of(path)]
    found = _workspace() if damaged else {}
    for path in damaged:
        state.remove(path)
        source = found.get(_digest_of(path))
        if isinstance(source, bytes):
            state.write(path, source)
        elif source:
            part = path.with_name(f".{path.name}.{os.getpid()}")
            shutil.copyfile(source, part)
            part.replace(path)
        yield f"{path}: is damaged; " + ("made again from the workspace" if source else "removed, DVC makes or pulls it again")


def _repair_bytecode() -> Iterator[str]:
    for folder in CODE:
        for path in bytecode.remove_truncated(folder):
            yield f"{path}: was cut short; removed, Python makes it again"


def _workspace() -> dict[str, Path | bytes]:
    """What dvc.lock's outputs in the workspace hold, by digest: files, and DVC's listing of a folder."""
    found: dict[str, Path | bytes] = {}
    stages = yaml.safe_load(LOCK.read_text(encoding="utf-8"))["stages"] if LOCK.exists() else {}
    for out in (Path(out["path"]) for stage in stages.values() for out in stage.get("outs", [])):
        files = sorted(path for path in [out, *out.rglob("*")] if path.is_file())
        digests = {path: _md5(path) for path in files}
        found |= {digest: path for path, digest in digests.items()}
        if out.is_dir():
            listing = [{"md5": digest, "relpath": path.relative_to(out).as_posix()} for path, digest in digests.items()]
            text = json.dumps(sorted(listing, key=lambda entry: entry["relpath"])).encode()
            found[hashlib.md5(text, usedforsecurity=False).hexdigest()] = text
    return found


def _digest_of(path: Path) -> str:
    """The digest that a cached object has by its name."""
    return path.parent.name + path.name.removesuffix(".dir")


def _md5(path: Path) -> str:
    if not path.is_file():  # a folder, a pipe, a link that leads nowhere
        return ""
    with path.open("rb") as file:
        return hashlib.file_digest(file, lambda: hashlib.md5(usedforsecurity=False)).hexdigest()


def _dvc_runs_here() -> bool:
    here = str(Path.cwd())
    for process in psutil.process_iter():
        try:
            if process.pid != os.getpid() and _is_dvc(process) and process.cwd() == here:
                return True
        except psutil.Error:
            continue  # it has ended, or is another user's
    return False


def _lives(owner: dict[str, Any]) -> bool:
    """Whether the process that a lock names is DVC; its id may belong to another program by now."""
    try:
        return _is_dvc(psutil.Process(owner["pid"]))
    except psutil.NoSuchProcess:
        return False
    except psutil.AccessDenied:
        return True


def _is_dvc(process: psutil.Process) -> bool:
    return any("dvc" in Path(word).parts[-2:] or word == "infra.repro" for word in process.cmdline())


def main() -> bool:
    """Says what was repaired; False, and why, where DVC cannot work here, or something may not be read or written."""
    here = str(Path.cwd())
    if re.search("[{}\udc80-\udcff]", here):
        advice = "rename the folder, or move this checkout"
        print(f"error: {here!a}: DVC fails where a path has braces, or is no text; {advice}", file=sys.stderr)
        return False
    try:
        for line in (*allow_no_git(), *repair()):
            print(f"dvc: {line}", flush=True)
    except OSError as error:
        print(f"error: {error.filename}: {error.strerror}; let this user read and write it", file=sys.stderr)
        return False
    return True


if __name__ == "__main__":
    sys.exit(0 if main() else 1)
