"""`alexnet predict` and `features`: a trained network on photographs from files, folders, patterns or standard input."""

import argparse
import dataclasses
import gc
import glob
import sys
from collections import Counter
from collections.abc import Iterator, Sequence
from importlib import import_module
from pathlib import Path
from typing import TYPE_CHECKING

from alexnet.errors import DataError
from alexnet.files.atomic import atomic_write
from alexnet.images.inspect import SUFFIXES, suffix
from pipelines.cli.models.folder import model_folder
from pipelines.cli.output import print_result
from pipelines.runtime import console
from pipelines.runtime.console import escaped
from pipelines.sources.known_names import is_litter

if TYPE_CHECKING:
    from alexnet.inference.photos import Classifier, Photo, Prediction

_KINDS = 20  # of files that a note names, at most
_BATCH = 32  # photographs a batch
_STDIN = "-"


def find_photos(named: Sequence[str]) -> list[str]:
    """The paths of the photographs: files as named, all images below folders, files that fit a pattern; `-` stands for itself.

    A folder's other files are counted on standard error.

    Raises:
        DataError: a folder or a pattern has none.
    """
    found: list[str] = []
    for name in named:
        path = Path(name)
        if path.is_dir():
            own = (file for file in path.rglob("*") if not any(map(is_litter, file.relative_to(path).parts)))
            files = [file for file in own if file.is_file()]
            some = sorted(str(file) for file in files if suffix(file.name) in SUFFIXES)
            if others := Counter(
                suffix(file.name) or "without a suffix" for file in files if suffix(file.name) not in SUFFIXES
            ):
                counts = ", ".join(f"{count:,} {kind}" for kind, count in others.most_common(_KINDS))
                console.note(escaped(f"{name}: not taken, files of other kinds: {counts}"))
        elif name != _STDIN and not path.exists() and glob.has_magic(name):
            some = sorted(glob.glob(name, recursive=True))  # noqa: PTH207  # Path.glob takes no absolute pattern
        else:
            some = [name]
        if not some:
            raise DataError(f"{name}: no images; allowed: {', '.join(SUFFIXES)}")
        found += some
    return found


class Photos:
    """Photographs in batches. Those that do not decode are named on standard error, counted, and left out."""

    def __init__(self, command: str, named: Sequence[str]) -> None:
        self.failed = 0
        self._command, self._paths = command, find_photos(named)

    def batches(self) -> Iterator[tuple[list[str], list["Photo"]]]:
        """Paths and bytes of at most 32 photographs at a time; progress is shown on standard error."""
        from alexnet.inference.photos import read_photo

        with console.progress(len(self._paths), self._command, "photo") as advance:
            paths: list[str] = []
            photos: list[Photo] = []
            for path in self._paths:
                try:
                    data = read_photo(sys.stdin.buffer.read() if path == _STDIN else path)
                    photos.append(data)
                    paths.append(path)
                except DataError as error:
                    self.failed += 1
                    print(f"alexnet {self._command}: error: {escaped(error)}", file=sys.stderr)
                advance(1)
                if len(photos) == _BATCH:
                    yield paths, photos
                    paths, photos = [], []
            if photos:
                yield paths, photos


def predict(args: argparse.Namespace) -> int:
    """Prints the five most probable classes of every photograph, in text as soon as they are known."""
    model, photos = _open(args)
    tree = []
    for paths, batch in photos.batches():
        for path, best in zip(paths, model.predict(batch, args.views), strict=True):
            tree.append({"image": path, "views": args.views, "classes": [dataclasses.asdict(each) for each in best]})
            if not args.json:
                print("\n".join([escaped(path), *(f"  {each.probability:6.1%}  {_name(each)}" for each in best)]), flush=True)
    print_result(args.json, tree, "")
    return int(photos.failed > 0)


def features(args: argparse.Namespace) -> int:
    """Prints the values at points of the network for every photograph, or writes them and prints their shapes."""
    import numpy as np

    if args.out and args.out.suffix.lower() != ".npz":
        raise DataError(f"--out: {args.out}: must end in .npz")
    model, photos = _open(args)
    names: list[str] = []
    parts: dict[str, list[np.ndarray]] = {layer: [] for layer in args.layer or ["fc7"]}
    for paths, batch in photos.batches():
        names += paths
        for layer, values in model.activations(batch, list(parts)).items():
            parts[layer].append(values.numpy())
    arrays = {layer: np.concatenate(found) for layer, found in parts.items() if found}
    if args.out and names:
        with atomic_write(args.out) as part, part.open("wb") as file:
            np.savez(file, allow_pickle=False, images=np.array(names), **arrays)
    rows = [(name, layer, values[row]) for row, name in enumerate(names) for layer, values in arrays.items()]
    tree = [
        {"image": name, "features": {layer: list(v[row].shape) if args.out else v[row].tolist() for layer, v in arrays.items()}}
        for row, name in enumerate(names)
    ]
    lines = [
        f"{escaped(name)}\t{layer}\t" + ("x".join(map(str, row.shape)) if args.out else " ".join(f"{n:.6g}" for n in row.flat))
        for name, layer, row in rows
    ]
    print_result(args.json, tree, "\n".join(lines))
    return int(photos.failed > 0)


def _open(args: argparse.Namespace) -> tuple["Classifier", Photos]:
    photos = Photos(args.command, args.images)
    folder = model_folder(args.model, args.offline)  # both before torch is imported: they may fail at once
    _import_torch()
    from alexnet.inference.photos import load

    return load(folder), photos


def _import_torch() -> None:
    """Imports torch with the collector of garbage off, and what it brought left out of later collections: 0.4 s of 2.2 s less.

    Nothing of it is garbage, but its many objects are looked through again and again, and once more when Python ends.
    """
    if "torch" in sys.modules:
        return
    gc.disable()
    try:
        import_module("torch")
    finally:
        gc.freeze()
        gc.enable()


def _name(each: "Prediction") -> str:
    """The class's name, and its wnid where that is another one."""
    return escaped(each.name) + (f"  ({escaped(each.wnid)})" if each.wnid != each.name else "")
