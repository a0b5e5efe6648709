"""The card: its facts, its front matter, and class names that are never markup."""

import csv
import html
import re
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
from huggingface_hub import ModelCard, ModelCardData
from hypothesis import given
from hypothesis import strategies as st
from markdown_it import MarkdownIt
from ruamel.yaml import YAML

from alexnet.shards.manifest import Synset
from pipelines.evaluation.results import Estimate
from pipelines.publishing.card import Facts, code, code_cell, render_card


def table(text: str, first_header: str) -> list[list[str]]:
    """The rows of the card's table with this first header cell."""
    (found,) = re.findall(rf"^\| {first_header} \|.*\n\| ---.*\n((?:\|.*\n)*)", text, re.MULTILINE)
    return [[cell.strip() for cell in row.strip("|").split("|")] for row in found.splitlines()]


def test_a_card_has_the_error_rates_and_where_the_model_came_from(facts: Facts, release_folder: Path) -> None:
    text = render_card(facts, release_folder)
    assert table(text, "on the same images") == [
        ["this network, center crop", "10.00% (5.00 to 25.00%)", "0.5000 (0.4000 to 0.6000)", "5.00%"],
        ["this network, five crops", "20.00% (15.00 to 35.00%)", "0.6000 (0.5000 to 0.7000)", "6.00%"],
        ["ridge regression on 16x16 thumbnails", "30.00% (20.00 to 40.00%)", "", ""],
        ["always the most frequent class", "70.00% (60.00 to 80.00%)", "", ""],
    ]
    assert table(text, "class") == [
        ["`class 2`", "4", "25.0%", "50.0%"],
        ["`class 0`", "1", "0.0%", "50.0%"],
        ["`class 1`", "0", "nan%", "nan%"],
    ]
    assert table(text, "split") == [["train", "7", "2 to 3"], ["val", "5", "1 to 2"]]
    assert table(text, "fault") == [["tiny", "a side too short", "drop", "1"]]
    assert table(text, "file") == [
        ["[index.parquet](index.parquet)", f"`{'cd' * 32}`"],
        ["[model.safetensors](model.safetensors)", f"`{'ab' * 32}`"],
        ["[story.html](story.html)", f"`{'ef' * 32}`"],
    ]
    assert table(text, "image") == [["`k7`", "`class 2`", "0.12%", "`class 0`", "99.87%"]]
    assert "| git commit | not made in a git checkout |\n| shards | `shards/test/` in the data bucket" in text
    assert table(text, "layer")[-1][0] == "total"
    assert (
        "A quarter-width, two-tower AlexNet (3,572,842 parameters; the paper's has 60,965,224) for the 3 classes of a folder "
        "of images. Its top-1 error by the center crop is 10.00% (5.00 to 25.00%) on 5 validation images, none of which it was "
        "trained on." in text
    )
    assert "| learning rate of weights | 0.01 from epoch 0, 0.002 from epoch 7, 0.0004 from epoch 9 |" in text
    assert "| hardware | `a \\| GPU`, 2 processes, torch 2.15 |" in text
    assert "- What the license of its images does not allow: Their license is the images' own; ask their owner." in text
    assert "- The data broke a rule (`warning`): `No image is tiny`.\n" in text
    assert "two towers, which read each other's channels at `conv3`, `fc6`, `fc7`, `fc8`; input" in text
    assert "\n\n\n" not in text


def test_mirrored_crops_are_left_out_if_it_was_trained_without_flips(facts: Facts, release_folder: Path) -> None:
    five = facts.results.protocols[1]
    mirrored = (replace(five, views="flipped", top1_error=Estimate(0.64, 0.6, 0.7)), replace(five, views="ten"))
    facts = replace(facts, results=replace(facts.results, protocols=(*facts.results.protocols, *mirrored)))
    limit = "by the mirror images of the five crops its top-1 error is 64.00%"
    names = ["center crop", "five crops", "five crops, flipped", "ten crops"]

    def shown(facts: Facts) -> tuple[list[str], bool]:
        text = render_card(facts, release_folder)
        rows = table(text, "on the same images")
        return [row[0].removeprefix("this network, ") for row in rows if row[0].startswith("this network")], limit in text

    assert shown(facts) == (names[:2], True)
    train = facts.params.train
    train = replace(train, augment=replace(train.augment, flip=True))
    assert shown(replace(facts, params=replace(facts.params, train=train))) == (names, False)


def test_a_variant_that_was_trained_alike_stands_beside_ridge(facts: Facts, release_folder: Path) -> None:
    variants = {"torchvision": Estimate(0.25, 0.2, 0.35)}
    text = render_card(replace(facts, results=replace(facts.results, variants=variants)), release_folder)
    row = ["the variant `torchvision`, trained alike, center crop", "25.00% (20.00 to 35.00%)", "", ""]
    assert table(text, "on the same images")[3] == row


def test_top5_error_is_given_where_it_can_differ_from_zero(facts: Facts, release_folder: Path) -> None:
    assert "top-5 error |" not in render_card(facts, release_folder)
    synsets = tuple(Synset(label, f"n{label:08}", f"class {label}") for label in range(6))
    text = render_card(replace(facts, manifest=replace(facts.manifest, synsets=synsets)), release_folder)
    assert table(text, "on the same images")[1][:3] == [
        "this network, five crops",
        "20.00% (15.00 to 35.00%)",
        "0.00% (0.00 to 1.00%)",
    ]
    assert {len(row) for row in table(text, "on the same images")} == {5}
    assert "name: top-5 error, center crop" in text


def test_a_report_on_the_test_split_says_so_wherever_a_number_stands(facts: Facts, release_folder: Path) -> None:
    text = render_card(replace(facts, results=replace(facts.results, split="test")), release_folder)
    assert "is 10.00% (5.00 to 25.00%) on 5 test images, none of which it was trained on." in text
    assert "images of the test split, none of which was trained on; while it was trained, only the validation split was" in text
    assert "![Eight test images and their" in text
    assert "      split: test\n" in text
    assert "predictions of every test image" in text


def test_a_card_of_many_classes_shows_the_hardest(facts: Facts, release_folder: Path) -> None:
    rows = [{"name": f"c{i}", "images": 1, "center_top1_error": i / 100, "five_top1_error": 0.5} for i in range(31)]
    with (release_folder / "evaluation/per_class.csv").open("w", newline="") as file:
        writer = csv.DictWriter(file, rows[0])
        writer.writeheader()
        writer.writerows(rows)
    text = render_card(facts, release_folder)
    assert [row[0] for row in table(text, "class")] == [f"`c{i}`" for i in range(30, 0, -1)]
    assert "The 30 hardest of 31 classes, highest error first" in text


def test_the_front_matter_is_what_hugging_face_reads(facts: Facts, release_folder: Path) -> None:
    start, matter, _ = render_card(facts, release_folder).split("---\n", 2)
    tree = YAML(typ="safe", pure=True).load(matter)
    assert start == ""
    assert tree["pipeline_tag"] == "image-classification"
    assert tree["license"] == "other"
    (result,) = tree["model-index"][0]["results"]
    assert result["dataset"] == {"name": "test", "type": "test", "split": "validation"}
    assert result["metrics"] == [
        {"type": "error_rate", "name": "top-1 error, center crop", "value": 0.1},
        {"type": "error_rate", "name": "top-1 error, five crops", "value": 0.2},
    ]


def test_hugging_faces_own_parser_reads_the_card(facts: Facts, release_folder: Path) -> None:
    card = ModelCard(render_card(facts, release_folder))
    assert isinstance(card.data, ModelCardData)
    assert card.data.model_name == "alexnet"
    assert [(each.metric_name, each.metric_value) for each in card.data.eval_results or ()] == [
        ("top-1 error, center crop", 0.1),
        ("top-1 error, five crops", 0.2),
    ]
    assert card.text.lstrip().startswith("# alexnet on a folder of images")


@pytest.mark.parametrize(
    ("change", "name"),
    [
        ({"kernels": (48, 128, 192, 192, 128), "units": 2048}, "two-tower AlexNet"),
        ({"kernels": (24, 64, 96, 96, 64), "units": 1024}, "half-width, two-tower AlexNet"),
        ({"kernels": (6, 16, 24, 24, 16), "units": 256}, "eighth-width, two-tower AlexNet"),
        ({"kernels": (3, 8, 12, 12, 8), "units": 128}, "narrower, two-tower AlexNet"),
        ({"towers": 1, "kernels": (12, 32, 48, 48, 64)}, "changed, one-tower AlexNet"),
    ],
)
def test_a_network_is_called_by_its_width(facts: Facts, change: dict[str, Any], name: str) -> None:
    model = replace(facts.params.model, **change)
    assert replace(facts, params=replace(facts.params, model=model)).architecture == name


@pytest.mark.parametrize(("source", "model_license"), [("solar-cells", "cc-by-nc-sa-4.0"), ("digits", "apache-2.0")])
def test_a_model_has_the_license_that_its_images_allow(
    facts: Facts, release_folder: Path, source: str, model_license: str
) -> None:
    text = render_card(replace(facts, manifest=replace(facts.manifest, source=source)), release_folder)
    assert text.startswith(f'---\nlicense: "{model_license}"\n')


@given(st.text() | st.text("`|\\<*[]()! a", max_size=12))
def test_text_from_data_is_never_markup(text: str) -> None:
    """In a table's cell and in running text it is one code span that holds the text itself."""
    markdown = MarkdownIt("commonmark", {"html": False}).enable("table")
    shown = html.escape(" ".join(text.split()) or " ", quote=False).replace('"', "&quot;").replace("\0", "\ufffd")
    assert f"<td><code>{shown}</code></td>\n<td>b</td>" in markdown.render(f"| h | i |\n| - | - |\n| {code_cell(text)} | b |\n")
    assert markdown.render(f"a {code(text)} b") == f"<p>a <code>{shown}</code> b</p>\n"
