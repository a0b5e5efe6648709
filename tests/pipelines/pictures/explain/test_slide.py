"""The slide: equal subjects are equal bytes."""

from pipelines.pictures.explain.slide import draw_slide
from pipelines.pictures.explain.subject import Subject
from pipelines.pictures.explain.trace import trace
from tests.pipelines.pictures.explain.test_trace import IMAGE, pretrained


def test_equal_pictures_make_equal_slides() -> None:
    subject = Subject(IMAGE, f"$x$ {'W' * 70}", pretrained("tanh"), "here " * 20)
    assert draw_slide(subject, trace(subject.model, IMAGE)) == draw_slide(subject, trace(subject.model, IMAGE))
