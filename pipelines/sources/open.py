"""Opens the source that params.yaml names."""

from pipelines.sources.base import Source, SourceConfig


def open_source(config: SourceConfig) -> Source:
    """The source, brought within reach. Raises DataError that says what to do when it is not there."""
    if config.name == "digits":
        from pipelines.sources import digits

        return digits.open_digits()
    if config.name == "solar-cells":
        from pipelines.sources import solar_cells

        return solar_cells.open_solar_cells()
    if config.name == "imagenette":
        from pipelines.sources import imagenette

        return imagenette.open_imagenette()
    if config.name == "imagenet":
        from pipelines.sources import imagenet

        return imagenet.open_imagenet(config.archives)
    from pipelines.sources import folder

    return folder.open_folder()
