"""What is explained of an evaluation; all of its pictures are tested with the evaluate stage."""

from pipelines.pictures.evaluation import first_of_each_kind
from pipelines.pictures.predictions import Chosen


def test_one_image_of_each_kind_is_explained() -> None:
    chosen = [Chosen(7, "right"), Chosen(3, "right"), Chosen(5, "wrong"), Chosen(2, "wrong")]
    assert first_of_each_kind(chosen) == [Chosen(7, "right"), Chosen(5, "wrong")]
    assert first_of_each_kind([]) == []
