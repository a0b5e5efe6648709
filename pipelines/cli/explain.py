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
    stem = out / f"{photo.stem}-explained"
    write_explanation(stem, read_subject(photo, folder, model_name))
    return stem.with_name(f"{stem.name}.html"), stem.with_name(f"{stem.name}.png")


def read_subject(photo: Path, folder: Path, model_name: str) -> Subject:
    """A photograph in the model of a folder, named by its release, or by the folder without its path."""
    model = load(folder)
    name = model_name if is_reference(model_name) else folder.absolute().name
    return Subject(model.prepare([photo])[0], photo.name, model, name, _training(folder))


def _training(folder: Path) -> Training | None:
    """From the release's params.yaml; of the model folder of a run, from what lies beside that. None where there is neither."""
    run = folder.absolute().parent
    for file, pixels in ((folder / params.FILE, folder / "pixels.npz"), (run.parent / params.FILE, run / "pixels.npz")):
        if file.is_file():
            return read_training(tree.read(file), pixels)
    return None
