"""Installs requirements.lock into .venv. Needs only Python 3.11 or newer with `venv` and `pip`.

    python3 infra/environment.py

Packages come from the registry that pip is configured for. uv installs them, because it takes 45 s where pip takes 260 s (240
packages, both with empty caches); pip installs uv from the lock, passes its settings on to it, and installs everything where uv
fails. Installed packages are left alone, so a complete .venv needs no registry; nor does an empty one if the interpreter that
runs this has them all.
"""

from __future__ import annotations  # so that an older Python can parse this and report that it is too old

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
STAMP = VENV / "installed"  # newer than the lock: everything is installed
_PYTHON = VENV / "bin" / "python"
_UV = VENV / "bin" / "uv"
_OLDEST = (3, 11)
_OF_CUDA = ("cuda-", "nvidia-", "triton")  # how the packages are named that torch needs for a GPU alone


def pins(lock: str) -> Iterator[tuple[str, str, str]]:
    """Name, version and environment marker (or "") of every package in the text of a lock file."""
    yield from re.findall(r"^([A-Za-z0-9._-]+)==(\S+)(?: ; (.*?))?(?: \\)?$", lock, re.MULTILINE)


def missing() -> list[str]:
    """The packages of the lock, as name==version, that this machine needs and the running interpreter lacks."""
    from pip._vendor.packaging.markers import Marker
    from pip._vendor.packaging.utils import canonicalize_name

    found = reversed(list(importlib.metadata.distributions()))  # the first of a name on sys.path is the one imported
    installed = {canonicalize_name(one.metadata["Name"]): one.version for one in found}
    unneeded = _OF_CUDA if installed.get(canonicalize_name("torch"), "").endswith("+cpu") else ()
    return [
        f"{name}=={version}"
        for name, version, marker in pins(LOCK.read_text(encoding="utf-8"))
        if not _satisfies(installed.get(canonicalize_name(name), ""), version)
        and (not marker or Marker(marker).evaluate())
        and not name.startswith(unneeded)
    ]


def _satisfies(found: str, pinned: str) -> bool:
    """Whether a version is the pinned one or a local build of it: 2.15.0+cpu satisfies 2.15.0."""
    return pinned in (found, found.partition("+")[0])


def main() -> int:
    """Makes .venv complete. Returns the exit status."""
    if sys.version_info < _OLDEST:
        wanted, got = ".".join(map(str, _OLDEST)), sys.version.split()[0]
        return _fail(f"Python {wanted} or newer is needed, this is {got}; name another: make PYTHON=python{wanted} ...")
    if not _has_pip() and not _create_venv():
        return _fail("`python3 -m venv` failed; some systems keep it in a package of its own, such as python3-venv")
    if lacking := _missing_in(_PYTHON):
        size = 3 if any(entry.startswith(_OF_CUDA) for entry in lacking) else 1
        print(f"setting up .venv: {len(lacking)} packages; the first time this downloads about {size} GB", flush=True)
        if not _install(lacking):
            return _fail(
                f"no registry had the packages that .venv lacks ({_summary(_missing_in(_PYTHON))}); "
                "check the network and `pip config list`, then run again; installed packages are kept"
            )
    if not _install_project():
        return _fail("the project itself could not be installed into .venv; see the lines above")
    _put_programs_on_path()
    STAMP.touch()
    return 0


def _has_pip() -> bool:
    return _PYTHON.exists() and not _run([str(_PYTHON), "-c", "import pip"], quiet=True)


def _create_venv() -> bool:
    """Creates a .venv with pip. An existing one that lacks only pip, as uv creates them, gets pip and keeps its packages."""
    if _PYTHON.exists() and not _run([str(_PYTHON), "-m", "ensurepip"], quiet=True) and _has_pip():
        return True
    return not _run([sys.executable, "-m", "venv", "--clear", str(VENV)])


def _install(lacking: list[str]) -> bool:
    """Installs what is lacking by uv, else borrows it, else installs it by pip, which prints why it cannot."""
    with tempfile.TemporaryDirectory() as folder:
        wanted = Path(folder) / "lacking.txt"
        wanted.write_text("".join(_entry(f"{pin} ") for pin in lacking), encoding="utf-8")
        return (_get_uv() and _install_by_uv(wanted)) or _borrow() or _install_by_pip(wanted)


def _get_uv() -> bool:
    """Installs uv unless it is there. One small package with a short timeout also shows whether a registry answers at all."""
    if _UV.exists():
        return True
    with tempfile.TemporaryDirectory() as folder:
        requirements = Path(folder) / "uv.txt"
        requirements.write_text(_entry("uv=="), encoding="utf-8")
        impatient = ["--retries", "1", "--timeout", "15"]
        return not _run([*_pip(), "install", *impatient, "--require-hashes", "-r", str(requirements)], quiet=True)


def _install_by_uv(wanted: Path) -> bool:
    packages = ["--no-deps", "--require-hashes", "-r", str(wanted)]
    strategy = ["--index-strategy", "unsafe-best-match"]  # as pip does; hashes make it safe
    quiet = [] if sys.stderr.isatty() else ["--quiet"]  # progress bars only on a terminal
    command = [str(_UV), "pip", "install", *quiet, "--python", str(_PYTHON), *strategy, *packages]
    return not _run(command, _uv_settings(_PYTHON))


def _install_by_pip(wanted: Path) -> bool:
    return not _run([*_pip(), "install", "--no-deps", "--require-hashes", "-r", str(wanted)])


def _install_project() -> bool:
    return not _run([*_pip(), "install", "--no-index", "--no-deps", "--no-build-isolation", "--editable", str(ROOT)])


def _borrow() -> bool:
    """Puts the packages of the interpreter that runs this on the path of .venv, if it has them all."""
    if _missing_in(Path(sys.executable)):
        return False
    # A package of .venv itself would hide the borrowed one: Python 3.11 puts an old setuptools into every environment.
    others = [entry.partition("==")[0] for entry in _missing_in(_PYTHON)]
    _run([*_pip(), "uninstall", "--yes", *others], quiet=True)
    print(f"no registry in reach; using the packages of {sys.executable}", flush=True)
    folders = dict.fromkeys(sysconfig.get_path(kind) for kind in ("purelib", "platlib"))
    (_packages() / "borrowed.pth").write_text("\n".join(folders) + "\n", encoding="locale")
    for program in _programs():
        link = VENV / "bin" / program.name
        if not link.exists():
            link.symlink_to(program)
    return not _missing_in(_PYTHON)


def _put_programs_on_path() -> None:
    """Lets what .venv's Python starts find .venv's programs first: `.venv/bin/dvc repro` starts stages by `python`."""
    own = f"{VENV / 'bin'}{os.pathsep}"
    code = "import os; path = os.environ.get('PATH', os.defpath); "
    code += f"os.environ['PATH'] = path if path.startswith({own!r}) else {own!r} + path"
    (_packages() / "alexnet_path.pth").write_text(f"{code}\n", encoding="locale")  # run when Python starts


def _packages() -> Path:
    """The folder of .venv's packages."""
    code = "import sysconfig; print(sysconfig.get_path('purelib'))"
    return Path(subprocess.check_output([_PYTHON, "-c", code], text=True).strip())


def _programs() -> Iterator[Path]:
    """The console scripts of the lock's packages that are installed for the interpreter that runs this."""
    names = {name for name, _, _ in pins(LOCK.read_text(encoding="utf-8"))}
    for found in importlib.metadata.distributions():
        if re.sub(r"[-_.]+", "-", found.metadata["Name"]).lower() in names:
            yield from (Path(str(found.locate_file(file))).resolve() for file in found.files or () if file.parent.name == "bin")


def _uv_settings(python: Path) -> dict[str, str]:
    """pip's registry, certificate and proxy settings as uv's environment variables."""
    lines = subprocess.check_output([python, "-m", "pip", "config", "list"], text=True).splitlines()
    # Sections in ascending order of precedence, as in pip.
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
    found = {names[key]: _without_absent(value) for key, value in config.items() if key in names}
    return {name: value for name, value in found.items() if value and name not in os.environ}


def _without_absent(values: str) -> str:
    """The URLs without those of absent local folders, which pip skips and uv refuses."""
    return " ".join(
        one for one in values.split() if not one.startswith("file://") or Path(one.removeprefix("file://")).exists()
    )


def _entry(start: str) -> str:
    """The lines of the one package in the lock whose entry starts so, with its hashes."""
    found = re.search(rf"^{re.escape(start)}.*(?:\n    --hash.*)+", LOCK.read_text(encoding="utf-8"), re.MULTILINE)
    assert found, f"{LOCK.name} has no {start}"
    return found[0].rstrip(" \\") + "\n"


def _missing_in(python: Path) -> list[str]:
    """What another interpreter lacks; everything if it cannot say."""
    if python.exists():
        reply = subprocess.run([python, __file__, "--missing"], capture_output=True, text=True, check=False)
        if reply.returncode == 0:
            return list(json.loads(reply.stdout))
    return [f"{name}=={version}" for name, version, _ in pins(LOCK.read_text(encoding="utf-8"))]


def _summary(names: list[str]) -> str:
    return ", ".join(names[:5]) + (f" and {len(names) - 5} more" if len(names) > 5 else "")


def _pip() -> list[str]:
    # Only errors: pip warns of this machine's settings.
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
