"""`python -m alexnet`."""

import alexnet
from alexnet.__main__ import hello
from pipelines.cli import main as cli


def test_it_says_what_the_package_offers_and_what_to_try() -> None:
    text = hello()
    for name in alexnet.__all__:
        assert f"alexnet.{name} " in text
    for command in ("doctor", "show"):
        assert f"  alexnet {command} " in text
        assert command in cli._parser().format_help()
