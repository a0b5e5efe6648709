"""A page and a slide of one picture in a trained network."""

from pathlib import Path

from alexnet.inference.photos import load
from alexnet.inference.references import is_reference
from pipelines.config import params, tree
from pipelines.pictures.explain.page import write_explanation
from pipelines.pictures.explain.subject import Subject, Training, read_training


def explain(photo: Path, folder: Path, model_name: str, out: Path) -> tuple[Path, Path]:
    """Writes PHOTO-explained.html and .png, which name the release, or the folder without its path, into `out`.

    Raises:
        DataError: the photo does not decode, or the folder is no model.
    """
    model = load(folder)
    image = model.prepare([photo])[0]
    stem = out / f"{photo.stem}-explained"
    name = model_name if is_reference(model_name) else folder.absolute().name
    write_explanation(stem, Subject(image, photo.name, model, name, _training(folder)))
    return stem.with_name(f"{stem.name}.html"), stem.with_name(f"{stem.name}.png")


def _training(folder: Path) -> Training | None:
    """From the release's params.yaml; of the model folder of a run, from what lies beside that. None where there is neither."""
    run = folder.absolute().parent
    for file, pixels in ((folder / params.FILE, folder / "pixels.npz"), (run.parent / params.FILE, run / "pixels.npz")):
        if file.is_file():
            return read_training(tree.read(file), pixels)
    return None
