"""The environment in .venv, brought to what requirements.lock says. Needs only Python 3.11 or newer with `venv` and `pip`.

    python3 infra/environment.py

The registry is the one pip is configured for. uv does the work, because it takes 45 s where pip takes 260 s (240 packages, both
with empty caches); pip installs uv from the lock, its settings are handed to uv, and where uv fails pip does all of it.
Packages already there are left alone, so that a whole .venv needs no registry; nor does an empty one where the interpreter that
runs this has all of them.
"""

from __future__ import annotations  # an older Python must come as far as saying that it is too old

import importlib.metadata
import json
import os
import re
import subprocess
import sys
import sysconfig
import tempfile
from collections.abc import Iterator
from pathlib import Path

ROOT = Path(__file__).resolve().parent.parent
LOCK = ROOT / "requirements.lock"
VENV = ROOT / ".venv"
STAMP = VENV / "installed"  # newer than the lock: nothing to do
_PYTHON = VENV / "bin" / "python"
_UV = VENV / "bin" / "uv"
_OLDEST = (3, 11)


def pins(lock: str) -> Iterator[tuple[str, str, str]]:
    """Name, version and environment marker (or nothing) of every package in the text of a lock file."""
    yield from re.findall(r"^([A-Za-z0-9._-]+)==(\S+)(?: ; (.*?))?(?: \\)?$", lock, re.MULTILINE)


def missing() -> list[str]:
    """What the lock asks for on this machine and the running interpreter does not have, as name==version."""
    from pip._vendor.packaging.markers import Marker
    from pip._vendor.packaging.utils import canonicalize_name

    everything = reversed(list(importlib.metadata.distributions()))  # of two of a name, the first on the path is imported
    have = {canonicalize_name(found.metadata["Name"]): found.version for found in everything}
    return [
        f"{name}=={version}"
        for name, version, marker in pins(LOCK.read_text())
        if not _is(have.get(canonicalize_name(name), ""), version) and (not marker or Marker(marker).evaluate())
    ]


def _is(found: str, pinned: str) -> bool:
    """Whether a version is the pinned one, or a local build of it: 2.15.0+cpu is 2.15.0."""
    return pinned in (found, found.partition("+")[0])


def main() -> int:
    """Makes .venv whole. Returns the exit status."""
    if sys.version_info < _OLDEST:
        wanted, got = ".".join(map(str, _OLDEST)), sys.version.split()[0]
        return _fail(f"Python {wanted} or newer is needed, this is {got}; name another: make PYTHON=python{wanted} ...")
    if not _has_pip() and not _make():
        return _fail("`python3 -m venv` failed; some systems keep it in a package of its own, such as python3-venv")
    if lacking := _missing_in(_PYTHON):
        print(f"setting up .venv: {len(lacking)} packages; the first time this downloads about 3 GB", flush=True)
        if not _install():
            return _fail(
                f"no registry gave what .venv lacks ({_some(_missing_in(_PYTHON))}); "
                "check the network and `pip config list`, then run again: what was installed is kept"
            )
    if not _install_project():
        return _fail("the project itself could not be installed into .venv; see the lines above")
    STAMP.touch()
    return 0


def _has_pip() -> bool:
    return _PYTHON.exists() and not _run([str(_PYTHON), "-c", "import pip"], quiet=True)


def _make() -> bool:
    """A .venv with pip. One that lacks pip alone, as uv makes them, gets it and keeps its packages."""
    if _PYTHON.exists() and not _run([str(_PYTHON), "-m", "ensurepip"], quiet=True) and _has_pip():
        return True
    return not _run([sys.executable, "-m", "venv", "--clear", str(VENV)])


def _install() -> bool:
    """All that the lock asks for, by uv if it can be had, else borrowed, else by pip, which says why it cannot."""
    return (_get_uv() and _install_by_uv()) or _borrow() or _install_by_pip()


def _get_uv() -> bool:
    """Whether uv is there. One small package, asked for without patience, also tells whether a registry answers at all."""
    if _UV.exists():
        return True
    with tempfile.TemporaryDirectory() as folder:
        alone = Path(folder) / "uv.txt"
        alone.write_text(_entry("uv"))
        hasty = ["--retries", "1", "--timeout", "15"]
        return not _run([*_pip(), "install", *hasty, "--require-hashes", "-r", str(alone)], quiet=True)


def _install_by_uv() -> bool:
    packages = ["--no-deps", "--require-hashes", "-r", str(LOCK)]
    strategy = ["--index-strategy", "unsafe-best-match"]  # as pip does; the hashes make it safe
    quiet = [] if sys.stderr.isatty() else ["--quiet"]  # a terminal sees how the download gets on
    command = [str(_UV), "pip", "install", *quiet, "--python", str(_PYTHON), *strategy, *packages]
    return not _run(command, _uv_settings(_PYTHON))


def _install_by_pip() -> bool:
    return not _run([*_pip(), "install", "--no-deps", "--require-hashes", "-r", str(LOCK)])


def _install_project() -> bool:
    return not _run([*_pip(), "install", "--no-index", "--no-deps", "--no-build-isolation", "--editable", str(ROOT)])


def _borrow() -> bool:
    """Uses the packages of the interpreter that runs this, where it has them all."""
    if _missing_in(Path(sys.executable)):
        return False
    # Another version of its own would hide the borrowed one: Python 3.11 puts an old setuptools into every environment.
    others = [entry.partition("==")[0] for entry in _missing_in(_PYTHON) if "==" in entry]
    _run([*_pip(), "uninstall", "--yes", *others], quiet=True)
    print(f"no registry gives them; using the packages of {sys.executable}", flush=True)
    own = subprocess.check_output([_PYTHON, "-c", "import sysconfig; print(sysconfig.get_path('purelib'))"], text=True).strip()
    places = dict.fromkeys(sysconfig.get_path(kind) for kind in ("purelib", "platlib"))
    (Path(own) / "borrowed.pth").write_text("\n".join(places) + "\n")
    for program in _programs():
        link = VENV / "bin" / program.name
        if not link.exists():
            link.symlink_to(program)
    return not _missing_in(_PYTHON)


def _programs() -> Iterator[Path]:
    """The programs of the lock's packages, wherever the interpreter that runs this has them."""
    names = {name for name, _, _ in pins(LOCK.read_text())}
    for found in importlib.metadata.distributions():
        if re.sub(r"[-_.]+", "-", found.metadata["Name"]).lower() in names:
            yield from (Path(str(found.locate_file(file))).resolve() for file in found.files or () if file.parent.name == "bin")


def _uv_settings(python: Path) -> dict[str, str]:
    """pip's registry, certificate and proxy, under the names uv knows them by."""
    lines = subprocess.check_output([python, "-m", "pip", "config", "list"], text=True).splitlines()
    # Sections from weak to strong, as pip itself ranks them.
    config: dict[str, str] = {}
    for section in ("global", "install", ":env:"):
        for line in lines:
            key, _, value = line.partition("=")
            if key.startswith(f"{section}."):
                config[key.removeprefix(f"{section}.").lstrip(".")] = value.strip("'\"").replace("\\n", " ")
    names = {
        "index-url": "UV_DEFAULT_INDEX",
        "extra-index-url": "UV_INDEX",
        "find-links": "UV_FIND_LINKS",
        "no-index": "UV_NO_INDEX",
        "trusted-host": "UV_INSECURE_HOST",
        "cert": "SSL_CERT_FILE",
        "proxy": "ALL_PROXY",
        "timeout": "UV_HTTP_TIMEOUT",
        "default-timeout": "UV_HTTP_TIMEOUT",
    }
    found = {names[key]: _present(value) for key, value in config.items() if key in names}
    return {name: value for name, value in found.items() if value and name not in os.environ}


def _present(values: str) -> str:
    """Without the local folders that are not there, which pip passes over and uv refuses."""
    return " ".join(
        one for one in values.split() if not one.startswith("file://") or Path(one.removeprefix("file://")).exists()
    )


def _entry(name: str) -> str:
    """The lines of one package in the lock."""
    found = re.search(rf"^{name}==.*(?:\n    --hash.*)+", LOCK.read_text(), re.MULTILINE)
    assert found, f"{LOCK.name} has no {name}"
    return found[0].rstrip(" \\") + "\n"


def _missing_in(python: Path) -> list[str]:
    if not python.exists():
        return ["pip"]
    reply = subprocess.run([python, __file__, "--missing"], capture_output=True, text=True, check=False)
    return json.loads(reply.stdout) if reply.returncode == 0 else ["pip"]


def _some(names: list[str]) -> str:
    return ", ".join(names[:5]) + (f" and {len(names) - 5} more" if len(names) > 5 else "")


def _pip() -> list[str]:
    # Errors alone: what pip warns of is this machine's own settings.
    return [str(_PYTHON), "-m", "pip", "-qq", "--disable-pip-version-check", "--no-input"]


def _run(command: list[str], settings: dict[str, str] | None = None, quiet: bool = False) -> int:
    env, out = {**os.environ, **(settings or {})}, subprocess.DEVNULL if quiet else None
    return subprocess.run(command, env=env, cwd=ROOT, stdin=subprocess.DEVNULL, stdout=out, stderr=out, check=False).returncode


def _fail(reason: str) -> int:
    print(f"error: {reason}", file=sys.stderr)
    return 1


if __name__ == "__main__":
    if sys.argv[1:] == ["--missing"]:
        print(json.dumps(missing()))
        sys.exit(0)
    sys.exit(main())
