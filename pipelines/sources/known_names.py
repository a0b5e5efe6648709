"""Names that a source's folders and files have everywhere: of splits, and of what other programs leave beside pictures."""

import re
from collections.abc import Iterable
from fnmatch import fnmatchcase
from unicodedata import category, normalize

from alexnet.shards.manifest import Split

# In lower case. `eval` is what is left of the other two: some data sets call their validation so, some their test split.
_SPLITS = {
    "train": ["train", "training", "trn", "trainset", "trainingset"],
    "val": ["val", "valid", "validation", "validate", "vali", "dev", "devel", "valset", "validset", "validationset", "devset"],
    "test": ["test", "testing", "tst", "testset", "testingset", "holdout", "heldout"],
    "eval": ["eval", "evaluation", "evalset", "evaluationset"],
}
_OTHER_LANGUAGES = {  # with the letters that `_plain` leaves
    "train": "entrainement apprentissage entrenamiento treino treinamento addestramento egitim обучение обучающая 训练 训练集 "
    "訓練 学習 훈련 학습 تدريب",
    "val": "validierung validacion validacao validazione dogrulama валидация 验证 验证集 検証 검증 تحقق",
    "test": "essai prueba pruebas teste prova тест тестовая 测试 测试集 テスト 테스트 اختبار",
}
_SPLIT_OF = {name: split for split, names in _SPLITS.items() for name in (*names, *_OTHER_LANGUAGES.get(split, "").split())}
_FILLING = {
    "set",
    "sets",
    "data",
    "dataset",
    "split",
    "image",
    "images",
    "img",
    "imgs",
    "picture",
    "pictures",
    "photo",
    "photos",
}
_CONTAINERS = {
    "image",
    "images",
    "img",
    "imgs",
    "jpegimages",
    "data",
    "dataset",
    "annotation",
    "annotations",
    "label",
    "labels",
}
_BETWEEN = re.compile(r"[\s_-]+")
_WORDS = re.compile(r"[^\W\d_]+")
_CAMEL = re.compile(r"(?<=[a-z])(?=[A-Z])")  # between the words of TrainImages

# What systems and programs keep in folders of pictures, in lower case; and, beside images, the folders of their previews.
_LITTER = {
    "thumbs.db", "ehthumbs.db", "ehthumbs_vista.db", "desktop.ini", "icon\r", "picasa.ini", "zbthumbnail.info", "@eadir",
    "@tmp", "@recycle", "#recycle", "#snapshot", "__macosx", "$recycle.bin", "recycler", "system volume information",
    "lost+found",    "__pycache__", "_vti_cnf", "network trash folder", "temporary items",
}  # fmt: skip
_PREVIEWS = {
    "thumb",
    "thumbs",
    "_thumb",
    "_thumbs",
    "thumbnail",
    "thumbnails",
    "_thumbnails",
    "preview",
    "previews",
    "_previews",
}


def is_litter(name: str) -> bool:
    """Whether a file or folder of this name is no part of any data set: hidden, or what systems leave beside pictures."""
    return name.startswith((".", "~$")) or name.lower() in _LITTER


def is_preview_folder(name: str) -> bool:
    """Whether a folder of this name, which lies beside images, holds their previews."""
    return name.lower() in _PREVIEWS


def is_container(name: str) -> bool:
    """Whether a folder's name says that it holds images, or what is said of them, and no class."""
    return {word.casefold() for word in _WORDS.findall(_CAMEL.sub(" ", name))} <= _CONTAINERS and name[:1].isalpha()


def alike(names: Iterable[str]) -> list[list[str]]:
    """Names that differ in case, spaces, hyphens or the form of their Unicode alone."""
    groups: dict[str, list[str]] = {}
    for name in names:
        groups.setdefault(" ".join(_BETWEEN.split(normalize("NFKC", name).casefold())).strip(), []).append(name)
    return [group for group in groups.values() if len(group) > 1]


def shown(name: str) -> str:
    """A name in quotes, with escapes for letters that could be written in another way."""
    return repr(name) if name.isascii() or normalize("NFC", name) == normalize("NFD", name) else ascii(name)


def is_ignored(path: str, patterns: Iterable[str]) -> bool:
    """Whether a path, a folder that it lies in, or the name of one of them fits one of the patterns of `source.ignore`."""
    parts = path.split("/")
    heads = ["/".join(parts[:end]) for end in range(1, len(parts) + 1)]
    return any(fnmatchcase(name, pattern.removeprefix("./").rstrip("/")) for pattern in patterns for name in (*heads, *parts))


def split_words(name: str) -> tuple[str, str]:
    """The split that a folder's name says (train, val, test, eval), and the rest of the name; both empty where it says none.

    `Training`, `TRAIN_SET`, `images-val` and `test2017` say one and have no rest; `seg_train` has one; `trainers` says none.
    """
    words = [word.casefold() for word in _WORDS.findall(_CAMEL.sub(" ", _plain(name)))]
    named = [word for word in words if word in _SPLIT_OF]
    if len(named) != 1:
        return "", ""
    return _SPLIT_OF[named[0]], " ".join(word for word in words if word not in (*named, *_FILLING))


def _plain(name: str) -> str:
    """A name without accents, whichever way its Unicode is written."""
    return normalize("NFC", "".join(letter for letter in normalize("NFD", name) if category(letter) != "Mn"))


def split_names(names: Iterable[str]) -> dict[str, Split | None]:
    """The splits of the folders whose names say one; None for `eval` and the like where the others do not tell which it is.

    A rest, as in `seg_train` and `seg_test`, must be the same in all of them, one of which is train, or missing.
    """
    said = {name: split_words(name) for name in names}
    rests = {rest for split, rest in said.values() if split == "train"}
    rest = "" if "" in rests or len(rests) != 1 else rests.pop()
    found = {name: split for name, (split, other) in said.items() if split and other in (rest, "")}
    free = [split for split in ("val", "test") if split not in found.values()]
    one = free[0] if len(free) == 1 else None
    splits: dict[str, Split] = {"train": "train", "val": "val", "test": "test"}
    return {name: splits.get(split, splits.get(one or "")) for name, split in found.items()}
