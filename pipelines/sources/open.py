"""Opens the source that params.yaml names."""

from pipelines.sources.base import Source, SourceConfig


def open_source(config: SourceConfig) -> Source:
    """The source. Raises DataError, which says what to do, when it is not there."""
    match config.name:
        case "digits" | "solar-cells":
            from pipelines.sources.packaged import open_packaged

            return open_packaged(config.name)
        case "imagenette":
            from pipelines.sources.imagenette import open_imagenette

            return open_imagenette()
        case "imagenet":
            from pipelines.sources.imagenet import open_imagenet

            return open_imagenet(config.archives)
        case "folder":
            from pipelines.sources.folder import FolderSource, folder_of

            return FolderSource(*folder_of("folder"))
