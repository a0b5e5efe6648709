"""The extract stage: any layer's output for any split, in the manifest's order."""

from pathlib import Path

import numpy as np
import pyarrow.parquet as pq
import pytest
import torch

from alexnet.errors import ParamsError
from pipelines.config import params
from pipelines.extract import extract, layer_units
from pipelines.runtime.environment import Store
from pipelines.storage.dataset import open_dataset
from tests.support.trained_folder import TrainedFolder, make_trained_folder


@pytest.fixture
def place(tmp_path: Path, fresh_store: Store, monkeypatch: pytest.MonkeyPatch) -> TrainedFolder:
    return make_trained_folder(tmp_path, fresh_store, monkeypatch)


def test_features_are_the_layers_output_in_the_manifests_order(place: TrainedFolder) -> None:
    extract(place.path("model"), place.path("manifest.json"), place.path("features.parquet"))
    table = pq.read_table(place.path("features.parquet"))
    assert table.schema.names == ["key", "label", "fc7"]
    assert str(table.schema.field("fc7").type).startswith("fixed_size_list<")
    assert table["key"].to_pylist() == [f"k{i:05}" for i in range(7, 12)]
    samples = open_dataset(place.manifest, "val")
    pixels = np.empty((1, 256, 256, 3), np.uint8)
    samples.decode(0, 3, pixels[0])
    expected = place.model.features(torch.from_numpy(pixels), "fc7")[0]
    assert np.allclose(table["fc7"][3].as_py(), expected, atol=1e-5)
    first = place.path("features.parquet").read_bytes()
    extract(place.path("model"), place.path("manifest.json"), place.path("features.parquet"))
    assert place.path("features.parquet").read_bytes() == first


def test_any_layer_of_any_split_can_be_extracted(place: TrainedFolder, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("pipelines.extract._GROUP_BYTES", 1)  # a row group a batch
    text = Path("params.yaml").read_text()
    Path("params.yaml").write_text(text.replace("layer: fc7", "layer: conv5").replace("split: val", "split: train"))
    extract(place.path("model"), place.path("manifest.json"), place.path("conv5.parquet"))
    file = pq.ParquetFile(place.path("conv5.parquet"))
    assert file.num_row_groups == 4
    assert file.read()["conv5"].type.list_size == 16 * 6 * 6
    assert file.read().num_rows == 7
    file.close()
    Path("params.yaml").write_text(text.replace("layer: fc7", "layer: conv6"))
    with pytest.raises(ParamsError, match="this network has no conv6"):
        extract(place.path("model"), place.path("manifest.json"), place.path("conv6.parquet"))


def test_a_layers_units_are_those_of_the_paper() -> None:
    paper = params.load(preset="imagenet").model
    assert layer_units(paper, "fc7") == 4096
    assert layer_units(paper, "conv5") == 256 * 6 * 6
    with pytest.raises(
        ParamsError, match="extract.layer: this network has no conv6; it has conv1, conv2, conv3, conv4, conv5, fc6"
    ):
        layer_units(paper, "conv6")
