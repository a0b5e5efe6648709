import pytest

from pipelines.sources.known_names import alike, is_container, is_ignored, is_litter, is_preview_folder, shown, split_names


@pytest.mark.parametrize(
    ("names", "splits"),
    [
        (["Training", "Testing"], {"Training": "train", "Testing": "test"}),
        (["TRAIN", "Valid"], {"TRAIN": "train", "Valid": "val"}),
        (["training_set", "test-set", "dev"], {"training_set": "train", "test-set": "test", "dev": "val"}),
        (["train2017", "val2017"], {"train2017": "train", "val2017": "val"}),
        (["TrainImages", "ValImages"], {"TrainImages": "train", "ValImages": "val"}),
        (["images train", "images holdout"], {"images train": "train", "images holdout": "test"}),
        (["seg_train", "seg_test", "seg_pred"], {"seg_train": "train", "seg_test": "test"}),
        (["fruits Training", "fruits Validation"], {"fruits Training": "train", "fruits Validation": "val"}),
        (["training", "validation", "evaluation"], {"training": "train", "validation": "val", "evaluation": "test"}),
        (["train", "test", "eval"], {"train": "train", "test": "test", "eval": "val"}),
        (["train", "eval"], {"train": "train", "eval": None}),
        (["train", "test tube"], {"train": "train"}),
        (["car", "trainers", "latest", "contest", "devil"], {}),
        (["trainval", "train_test"], {}),
        (["train_224", "val_224", "test (1)"], {"train_224": "train", "val_224": "val", "test (1)": "test"}),
        (["train_mini", "val", "public_test"], {"train_mini": "train", "val": "val"}),
        (["Entraînement", "validation", "essai"], {"Entraînement": "train", "validation": "val", "essai": "test"}),
        (["entrenamiento", "validacio\u0301n"], {"entrenamiento": "train", "validacio\u0301n": "val"}),
        (["训练集", "验证集", "测试集"], {"训练集": "train", "验证集": "val", "测试集": "test"}),
        (["훈련", "검증", "テスト"], {"훈련": "train", "검증": "val", "テスト": "test"}),
    ],
)
def test_a_folder_is_the_split_that_its_name_says(names: list[str], splits: dict[str, str | None]) -> None:
    assert split_names(names) == splits


@pytest.mark.parametrize(
    "name", [".DS_Store", "Thumbs.db", "@eaDir", "._1.jpg", ".thumbnails", "__MACOSX", "DESKTOP.INI", "~$x"]
)
def test_what_other_programs_leave_is_known(name: str) -> None:
    assert is_litter(name)


def test_a_class_is_no_litter() -> None:
    assert not any(map(is_litter, ("1.jpg", "thumbs up", "macosx", "_x", "thumbnails", "~x")))
    assert is_preview_folder("Thumbnails")


def test_a_pattern_fits_a_path_a_folder_or_a_name() -> None:
    assert is_ignored("raw/a/1.jpg", ["raw"])
    assert is_ignored("train/a/1_mask.png", ["*_mask.png"])
    assert is_ignored("train/old/1.png", ["train/old/"])
    assert is_ignored("train/old/1.png", ["old"])
    assert not is_ignored("raws/a/1.jpg", ["raw", "a/*.png", "1"])


def test_names_that_differ_in_spelling_alone_are_found() -> None:
    assert alike(["Cat", "cat", "hot_dog", "hot dog", "caf\u00e9", "cafe\u0301", "dogs"]) == [
        ["Cat", "cat"],
        ["hot_dog", "hot dog"],
        ["caf\u00e9", "cafe\u0301"],
    ]
    assert [shown(name) for name in ("cat ", "猫", "caf\u00e9")] == ["'cat '", "'猫'", r"'caf\xe9'"]


def test_a_folder_of_images_is_no_class() -> None:
    assert all(map(is_container, ("images", "JPEGImages", "data_256", "Labels")))
    assert not any(map(is_container, ("image of a cat", "2750", "labelled", "photo")))
