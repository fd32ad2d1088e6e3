"""The embedded catalogue: which drawn products it has, how they are photographed and how it comes to disk."""

from __future__ import annotations

import contextlib
import csv
import io
import itertools
import json
import operator
import os
import shutil
import uuid
from collections.abc import Callable

import numpy as np
from PIL import Image, ImageDraw, ImageFilter

from eet_tf.data.catalog import Catalog, CatalogError
from eet_tf.data.drawing import COLOURS, EMBLEMS, PATTERNS, SHAPES, draw_product

_FORMAT = 1  # raised when the same arguments would draw other photos, so that an old folder is not reused
_PROPERTIES = {"shape": tuple(SHAPES), "colour": tuple(COLOURS), "pattern": tuple(PATTERNS), "emblem": tuple(EMBLEMS)}
_MAX_PRODUCTS = 2000
_FAMILY_SIZE = 6


def make_synthetic_catalog(
    folder: str | os.PathLike[str],
    num_products: int = 120,
    photos_per_product: int = 10,
    image_size: int = 96,
    seed: int = 0,
    test_share: float = 0.5,
) -> Catalog:
    """Draws a catalogue of product photos, so that everything runs with no download.

    A product is a combination of shape, colour, pattern and emblem. Products come in families of six that
    share all but one property with the first, so they are easily confused. Each photo has its own place,
    scale, rotation, background, light, occlusion, blur and noise. The same arguments draw the same bytes.

    - `folder` is missing or empty: draws beside it and renames, so a killed drawing leaves at most a
      `<folder>.drawing-...` next to it, which may be deleted.
    - `folder` holds a catalogue drawn with the same arguments: returns it, draws nothing.
    - `folder` holds anything else: refuses, and touches nothing.

    Args:
        folder: where `catalog.csv` (path, sku, category, split, shape, colour, pattern, emblem) and the JPEG files
            in `photos/` go.
        num_products: how many products, 4 to 2000.
        photos_per_product: how many photos of each, 2 or more.
        image_size: width and height of a photo in pixels, 32 or more.
        seed: chooses the products and everything about the photos.
        test_share: share of the products in the split `"test"`; the others are `"train"`. At least two
            products stay on either side.

    Returns:
        A `Catalog` with categories (the shape), attributes and the splits `"train"` and `"test"`, no product in both.

    Raises:
        ValueError: if an argument is out of its range.
        CatalogError: if `folder` holds something else, or a drawn catalogue that was changed since.

    Example:

    >>> import tempfile
    >>> catalog = make_synthetic_catalog(tempfile.mkdtemp(), num_products=4, photos_per_product=2, image_size=32)
    >>> len(catalog), catalog.num_classes, sorted(catalog.attributes)
    (8, 4, ['colour', 'emblem', 'pattern', 'shape'])
    """
    arguments = {
        "format": _FORMAT,
        "num_products": _integer("num_products", num_products, 4, _MAX_PRODUCTS),
        "photos_per_product": _integer("photos_per_product", photos_per_product, 2),
        "image_size": _integer("image_size", image_size, 32),
        "seed": _integer("seed", seed, 0),
        "num_test": _num_test(num_products, test_share),
    }
    folder = os.fspath(folder)
    products = _choose_products(arguments["num_products"], arguments["num_test"], arguments["seed"])
    catalog = _list_photos(folder, products, arguments)
    if not _is_drawn(folder, catalog, arguments):
        _draw_aside(folder, products, catalog, arguments)
    return catalog


# Arguments


def _integer(name: str, value: int, least: int, most: int | None = None) -> int:
    limits = f"{least} or more" if most is None else f"from {least} to {most}"
    with contextlib.suppress(TypeError):
        number = operator.index(value)
        if number >= least and (most is None or number <= most):
            return number
    raise ValueError(f"`{name}` must be an integer, {limits}. Received: {name}={value!r}.")


def _num_test(num_products: int, test_share: float) -> int:
    if 0 < test_share < 1:
        num_test = round(test_share * num_products)
        if 2 <= num_test <= num_products - 2:
            return num_test
    raise ValueError(
        f"`test_share` must be between 0 and 1 and leave two products or more on either side of {num_products}. "
        f"Received: test_share={test_share!r}."
    )


# Products


def _choose_products(num_products: int, num_test: int, seed: int) -> list[tuple[str, ...]]:
    """The training products, then the test products: unique combinations of properties, in families."""
    rng = np.random.default_rng(seed)
    everything = list(itertools.product(*_PROPERTIES.values()))
    bases = iter([everything[row] for row in rng.permutation(len(everything))])
    chosen: dict[tuple[str, ...], None] = {}
    for num_wanted in (num_products - num_test, num_products):
        while len(chosen) < num_wanted:
            family = [product for product in _family(next(bases), rng) if product not in chosen]
            chosen.update(dict.fromkeys(family[: min(_FAMILY_SIZE, num_wanted - len(chosen))]))
    return list(chosen)


def _family(base: tuple[str, ...], rng: np.random.Generator) -> list[tuple[str, ...]]:
    """A product and, in random order, every product that differs from it in one property."""
    others = [
        (*base[:position], value, *base[position + 1 :])
        for position, values in enumerate(_PROPERTIES.values())
        for value in values
        if value != base[position]
    ]
    return [base] + [others[row] for row in rng.permutation(len(others))]


def _list_photos(folder: str, products: list[tuple[str, ...]], arguments: dict[str, int]) -> Catalog:
    num_photos, num_train = arguments["photos_per_product"], arguments["num_products"] - arguments["num_test"]
    splits = ["train"] * num_train + ["test"] * arguments["num_test"]
    columns = {name: np.repeat(column, num_photos) for name, column in zip(_PROPERTIES, zip(*products))}
    skus = np.repeat(["-".join(product) for product in products], num_photos)
    return Catalog(
        paths=np.array([f"photos/{sku}-{row % num_photos:02d}.jpg" for row, sku in enumerate(skus)]),
        skus=skus,
        categories=columns["shape"],
        attributes=columns,
        splits=np.repeat(splits, num_photos),
        root=folder,
        source=os.path.join(folder, "catalog.csv"),
        lines=np.arange(2, len(skus) + 2),
    )


# Disk


def _as_csv(catalog: Catalog) -> str:
    text = io.StringIO()
    writer = csv.writer(text, lineterminator="\n")
    writer.writerow(["path", "sku", "category", "split", *catalog.attributes])
    columns = (catalog.paths, catalog.skus, catalog.categories, catalog.splits, *catalog.attributes.values())
    writer.writerows(zip(*[np.asarray(column) for column in columns]))
    return text.getvalue()


def _read(folder: str, name: str) -> str | None:
    with contextlib.suppress(OSError, UnicodeDecodeError), open(os.path.join(folder, name), encoding="utf-8") as file:
        return file.read()
    return None


def _as_json(arguments: dict[str, int]) -> str:
    return json.dumps(arguments, indent=2) + "\n"


def _named(arguments: dict[str, int]) -> str:
    return ", ".join(f"{name}={value}" for name, value in arguments.items() if name != "format")


def _is_drawn(folder: str, catalog: Catalog, arguments: dict[str, int]) -> bool:
    """True if the very catalogue is there, False if there is nothing; raises for everything else."""
    if not os.path.lexists(folder) or (os.path.isdir(folder) and not os.listdir(folder)):
        return False
    if _read(folder, "synthetic.json") != _as_json(arguments):
        raise CatalogError(
            f"{folder!r} must be missing, empty or hold a synthetic catalogue drawn with the same arguments. "
            f"It holds something else. Give another folder to draw anew with {_named(arguments)}."
        )
    if _read(folder, "catalog.csv") != _as_csv(catalog):
        raise CatalogError(f"{catalog.source!r} was changed after it was drawn. Give another folder to draw it anew.")
    try:
        catalog.check_files()
    except CatalogError as error:
        raise CatalogError(f"{folder!r} is no longer whole: {error} Or give another folder to draw it anew.") from error
    return True


def _draw_aside(folder: str, products: list[tuple[str, ...]], catalog: Catalog, arguments: dict[str, int]) -> None:
    """Draws into a sibling of `folder` and renames it at the end; removes it if interrupted."""
    target = os.path.realpath(folder)
    aside = f"{target}.drawing-{uuid.uuid4().hex[:8]}"
    try:
        os.makedirs(os.path.join(aside, "photos"))
        _draw_photos(aside, products, catalog.paths, arguments)
        for name, text in (("catalog.csv", _as_csv(catalog)), ("synthetic.json", _as_json(arguments))):
            with open(os.path.join(aside, name), "w", encoding="utf-8", newline="") as file:
                file.write(text)
        _put_in_place(aside, target, catalog, arguments)
    finally:
        shutil.rmtree(aside, ignore_errors=True)


def _put_in_place(aside: str, target: str, catalog: Catalog, arguments: dict[str, int]) -> None:
    with contextlib.suppress(OSError):
        os.rmdir(target)  # only ever removes an empty folder, which Windows does not rename over
    try:
        os.rename(aside, target)
    except OSError as error:
        if not _is_drawn(target, catalog, arguments):  # another process may have drawn the same meanwhile
            raise CatalogError(f"{target!r} cannot be replaced ({error}). Give a new folder inside it.") from error


def _draw_photos(folder: str, products: list[tuple[str, ...]], paths: np.ndarray, arguments: dict[str, int]) -> None:
    """Every photo has a generator of its own: asking for more photos leaves the first ones as they were."""
    num_photos, size = arguments["photos_per_product"], arguments["image_size"]
    for row, path in enumerate(paths):
        product, photo = divmod(row, num_photos)
        if photo == 0:
            shape, colour, pattern, emblem = products[product]
            drawn = draw_product(shape, colour, pattern, emblem, size=2 * size)
        picture = _photograph(drawn, size, np.random.default_rng([arguments["seed"], product, photo]))
        picture.save(os.path.join(folder, path), quality=88)


# Photos. Scenes are made at twice the size and reduced.


def _photograph(product: Image.Image, size: int, rng: np.random.Generator) -> Image.Image:
    """One photo of a drawn product: background, shadow, product, something in front, light, blur and noise."""
    scene = _pick(_BACKGROUNDS, rng)(rng, 2 * size)
    placed, centre, extent = _place(product, rng)
    _cast_shadow(scene, placed.getchannel("A"), rng)
    scene.paste(placed, mask=placed.getchannel("A"))
    if rng.random() < 0.5:
        angle, distance = rng.uniform(0, 2 * np.pi), extent * rng.uniform(0.28, 0.46)
        away = np.array([np.cos(angle), np.sin(angle)])
        _pick(_OCCLUDERS, rng)(ImageDraw.Draw(scene), centre + distance * away, away, extent, rng)
    photo = scene.reduce(2)
    if rng.random() < 0.4:
        photo = photo.filter(ImageFilter.GaussianBlur(rng.uniform(0.2, 0.9) * size / 96))
    return _light(photo, rng)


def _pick(choices: tuple[Callable, ...], rng: np.random.Generator) -> Callable:
    return choices[rng.integers(len(choices))]


def _place(product: Image.Image, rng: np.random.Generator) -> tuple[Image.Image, np.ndarray, float]:
    """Turns, shrinks and shifts the product in the frame; returns it, its centre and its extent in pixels."""
    size = product.width
    angle, scale, narrow = np.deg2rad(rng.uniform(-35, 35)), rng.uniform(0.64, 0.94), rng.uniform(0.8, 1.0)
    centre = size / 2 + size * rng.uniform(-0.42, 0.42, 2) * (1.06 - scale)
    turn = np.array([[np.cos(angle), -np.sin(angle)], [np.sin(angle), np.cos(angle)]])
    backwards = np.linalg.inv(turn @ np.diag([scale * narrow, scale]))
    offset = size / 2 - backwards @ centre
    rows = (*backwards[0], offset[0], *backwards[1], offset[1])
    return product.transform(product.size, Image.Transform.AFFINE, rows, Image.Resampling.BICUBIC), centre, scale * size


def _cast_shadow(scene: Image.Image, mask: Image.Image, rng: np.random.Generator) -> None:
    size = scene.width
    shift = (round(size * rng.uniform(-0.04, 0.04)), round(size * rng.uniform(0.01, 0.05)))
    shadow = Image.new("L", scene.size)
    shadow.paste(mask.point(lambda value: value // 2), shift)
    scene.paste((10, 10, 20), mask=shadow.filter(ImageFilter.BoxBlur(size * rng.uniform(0.01, 0.04))))


def _light(photo: Image.Image, rng: np.random.Generator) -> Image.Image:
    """Brightness, colour temperature, a gradient across the frame and sensor noise."""
    along = np.linspace(-1, 1, photo.width, dtype=np.float32)
    angle, warmth, tint = rng.uniform(0, 2 * np.pi), rng.uniform(-0.13, 0.13), rng.uniform(-0.05, 0.05)
    slope = rng.uniform(0, 0.3) * (np.cos(angle) * along[None, :] + np.sin(angle) * along[:, None])
    gains = np.exp(rng.uniform(-0.4, 0.22)) * np.array([1 + warmth, 1 + tint, 1 - warmth], dtype=np.float32)
    pixels = np.asarray(photo, dtype=np.float32) * (1 + slope[..., None]) * gains
    pixels += rng.uniform(0, 7) * rng.standard_normal(pixels.shape, dtype=np.float32)
    return _image(pixels)


def _backdrop_colour(rng: np.random.Generator) -> np.ndarray:
    """Any brightness, mostly muted."""
    return np.clip(rng.uniform(50, 235) + rng.uniform(-32, 32, 3), 0, 255)


def _image(pixels: np.ndarray) -> Image.Image:
    return Image.fromarray(np.clip(pixels, 0, 255).astype(np.uint8))


def _plain(rng: np.random.Generator, size: int) -> Image.Image:
    return Image.new("RGB", (size, size), tuple(int(channel) for channel in _backdrop_colour(rng)))


def _gradient(rng: np.random.Generator, size: int) -> Image.Image:
    first, second, angle = _backdrop_colour(rng), _backdrop_colour(rng), rng.uniform(0, 2 * np.pi)
    along = np.linspace(-0.5, 0.5, size)
    mix = 0.5 + 0.7 * (np.cos(angle) * along[None, :, None] + np.sin(angle) * along[:, None, None])
    return _image(first + (second - first) * mix)


def _mottled(rng: np.random.Generator, size: int) -> Image.Image:
    cells = int(rng.integers(4, 16))
    spots = _backdrop_colour(rng) + rng.normal(0, 28, (cells, cells, 1)) + rng.normal(0, 8, (cells, cells, 3))
    return _image(spots).resize((size, size), Image.Resampling.BICUBIC)


def _planks(rng: np.random.Generator, size: int) -> Image.Image:
    """Boards side by side or above each other, each of its own brightness, with grain."""
    num_boards, along = int(rng.integers(3, 8)), np.arange(size)
    board = along * num_boards // size
    level = rng.normal(0, 14, num_boards)[board] - 40 * (along * num_boards % size < num_boards * 2)
    grain = np.asarray(_image(128 + rng.normal(0, 14, (size // 2, 6))).resize((size, size)), dtype=np.float64) - 128
    pixels = _backdrop_colour(rng) + (level[:, None] + grain)[..., None]
    return _image(pixels if rng.random() < 0.5 else pixels.transpose(1, 0, 2))


def _tiles(rng: np.random.Generator, size: int) -> Image.Image:
    cell, colours = size / rng.uniform(3, 9), np.stack([_backdrop_colour(rng)] * 2) + rng.normal(0, 22, (2, 3))
    along = ((np.arange(size) + rng.uniform(0, size)) / cell).astype(int)
    return _image(colours[(along[None, :] + along[:, None]) % 2])


def _clutter(rng: np.random.Generator, size: int) -> Image.Image:
    """Things of all colours lying about."""
    scene = _gradient(rng, size)
    draw = ImageDraw.Draw(scene)
    for _ in range(rng.integers(8, 22)):
        x, y = rng.uniform(0, size, 2)
        width, height = size * rng.uniform(0.04, 0.22, 2)
        colour = tuple(int(channel) for channel in rng.uniform(20, 245, 3))
        outline = draw.ellipse if rng.random() < 0.5 else draw.rectangle
        outline((x - width, y - height, x + width, y + height), fill=colour)
    return scene.filter(ImageFilter.BoxBlur(size * rng.uniform(0, 0.02)))


_BACKGROUNDS = (_plain, _gradient, _mottled, _planks, _tiles, _clutter)


# Things in front. Each covers a spot at the product's rim; `away` points from the product to there.


def _sticker(
    draw: ImageDraw.ImageDraw, spot: np.ndarray, away: np.ndarray, extent: float, rng: np.random.Generator
) -> None:
    colour = tuple(int(channel) for channel in rng.uniform(30, 250, 3))
    radius, turn = extent * rng.uniform(0.09, 0.16), rng.uniform(0, 360)
    draw.regular_polygon((*spot, 1.25 * radius), 4, rotation=turn, fill=(250, 250, 250))
    draw.regular_polygon((*spot, 1.05 * radius), 4, rotation=turn, fill=colour)


def _fingers(
    draw: ImageDraw.ImageDraw, spot: np.ndarray, away: np.ndarray, extent: float, rng: np.random.Generator
) -> None:
    """A hand that reaches in: fingers side by side, each with a round tip."""
    skin = np.array([236, 190, 160]) * rng.uniform(0.45, 1.0)
    aside = np.array([-away[1], away[0]])
    width = extent * rng.uniform(0.07, 0.1)
    for finger, reach in enumerate((0.1, 0.0, 0.05)[: rng.integers(2, 4)]):
        tip = spot + (finger - 1) * 1.05 * width * aside + reach * extent * away
        colour = tuple(int(channel) for channel in skin * (1 - 0.06 * finger))
        draw.line([tuple(tip), tuple(tip + 2 * extent * away)], fill=colour, width=round(width))
        draw.ellipse((*(tip - width / 2), *(tip + width / 2)), fill=colour)


def _strap(
    draw: ImageDraw.ImageDraw, spot: np.ndarray, away: np.ndarray, extent: float, rng: np.random.Generator
) -> None:
    """A band right across the frame, past the product's middle."""
    across = 2 * extent * np.array([-away[1], away[0]])
    colour = tuple(int(channel) for channel in rng.uniform(20, 235, 3))
    draw.line([tuple(spot - across), tuple(spot + across)], fill=colour, width=round(extent * rng.uniform(0.06, 0.14)))


_OCCLUDERS = (_sticker, _fingers, _strap)
