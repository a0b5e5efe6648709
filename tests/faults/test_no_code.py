"""P7: what is downloaded is data; and P9: no wait depends on the clock on the wall."""

import ast
import io
import os
import pickle
import zipfile
from collections.abc import Iterator
from contextlib import suppress
from functools import cache
from pathlib import Path

import numpy as np
import pytest

from alexnet.errors import DataError, ParamsError
from tests.faults.readers import READERS

ROOT = Path(__file__).parents[2]
MODULES = [path for package in ("alexnet", "pipelines", "flows", "infra") for path in (ROOT / package).rglob("*.py")]
RUNS_DATA = {
    "pickle", "dill", "cloudpickle", "joblib", "marshal", "shelve", "eval", "exec", "compile", "__import__", "execfile",
    "torch.load", "torch.jit.load", "torch.hub.load", "dcp.load", "load_state_dict_from_url", "yaml.full_load",
    "yaml.unsafe_load", "os.system", "os.popen", "extractall", "runpy.run_path", "webdataset.WebDataset",
}  # fmt: skip
WALL_CLOCK = {"time.time", "datetime.now", "dt.datetime.now", "datetime.utcnow", "datetime.today", "date.today"}
# Where the clock's time is what is wanted, and a jump costs at most a second look.
MAY_READ_THE_CLOCK = {
    "alexnet/shards/verify.py": "a week after which a shard is hashed again; a time in the future counts as over",
    "pipelines/runtime/launch.py": "a field of torchrun's error file",
    "pipelines/cli/doctor/deep.py": "compares the machine's clock with the store's",
    "pipelines/registry/aliases.py": "when an alias moved, for people; moves are ordered by number",
    "flows/train_alexnet.py": "how late a scheduled run is",
    "flows/stage.py": "seconds that a stage took, for people",
    "pipelines/runtime/streams.py": "the time of a line of the log",
    "pipelines/runtime/timings.py": "when a stage began, for people",
    "infra/repro.py": "which bytecode was written while a run failed",
    "infra/prefect_api.py": "how long a run has been silent; its process is looked at first",
}


@cache
def _nodes() -> list[tuple[str, ast.AST]]:
    """Every call and import, with its file."""
    kinds = (ast.Call, ast.Import, ast.ImportFrom)
    trees = ((str(path.relative_to(ROOT)), ast.parse(path.read_text(encoding="utf-8"))) for path in MODULES)
    return [(path, node) for path, tree in trees for node in ast.walk(tree) if isinstance(node, kinds)]


@cache
def _calls() -> list[tuple[str, str, ast.Call]]:
    return [(path, ast.unparse(node.func), node) for path, node in _nodes() if isinstance(node, ast.Call)]


def test_no_module_calls_what_runs_data() -> None:
    found = []
    for path, name, call in _calls():
        words = {word.arg: ast.unparse(word.value) for word in call.keywords}
        runs = name in RUNS_DATA or name.rpartition(".")[2] in {"extractall", "run_path"}
        if runs or words.get("shell") == "True" or words.get("allow_pickle") == "True" or words.get("weights_only") == "False":
            found.append(f"{path}:{call.lineno}: {name}")
    assert found == []
    for path, node in _nodes():
        imported = {alias.name for alias in node.names} if isinstance(node, ast.Import) else set()
        imported |= {str(node.module)} if isinstance(node, ast.ImportFrom) else set()
        assert not imported & RUNS_DATA, path


def test_no_wait_is_counted_by_the_clock_on_the_wall() -> None:
    assert {path for path, name, _ in _calls() if name in WALL_CLOCK} == set(MAY_READ_THE_CLOCK)


class Poison:
    """Unpickled, it makes a folder."""

    def __init__(self, target: str) -> None:
        self.target = target

    def __reduce__(self) -> tuple[object, tuple[str]]:
        return os.mkdir, (self.target,)


def _containers(poison: bytes, target: str) -> Iterator[bytes]:
    """The pickle alone, as an array of objects, in an NPZ and in the archive that torch.save makes."""
    yield poison
    array = io.BytesIO()
    np.save(array, np.array([Poison(target)], dtype=object), allow_pickle=True)
    yield array.getvalue()
    for names in (("mean_image.npy", "images.npy", "sums.npy"), ("archive/data.pkl", "archive/version")):
        file = io.BytesIO()
        with zipfile.ZipFile(file, "w") as archive:
            for name in names:
                archive.writestr(name, poison if name.endswith("pkl") else array.getvalue())
        yield file.getvalue()


@pytest.mark.parametrize("name", READERS)
def test_a_pickle_runs_in_no_reader(name: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    target = tmp_path / "ran"
    poison = pickle.dumps(Poison(str(target)))
    with pytest.raises(FileExistsError):
        _ = (pickle.loads(poison), pickle.loads(poison))
    target.rmdir()
    reader = READERS[name]()
    for body in _containers(poison, str(target)):
        with suppress(DataError, ParamsError):
            reader.read(body)
        assert not target.exists()
