"""Images that are masks of others by their names: a_mask.png beside a.jpg, or masks/a.png below it."""

import re
from collections import Counter
from collections.abc import Iterable
from dataclasses import dataclass

_WORD = r"(?:masks?|segs?|segm|segmentations?|labels?|gt|ground[ _-]?truth|trimaps?|mattes?|annotations?)"
_END = re.compile(rf"[ ._-]{_WORD}(?:[ ._-]?\(?\d+\)?)?$", re.IGNORECASE)
_FOLDER = re.compile(_WORD, re.IGNORECASE)
_NUMBER = re.compile(r"\d+")
_LEAST, _SHARE = 2, 0.5  # of a folder's images, at least so many have a mask, and such a share of them


@dataclass(frozen=True)
class Masks:
    """Images that may be masks: how many, the first of them, the image that it may be of, and patterns that name them all."""

    count: int
    first: str
    of: str
    patterns: tuple[str, ...]

    def __str__(self) -> str:
        return f"{self.count:,} images are masks of others by their names, such as {self.first} of {self.of}"


def find_masks(images: Iterable[tuple[str, str]]) -> Masks | None:
    """The masks among images, given by path and class; None unless half of the images of a folder have one, and two at least.

    A few images of a class may be called so by chance, as a photo of a bottle and one of its label.
    """
    images = list(images)
    masks = {path: found for path, wnid in images if (found := _mask(path, wnid))}
    folders = {folder for folder, _, _ in masks.values()}
    plain = {place: path for path, _ in images if path not in masks and (place := _place(path))[0] in folders}
    pairs = {path: (folder, stem) for path, (folder, stem, _) in masks.items() if (folder, stem) in plain}
    having = Counter(folder for folder, _ in set(pairs.values()))
    there = Counter(folder for folder, _ in plain)
    if not any(count >= max(_LEAST, _SHARE * there[folder]) for folder, count in having.items()):
        return None
    first = min(pairs)
    return Masks(len(pairs), first, plain[pairs[first]], tuple(sorted({masks[path][2] for path in pairs})))


def _place(path: str) -> tuple[str, str]:
    """The folder of an image, and its name without the suffix."""
    folder, _, name = path.rpartition("/")
    return folder, name.rpartition(".")[0]


def _mask(path: str, wnid: str) -> tuple[str, str, str] | None:
    """The folder and stem of the image that this one may be a mask of, and a pattern of it; None if its name is no mask's."""
    folder, stem = _place(path)
    end = _END.search(stem)
    of = stem[: end.start()] if end else stem
    upper, _, last = folder.rpartition("/")
    if last != wnid and _FOLDER.fullmatch(last):
        return upper, of, last
    return (folder, of, f"*{_NUMBER.sub('*', end[0])}.{path.rpartition('.')[2]}") if end else None
