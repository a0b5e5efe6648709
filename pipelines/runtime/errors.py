"""The errors of the stages, which descend from those of `alexnet.errors`.

DataError
├── Unreachable   a store, scheduler or rank does not answer: trying again later can help, and the flow retries
├── Denied        the store refuses these credentials
├── Missing       there is no such object
└── Exists        a conditional write found another object
"""

from alexnet.errors import DataError


class Unreachable(DataError):
    """The store could not be reached or answered with its own failure: trying again later can help."""


class Denied(DataError):
    """The store refused: other credentials, or other rights, are needed."""


class Missing(DataError):
    """There is no such object."""


class Exists(DataError):
    """A conditional write lost: another writer's object is there already, or the object has changed."""
