"""The bill of materials: CycloneDX's own validator takes it, and it names the model, the data and the packages."""

import importlib.metadata
import json

from cyclonedx.schema import SchemaVersion
from cyclonedx.validation.json import JsonStrictValidator

from pipelines.publishing.bom import render_bom
from pipelines.publishing.card import Facts


def test_the_bill_passes_the_strict_schema_and_names_everything(facts: Facts) -> None:
    body = render_bom(facts)
    assert body == render_bom(facts)
    validator = JsonStrictValidator(SchemaVersion.V1_6)
    assert validator.validate_str(body.decode()) is None
    tree = json.loads(body)
    model = tree["metadata"]["component"]
    assert model["hashes"] == [{"alg": "SHA-256", "content": "ab" * 32}]
    assert model["modelCard"]["quantitativeAnalysis"]["performanceMetrics"][0]["value"] == "0.1"
    data, *packages = tree["components"]
    assert data["type"] == "data"
    shards = {each["value"] for each in data["data"][0]["contents"]["properties"]}
    assert {shard.sha256 for shard in facts.manifest.splits["train"]} < shards
    scopes = {each["name"]: each["scope"] for each in packages}
    assert (scopes["torch"], scopes["numpy"], scopes["dvc"], scopes["onnx"]) == ("required", "required", "optional", "optional")
    assert "pytest" not in scopes
    assert {each["name"]: each["version"] for each in packages}["torch"] == importlib.metadata.version("torch")
    refs = {each["bom-ref"] for each in tree["components"]}
    assert set(tree["dependencies"][0]["dependsOn"]) <= refs
    tree["metadata"]["component"]["modelCard"]["weights"] = 1
    assert validator.validate_str(json.dumps(tree)) is not None
