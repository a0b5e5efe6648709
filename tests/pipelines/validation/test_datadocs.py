from dataclasses import replace
from pathlib import Path

from pipelines.validation.datadocs import write_front_page
from tests.support.trained_folder import VALIDATION


def test_the_front_page_replaces_the_index_page_and_links_to_the_others(tmp_path: Path) -> None:
    for page in ("index.html", "expectations/images.html", "validations/images/run/1.html"):
        (tmp_path / page).parent.mkdir(parents=True, exist_ok=True)
        (tmp_path / page).write_text("another page")
    write_front_page(tmp_path, VALIDATION)
    html = (tmp_path / "index.html").read_text()
    assert "another page" not in html
    assert '<a href="expectations/images.html">expectations: images</a>' in html
    assert '<a href="validations/images/run/1.html">validations: images</a>' in html
    assert '<b class="good">Fit to use</b>' in html
    assert "12 of 13 images are used" in html
    assert "<code>k99999</code>" in html


def test_names_from_the_source_are_escaped(tmp_path: Path) -> None:
    fault = replace(VALIDATION.faults["tiny"], images=1001, keys=("<b>", "<i>"), note="the first 2 of 1,001")
    write_front_page(tmp_path, replace(VALIDATION, success=False, faults={"tiny": fault}))
    html = (tmp_path / "index.html").read_text()
    assert "<code>&lt;b&gt;</code> and more (the first 2 of 1,001)</summary><code>&lt;i&gt;</code>" in html
    assert '<td class="n">1,001' in html
    assert "Not fit to use" in html
