"""Readable names of a folder's classes, from the list that lies beside them."""

import json
from typing import TYPE_CHECKING

from alexnet.errors import DataError
from pipelines.sources.base import SourceFile

if TYPE_CHECKING:
    from pipelines.sources.places import Folder

# WNID and name in every line, parted by a space or a tab; or JSON, {WNID: name} or {label: [WNID, name]}.
LISTS = ("LOC_synset_mapping.txt", "words.txt", "synset_words.txt", "classes.json")


def read_class_names(folder: "Folder", files: list[SourceFile], where: str) -> dict[str, str]:
    """Names by wnid from the first list that the folder has; empty if it has none. Raises DataError if it is damaged."""
    sizes = {file.path: file.size for file in files}
    name = next((name for name in LISTS if name in sizes), None)
    if name is None:
        return {}
    try:
        text = folder.read(name, 0, sizes[name]).decode("utf-8-sig")
        return _from_json(json.loads(text)) if name.endswith(".json") else _from_lines(text)
    except (ValueError, AttributeError, TypeError):
        raise DataError(
            f"{where}/{name}: no list of classes; needs WNID and name in every line, or JSON {{WNID: name}}; mend or remove it"
        ) from None


def _from_lines(text: str) -> dict[str, str]:
    pairs = [line.split(maxsplit=1) for line in text.splitlines() if line.strip()]
    return {wnid: name.strip() for wnid, name in pairs}


def _from_json(tree: dict[str, str | list[str]]) -> dict[str, str]:
    pairs = [(key, value) if isinstance(value, str) else tuple(value) for key, value in tree.items()]
    return {str(wnid): str(name) for wnid, name in pairs}
