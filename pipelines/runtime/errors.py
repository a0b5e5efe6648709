"""Errors of the stages, beside those of alexnet.errors."""

from alexnet.errors import DataError


class Unreachable(DataError):
    """The store could not be reached or answered with its own failure: trying again later can help."""


class Denied(DataError):
    """The credentials do not allow it."""
