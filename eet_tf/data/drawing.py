"""How a drawn product looks: its silhouette, colours, pattern and emblem, on a canvas of 100 x 100 units."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
from PIL import Image, ImageChops, ImageDraw

_UNITS = 100
_CREAM = (252, 248, 236)
_PERIOD = 20.0

# The body's colour and the second colour, far enough apart that a pattern shows in any light.
COLOURS = {
    "red": ((206, 52, 48), (252, 214, 190)),
    "orange": ((240, 128, 36), (255, 236, 196)),
    "yellow": ((246, 206, 60), (132, 82, 30)),
    "green": ((66, 142, 70), (206, 236, 160)),
    "teal": ((12, 150, 138), (186, 244, 220)),
    "blue": ((38, 74, 186), (172, 208, 252)),
    "purple": ((120, 72, 168), (238, 200, 244)),
    "pink": ((244, 142, 178), (148, 30, 88)),
    "brown": ((118, 74, 46), (236, 200, 150)),
    "grey": ((74, 76, 80), (218, 222, 226)),
}


class _Pen:
    """Draws on one layer (a mask of `size` pixels) in canvas units.

    Args:
        size: width and height of the layer in pixels.
    """

    def __init__(self, size: int):
        self.layer = Image.new("L", (size, size))
        self._draw = ImageDraw.Draw(self.layer)
        self._scale = size / _UNITS

    def _pixels(self, points) -> list[tuple[float, float]]:
        return [(x, y) for x, y in (np.asarray(points, dtype=np.float64) * self._scale).reshape(-1, 2).tolist()]

    def polygon(self, points: Sequence | np.ndarray, fill: int = 255) -> None:
        self._draw.polygon(self._pixels(points), fill=fill)

    def blob(self, points: Sequence, fill: int = 255) -> None:
        """A polygon with its corners rounded off."""
        self.polygon(_rounded(points), fill)

    def ellipse(self, box: Sequence[float], fill: int = 255) -> None:
        self._draw.ellipse(self._pixels(box), fill=fill)

    def box(self, box: Sequence[float], radius: float = 0.0, fill: int = 255) -> None:
        self._draw.rounded_rectangle(self._pixels(box), radius=radius * self._scale, fill=fill)

    def line(self, points: Sequence | np.ndarray, width: float, fill: int = 255) -> None:
        self._draw.line(self._pixels(points), fill=fill, width=max(1, round(width * self._scale)), joint="curve")

    def arc(self, box: Sequence[float], start: float, end: float, width: float, fill: int = 255) -> None:
        self._draw.arc(self._pixels(box), start, end, fill=fill, width=max(1, round(width * self._scale)))


def _rounded(points: Sequence, rounds: int = 3) -> np.ndarray:
    """Chaikin's corner cutting: every round replaces a corner by two points on its sides."""
    points = np.asarray(points, dtype=np.float64)
    for _ in range(rounds):
        following = np.roll(points, -1, axis=0)
        points = np.stack([0.75 * points + 0.25 * following, 0.25 * points + 0.75 * following], axis=1).reshape(-1, 2)
    return points


# Shapes. Each draws the body (takes the pattern), the trim (second colour, over the body) and the shade (dark lines,
# over both), and returns where the emblem's badge goes: centre x, centre y, radius.


def _mug(body: _Pen, trim: _Pen, shade: _Pen) -> tuple[float, float, float]:
    trim.box((52, 30, 95, 76), 20)
    trim.box((60, 39, 86, 67), 13, fill=0)
    trim.box((8, 16, 72, 90), 9, fill=0)
    body.box((8, 16, 72, 90), 9)
    trim.box((8, 14, 72, 22), 4)
    shade.ellipse((12, 15.5, 68, 20.5), fill=150)
    return 40, 56, 22


def _bottle(body: _Pen, trim: _Pen, shade: _Pen) -> tuple[float, float, float]:
    body.box((22, 42, 78, 98), 9)
    body.blob([(22, 66), (22, 36), (42, 32), (42, 14), (58, 14), (58, 32), (78, 36), (78, 66)])
    trim.box((39, 2, 61, 18), 4)
    shade.line([(42, 19), (58, 19)], 2, fill=90)
    shade.line([(46, 5), (46, 15)], 1.2, fill=70)
    shade.line([(54, 5), (54, 15)], 1.2, fill=70)
    return 50, 67, 22


def _jar(body: _Pen, trim: _Pen, shade: _Pen) -> tuple[float, float, float]:
    body.box((14, 24, 86, 96), 20)
    body.box((24, 18, 76, 40), 4)
    trim.box((20, 4, 80, 21), 5)
    for x in range(26, 78, 6):
        shade.line([(x, 7), (x, 19)], 1.2, fill=60)
    shade.line([(24, 22.5), (76, 22.5)], 2, fill=80)
    return 50, 60, 23


def _box(body: _Pen, trim: _Pen, shade: _Pen) -> tuple[float, float, float]:
    top, side = [(6, 30), (24, 10), (95, 10), (77, 30)], [(77, 30), (95, 10), (95, 74), (77, 94)]
    body.polygon([(6, 30), (77, 30), (77, 94), (6, 94)])
    trim.polygon(top)
    trim.polygon(side)
    shade.polygon(side, fill=70)
    shade.line([(42, 29), (60, 11)], 5, fill=45)
    shade.line([(6, 30), (77, 30), (95, 10)], 1.2, fill=80)
    shade.line([(77, 30), (77, 94)], 1.2, fill=80)
    return 41.5, 62, 23


def _bag(body: _Pen, trim: _Pen, shade: _Pen) -> tuple[float, float, float]:
    trim.arc((29, 4, 71, 72), 180, 360, 6)
    trim.polygon([(12, 36), (88, 36), (94, 97), (6, 97)], fill=0)
    body.polygon([(12, 36), (88, 36), (94, 97), (6, 97)])
    trim.polygon([(12, 36), (88, 36), (89, 43), (11, 43)])
    shade.line([(11, 43.5), (89, 43.5)], 1.2, fill=80)
    shade.ellipse((29.5, 37, 34.5, 42), fill=130)
    shade.ellipse((65.5, 37, 70.5, 42), fill=130)
    return 50, 69, 22


def _shirt(body: _Pen, trim: _Pen, shade: _Pen) -> tuple[float, float, float]:
    torso = [(36, 8), (64, 8), (78, 14), (78, 95), (22, 95), (22, 14)]
    left, right = [(24, 13), (32, 36), (16, 50), (1, 38)], [(76, 13), (68, 36), (84, 50), (99, 38)]
    for part in (torso, left, right):
        body.polygon(part)
    for mirror in (1, -1):
        trim.polygon([(50 + mirror * (x - 50), y) for x, y in [(1, 38), (16, 50), (19.5, 46.5), (4, 33.5)]])
        shade.line([(50 + mirror * (x - 50), y) for x, y in [(22, 30), (22, 60)]], 1.2, fill=80)
    trim.ellipse((33, 3, 67, 23))
    shade.ellipse((37, 4, 63, 18), fill=170)
    return 50, 52, 22


def _shoe(body: _Pen, trim: _Pen, shade: _Pen) -> tuple[float, float, float]:
    body.blob([(2, 6), (61, 6), (60, 34), (68, 48), (97, 60), (98, 86), (3, 86), (4, 40)])
    trim.blob([(76, 86), (72, 52), (97, 58), (100, 86)])
    trim.box((2, 79, 99, 92), 5)
    trim.box((3, 7, 60, 14), 3)
    for x, y in [(58, 24), (60, 34), (64, 43), (70, 51)]:
        trim.line([(x - 7, y + 4), (x + 3, y - 2)], 3.2)
        shade.line([(x - 7, y + 6), (x + 3, y)], 1.0, fill=90)
    shade.line([(2, 86), (99, 86)], 1.6, fill=90)
    shade.line([(4, 79), (97, 79)], 1.2, fill=70)
    return 29, 46, 21.5


def _cap(body: _Pen, trim: _Pen, shade: _Pen) -> tuple[float, float, float]:
    body.blob([(6, 90), (4, 34), (26, 10), (60, 10), (82, 34), (80, 90)])
    body.box((0, 76, 100, 100), fill=0)
    trim.blob([(48, 68), (82, 64), (104, 76), (98, 92), (74, 82), (48, 80)])
    trim.box((5.5, 70, 79, 79), 3)
    trim.ellipse((38, 8, 48, 16))
    shade.line([(6, 70), (79, 70)], 1.2, fill=80)
    shade.line(_rounded([(60, 77), (80, 73), (97, 84), (80, 73)]), 1.0, fill=60)
    return 43, 43, 22


SHAPES = {
    "mug": _mug,
    "bottle": _bottle,
    "jar": _jar,
    "box": _box,
    "bag": _bag,
    "shirt": _shirt,
    "shoe": _shoe,
    "cap": _cap,
}

# Patterns: where the second colour goes, from x and y counted in periods.
PATTERNS = {
    "plain": lambda x, y: np.False_,
    "stripes": lambda x, y: x % 1 < 0.42,
    "bands": lambda x, y: y % 1 < 0.42,
    "diagonal": lambda x, y: (0.75 * (x + y)) % 1 < 0.42,
    "checks": lambda x, y: (x % 1 < 0.5) ^ (y % 1 < 0.5),
    "dots": lambda x, y: np.hypot(x % 1 - 0.5, y % 1 - 0.5) < 0.3,
    "zigzag": lambda x, y: (y - 0.8 * np.abs(x % 1 - 0.5)) % 0.8 < 0.34,
    "grid": lambda x, y: (x % 1 < 0.22) | (y % 1 < 0.22),
}


# Emblems: a solid outline and a hole in it (or none), in units of the emblem's radius, y downwards.


def _circle(radius: float = 1.0, x: float = 0.0, y: float = 0.0) -> np.ndarray:
    angle = np.linspace(0, 2 * np.pi, 48, endpoint=False)
    return np.stack([x + radius * np.cos(angle), y + radius * np.sin(angle)], axis=1)


def _star() -> np.ndarray:
    angle = np.pi * np.arange(10) / 5
    radius = np.where(np.arange(10) % 2, 0.44, 1.08)
    return np.stack([radius * np.sin(angle), 0.06 - radius * np.cos(angle)], axis=1)


def _heart() -> np.ndarray:
    angle = np.linspace(0, 2 * np.pi, 48, endpoint=False)
    height = 13 * np.cos(angle) - 5 * np.cos(2 * angle) - 2 * np.cos(3 * angle) - np.cos(4 * angle)
    return np.stack([np.sin(angle) ** 3, -height / 16 - 0.1], axis=1)


def _drop() -> np.ndarray:
    angle = np.linspace(0, 2 * np.pi, 48, endpoint=False)
    return np.stack([0.95 * np.sin(angle) * np.sin(angle / 2) ** 1.4, -np.cos(angle)], axis=1)


def _leaf() -> np.ndarray:
    along = np.linspace(-1, 1, 24)
    across = 0.52 * (1 - along**2)
    outline = np.concatenate([np.stack([along, across], axis=1), np.stack([along, -across], axis=1)[::-1]])
    return outline @ np.array([[0.74, -0.74], [0.74, 0.74]])


def _cross() -> list[tuple[float, float]]:
    arm, end = 0.34, 0.95
    corner = [(arm, -end), (arm, -arm), (end, -arm)]
    return [(x * c - y * s, x * s + y * c) for c, s in [(1, 0), (0, 1), (-1, 0), (0, -1)] for x, y in corner]


_VEIN = [(-0.62, 0.5), (0.42, -0.52), (0.52, -0.42), (-0.5, 0.62)]
_BOLT = [(0.3, -1.05), (-0.62, 0.14), (-0.08, 0.14), (-0.34, 1.05), (0.62, -0.24), (0.06, -0.24)]

EMBLEMS = {
    "star": (_star(), None),
    "heart": (_heart(), None),
    "ring": (_circle(0.95), _circle(0.5)),
    "cross": (_cross(), None),
    "moon": (_circle(1.0), _circle(0.82, 0.45, -0.2)),
    "bolt": (_BOLT, None),
    "leaf": (_leaf(), _VEIN),
    "drop": (_drop(), None),
}


def draw_product(shape: str, colour: str, pattern: str, emblem: str, size: int) -> Image.Image:
    """Draws one product, upright, with nothing behind it.

    Args:
        shape: a key of `SHAPES`.
        colour: a key of `COLOURS`.
        pattern: a key of `PATTERNS`.
        emblem: a key of `EMBLEMS`.
        size: width and height in pixels; drawn at twice that and reduced.

    Returns:
        An RGBA image `[size, size]`, transparent around the product.

    Example:

    >>> draw_product("mug", "teal", "dots", "star", size=64).getpixel((1, 1))
    (0, 0, 0, 0)
    """
    body, trim, shade = _Pen(2 * size), _Pen(2 * size), _Pen(2 * size)
    badge = SHAPES[shape](body, trim, shade)
    first, second = COLOURS[colour]
    picture = _patterned(pattern, first, second, 2 * size)
    ink = tuple(round(0.3 * channel) for channel in min(first, second, key=sum))
    _paint_badge(picture, badge, EMBLEMS[emblem], ink)
    picture.paste(second, mask=trim.layer)
    picture.paste((24, 20, 28), mask=shade.layer)
    picture = _rounded_by_light(picture)
    picture.putalpha(ImageChops.lighter(body.layer, trim.layer))
    return picture.reduce(2)


def _patterned(pattern: str, first: tuple, second: tuple, size: int) -> Image.Image:
    along = (np.arange(size, dtype=np.float32) + 0.5) * (_UNITS / _PERIOD / size)
    mask = np.broadcast_to(PATTERNS[pattern](along[None, :], along[:, None]), (size, size))
    return Image.fromarray(np.where(mask[..., None], np.asarray(second, np.uint8), np.asarray(first, np.uint8)))


def _paint_badge(picture: Image.Image, badge: tuple[float, float, float], emblem: tuple, ink: tuple) -> None:
    """A cream disc with the emblem on it: the emblem shows whatever the pattern beneath."""
    centre, radius = np.array(badge[:2]), badge[2]
    rim, disc, mark = (_Pen(picture.width) for _ in range(3))
    rim.polygon(centre + radius * _circle())
    disc.polygon(centre + 0.92 * radius * _circle())
    for outline, fill in zip(emblem, (255, 0)):
        if outline is not None:
            mark.polygon(centre + 0.68 * radius * np.asarray(outline), fill)
    for pen, colour in ((rim, ink), (disc, _CREAM), (mark, ink)):
        picture.paste(colour, mask=pen.layer)


def _rounded_by_light(picture: Image.Image) -> Image.Image:
    """Brighter left of the middle, darker at the sides and below: a flat drawing looks round."""
    along = np.linspace(0, 1, picture.width, dtype=np.float32)
    light = 1.06 - 0.55 * (along[None, :] - 0.4) ** 2 - 0.14 * along[:, None] ** 2
    return Image.fromarray(np.clip(np.asarray(picture) * light[..., None], 0, 255).astype(np.uint8))
