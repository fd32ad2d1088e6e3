"""CUB's lists and Cars196's MATLAB files as they are published: classes, not photos, are cut into train and test."""

import sys

import numpy as np
import pytest

from eet_tf.data.catalog import CatalogError
from eet_tf.data.fine_grained import load_cars196, load_cub


def touch(folder, paths):
    for path in paths:
        (folder / path).parent.mkdir(parents=True, exist_ok=True)
        (folder / path).write_bytes(b"x")


def write_lines(file, lines, line_end="\n"):
    file.parent.mkdir(parents=True, exist_ok=True)
    file.write_bytes("".join(f"{line}{line_end}" for line in lines).encode())


def replace_line(file, number, line):
    """Puts another line in place of the given one, from 1."""
    lines = file.read_text().split("\n")
    file.write_text("\n".join([*lines[: number - 1], line, *lines[number:]]))


# CUB

CLASSES = {1: "001.Black_footed_Albatross", 9: "009.Brewer_Blackbird", 100: "100.Brown_Pelican"}
CLASSES |= {101: "101.White_Pelican", 200: "200.Common_Yellowthroat"}
IMAGES = {1: 1, 2: 1, 3: 9, 4: 100, 7: 101, 8: 101, 11: 200}  # image: class
PATHS = {image: f"{CLASSES[number]}/Photo_{image:04d}.jpg" for image, number in IMAGES.items()}
ATTRIBUTES = {1: "has_bill_shape::curved_(up_or_in)", 2: "has_bill_shape::dagger", 4: "has_size::small_(5_-_9_in)"}


@pytest.fixture
def cub(tmp_path):
    """Lists with what the published ones have: gaps in the numbers, `train_test_split.txt`, which must not matter."""
    folder = tmp_path / "CUB_200_2011"
    write_lines(folder / "classes.txt", [f"{number} {name}" for number, name in CLASSES.items()])
    write_lines(folder / "images.txt", [f"{image} {path}" for image, path in PATHS.items()])
    write_lines(folder / "image_class_labels.txt", [f"{image} {number}" for image, number in IMAGES.items()])
    write_lines(folder / "train_test_split.txt", [f"{image} {image % 2}" for image in IMAGES])
    touch(folder / "images", PATHS.values())
    return folder


def write_cub_attributes(folder, rows, names_file="attributes/attributes.txt"):
    write_lines(folder / names_file, [f"{number} {name}" for number, name in ATTRIBUTES.items()])
    write_lines(folder / "attributes/image_attribute_labels.txt", rows)


def test_cub(cub):
    catalog = load_cub(str(cub))
    assert catalog.paths.tolist() == list(PATHS.values())
    assert catalog.skus.tolist() == [CLASSES[number] for number in IMAGES.values()]
    assert catalog.splits.tolist() == ["train"] * 4 + ["test"] * 3
    assert catalog.categories is None
    assert catalog.roles is None
    assert catalog.attributes == {}
    assert catalog.check_files() is catalog
    assert catalog.where(4) == f"{cub}/images.txt:5"


def test_cub_lists_in_any_order_with_windows_line_ends(cub):
    """The lists are joined by number: each is written in an order of its own."""
    rng = np.random.default_rng(0)
    plain = load_cub(str(cub))
    for name in ("classes.txt", "images.txt", "image_class_labels.txt"):
        lines = (cub / name).read_text().splitlines()
        write_lines(cub / name, [*(lines[row] for row in rng.permutation(len(lines))), "", "  "], line_end="\r\n")
    catalog = load_cub(str(cub))
    assert catalog.paths.tolist() != plain.paths.tolist()
    for name in ("skus", "splits"):
        expected = dict(zip(plain.paths.tolist(), getattr(plain, name).tolist()))
        assert dict(zip(catalog.paths.tolist(), getattr(catalog, name).tolist())) == expected


@pytest.mark.parametrize("names_file", ["attributes/attributes.txt", "attributes.txt", "../attributes.txt"])
def test_cub_attributes(cub, names_file):
    """Rows in a random order with random answers; three are left out, and some are malformed behind four fields."""
    rng = np.random.default_rng(0)
    expected = {name: dict.fromkeys(IMAGES, "") for name in ATTRIBUTES.values()}
    rows = []
    for image, attribute in rng.permutation([(image, number) for image in IMAGES for number in ATTRIBUTES])[:-3]:
        is_present, certainty = rng.integers(0, 2), rng.integers(1, 5)
        tail = ["5.3", "0 3.094", "", "1 0 12.7", "x"][rng.integers(5)]
        rows.append(f"{image} {attribute} {is_present} {certainty} {tail}")
        expected[ATTRIBUTES[attribute]][image] = "" if certainty == 1 else ["no", "yes"][is_present]
    write_cub_attributes(cub, [*rows, "", "  "], names_file)
    attributes = load_cub(str(cub)).attributes
    assert {name: column.tolist() for name, column in attributes.items()} == {
        name: list(values.values()) for name, values in expected.items()
    }
    assert {value for values in expected.values() for value in values.values()} == {"yes", "no", ""}


def test_cub_attributes_without_their_names(cub):
    write_cub_attributes(cub, ["1 1 1 4 5.3"])
    (cub / "attributes/attributes.txt").unlink()
    message = (
        rf"attributes/attributes\.txt' or '{cub}/attributes\.txt' or '{cub.parent}/attributes\.txt' does not exist"
    )
    with pytest.raises(CatalogError, match=message):
        load_cub(str(cub))


@pytest.mark.parametrize(
    "row",
    ["2 1 1", "2 1 x 4 5.3", "2 1 2 4 5.3", "2 1 0.5 4 5.3", "99 1 1 4 5.3", "2 3 1 4 5.3", "nan 1 1 4", "1_1 1 1 4"],
)
def test_cub_attribute_row_that_cannot_be_used(cub, row):
    """It stands in line 4, behind two rows and a blank line, and before another that is wrong."""
    write_cub_attributes(cub, ["1 1 1 4 5.3", "", "1 2 0 3 5.3", row, "3 1 1 4 5.3", "88 88 8 8"])
    message = rf"image_attribute_labels\.txt:4: a row must begin with .*Received: '{row}'"
    with pytest.raises(CatalogError, match=message):
        load_cub(str(cub))


def test_cub_attribute_list_without_rows(cub):
    write_cub_attributes(cub, [""])
    with pytest.raises(CatalogError, match=r"image_attribute_labels\.txt has no rows"):
        load_cub(str(cub))


def test_cub_attribute_list_without_names(cub):
    write_cub_attributes(cub, ["1 1 1 4 5.3"])
    (cub / "attributes/attributes.txt").write_text("")
    with pytest.raises(CatalogError, match=r"image_attribute_labels\.txt:1: a row must begin with"):
        load_cub(str(cub))


@pytest.mark.parametrize(
    "file, line, row, problem",
    [
        ("images.txt", 2, "2", r"images\.txt:2: a row must have 2 fields. Received: '2'"),
        ("images.txt", 2, "b a.jpg", r"images\.txt:2: a row must begin with a number. Received: 'b a.jpg'"),
        ("images.txt", 3, "1 new.jpg", r"images\.txt:3: number 1 has a second row \(the first is in line 1\)"),
        ("images.txt", 3, f"3 {PATHS[1]}", r"images\.txt:3: photo '001.*' is listed a second time .*images\.txt:1"),
        ("images.txt", 3, "5 new.jpg", r"images\.txt:3: the photo has no class in image_class_labels\.txt"),
        ("images.txt", 3, "3 new.jpg", r"images\.txt:3: photo file '.*/images/new\.jpg' does not exist"),
        ("image_class_labels.txt", 4, "4 55", r"labels\.txt:4: the class must be a number in classes.*Received: '55'"),
        ("image_class_labels.txt", 4, "4 x", r"labels\.txt:4: the class must be a number in classes.*Received: 'x'"),
        ("classes.txt", 3, f"100 {CLASSES[1]}", r"classes\.txt:3: '001.Black_.*' is the name of number 1 too"),
    ],
)
def test_cub_row_that_cannot_be_used(cub, file, line, row, problem):
    replace_line(cub / file, line, row)
    with pytest.raises(CatalogError, match=problem):
        load_cub(str(cub))


@pytest.mark.parametrize("file", ["images.txt", "image_class_labels.txt", "classes.txt"])
def test_cub_missing_list(cub, file):
    (cub / file).unlink()
    with pytest.raises(CatalogError, match=rf"{file}' does not exist\. Check `data_dir`"):
        load_cub(str(cub))


def test_cub_without_photos(cub):
    (cub / "images.txt").write_text("\n")
    with pytest.raises(CatalogError, match=r"images\.txt lists no photos"):
        load_cub(str(cub))


# Cars196

CAR_NAMES = [f"Maker Model {number} Sedan {1990 + number % 23}" for number in range(1, 197)]
CARS = [("car_ims/000001.jpg", 1), ("car_ims/000002.jpg", 98), ("car_ims/000003.jpg", 99), ("car_ims/000004.jpg", 196)]
NEW_CARS_TRAIN = [("00001.jpg", 14), ("00002.jpg", 99), ("00003.jpg", 98)]
NEW_CARS_TEST = [("00001.jpg", 181), ("00002.jpg", 14)]


@pytest.fixture(name="savemat")
def savemat_fixture():
    """SciPy's writer of MATLAB files, where SciPy is installed."""
    return pytest.importorskip("scipy.io", reason="SciPy is an extra").savemat


def cells(values):
    """A row of MATLAB cells."""
    row = np.empty((1, len(values)), dtype=object)
    row[0] = values
    return row


def annotations(rows, field, fields=("bbox_x1", "bbox_y1", "bbox_x2", "bbox_y2", "class")):
    """A row of MATLAB structs, with numbers in the types that the published files have."""
    numbers = {"bbox_x1": np.uint8(39), "bbox_y1": np.uint16(116), "bbox_x2": np.uint16(569), "bbox_y2": np.uint8(5)}
    # the old file begins with the path, the new ones end with it
    order = [field, *fields] if field == "relative_im_path" else [*fields, field]
    table = np.empty((1, len(rows)), dtype=[(name, object) for name in order])
    for place, (path, number) in enumerate(rows):
        values = {**numbers, "class": np.uint8(number), field: path}
        table[0, place] = tuple(values[name] for name in order)
    return table


@pytest.fixture
def old_cars(tmp_path, savemat):
    content = {"annotations": annotations(CARS, "relative_im_path"), "class_names": cells(CAR_NAMES)}
    savemat(tmp_path / "cars_annos.mat", content)
    touch(tmp_path, [path for path, _ in CARS])
    return tmp_path


@pytest.fixture
def new_cars(tmp_path, savemat):
    (tmp_path / "devkit").mkdir()
    savemat(tmp_path / "devkit/cars_meta.mat", {"class_names": cells(CAR_NAMES)})
    savemat(tmp_path / "devkit/cars_train_annos.mat", {"annotations": annotations(NEW_CARS_TRAIN, "fname")})
    savemat(tmp_path / "devkit/cars_test_annos_withlabels.mat", {"annotations": annotations(NEW_CARS_TEST, "fname")})
    touch(tmp_path / "cars_train", [path for path, _ in NEW_CARS_TRAIN])
    touch(tmp_path / "cars_test", [path for path, _ in NEW_CARS_TEST])
    return tmp_path


def test_cars196_in_the_old_layout(old_cars):
    catalog = load_cars196(str(old_cars))
    assert catalog.paths.tolist() == [path for path, _ in CARS]
    assert catalog.skus.tolist() == [CAR_NAMES[number - 1] for _, number in CARS]
    assert catalog.splits.tolist() == ["train", "train", "test", "test"]
    assert catalog.roles is None
    assert catalog.check_files() is catalog


@pytest.mark.parametrize("folder", ["devkit", "."])
def test_cars196_in_the_new_layout(new_cars, folder):
    """The folders of photos say nothing about the split: both have photos of class 14, which is for training."""
    name = "cars_test_annos_withlabels.mat"
    (new_cars / "devkit" / name).rename(new_cars / folder / name)
    catalog = load_cars196(str(new_cars))
    photos = [(f"cars_train/{path}", number) for path, number in NEW_CARS_TRAIN]
    photos += [(f"cars_test/{path}", number) for path, number in NEW_CARS_TEST]
    assert catalog.paths.tolist() == [path for path, _ in photos]
    assert catalog.skus.tolist() == [CAR_NAMES[number - 1] for _, number in photos]
    assert catalog.splits.tolist() == ["train", "test", "train", "test", "train"]
    assert catalog.check_files() is catalog


def test_cars196_with_a_single_annotation(old_cars, savemat):
    """SciPy drops the dimension of a single thing."""
    content = {"annotations": annotations(CARS[:1], "relative_im_path"), "class_names": cells(CAR_NAMES[:1])}
    savemat(old_cars / "cars_annos.mat", content)
    assert load_cars196(str(old_cars)).skus.tolist() == [CAR_NAMES[0]]


def test_cars196_without_scipy(old_cars, monkeypatch):
    monkeypatch.setitem(sys.modules, "scipy.io", None)
    with pytest.raises(CatalogError, match=r'cars_annos\.mat is a MATLAB .* pip install "eet-tf\[cars196\]"'):
        load_cars196(str(old_cars))


def test_cars196_missing_lists_name_both_layouts(tmp_path):
    message = r"cars_annos\.mat' or '.*devkit/cars_meta\.mat' does not exist\. Check `data_dir`"
    with pytest.raises(CatalogError, match=message):
        load_cars196(str(tmp_path))


@pytest.mark.parametrize("name", ["cars_train_annos.mat", "cars_test_annos_withlabels.mat"])
def test_cars196_missing_annotations(new_cars, name):
    (new_cars / "devkit" / name).unlink()
    with pytest.raises(CatalogError, match=rf"devkit/{name}'.* does not exist"):
        load_cars196(str(new_cars))


def test_cars196_test_photos_without_labels(new_cars, savemat):
    """The devkit's own list of test photos, under the name of the one with labels."""
    fields = ("bbox_x1", "bbox_y1", "bbox_x2", "bbox_y2")
    content = {"annotations": annotations(NEW_CARS_TEST, "fname", fields)}
    savemat(new_cars / "devkit/cars_test_annos_withlabels.mat", content)
    with pytest.raises(CatalogError, match=r"withlabels\.mat: `annotations` must have the fields 'fname' and 'class'"):
        load_cars196(str(new_cars))


@pytest.mark.parametrize("number", [0, 197])
def test_cars196_class_that_is_none(old_cars, savemat, number):
    rows = [*CARS[:2], ("car_ims/000003.jpg", number)]
    content = {"annotations": annotations(rows, "relative_im_path"), "class_names": cells(CAR_NAMES)}
    savemat(old_cars / "cars_annos.mat", content)
    message = rf"cars_annos\.mat, annotation 3: `class` must be one of the 196 classes. Received: {number}\."
    with pytest.raises(CatalogError, match=message):
        load_cars196(str(old_cars))


def test_cars196_names_that_are_the_same(old_cars, savemat):
    content = {"annotations": annotations(CARS, "relative_im_path"), "class_names": cells(["a", "b", "a"])}
    savemat(old_cars / "cars_annos.mat", content)
    with pytest.raises(CatalogError, match=r"cars_annos\.mat: `class_names` must all differ. Received: 2 of 3"):
        load_cars196(str(old_cars))


def test_cars196_missing_photo_names_the_annotation(new_cars):
    (new_cars / "cars_test/00002.jpg").unlink()
    message = r"withlabels\.mat, annotation 2: photo file '.*cars_test/00002\.jpg' does not exist"
    with pytest.raises(CatalogError, match=message):
        load_cars196(str(new_cars))


@pytest.mark.parametrize("content", [b"", b"no MATLAB file", bytes(2000)])
def test_cars196_damaged_file(old_cars, content):
    (old_cars / "cars_annos.mat").write_bytes(content)
    with pytest.raises(
        CatalogError, match=r"cars_annos\.mat is no MATLAB file with a variable 'annotations', or is damaged"
    ):
        load_cars196(str(old_cars))


def test_cars196_of_matlab_7_3(old_cars):
    (old_cars / "cars_annos.mat").write_bytes(b"MATLAB 7.3 MAT-file" + b"\0" * 600)
    with pytest.raises(CatalogError, match=r"cars_annos\.mat is of MATLAB 7\.3.*Save it with -v7"):
        load_cars196(str(old_cars))


def test_cars196_file_cut_short(old_cars):
    """The annotations are whole, the names behind them are not."""
    content = (old_cars / "cars_annos.mat").read_bytes()
    (old_cars / "cars_annos.mat").write_bytes(content[:-500])
    with pytest.raises(
        CatalogError, match=r"cars_annos\.mat is no MATLAB file with a variable 'class_names', or is damaged"
    ):
        load_cars196(str(old_cars))
