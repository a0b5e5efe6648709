import pytest

from alexnet.images.inspect import FAULTS
from alexnet.images.resize import decode
from benchmarks import prep, synthetic


def test_the_suite_finds_exactly_the_planted_images(monkeypatch: pytest.MonkeyPatch) -> None:
    assert {*synthetic.SINGLE, *synthetic.COPIES} == {*FAULTS}
    found = prep.scale_child(60_000)
    assert found["exactly_the_planted_images"], (found["planted"], found["found"])


@pytest.mark.filterwarnings("ignore")  # torchvision's own
def test_every_method_makes_a_square_that_looks_like_the_reference() -> None:
    images = prep.photographs(None, 2)
    for method in prep.METHODS.values():
        assert decode(method(images[0])).shape == (prep.SIDE_PX, prep.SIDE_PX, 3)
    assert min(prep.quality(images).values()) > 30
