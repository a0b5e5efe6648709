import pyarrow as pa
import pytest

from pipelines.validation import distributions, index


def table(*sizes: tuple[int, int], wnids: str = "") -> pa.Table:
    rows = [
        {"wnid": wnid, "width": width, "height": height, "format": "PNG" if width else "", "mode": "RGB", "action": "use"}
        for (width, height), wnid in zip(sizes, wnids or "a" * len(sizes), strict=True)
    ]
    return pa.Table.from_pylist(rows, index.SCHEMA)


def shapes(found: pa.Table, names: dict[str, str], brightness: list[float]) -> dict[str, list[tuple[str, int]]]:
    return {each.title: each.rows for each in distributions.distributions(found, names, brightness)}


def test_images_are_counted_by_class_size_aspect_format_and_brightness() -> None:
    found = table((100, 50), (99, 100), (500, 100), (0, 0), (5000, 4096), wnids="aabab")
    assert shapes(found, {"a": "<b>", "b": "b", "c": "none"}, [0.0, 0.1, 0.95, 1.0]) == {
        "Classes": [("<b>", 3), ("b", 2), ("none", 0)],
        "Shorter side": [
            ("32 to 63", 1),
            ("64 to 127", 2),
            ("128 to 255", 0),
            ("256 to 511", 0),
            ("512 to 1,023", 0),
            ("1,024 to 2,047", 0),
            ("2,048 to 4,095", 0),
            ("4,096 and more", 1),
        ],
        "Aspect": [("about square", 2), ("4:3 to 2:1 wide", 0), ("2:1 to 4:1 wide", 1), ("wider than 4:1", 1)],
        "Format": [("PNG RGB", 4)],
        "Brightness": [
            ("0.0 to 0.1", 1),
            ("0.1 to 0.2", 1),
            *[(f"{low / 10:.1f} to {low / 10 + 0.1:.1f}", 0) for low in range(2, 9)],
            ("0.9 to 1.0", 2),
        ],
    }


def test_many_classes_are_counted_by_their_size(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(distributions, "_CLASSES", 2)
    names = {wnid: wnid for wnid in "abc"}
    found = distributions.distributions(table(*[(1, 1)] * 6, wnids="aaabbc"), names, [])[0]
    assert (found.unit, found.rows) == ("classes, by their used images", [("1", 1), ("2", 1), ("3 and more", 1)])
    assert found.most == 1


def test_nothing_that_can_be_read_is_no_distribution() -> None:
    assert shapes(table((0, 0)), {"a": "a"}, [])["Aspect"] == []
