"""What `pip install .` gives without extras: a wheel that pulls, verifies and predicts, and needs only what it declares."""

import csv
import importlib.metadata
import json
import os
import subprocess
import sys
import sysconfig
import venv
import zipfile
from collections.abc import Iterator
from email.parser import Parser
from pathlib import Path

import pytest
from packaging.requirements import Requirement
from packaging.utils import canonicalize_name
from PIL import Image

from pipelines.registry.release import Release
from pipelines.registry.store import Registry
from pipelines.runtime.environment import Store
from pipelines.storage.bucket import Bucket
from tests.support.trained_folder import TrainedFolder, make_trained_folder

ROOT = Path(__file__).parents[1]
EXTRAS = ("dvc", "prefect", "great_expectations", "pandas", "pyarrow", "ruamel", "sklearn", "scipy", "matplotlib")
USE = """
import sys
from pipelines.cli.main import main
assert main(["pull", "alexnet@latest", "--to", "here"]) == 0
assert main(["verify", "here"]) == 0
assert main(["predict", "photo.png", "--json"]) == 0
assert main(["features", "photo.png"]) == 0
assert main(["show-release"]) == 0
import alexnet
assert len(alexnet.load("here").predict(["photo.png"])[0]) == 3
"""


@pytest.fixture
def shop(tmp_path: Path, fresh_store: Store, monkeypatch: pytest.MonkeyPatch) -> TrainedFolder:
    """A published release, and a photograph."""
    place = make_trained_folder(tmp_path, fresh_store, monkeypatch)
    release = Release.from_folder("alexnet", place.path("model"))
    registry = Registry(Bucket(fresh_store.registry, fresh_store), "alexnet")
    registry.publish(release, place.path("model"), None)
    registry.move("latest", release)
    Image.new("RGB", (300, 200), "red").save("photo.png")
    return place


def test_a_release_is_used_without_the_packages_of_any_extra(shop: TrainedFolder) -> None:
    forbid = (
        "import sys\n"
        "class Absent:\n"
        "    def find_spec(self, name, path=None, target=None):\n"
        f"        if name.split('.')[0] in {EXTRAS}: raise ModuleNotFoundError(f'No module named {{name!r}}', name=name)\n"
        "sys.meta_path.insert(0, Absent())\n"
    )
    env = os.environ | {"PYTHONPATH": str(ROOT), "OMP_NUM_THREADS": "1"}
    subprocess.run([sys.executable, "-c", forbid + USE], check=True, env=env)
    lacking = forbid + "from pipelines.cli.main import main\nsys.exit(main(['describe']))"
    ended = subprocess.run([sys.executable, "-c", lacking], env=env, capture_output=True, text=True)
    assert (ended.returncode, ended.stderr) == (
        1,
        "alexnet describe: error: ruamel is not installed; `pip install 'alexnet-pipeline[pipeline]'` brings it\n",
    )


@pytest.fixture(scope="module")
def wheel(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The wheel of what git tracks."""
    source, folder = tmp_path_factory.mktemp("source"), tmp_path_factory.mktemp("wheel")
    tracked = subprocess.run(["git", "ls-files", "-z"], cwd=ROOT, check=True, capture_output=True, text=True).stdout.split("\0")
    for name in filter(None, tracked):
        (source / name).parent.mkdir(parents=True, exist_ok=True)
        (source / name).write_bytes((ROOT / name).read_bytes())
    pip = [sys.executable, "-m", "pip", "--disable-pip-version-check", "wheel", "--quiet", "--no-index", "--no-deps"]
    subprocess.run([*pip, "--no-build-isolation", "--wheel-dir", str(folder), str(source)], check=True)
    (made,) = folder.glob("*.whl")
    return made


@pytest.mark.slow
def test_the_wheel_holds_the_code_and_says_what_it_needs(wheel: Path) -> None:
    with zipfile.ZipFile(wheel) as archive:
        assert archive.testzip() is None
        names = set(archive.namelist())
        (info,) = {name.split("/")[0] for name in names if ".dist-info/" in name}
        metadata = Parser().parsestr(archive.read(f"{info}/METADATA").decode())
        recorded = {row[0] for row in csv.reader(archive.read(f"{info}/RECORD").decode().splitlines())}
    assert recorded == names
    assert {name.split("/")[0] for name in names} == {"alexnet", "pipelines", "flows", "infra", info}
    assert {"alexnet/ops/cpu.cpp", "alexnet/py.typed", f"{info}/licenses/LICENSE"} <= names
    assert set(metadata.get_all("Provides-Extra", [])) >= {"pipeline", "flows", "worker"}
    base = {canonicalize_name(each.name) for each in map(Requirement, metadata.get_all("Requires-Dist", [])) if not each.marker}
    assert base == {
        *(
            "boto3",
            "cryptography",
            "cykooz-resizer",
            "jaxtyping",
            "numpy",
            "pillow",
            "safetensors",
            "simplejpeg",
            "torch",
            "tqdm",
        )
    }


def closure(names: list[str]) -> Iterator[importlib.metadata.Distribution]:
    """The distributions of these names and of all that they need here, without extras."""
    waiting, seen = list(names), set()
    while waiting:
        name = canonicalize_name(waiting.pop())
        if name in seen:
            continue
        seen.add(name)
        found = importlib.metadata.distribution(name)
        yield found
        needed = map(Requirement, found.requires or [])
        waiting += [each.name for each in needed if not each.marker or each.marker.evaluate({"extra": ""})]


@pytest.mark.slow
def test_the_wheel_alone_pulls_verifies_and_predicts(wheel: Path, shop: TrainedFolder, tmp_path: Path) -> None:
    """In an environment that holds the wheel, links to what it needs, and nothing else."""
    bare = tmp_path / "bare"
    venv.create(bare, symlinks=True)
    python = bare / "bin/python"
    paths = {"base": str(bare), "platbase": str(bare)}
    packages = Path(sysconfig.get_path("purelib", "venv", vars=paths))
    pip = [sys.executable, "-m", "pip", "--disable-pip-version-check", "--python", str(python)]
    subprocess.run([*pip, "install", "--quiet", "--no-index", "--no-deps", str(wheel)], check=True)
    needed = [each for each in map(Requirement, _metadata(wheel).get_all("Requires-Dist", [])) if not each.marker]
    parts = list(closure([each.name for each in needed]))
    size = sum(Path(str(found.locate_file(file))).stat().st_size for found in parts for file in _present(found))
    assert size < 1.5e9  # with torch for CPUs, which is without these packages and smaller itself
    for found in parts:
        for top in {file.parts[0] for file in found.files or [] if file.parts[0] not in ("..", "__pycache__")}:
            if not (packages / top).exists():
                (packages / top).symlink_to(Path(str(found.locate_file(top))))
    subprocess.run([*pip, "check"], check=True)
    env = {name: value for name, value in os.environ.items() if name != "PYTHONPATH"} | {"OMP_NUM_THREADS": "1"}
    for name in EXTRAS:
        assert subprocess.run([str(python), "-c", f"import {name}"], env=env, capture_output=True).returncode, name
    subprocess.run([str(python), "-c", USE], env=env, check=True)
    command = [str(bare / "bin/alexnet"), "predict", "photo.png", "--json"]
    (found_classes,) = json.loads(subprocess.run(command, env=env, check=True, capture_output=True, text=True).stdout)
    assert len(found_classes["classes"]) == 3
    where = "import pipelines; print(pipelines.__file__)"
    assert str(bare) in subprocess.run([str(python), "-c", where], env=env, check=True, capture_output=True, text=True).stdout


def _present(found: importlib.metadata.Distribution) -> list[importlib.metadata.PackagePath]:
    """The files of a distribution; none of those that only torch for GPUs needs."""
    if str(found.metadata["Name"]).startswith(("nvidia", "cuda", "triton")):
        return []
    return [file for file in found.files or [] if Path(str(found.locate_file(file))).is_file()]


def _metadata(wheel: Path) -> importlib.metadata.PackageMetadata:
    (found,) = importlib.metadata.distributions(path=[str(wheel)])
    return found.metadata
