"""receipt.json: what the publish stage has published, and what came of it."""

from dataclasses import dataclass

from pipelines.publishing.promotion import Promotion


@dataclass(frozen=True)
class Receipt:
    """version: None if nothing was published. files: SHA-256 by path. held_back: why the alias did not move.

    champion: None if nothing was published, or no alias may move to it.
    """

    name: str
    version: str | None
    files: dict[str, str]
    alias: str
    held_back: str | None
    champion: Promotion | None
