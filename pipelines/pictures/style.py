"""The one style of all pictures, in two color schemes.

A PNG is drawn in the light scheme on a background of its own, so that it can be read on any page. An SVG follows the reader's
`prefers-color-scheme`. Figures are 5 inches wide: in a phone's 350 pixels their smallest text is 9 pixels high.
Equal input makes equal bytes: no times in the files, one font, fixed identifiers.
"""

import io
import logging
import textwrap
import unicodedata
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from functools import cache
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
from jaxtyping import UInt8

from alexnet.files.atomic import atomic_write_bytes
from pipelines.runtime.console import legible

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure

# Each color by its use, in the light and in the dark scheme. Against the scheme's page, text has a contrast of at least 4.5 and
# a mark of at least 3 (WCAG 2.2, 1.4.3 and 1.4.11).
SCHEMES = {
    "page": ("#ffffff", "#14171c"),
    "ink": ("#20242c", "#e6e8ec"),
    "faint": ("#5b6472", "#a3acba"),
    "line": ("#dfe3e9", "#2c323d"),  # grids and frames, which no reader needs to see
    "blue": ("#2b66ab", "#7fb0e6"),
    "orange": ("#a9540a", "#f0a35e"),
    "grey": ("#7b8494", "#858e9d"),
}
PAGE, INK, FAINT, LINE, BLUE, ORANGE, GREY = (light for light, _ in SCHEMES.values())
TEXT, MARKS = ("ink", "faint", "blue", "orange"), ("grey", "blue", "orange")
# A scale of blues, and what text on each of them is written in.
STEPS = [
    (("#f4f7fb", "#1a2028"), "ink"),
    (("#dce8f5", "#1f2f42"), "ink"),
    (("#b4d0ec", "#27476b"), "ink"),
    (("#2f6cb3", "#8ab8ea"), "page"),
    (("#1f5290", "#b2d2f4"), "page"),
    (("#123a6b", "#d9eafb"), "page"),
]

WIDTH = 5.0  # inches
SMALL = 9.5  # points; the rest of the text is larger
TOWERS = "ab"
_DPI = 200
_FONT = "DejaVu Sans"
_STYLE: Any = {
    "font.family": _FONT,
    "font.size": 10.5,
    "text.color": INK,
    "text.parse_math": False,  # names of classes are no formulas
    "axes.facecolor": PAGE,
    "axes.edgecolor": LINE,
    "axes.labelcolor": FAINT,
    "axes.titlesize": 11.5,
    "axes.titleweight": "bold",
    "axes.titlelocation": "left",
    "axes.titlepad": 9,
    "axes.spines.top": False,
    "axes.spines.right": False,
    "axes.grid": True,
    "axes.axisbelow": True,
    "axes.unicode_minus": False,
    "figure.facecolor": PAGE,
    "grid.color": LINE,
    "grid.linewidth": 0.8,
    "xtick.color": FAINT,
    "ytick.color": FAINT,
    "xtick.major.size": 0,
    "ytick.major.size": 0,
    "figure.constrained_layout.w_pad": 0.1,
    "figure.constrained_layout.h_pad": 0.08,
    "legend.frameon": False,
    "legend.fontsize": SMALL,
    "lines.linewidth": 2,
    "lines.solid_capstyle": "round",
    "hatch.linewidth": 0.8,
    "svg.fonttype": "path",  # the same picture on a machine without the font
    "svg.hashsalt": "alexnet",
    "svg.image_inline": True,
}


def save(stem: Path, inches: tuple[float, float], draw: Callable[["Figure"], None], title: str) -> None:
    """Writes what `draw` draws as `stem`.png and `stem`.svg. title: of the SVG, for readers that do not see it."""
    for kind, data in render(inches, draw, title).items():
        atomic_write_bytes(stem.with_name(f"{stem.name}.{kind}"), data)


def render(inches: tuple[float, float], draw: Callable[["Figure"], None], title: str) -> dict[str, bytes]:
    """The bytes of a PNG and of an SVG, by `png` and `svg`."""
    png, svg = io.BytesIO(), io.BytesIO()
    with drawing(inches, draw) as figure:
        figure.savefig(png, format="png", metadata={"Software": None})
        figure.set_layout_engine("none")  # it is laid out
        figure.savefig(svg, format="svg", metadata={"Date": None, "Creator": None, "Title": drawable(title)})
    return {"png": png.getvalue(), "svg": _with_dark_scheme(svg.getvalue().decode()).encode()}


@contextmanager
def drawing(inches: tuple[float, float], draw: Callable[["Figure"], None]) -> Iterator["Figure"]:
    """The figure that `draw` draws on, to be saved while the style is on."""
    logging.getLogger("matplotlib").setLevel(logging.ERROR)  # on the first run it reports that it builds a font cache
    import matplotlib as mpl
    from matplotlib.figure import Figure

    with mpl.rc_context(_STYLE):
        figure = Figure(inches, layout="constrained", dpi=_DPI)
        draw(figure)
        yield figure


def _with_dark_scheme(svg: str) -> str:
    """The SVG with a rule for every color; a reader that knows no rules shows the light scheme."""
    pairs = [*SCHEMES.values(), *(pair for pair, _ in STEPS)]
    rules = "".join(
        f'[style*="{use}: {light}"]{{{use}:{dark}!important}}' for light, dark in pairs for use in ("fill", "stroke")
    )
    return svg.replace("<defs>", f"<defs><style>@media(prefers-color-scheme:dark){{{rules}}}</style>", 1)


def drawable(text: str) -> str:
    """Text on one line. A letter that the font lacks, or that is unseen, is its number there, [732B], so that names differ."""
    composed = legible(unicodedata.normalize("NFC", " ".join(text.split())))
    return "".join(letter if ord(letter) in _letters() else f"[{ord(letter):04X}]" for letter in composed)


@cache
def _letters() -> frozenset[int]:
    from matplotlib.font_manager import findfont, get_font

    return frozenset(get_font(findfont(_FONT)).get_charmap())


def short(name: str, width: int = 22) -> str:
    """The first of a synset's names, as it can be drawn, cut to this number of characters."""
    first = drawable(name.partition(",")[0]) or drawable(name)
    if len(first) <= width:
        return first
    return textwrap.shorten(first, width, placeholder="…") if " " in first[:width] else f"{first[: width - 1]}…"


def percent(share: float) -> str:
    """A share as people read it: two digits, and never 0% or 100% of what is not."""
    digits = 0 if share in (0, 1) else 1 if share < 0.0995 or share > 0.99 else 0
    shown = f"{share:.{digits}%}"
    return {"0.0%": "<0.1%", "100.0%": ">99.9%"}.get(shown, shown)


def thumbnail(pixels: UInt8[np.ndarray, "h w 3"], side_px: int = 176) -> UInt8[np.ndarray, "side side 3"]:
    """A square picture made smaller, as small as it is drawn."""
    from PIL import Image

    return np.asarray(Image.fromarray(pixels).resize((side_px, side_px), Image.Resampling.LANCZOS))


def show_image(axes: "Axes", pixels: UInt8[np.ndarray, "h w 3"]) -> None:
    """Draws pixels as they are."""
    axes.imshow(pixels, interpolation="none")
    axes.axis("off")


def whole_numbers(axis: Any) -> None:
    """Puts ticks at whole numbers only."""
    from matplotlib.ticker import MaxNLocator

    axis.set_major_locator(MaxNLocator(integer=True, min_n_ticks=1))
