"""The extract stage: any points for any splits, in the manifest's order, also after a kill."""

import dataclasses
import hashlib
import os
import re
import signal
import subprocess
import sys
import time
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow.parquet as pq
import pytest
import torch
from ruamel.yaml import YAML

from alexnet.errors import DataError, ParamsError
from alexnet.inference.activations import center_activations
from alexnet.inference.pretrained import save_pretrained
from alexnet.model.network import initial_weights
from alexnet.shards.manifest import Split
from pipelines.config import params
from pipelines.extract import extract
from pipelines.runtime.environment import Store
from pipelines.storage.bucket import Bucket
from pipelines.storage.dataset import open_dataset
from tests.support import sample_shards
from tests.support.stage_folder import PARAMS
from tests.support.trained_folder import TrainedFolder, make_trained_folder

MANY = ["conv2.lrn", "conv5.pool", "fc7", "fc7.relu", "softmax"]


@pytest.fixture
def place(tmp_path: Path, fresh_store: Store, monkeypatch: pytest.MonkeyPatch) -> TrainedFolder:
    return make_trained_folder(tmp_path, fresh_store, monkeypatch)


def change(**leaves: Any) -> None:
    """Changes params.yaml's section extract."""
    yaml = YAML(typ="safe", pure=True)
    whole = yaml.load(Path("params.yaml"))
    whole["extract"].update(leaves)
    yaml.dump(whole, Path("params.yaml"))


def run(place: TrainedFolder, name: str = "features.parquet") -> Path:
    extract(place.path("model"), place.path("manifest.json"), place.path(name))
    return place.path(name)


def expected(place: TrainedFolder, split: Split, names: list[str]) -> dict[str, torch.Tensor]:
    """The values for all images of a split, in batches of two as the stage's."""
    samples = open_dataset(place.manifest, split)
    pixels = torch.empty((len(samples), 256, 256, 3), dtype=torch.uint8)
    for row in range(len(samples)):
        samples.decode(0, row, pixels[row].numpy())
    found = [center_activations(place.model, batch, names) for batch in pixels.split(2)]
    return {name: torch.cat([each[name] for each in found]) for name in names}


def test_features_are_the_networks_values_bit_for_bit_in_the_manifests_order(
    place: TrainedFolder, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Several points of both splits in one pass; the digest is stable."""
    change(points=MANY, splits=["val", "train"])
    monkeypatch.setattr("pipelines.extract._GROUP_BYTES", 1)  # a row group a batch
    path = run(place)
    file = pq.ParquetFile(path)
    assert file.num_row_groups == 3 + 4
    table = file.read()
    file.close()
    assert table.schema.names == ["split", "key", "label", "name", *MANY]
    assert table["split"].to_pylist() == ["val"] * 5 + ["train"] * 7
    assert table["key"].to_pylist() == [f"k{i:05}" for i in (*range(7, 12), *range(7))]
    assert table["name"].to_pylist() == [f"class {label}" for label in table["label"].to_pylist()]
    assert table.schema.field("conv5.pool").metadata == {b"shape": b"16 6 6"}
    for start, split in ((0, "val"), (5, "train")):
        for name, values in expected(place, split, MANY).items():  # type: ignore[arg-type]
            column = table[name].combine_chunks()[start : start + len(values)]
            assert np.array_equal(column.flatten().to_numpy(), values.flatten().numpy()), name
    first = path.read_bytes()
    assert run(place).read_bytes() == first


def test_half_the_bytes_are_rounded_values(place: TrainedFolder) -> None:
    change(dtype="float16")
    column = pq.read_table(run(place))["fc7.relu"].combine_chunks()
    assert str(column.type) == "fixed_size_list<element: halffloat>[32]"
    assert np.array_equal(column.flatten().to_numpy(), expected(place, "val", ["fc7.relu"])["fc7.relu"].half().flatten())


def test_a_value_beyond_float16_is_refused(place: TrainedFolder, monkeypatch: pytest.MonkeyPatch) -> None:
    change(dtype="float16", points=["conv1"])
    with torch.no_grad():
        for name, _, parameter in place.model.network.parameter_slices():
            if name == "conv1.weight":
                parameter.mul_(1e6)
    monkeypatch.setattr("pipelines.evaluation.inference.open_model", lambda *_: place.model)
    with pytest.raises(DataError, match=r"extract\.dtype: conv1 of k0.* is beyond what float16 holds; set .*: float32"):
        run(place)
    change(dtype="float32")
    run(place)


def test_a_point_that_the_network_does_not_have_is_refused_before_any_stage(place: TrainedFolder) -> None:
    change(points=["fc9"])
    with pytest.raises(ParamsError, match=r"extract\.points: this network has no fc9; it has conv1, conv1\.lrn, .*, softmax"):
        run(place)


def test_the_documents_lines_read_the_features(place: TrainedFolder) -> None:
    """pandas, polars, pyarrow, DuckDB: each gives the same numbers."""
    values = pq.read_table(run(place))["fc7.relu"].combine_chunks().flatten().to_numpy().reshape(5, 32)
    text = (PARAMS.parent / "docs/commands.md").read_text()
    lines = [line.strip() for line in re.findall(r"^    ([^\n]*artifacts/features\.parquet[^\n]*)$", text, re.MULTILINE)]
    assert [line.split(".")[0] for line in lines] == ["pandas", "polars", "pyarrow", "duckdb"]
    for line in lines:
        library = line.split(".")[0]
        found = eval(
            line, {library: __import__(f"{library}.parquet" if library == "pyarrow" else library)}
        )  # what README shows
        rows = found["fc7.relu"].to_pylist() if library == "pyarrow" else list(found["fc7.relu"])
        assert np.array_equal(np.array([np.asarray(row) for row in rows]), values), library


PROGRAM = "import sys, pathlib, pipelines.extract as e; e.extract(*map(pathlib.Path, sys.argv[1:]))"


@pytest.mark.slow
def test_a_killed_extraction_goes_on_and_leaves_the_same_bytes(place: TrainedFolder) -> None:
    """SIGKILL at two moments of a process of its own, whose row groups are a batch each."""
    change(points=["conv1", "fc7"], splits=["train", "val"])

    def command(to: str) -> list[str]:
        paths = (str(place.path(name)) for name in ("model", "manifest.json", to))
        return [sys.executable, "-c", PROGRAM.replace("e.extract", "e._GROUP_BYTES = 1; e.extract"), *paths]

    def made() -> int:
        return len(list(Path(".local/extract").glob("*/*.arrow")))

    subprocess.run(command("whole.parquet"), check=True)
    for count in (2, 5):
        process = subprocess.Popen(command("killed.parquet"), start_new_session=True)
        while made() < count:
            assert process.poll() is None
            time.sleep(0.001)
        os.killpg(process.pid, signal.SIGKILL)
        assert process.wait() == -signal.SIGKILL
    assert not place.path("killed.parquet").exists()
    done = subprocess.run(command("killed.parquet"), check=True, capture_output=True, text=True)
    assert "extract: goes on after 7 of 7 train images" in done.stdout + done.stderr
    assert place.path("killed.parquet").read_bytes() == place.path("whole.parquet").read_bytes()
    assert not Path(".local/extract").exists()


PEAK = "import re; print('KiB', re.search(r'VmHWM:\\s+(\\d+)', open('/proc/self/status').read())[1])"


@pytest.mark.slow
@pytest.mark.parametrize(
    ("kernels", "shards", "samples"),
    [
        pytest.param([4, 8, 8, 8, 8], 20, 2500, id="50,000 rows"),
        pytest.param([48, 128, 192, 192, 128], 1, 312, id="the whole network"),
    ],
)
def test_extraction_of_4096_units_stays_under_a_gibibyte_and_a_half(
    place: TrainedFolder, fresh_store: Store, kernels: list[int], shards: int, samples: int
) -> None:
    """Small convolutions over many rows, because they hold nothing that grows with them; and the paper's over five batches."""
    yaml = YAML(typ="safe", pure=True)
    whole = yaml.load(Path("params.yaml"))
    whole["model"] |= {"kernels": kernels, "units": 2048}
    whole["extract"]["batch_size"] = 64
    yaml.dump(whole, Path("params.yaml"))
    config = dataclasses.replace(place.model.config, model=params.load().model)
    mean = torch.full((256, 256, 3), 120.0)
    save_pretrained(place.path("model"), config, initial_weights(config.model, seed=1), mean)
    made = sample_shards.make([samples], 256)
    (shard,) = made.shards
    copies = []
    for number in range(shards):  # longer by zeros, which a tar may end with: no shard may be there twice
        body, name = made.tars[shard.name] + bytes(10240 * number), f"val-{number:06}.tar"
        Bucket(fresh_store.bucket, fresh_store).put(f"shards/test/{name}", body)
        copies.append(dataclasses.replace(shard, name=name, bytes=len(body), sha256=hashlib.sha256(body).hexdigest()))
    dataclasses.replace(place.manifest, splits={**place.manifest.splits, "val": tuple(copies)}).write(
        place.path("manifest.json")
    )
    paths = (str(place.path(name)) for name in ("model", "manifest.json", "features.parquet"))
    done = subprocess.run([sys.executable, "-c", f"{PROGRAM}; {PEAK}", *paths], check=False, capture_output=True, text=True)
    assert done.returncode == 0, done.stderr
    file = pq.ParquetFile(place.path("features.parquet"))
    assert (file.metadata.num_rows, file.schema_arrow.field("fc7.relu").type.list_size) == (shards * samples, 4096)
    file.close()
    peak = int(done.stdout.rpartition("KiB ")[2]) / 2**20
    print(f"{peak:.2f} GiB")
    assert peak < 1.5


def test_the_test_split_is_one_like_the_others_where_it_is_there(
    tmp_path: Path, fresh_store: Store, monkeypatch: pytest.MonkeyPatch
) -> None:
    place = make_trained_folder(tmp_path, fresh_store, monkeypatch, (7, 5, 4))
    change(splits=["test"])
    table = pq.read_table(run(place))
    assert table["key"].to_pylist() == [f"k{i:05}" for i in range(12, 16)]
    assert torch.equal(torch.tensor(table["fc7.relu"].to_pylist()), expected(place, "test", ["fc7.relu"])["fc7.relu"])
    del place.manifest.splits["test"]
    place.manifest.write(place.path("manifest.json"))
    with pytest.raises(ParamsError, match=r"extract\.splits: test has no test images; must be of train, val"):
        run(place)
