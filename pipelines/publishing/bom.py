"""bom.cdx.json: the bill of materials of a release, the model with its data and its packages, as CycloneDX 1.6."""

import importlib.metadata
import json
import tomllib
from collections.abc import Iterable
from dataclasses import dataclass
from functools import cache
from pathlib import Path
from typing import Any

from packaging.requirements import Requirement
from packaging.utils import canonicalize_name

from pipelines.publishing.card import Facts

NAME = "bom.cdx.json"
_PROJECT = Path(__file__).parents[2] / "pyproject.toml"
_STAGES = ("pipeline", "local", "torchvision")  # extras that a run may use


def render_bom(facts: Facts) -> bytes:
    """The document; equal releases of equal environments are equal bytes, so it has no time and no serial number.

    A package is `required` where the model is used, and `optional` where only the stages need it. Versions are those installed.
    """
    required, all_ = _closure(_declared()), _closure(_declared(*_STAGES))
    packages = [all_[name].component("required" if name in required else "optional") for name in sorted(all_)]
    uses = [each["bom-ref"] for each in packages if each["scope"] == "required"]
    document = {
        "bomFormat": "CycloneDX",
        "specVersion": "1.6",
        "version": 1,
        "metadata": {"component": _model(facts)},
        "components": [_data(facts), *packages],
        "dependencies": [{"ref": "model", "dependsOn": ["data", *uses]}],
    }
    return (json.dumps(document, indent=1, sort_keys=True) + "\n").encode()


def _model(facts: Facts) -> dict[str, Any]:
    results, source = facts.results, facts.source
    metrics = [
        {
            "type": f"top-1 error, {result.views} crop",
            "value": repr(result.top1_error.value),
            "slice": results.split_name,
            "confidenceInterval": {"lowerBound": repr(result.top1_error.low), "upperBound": repr(result.top1_error.high)},
        }
        for result in results.protocols
    ]
    return {
        "type": "machine-learning-model",
        "bom-ref": "model",
        "name": facts.name,
        "description": facts.summary,
        "licenses": [{"license": {"name": source.model_license}}],
        "hashes": [{"alg": "SHA-256", "content": facts.digests["model.safetensors"]}],
        "modelCard": {
            "modelParameters": {
                "approach": {"type": "supervised"},
                "task": "image classification",
                "architectureFamily": "convolutional neural network",
                "modelArchitecture": facts.architecture,
                "datasets": [{"ref": "data"}],
                "inputs": [{"format": "image"}],
                "outputs": [{"format": "a probability for each class"}],
            },
            "quantitativeAnalysis": {"performanceMetrics": metrics},
            "considerations": {"technicalLimitations": list(facts.limits)},
        },
    }


def _data(facts: Facts) -> dict[str, Any]:
    source, manifest = facts.source, facts.manifest
    shards = [
        {"name": f"sha256 of {shard.name}", "value": shard.sha256} for split in manifest.splits.values() for shard in split
    ]
    properties = [{"name": "shards", "value": manifest.prefix}, *shards]
    return {
        "type": "data",
        "bom-ref": "data",
        "name": manifest.source,
        "description": f"{source.about} {source.license}",
        "licenses": [{"license": {"name": source.license}}],
        "hashes": [{"alg": "SHA-256", "content": facts.digests["index.parquet"]}],  # which names the digest of every image
        "data": [{"type": "dataset", "name": source.title, "contents": {"properties": properties}}],
    }


@dataclass(frozen=True)
class _Package:
    """An installed distribution: what its METADATA, which is slow to parse, says of it. license: an SPDX expression."""

    name: str
    version: str
    license: str | None
    requires: tuple[Requirement, ...]

    def component(self, scope: str) -> dict[str, Any]:
        """As CycloneDX has it."""
        purl = f"pkg:pypi/{self.name}@{self.version}"
        found = {"type": "library", "bom-ref": purl, "name": self.name, "version": self.version, "purl": purl, "scope": scope}
        return found | ({"licenses": [{"expression": self.license}]} if self.license else {})


@cache
def _installed(name: str) -> _Package | None:
    try:
        found = importlib.metadata.distribution(name).metadata
    except importlib.metadata.PackageNotFoundError:
        return None
    (license_,) = found.get_all("License-Expression") or (None,)
    requires = tuple(map(Requirement, found.get_all("Requires-Dist") or ()))
    return _Package(canonicalize_name(found["Name"]), found["Version"], license_, requires)


def _declared(*extras: str) -> list[Requirement]:
    """What the project needs, with these extras: of a checkout from pyproject.toml, else of the installed package."""
    if _PROJECT.is_file():
        project = tomllib.loads(_PROJECT.read_text(encoding="utf-8"))["project"]
        own = project["optional-dependencies"]
        found = [Requirement(text) for text in (*project["dependencies"], *(text for extra in extras for text in own[extra]))]
        inner = (text for each in found if each.name == project["name"] for extra in each.extras for text in own[extra])
        return [each for each in (*found, *map(Requirement, inner)) if each.name != project["name"]]
    declared = map(Requirement, importlib.metadata.requires("alexnet-pipeline") or [])
    return [each for each in declared if _applies(each, {"", *extras})]


def _closure(needed: Iterable[Requirement]) -> dict[str, _Package]:
    """The installed distributions that these need, and what those need, by name."""
    found: dict[str, _Package] = {}
    waiting = [(each, {""}) for each in needed]
    seen: set[tuple[str, frozenset[str]]] = set()
    while waiting:
        requirement, extras = waiting.pop()
        name, wanted = canonicalize_name(requirement.name), frozenset(requirement.extras)
        if not _applies(requirement, extras) or (name, wanted) in seen:
            continue
        seen.add((name, wanted))
        if package := _installed(name):
            found[name] = package
            waiting += [(each, {"", *wanted}) for each in package.requires]
    return found


def _applies(requirement: Requirement, extras: set[str]) -> bool:
    return requirement.marker is None or any(requirement.marker.evaluate({"extra": extra}) for extra in extras)
