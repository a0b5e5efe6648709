"""The pictures of the Data Docs: some of every class, and the culprits of every kind of fault; and how bright images are."""

import base64
import io
from collections.abc import Iterable
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from functools import partial
from typing import Any

import numpy as np
import pyarrow as pa
from PIL import Image

from alexnet.images.inspect import Fault, open_image
from alexnet.images.resize import decode
from pipelines.runtime import environment
from pipelines.sources.open import Source

SIDE_PX = 96
SAMPLED = 1_000  # images whose brightness is measured, at most
CULPRITS = 200  # of a kind that are shown, at most
_OF_CLASS, _OF_CLASSES = 6, 600  # pictures of one class, and about how many of all
_COLUMNS = ["key", "split", "wnid", "path", "offset", "bytes", "sha256", "width", "height", "format", "faults", "action"]
_NEVER_DECODED = ("bomb", "empty", "not_an_image")
_QUALITY = 60


@dataclass(frozen=True)
class Thumbnail:
    """One image on the page. about: its size and format; uri: a WebP as data, empty where there is nothing to see."""

    key: str
    wnid: str
    about: str
    uri: str


@dataclass(frozen=True)
class Pictures:
    """What the page shows. brightness: of `SAMPLED` used images, the mean of the luma, from 0, black, to 1."""

    classes: dict[str, list[Thumbnail]]
    culprits: dict[Fault, list[Thumbnail]]
    brightness: list[float]


def make_pictures(table: pa.Table, source: Source, kinds: Iterable[Fault]) -> Pictures:
    """Reads some images of an index again. Which ones is decided by their digests; of culprits, by their keys.

    kinds: of the faults whose culprits are shown.
    """
    rows = table.select(_COLUMNS).to_pandas()
    used = rows[rows["action"].isin(["use", "repair"])].sort_values(["sha256", "key"])
    each = max(1, min(_OF_CLASS, _OF_CLASSES // max(1, used["wnid"].nunique())))
    classes = {str(wnid): some.index[:each] for wnid, some in used.groupby("wnid")}
    faults = rows["faults"].fillna("").str.split(",")
    culprits = {kind: rows.index[[kind in found for found in faults]][:CULPRITS] for kind in kinds}
    sample = used.index[:SAMPLED]
    wanted = sorted({*sample, *(at for group in (*classes.values(), *culprits.values()) for at in group)})
    with ThreadPoolExecutor(environment.workers()) as threads:
        made = dict(zip(wanted, threads.map(partial(_picture, source), rows.loc[wanted].to_dict("records")), strict=True))
    return Pictures(
        {wnid: [made[at][0] for at in group] for wnid, group in classes.items()},
        {kind: [made[at][0] for at in group] for kind, group in culprits.items()},
        [brightness for at in sample if (brightness := made[at][1]) is not None],
    )


def _picture(source: Source, row: dict[str, Any]) -> tuple[Thumbnail, float | None]:
    """The picture of a row, and its brightness if it can be decoded."""
    size = f"{row['width']:,} x {row['height']:,} px, {row['format']}" if row["width"] else f"{row['bytes']:,} bytes"
    faults = row["faults"].split(",") if isinstance(row["faults"], str) else []
    pixels = None if set(faults) & {*_NEVER_DECODED} else _decoded(source.read(row["path"], row["offset"], row["bytes"]))
    if pixels is None:
        return Thumbnail(row["key"], row["wnid"], size, ""), None
    image = Image.fromarray(pixels)
    image.thumbnail((SIDE_PX, SIDE_PX), reducing_gap=2.0)
    out = io.BytesIO()
    image.save(out, "WEBP", quality=_QUALITY)
    uri = f"data:image/webp;base64,{base64.b64encode(out.getvalue()).decode()}"
    return Thumbnail(row["key"], row["wnid"], size, uri), float(np.asarray(image.convert("L")).mean() / 255)


def _decoded(data: bytes) -> Any:
    """An image as RGB; of one that breaks off, what is before that; None if nothing is."""
    try:
        return decode(data, SIDE_PX)
    except Exception:  # noqa: BLE001 - codecs raise anything
        return _decoded_in_part(data)


def _decoded_in_part(data: bytes) -> Any:
    try:
        with open_image(data) as image:
            try:
                image.load()
            except Exception:  # noqa: BLE001 - as above
                vars(image)["tile"] = []  # Pillow then takes what it has decoded for the whole
            return np.asarray(image.convert("RGB"))
    except Exception:  # noqa: BLE001 - as above
        return None
