from dataclasses import replace
from pathlib import Path

from pipelines.validation.datadocs import write_front_page
from pipelines.validation.distributions import Distribution
from pipelines.validation.report import ValidationReport
from pipelines.validation.thumbnails import Pictures, Thumbnail
from tests.support.trained_folder import VALIDATION

EVIL = "<img src=x onerror=alert(1)>\x1b[31m"
SHOWN = Pictures({"n1": [Thumbnail("k1", "n1", "8 x 8 px, PNG", "data:image/webp;base64,AAAA")]}, {}, [0.5])


def page(folder: Path, report: ValidationReport, pictures: Pictures = SHOWN, name: str = "hat") -> str:
    write_front_page(folder, report, pictures, [Distribution("Classes", "images", [(name, 3), ("cap", 6)])], {"n1": name})
    return (folder / "index.html").read_text()


def test_the_front_page_replaces_the_index_page_and_links_to_the_others(tmp_path: Path) -> None:
    for name in ("index.html", "expectations/images.html", "validations/images/run/1.html"):
        (tmp_path / name).parent.mkdir(parents=True, exist_ok=True)
        (tmp_path / name).write_text("another page")
    html = page(tmp_path, VALIDATION)
    assert "another page" not in html
    assert '<a href="expectations/images.html">expectations: images</a>' in html
    assert '<a href="validations/images/run/1.html">validations: images</a>' in html
    assert '<b class="good">Fit to use</b>' in html
    assert "12 of 13 images are used" in html
    assert "<code>k99999</code>" in html


def test_the_data_is_shown_by_class_and_by_fault(tmp_path: Path) -> None:
    culprits = [Thumbnail("k2", "n1", "2 x 2 px, PNG", "data:image/webp;base64,BBBB"), Thumbnail("k3", "n1", "0 bytes", "")]
    fault = replace(VALIDATION.faults["tiny"], images=3)
    html = page(tmp_path, replace(VALIDATION, faults={"tiny": fault}), replace(SHOWN, culprits={"tiny": culprits}))
    assert "<h3>hat <code>n1</code></h3>" in html
    assert '<img src="data:image/webp;base64,AAAA" alt="k1"' in html
    assert f'<h3 id="tiny">tiny: {fault.meaning}, the first 2 of 3</h3>' in html
    assert '<img src="data:image/webp;base64,BBBB" alt="k2"' in html
    assert html.count('<div class="none">') == 1
    assert '<tr><td>hat<td class="n">3<td><div class="bar" style="width: 50.0%">' in html


def test_names_from_the_source_are_escaped(tmp_path: Path) -> None:
    fault = replace(VALIDATION.faults["tiny"], images=1001, keys=("<b>", "<i>"), note="the first 2 of 1,001")
    bad = Thumbnail(EVIL, EVIL, EVIL, "data:image/webp;base64,AAAA")
    report = replace(VALIDATION, success=False, faults={"tiny": fault}, left_out={EVIL: 1})
    html = page(tmp_path, report, Pictures({EVIL: [bad]}, {"tiny": [bad]}, []), EVIL)
    assert "<code>&lt;b&gt;</code> and more (the first 2 of 1,001)</summary><code>&lt;i&gt;</code>" in html
    assert '<td class="n">1,001' in html
    assert "Not fit to use" in html
    assert "<img src=x" not in html
