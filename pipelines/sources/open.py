"""Opens the source that params.yaml names."""

from pipelines.sources.archives.imagenet import ArchivesSource, open_imagenet
from pipelines.sources.archives.webdataset import WebDatasetSource
from pipelines.sources.base import SourceConfig
from pipelines.sources.folder import FolderSource
from pipelines.sources.imagenette import open_imagenette
from pipelines.sources.packaged import open_packaged
from pipelines.sources.places import folder_of

Source = FolderSource | ArchivesSource | WebDatasetSource  # can be pickled for a worker that reaches the same files


def open_source(config: SourceConfig) -> Source:
    """The source. Raises DataError, which says what to do, when it is not there."""
    match config.name:
        case "digits" | "solar-cells":
            return open_packaged(config.name)
        case "imagenette":
            return open_imagenette()
        case "imagenet":
            return open_imagenet(config)
        case "webdataset":
            return WebDatasetSource(*folder_of(config), config)
        case "folder":
            return FolderSource(*folder_of(config), config=config)
