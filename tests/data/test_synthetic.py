"""The embedded catalogue: the same bytes again, no product on both sides, never half drawn, not solved by pixels."""

import csv
import itertools
import os
import pathlib
import subprocess
import sys

import numpy as np
import pytest
from PIL import Image

from eet_tf.data import drawing, synthetic
from eet_tf.data.catalog import CatalogError
from eet_tf.data.synthetic import make_synthetic_catalog

SMALL = {"num_products": 5, "photos_per_product": 2, "image_size": 32}


def contents(folder):
    """Every file below a folder with its bytes."""
    folder = pathlib.Path(folder)
    return {str(file.relative_to(folder)): file.read_bytes() for file in folder.rglob("*") if file.is_file()}


def properties(catalog):
    """One row of properties per product, in the order of `label_skus`."""
    _, first = np.unique(catalog.labels, return_index=True)
    return np.stack(list(catalog.attributes.values()), axis=1)[first]


@pytest.fixture(scope="module")
def catalog(tmp_path_factory):
    """Forty products; large enough that every family is whole."""
    folder = tmp_path_factory.mktemp("synthetic") / "forty"
    return make_synthetic_catalog(folder, num_products=40, photos_per_product=6, image_size=48)


def test_same_arguments_draw_the_same_bytes(tmp_path):
    make_synthetic_catalog(tmp_path / "one", **SMALL, seed=3)
    np.random.seed(123)
    make_synthetic_catalog(tmp_path / "two", **SMALL, seed=3)
    assert contents(tmp_path / "one") == contents(tmp_path / "two")


def test_global_random_state_is_left_alone(tmp_path):
    np.random.seed(7)
    expected = np.random.random()
    np.random.seed(7)
    make_synthetic_catalog(tmp_path / "one", **SMALL)
    assert np.random.random() == expected


def test_other_seed_draws_other_products_and_photos(tmp_path):
    one = make_synthetic_catalog(tmp_path / "one", **SMALL, seed=0)
    two = make_synthetic_catalog(tmp_path / "two", **SMALL, seed=1)
    assert set(one.skus) != set(two.skus)
    assert not set(contents(tmp_path / "one").values()) & set(contents(tmp_path / "two").values())


def test_more_photos_leave_the_first_ones_as_they_were(tmp_path):
    make_synthetic_catalog(tmp_path / "two", **SMALL)
    make_synthetic_catalog(tmp_path / "three", **{**SMALL, "photos_per_product": 3})
    two, three = contents(tmp_path / "two"), contents(tmp_path / "three")
    photos = [name for name in two if name.endswith(".jpg")]
    assert len(photos) == 10
    assert all(two[name] == three[name] for name in photos)


def test_no_two_photos_are_the_same(catalog):
    assert len({pathlib.Path(file).read_bytes() for file in catalog.files}) == len(catalog)


def test_photos_are_rgb_jpeg_of_the_size_asked_for(catalog):
    for file in catalog.files[::17]:
        with Image.open(file) as photo:
            assert (photo.format, photo.mode, photo.size) == ("JPEG", "RGB", (48, 48))


def test_counts(catalog):
    assert (len(catalog), catalog.num_classes) == (240, 40)
    assert np.bincount(catalog.labels).tolist() == [6] * 40


def test_no_product_is_on_both_sides(catalog):
    train, test = set(catalog.split("train").skus), set(catalog.split("test").skus)
    assert (len(train), len(test)) == (20, 20)
    assert not train & test


def test_test_share(tmp_path):
    drawn = make_synthetic_catalog(tmp_path / "drawn", 10, 2, 32, test_share=0.2)
    assert (drawn.split("train").num_classes, drawn.split("test").num_classes) == (8, 2)


def test_products_are_unique_combinations(catalog):
    assert len({tuple(product) for product in properties(catalog)}) == catalog.num_classes


def test_every_property_is_filled_in_and_names_the_product(catalog):
    assert list(catalog.attributes) == ["shape", "colour", "pattern", "emblem"]
    assert all((column != "").all() for column in catalog.attributes.values())
    assert catalog.skus.tolist() == ["-".join(product) for product in zip(*catalog.attributes.values())]
    assert catalog.categories.tolist() == catalog.attributes["shape"].tolist()


@pytest.mark.parametrize("split", ["train", "test"])
def test_products_have_twins_that_differ_in_one_property(catalog, split):
    """Families of six: 20 products are 6 + 6 + 6 + 2, and every one has its base or a variant beside it."""
    products = properties(catalog.split(split))
    differing = (products[:, None] != products[None]).sum(axis=2)
    assert ((differing == 1).sum(axis=1) >= 1).all()


def test_all_products_that_can_be_asked_for_are_unique():
    products = synthetic._choose_products(2000, 1000, seed=0)
    assert len(set(products)) == 2000


def test_csv_lists_what_the_catalog_holds(catalog):
    with open(catalog.source, encoding="utf-8", newline="") as file:
        rows = list(csv.DictReader(file))
    assert list(rows[0]) == ["path", "sku", "category", "split", "shape", "colour", "pattern", "emblem"]
    assert [row["path"] for row in rows] == catalog.paths.tolist()
    assert [row["sku"] for row in rows] == catalog.skus.tolist()
    assert [row["split"] for row in rows] == catalog.splits.tolist()
    assert [row["emblem"] for row in rows] == catalog.attributes["emblem"].tolist()
    catalog.check_files().check_trainable()


@pytest.mark.parametrize("pattern", ["plain", "checks"])
@pytest.mark.parametrize("shape", list(drawing.SHAPES))
def test_a_drawn_product_fills_its_canvas(shape, pattern):
    """Each silhouette covers 35 % to 90 % of its canvas: visible at 64 pixels, and not just a square."""
    alpha = np.asarray(drawing.draw_product(shape, "teal", pattern, "star", size=64).getchannel("A"))
    assert 0.35 < (alpha > 127).mean() < 0.9


@pytest.mark.parametrize(
    "position, values",
    list(enumerate([drawing.SHAPES, drawing.COLOURS, drawing.PATTERNS, drawing.EMBLEMS])),
    ids=["shape", "colour", "pattern", "emblem"],
)
def test_every_property_shows(position, values):
    """Two products that differ in one property differ by 64 of 255 in 2 % of the values at 64 pixels at least."""
    pictures = []
    for value in values:
        product = ["mug", "blue", "dots", "ring"]
        product[position] = value
        pictures.append(np.asarray(drawing.draw_product(*product, size=64), dtype=np.int32))
    for one, two in itertools.combinations(pictures, 2):
        assert (np.abs(one - two)[..., :3] > 64).mean() > 0.02


def test_pixels_do_not_solve_it(catalog):
    """Leave-one-out R@1 of centred 12 x 12 pixels: chance is 5 / 119 = 4 %, a photo in the same frame gives 100 %."""
    test = catalog.split("test")
    photos = [Image.open(file).resize((12, 12), Image.Resampling.BOX) for file in test.files]
    pixels = np.stack([np.asarray(photo, dtype=np.float64).reshape(-1) for photo in photos])
    pixels -= pixels.mean(axis=1, keepdims=True)
    pixels /= np.linalg.norm(pixels, axis=1, keepdims=True)
    scores = pixels @ pixels.T
    np.fill_diagonal(scores, -np.inf)
    assert (test.labels[scores.argmax(axis=1)] == test.labels).mean() < 0.35


def test_a_finished_folder_is_reused_without_drawing(tmp_path, monkeypatch):
    drawn = make_synthetic_catalog(tmp_path / "drawn", **SMALL)
    monkeypatch.setattr(synthetic, "draw_product", None)
    again = make_synthetic_catalog(str(tmp_path / "drawn"), **SMALL)
    assert again.files.tolist() == drawn.files.tolist()
    assert again.skus.tolist() == drawn.skus.tolist()
    assert again.splits.tolist() == drawn.splits.tolist()


def test_an_empty_folder_and_missing_parents_are_filled(tmp_path):
    (tmp_path / "empty").mkdir()
    assert len(make_synthetic_catalog(tmp_path / "empty", **SMALL).check_files()) == 10
    assert len(make_synthetic_catalog(tmp_path / "new" / "deep", **SMALL).check_files()) == 10
    assert sorted(os.listdir(tmp_path)) == ["empty", "new"]


def test_relative_folder(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    assert len(make_synthetic_catalog("here", **SMALL).check_files()) == 10
    assert os.listdir(tmp_path) == ["here"]


def test_a_foreign_folder_is_refused_and_left_alone(tmp_path):
    folder = tmp_path / "holiday"
    folder.mkdir()
    (folder / "beach.jpg").write_bytes(b"precious")
    with pytest.raises(CatalogError, match="holiday.*something else.*another folder"):
        make_synthetic_catalog(folder, **SMALL)
    assert contents(tmp_path) == {os.path.join("holiday", "beach.jpg"): b"precious"}


def test_a_file_in_the_place_of_the_folder_is_refused(tmp_path):
    (tmp_path / "notes").write_bytes(b"precious")
    with pytest.raises(CatalogError, match="notes"):
        make_synthetic_catalog(tmp_path / "notes", **SMALL)
    assert contents(tmp_path) == {"notes": b"precious"}


@pytest.mark.parametrize(
    "other", [{"seed": 1}, {"num_products": 6}, {"photos_per_product": 3}, {"image_size": 33}, {"test_share": 0.6}]
)
def test_other_arguments_are_refused(tmp_path, other):
    make_synthetic_catalog(tmp_path / "drawn", **SMALL)
    before = contents(tmp_path)
    with pytest.raises(CatalogError, match="drawn.*same arguments"):
        make_synthetic_catalog(tmp_path / "drawn", **{**SMALL, **other})
    assert contents(tmp_path) == before


def test_a_deleted_photo_is_named(tmp_path):
    drawn = make_synthetic_catalog(tmp_path / "drawn", **SMALL)
    os.remove(drawn.files[4])
    with pytest.raises(CatalogError, match=os.path.basename(drawn.files[4]) + ".*draw it anew"):
        make_synthetic_catalog(tmp_path / "drawn", **SMALL)


def test_an_edited_list_is_named(tmp_path):
    drawn = make_synthetic_catalog(tmp_path / "drawn", **SMALL)
    with open(drawn.source, "a", encoding="utf-8") as file:
        file.write("photos/mine.jpg,mine,mug,train,mug,red,plain,star\n")
    with pytest.raises(CatalogError, match="catalog.csv.*changed"):
        make_synthetic_catalog(tmp_path / "drawn", **SMALL)


def test_an_interrupted_drawing_leaves_nothing(tmp_path, monkeypatch):
    left = iter(range(3))

    def draw_then_stop(*product, size):
        if next(left) == 2:
            raise KeyboardInterrupt
        return drawing.draw_product(*product, size=size)

    monkeypatch.setattr(synthetic, "draw_product", draw_then_stop)
    with pytest.raises(KeyboardInterrupt):
        make_synthetic_catalog(tmp_path / "drawn", **SMALL)
    assert os.listdir(tmp_path) == []


def test_a_killed_drawing_looks_unfinished_and_is_drawn_anew(tmp_path):
    """The process is killed once its first photo is on disk: far from the 4,000 that it was asked for."""
    code = f"from eet_tf.data.synthetic import *; make_synthetic_catalog({str(tmp_path / 'drawn')!r}, 400, 10, 32)"
    process = subprocess.Popen([sys.executable, "-c", code], cwd=pathlib.Path(synthetic.__file__).parents[2])
    while process.poll() is None and not list(tmp_path.glob("*/photos/*.jpg")):
        pass
    process.kill()
    process.wait()
    assert list(tmp_path.glob("drawn.drawing-*/photos/*.jpg"))
    assert not (tmp_path / "drawn").exists()
    assert not list(tmp_path.glob("*/synthetic.json"))
    assert len(make_synthetic_catalog(tmp_path / "drawn", **SMALL).check_files()) == 10


def test_two_processes_that_draw_the_same_agree(tmp_path, monkeypatch):
    """The other one finishes first: its folder is kept, and nothing is left beside it."""
    draw_photos = synthetic._draw_photos

    def draw_slowly(*arguments):
        monkeypatch.setattr(synthetic, "_draw_photos", draw_photos)
        make_synthetic_catalog(tmp_path / "drawn", **SMALL)
        draw_photos(*arguments)

    monkeypatch.setattr(synthetic, "_draw_photos", draw_slowly)
    assert len(make_synthetic_catalog(tmp_path / "drawn", **SMALL).check_files()) == 10
    assert os.listdir(tmp_path) == ["drawn"]


@pytest.mark.parametrize(
    "name, value",
    [
        ("num_products", 3),
        ("num_products", 2001),
        ("num_products", 4.0),
        ("num_products", "120"),
        ("photos_per_product", 1),
        ("photos_per_product", None),
        ("image_size", 31),
        ("seed", -1),
        ("seed", None),
        ("test_share", 0.0),
        ("test_share", 1),
        ("test_share", 0.1),
        ("test_share", 0.9),
        ("test_share", float("nan")),
    ],
)
def test_arguments_out_of_range(tmp_path, name, value):
    """A share of 0.1 of five products is none of them, and 0.9 leaves one."""
    with pytest.raises(ValueError, match=rf"^`{name}` must be .* Received: {name}={value!r}\.$"):
        make_synthetic_catalog(tmp_path / "drawn", **{**SMALL, name: value})
    assert os.listdir(tmp_path) == []


def test_numpy_integers_are_integers(tmp_path):
    drawn = make_synthetic_catalog(tmp_path / "drawn", np.int64(4), np.int32(2), np.uint8(32), np.int64(0))
    again = make_synthetic_catalog(tmp_path / "drawn", 4, 2, 32, 0)
    assert drawn.files.tolist() == again.files.tolist()
