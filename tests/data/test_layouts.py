"""The layout of a dataset is told by what lies there; what is none or several is refused with what was found."""

import os

import pytest

from eet_tf.data.benchmarks import load_dataset
from eet_tf.data.catalog import CatalogError
from eet_tf.data.layouts import detect_layout

INSHOP = "2\nimage_name item_id evaluation_status\nimg/A/B/1.jpg 1 train\n"
CONSUMER = "2\nimage_pair_name_1 image_pair_name_2 item_id evaluation_status\nimg/A/1.jpg img/A/2.jpg 1 train\n"
PHOTOS = {"mug/1.jpg": "x", "mug/2.jpg": "x", "cup/1.png": "x"}
LAYOUTS = [
    ("csv", {"catalog.csv": "path,sku\n"}),
    ("csv", {"catalog.tsv": "path\tsku\n", "photos/1.jpg": "x"}),
    ("xlsx", {"catalog.xlsx": "x"}),
    ("parquet", {"catalog.parquet": "x", "mug/1.jpg": "x"}),
    ("csv", {"catalog.csv": "path,sku\n", "prices.csv": "sku,price\n"}),
    ("sop", {"Ebay_train.txt": "", "Ebay_test.txt": "", "attributes.csv": "path\n"}),
    ("inshop", {"Eval/list_eval_partition.txt": INSHOP, "img/A/B/1.jpg": "x"}),
    ("inshop", {"list_eval_partition.txt": INSHOP}),
    ("consumer_to_shop", {"Eval/list_eval_partition.txt": CONSUMER}),
    ("cub", {"images.txt": "", "image_class_labels.txt": "", "classes.txt": "", "images/001.A/1.jpg": "x"}),
    ("cars196", {"cars_annos.mat": "x", "car_ims/1.jpg": "x"}),
    ("cars196", {"devkit/cars_meta.mat": "x", "cars_train/1.jpg": "x"}),
    ("folder", PHOTOS),
    ("folder", {"mug/front/deep/1.jpg": "x", "notes.txt": "x", ".hidden.csv": "x"}),
    ("folder", {"mug/1.heic": "x"}),
    ("folder", {"images.txt": "no list of CUB", **PHOTOS}),
]


def write(folder, files):
    for name, text in files.items():
        (folder / name).parent.mkdir(parents=True, exist_ok=True)
        (folder / name).write_text(text)
    return str(folder)


@pytest.mark.parametrize("layout, files", LAYOUTS)
def test_a_folder_is_known_by_what_is_in_it(layout, files, tmp_path):
    assert detect_layout(write(tmp_path, files)) == layout
    assert detect_layout(tmp_path) == layout


@pytest.mark.parametrize(
    "name, layout",
    [("a.csv", "csv"), ("a.TSV", "csv"), ("a.txt", "csv"), ("a.xlsx", "xlsx"), ("a.b.Parquet", "parquet")],
)
def test_a_file_is_known_by_its_ending(name, layout, tmp_path):
    assert detect_layout(os.path.join(write(tmp_path, {name: "x"}), name)) == layout


@pytest.mark.parametrize(
    "name, mend",
    [
        ("photos.zip", "Unpack it, and give the folder."),
        ("photos.tar.gz", "Unpack it"),
        ("old.xls", "Save it as .xlsx or CSV."),
        ("1.jpg", "Give the table that lists your photos, or the folder that they are in."),
        ("none", "Give the table"),
    ],
)
def test_another_file_is_refused_with_what_to_do(name, mend, tmp_path):
    with pytest.raises(
        CatalogError, match=rf"`path` must be .*Received: path='.*{name}', which is none of these. {mend}"
    ):
        detect_layout(os.path.join(write(tmp_path, {name: "x"}), name))


@pytest.mark.parametrize("path", ["", "gone"])
def test_nothing_there(path, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    with pytest.raises(CatalogError, match=f"`path` must be .*Received: path='{path}', which does not exist"):
        detect_layout(path)


@pytest.mark.parametrize(
    "files, found",
    [
        ({}, "there is nothing. Give the folder"),
        ({"1.jpg": "x"}, "there is 1 photo beside each other. Put the photos of each product into a folder of its own"),
        ({"1.jpg": "x", "2.heic": "x", "notes.txt": "x"}, "there is 2 photos beside each other, notes.txt. Put"),
        ({"photos.zip": "x"}, "there is photos.zip. Unpack photos.zip"),
        ({"a/notes.txt": "x", "b/notes.txt": "x"}, "there is 2 folders without a photo. Give the folder"),
        ({f"{name}.pdf": "x" for name in "abcdefg"}, "a.pdf, b.pdf, c.pdf, d.pdf, e.pdf and 2 more. Give"),
    ],
)
def test_a_folder_that_is_none_is_refused_with_what_is_in_it(files, found, tmp_path):
    with pytest.raises(CatalogError, match=found):
        detect_layout(write(tmp_path, files))


@pytest.mark.parametrize(
    "files, message",
    [
        (
            {"catalog.csv": "x", "catalog.xlsx": "x"},
            r"more than one list of photos: catalog\.csv, catalog\.xlsx\. Give",
        ),
        ({"catalog.csv": "x", "catalog.tsv": "x"}, r"more than one list of photos: catalog\.csv, catalog\.tsv"),
        (
            {"catalog.csv": "x", "Ebay_test.txt": "x"},
            r"catalog\.csv, Ebay_test\.txt\..*/catalog\.csv, or .*--dataset=csv",
        ),
        ({"shop.csv": "x"}, r"has shop\.csv, and none is named catalog. Give .*/shop\.csv\.$"),
        ({"a.csv": "x", "b.xlsx": "x", **PHOTOS}, r"has a\.csv, b\.xlsx, .*, or say --dataset=folder if each folder"),
        (
            {"attributes.txt": "", "CUB/images.txt": "", "CUB/image_class_labels.txt": "", "CUB/images/a/1.jpg": "x"},
            r"CUB/images\.txt is a list of the layout cub. Give '.*/CUB'; if its folders are.*--dataset=folder",
        ),
        (
            {"Stanford/Ebay_train.txt": "", "Stanford/chair/1.jpg": "x"},
            "Stanford/Ebay_train.txt is a list of the layout sop",
        ),
    ],
)
def test_what_may_be_several_things_is_refused(files, message, tmp_path):
    with pytest.raises(CatalogError, match=message):
        detect_layout(write(tmp_path, files))


# load_dataset


def test_auto_reads_what_lies_there(tmp_path):
    assert load_dataset("auto", write(tmp_path, PHOTOS), columns={}).skus.tolist() == ["cup", "mug", "mug"]
    (tmp_path / "catalog.csv").write_text("image;id;colour\nmug/1.jpg;7;red|blue\ncup/1.png;8;red\n")
    catalog = load_dataset("auto", tmp_path, {"path": "image", "sku": "id"}, "|")
    assert catalog.skus.tolist() == ["7", "8"]
    assert catalog.attributes["colour"].tolist() == [("red", "blue"), ("red",)]


@pytest.mark.parametrize("data_dir", [None, ""])
def test_auto_must_be_told_where_and_draws_nothing(data_dir, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    with pytest.raises(ValueError, match=r"`data_dir` must say where the photos are: .*--data=.*--dataset=synthetic"):
        load_dataset("auto", data_dir)
    assert not os.listdir(tmp_path)


@pytest.mark.parametrize("name", ["auto", "folder"])
@pytest.mark.parametrize(
    "how, wrong",
    [
        ({"columns": {"path": "image"}}, "`columns` must be left out for"),
        ({"separator": "|"}, "`separator` must be left out for"),
        (
            {"columns": {"sku": "id"}, "separator": "|"},
            "`columns` must be left out and `separator` must be left out for",
        ),
    ],
)
def test_folders_have_no_columns(name, how, wrong, tmp_path):
    with pytest.raises(ValueError, match=f"{wrong} the layout 'folder', which is no table"):
        load_dataset(name, write(tmp_path, PHOTOS), **how)
