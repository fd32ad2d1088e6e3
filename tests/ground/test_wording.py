"""Paths in messages are those a person would write, and always lead to the same place."""

import os
import pathlib

import pytest

from eet_tf.data import load_csv, load_dataset, load_folder
from eet_tf.data.catalog import CatalogError
from eet_tf.wording import counted, normal_path, shown_path


@pytest.fixture
def here(tmp_path, monkeypatch):
    """The working directory, `work`, beside `photos`; `work/link` leads into `photos`."""
    for name in ("work/inner", "photos/deep/mug"):
        (tmp_path / name).mkdir(parents=True)
    (tmp_path / "work" / "link").symlink_to(tmp_path / "photos" / "deep", target_is_directory=True)
    monkeypatch.chdir(tmp_path / "work")
    return os.path.realpath(tmp_path)


@pytest.mark.parametrize(
    "path, normal, shown",
    [
        ("", "", ""),
        ("list.csv", "list.csv", "list.csv"),
        ("./list.csv", "./list.csv", "list.csv"),
        (".", ".", "."),
        ("inner/../list.csv", "list.csv", "list.csv"),
        ("../photos", "{0}/photos", "{0}/photos"),
        ("..", "{0}", "{0}"),
        ("{0}/work/list.csv", "{0}/work/list.csv", "list.csv"),
        ("{0}/photos/../work/list.csv", "{0}/work/list.csv", "list.csv"),
        ("{0}/work", "{0}/work", "{0}/work"),
        ("{0}/workshop/list.csv", "{0}/workshop/list.csv", "{0}/workshop/list.csv"),
        ("link/../x.csv", "link/../x.csv", "link/../x.csv"),
        ("a..b/list.csv", "a..b/list.csv", "a..b/list.csv"),
    ],
)
def test_paths(path, normal, shown, here):
    """Behind the link, `..` is `photos` and not `work`: that one is left to the file system."""
    given = path.format(here)
    assert normal_path(given) == normal.format(here)
    assert shown_path(given) == shown.format(here)
    for found in (normal_path(given), shown_path(given)):
        assert os.path.realpath(found) == os.path.realpath(given)


def test_a_list_beside_the_working_directory_is_named_without_dots(here):
    for name in ("1.jpg", "list.csv"):
        with open(f"../photos/{name}", "w") as opened:
            opened.write("path;sku\n1.jpg;mug\n2.jpg;cup\n")
    with pytest.raises(CatalogError) as caught:
        load_csv("../photos/list.csv")
    assert str(caught.value) == (
        f"{here}/photos/list.csv:3: photo file '{here}/photos/2.jpg' does not exist. Mend the path or delete the row."
    )


@pytest.mark.parametrize(
    "name", ["auto", "sop", "inshop", "consumer_to_shop", "cub", "cars196", "csv", "xlsx", "parquet"]
)
def test_no_reader_names_a_path_with_dots(name, here):
    with pytest.raises(ValueError) as caught:
        load_dataset(name, "../work/inner")
    assert os.pardir not in str(caught.value).replace("...", "")


def test_a_folder_in_the_working_directory_is_named_from_there(here):
    os.makedirs("inner/mug")
    with open("inner/mug/1.jpg", "w") as opened:
        opened.write("x")
    catalog = load_folder(f"{here}/work/inner")
    assert load_folder(pathlib.Path("inner")).source == catalog.source == "inner"
    assert catalog.files.tolist() == [f"{here}/work/inner/mug/1.jpg"]


def test_below_the_topmost_folder_a_path_stays_whole(tmp_path, monkeypatch):
    monkeypatch.chdir("/")
    assert shown_path(str(tmp_path)) == str(tmp_path)


@pytest.mark.parametrize("count, text", [(0, "0 photos"), (1, "1 photo"), (2, "2 photos"), (1234, "1,234 photos")])
def test_numbers_with_their_nouns(count, text):
    assert counted(count, "photo") == text
