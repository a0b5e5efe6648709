"""The errors of the stages, which descend from those of `alexnet.errors`.

DataError
├── Unreachable   a store, scheduler or rank does not answer: trying again later can help, and the flow retries
├── Denied        the store refuses these credentials
├── Missing       there is no such object
└── Exists        a conditional write found another object
"""

from alexnet.errors import DataError


class Unreachable(DataError):
    """The store cannot be reached, or fails itself: trying again later can help."""


class Denied(DataError):
    """The store refuses these credentials: others, or other rights, are needed."""


class Missing(DataError):
    """There is no such object."""


class Exists(DataError):
    """A conditional write was refused: there is an object already, or it has changed."""
