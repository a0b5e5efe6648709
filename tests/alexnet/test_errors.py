"""The tree of errors: every error of a user's is in it, and none passes for a malformed value or a failed disk."""

import importlib
import inspect
import pkgutil

import pytest

import alexnet
import pipelines
from alexnet import errors
from alexnet.errors import DataError, ParamsError


def _error_classes() -> list[type[Exception]]:
    """Every exception class that a module of alexnet or pipelines defines."""
    names = [
        module.name
        for package in (alexnet, pipelines)
        for module in pkgutil.walk_packages(package.__path__, f"{package.__name__}.")
        if not module.name.endswith("__main__")
    ]
    defined = [(name, value) for name in names for value in vars(importlib.import_module(name)).values()]
    return [e for name, e in defined if inspect.isclass(e) and issubclass(e, Exception) and e.__module__ == name]


@pytest.mark.parametrize("error", _error_classes(), ids=lambda error: error.__name__)
def test_no_error_passes_for_another_kind(error: type[Exception]) -> None:
    """`except (Missing, ValueError)` once took an outage of the store for an absent object."""
    assert not issubclass(error, (ValueError, OSError, LookupError))


@pytest.mark.parametrize("error", [ParamsError, DataError])
def test_the_two_roots_are_plain_exceptions(error: type[Exception]) -> None:
    assert error.__bases__ == (Exception,)


def test_the_docstring_names_every_error_of_the_library() -> None:
    library = {e.__name__ for e in _error_classes() if e.__module__.startswith("alexnet.") and issubclass(e, DataError)}
    assert "Diverged" in library
    assert {name for name in library if name not in (errors.__doc__ or "")} == set()
