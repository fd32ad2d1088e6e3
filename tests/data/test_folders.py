"""Folders as people have them: which files become photos of which product, and what is said of all others."""

import os
import pathlib
import re
import shutil

import pytest

from eet_tf.data.benchmarks import load_dataset, load_folder
from eet_tf.data.catalog import CatalogError
from eet_tf.data.folders import note_of_dataset, scan_folder

JPEG = b"\xff\xd8\xff\xe0\0\x10JFIF" + bytes(20)
STARTS = {
    "jpeg": JPEG,
    "png": b"\x89PNG\r\n\x1a\n" + bytes(20),
    "gif": b"GIF89a" + bytes(20),
    "webp": b"RIFF\0\0\0\0WEBPVP8 " + bytes(20),
    "bmp": b"BM" + bytes(12) + b"\x28\0\0\0" + bytes(20),
}
OTHERS = {
    "HEIC": b"\0\0\0\x18ftypheic" + bytes(20),
    "AVIF": b"\0\0\0\x18ftypavif" + bytes(20),
    "TIFF": b"II*\0" + bytes(20),
}


@pytest.fixture
def photos(tmp_path):
    """Two products of two photos each."""
    for path in ("cup/1.jpg", "cup/2.png", "mug/1.webp", "mug/2.JPG"):
        write(tmp_path, path)
    return tmp_path


def write(folder, path, content=JPEG):
    file = folder / path
    file.parent.mkdir(parents=True, exist_ok=True)
    file.write_bytes(content)


BEFORE = ["cup/1.jpg", "cup/2.png", "mug/1.webp", "mug/2.JPG"]


def paths(folder):
    return load_folder(str(folder)).paths.tolist()


HIDDEN = [".ipynb_checkpoints", ".git", "@eaDir", "__MACOSX", "#recycle", "$RECYCLE.BIN", "System Volume Information"]
HIDDEN += ["lost+found", "@Recycle", "__pycache__"]


@pytest.mark.parametrize("name", HIDDEN)
@pytest.mark.parametrize("place", ["", "mug/", "mug/front/"])
def test_folders_of_tools_are_no_products_and_named(name, place, photos):
    write(photos, f"{place}{name}/cup/1.jpg")
    assert paths(photos) == BEFORE
    assert scan_folder(str(photos)).passed_over == {"hidden or of a tool": (f"{place}{name}",)}


@pytest.mark.parametrize("name", ["._1.jpg", ".DS_Store", "Thumbs.db", "desktop.ini", ".hidden.png", "Icon\r"])
@pytest.mark.parametrize("place", ["", "cup/", "cup/back/"])
def test_files_of_tools_are_no_photos_and_named(name, place, photos):
    write(photos, f"{place}{name}")
    assert paths(photos) == BEFORE
    assert f"1 hidden or of a tool: {place}{name}" in note_of_dataset("folder", str(photos))


@pytest.mark.parametrize("ending", ["jpg", "jpeg", "jpe", "jfif", "png", "webp", "bmp", "dib", "gif", "JFIF", "Jpe"])
def test_endings_of_photos(ending, photos):
    write(photos, f"jug/1.{ending}", b"x")
    assert paths(photos) == [*BEFORE[:2], f"jug/1.{ending}", *BEFORE[2:]]
    assert note_of_dataset("folder", str(photos)) == ""


@pytest.mark.parametrize("kind", STARTS)
@pytest.mark.parametrize("name", ["1", "1.jpg_large", "1.jpg.jpeg_", "1.HEIC", "photo.1", "1."])
def test_other_names_are_photos_if_they_begin_like_one(name, kind, photos):
    write(photos, f"jug/{name}", STARTS[kind])
    assert paths(photos) == [*BEFORE[:2], f"jug/{name}", *BEFORE[2:]]


@pytest.mark.parametrize("kind", OTHERS)
@pytest.mark.parametrize("name", ["1", "2.heic", "3.dat"])
def test_what_must_be_converted_is_named(name, kind, photos):
    write(photos, f"jug/{name}", OTHERS[kind])
    assert paths(photos) == BEFORE
    assert note_of_dataset("folder", str(photos)) == (
        f"2 files and folders are passed over: 1 {kind}, to be converted with `eet convert`: jug/{name}; "
        "1 product without a photo: jug."
    )


@pytest.mark.parametrize("ending, kind", {"HEIC": "HEIC", "heif": "HEIC", "avif": "AVIF", "TIF": "TIFF"}.items())
def test_endings_that_must_be_converted(ending, kind, photos):
    write(photos, f"cup/1.{ending}", b"x")
    assert f"1 {kind}, to be converted with `eet convert`: cup/1.{ending}" in note_of_dataset("folder", str(photos))


def test_all_that_is_passed_over_is_counted_and_named_by_reason(photos):
    for path in ("loose.jpg", "cup/notes.txt", "cup/BMW.txt", "a.csv", "cup/.x", "mug/empty"):
        write(photos, path, b"BMW, not a picture" if "BMW" in path else b"" if "empty" in path else JPEG[:4] + b"x")
    write(photos, "a.csv", b"path,sku\n")
    (photos / "jug").mkdir()
    for number in range(5):
        write(photos, f"cup/{number}.heic", b"")
    found = scan_folder(str(photos))
    assert found.passed_over == {
        "of another kind": ("a.csv", "cup/BMW.txt", "mug/empty"),
        "beside the products' folders": ("loose.jpg",),
        "hidden or of a tool": ("cup/.x",),
        "HEIC, to be converted with `eet convert`": tuple(f"cup/{number}.heic" for number in range(5)),
    }
    assert "cup/notes.txt" in found.paths  # it begins like a photo
    assert "5 HEIC, to be converted with `eet convert`: cup/0.heic, cup/1.heic, cup/2.heic and 2 more" in found.note()
    assert found.note().startswith("11 files and folders are passed over: ") and found.empty == ("jug",)


def test_photos_of_any_depth_are_of_the_product(photos):
    write(photos, "jug/front/1.jpg")
    write(photos, "jug/back/small/2.jpg")
    catalog = load_folder(str(photos))
    assert catalog.paths[catalog.skus == "jug"].tolist() == ["jug/back/small/2.jpg", "jug/front/1.jpg"]


def test_a_link_to_a_folder_around_it_is_not_followed(photos):
    (photos / "cup" / "loop").symlink_to(photos)
    (photos / "mug" / "self").symlink_to(photos / "mug")
    (photos / "mug" / "nowhere.jpg").symlink_to(photos / "gone")
    (photos / "mug" / "round.jpg").symlink_to("round.jpg")
    assert paths(photos) == BEFORE
    assert scan_folder(str(photos)).passed_over == {
        "a link to a folder around it": ("cup/loop", "mug/self"),
        "a link that leads nowhere": ("mug/nowhere.jpg", "mug/round.jpg"),
    }


def test_links_to_photos_and_folders_elsewhere_are_followed(photos, tmp_path_factory):
    elsewhere = tmp_path_factory.mktemp("elsewhere")
    write(elsewhere, "1.jpg")
    (photos / "jug").symlink_to(elsewhere)
    (photos / "mug" / "3.jpg").symlink_to(elsewhere / "1.jpg")
    assert paths(photos) == [*BEFORE[:2], "jug/1.jpg", *BEFORE[2:], "mug/3.jpg"]


def test_a_pipe_is_not_waited_for(photos):
    os.mkfifo(photos / "cup" / "pipe")
    assert paths(photos) == BEFORE


@pytest.mark.parametrize("names", [["train", "test"], ["Train", "val"], ["training", "validation"]])
def test_splits_are_not_taken_for_products(names, tmp_path):
    for name in names:
        write(tmp_path, f"{name}/mug/1.jpg")
    with pytest.raises(CatalogError, match=f"whose folders are splits: {', '.join(sorted(names))}. Give"):
        load_folder(str(tmp_path))


def test_everything_that_cannot_be_read_is_named_at_once(photos, monkeypatch):
    """By a system that refuses, as tests may run with all rights."""
    scandir, closed = os.scandir, [str(photos / name) for name in ("cup", "mug")]

    def refusing(folder):
        if str(folder) in closed:
            raise PermissionError(13, "Permission denied", str(folder))
        return scandir(folder)

    monkeypatch.setattr(os, "scandir", refusing)
    with pytest.raises(CatalogError, match="cup, mug: cannot be read. Give yourself the right"):
        load_folder(str(photos))


def test_names_that_are_not_utf8_are_refused_and_shown(photos):
    os.mkdir(os.fsencode(photos) + b"/caf\xe9")
    os.rename(photos / "mug" / "1.webp", os.fsencode(photos) + b"/mug/\xff.webp")
    with pytest.raises(CatalogError) as refused:
        load_folder(str(photos))
    assert re.search(r"caf\\xe9, mug/\\xff.webp: has a name that is not UTF-8. Rename it", str(refused.value))
    str(refused.value).encode()


def test_a_folder_that_is_not_utf8_is_refused_and_shown(photos):
    other = os.fsencode(photos) + b"-\xe9"
    shutil.copytree(os.fsencode(photos), other)
    with pytest.raises(CatalogError, match=r"`data_dir` must have a name in UTF-8. .*-\\xe9'"):
        load_folder(os.fsdecode(other))


@pytest.mark.parametrize(
    "name", ["[a]", "a*", "a?", "a\\b", " a ", 'a"b', "a%20b", "{a}", "a\nb", "-a", "käse", "a'b", "~"]
)
def test_names_are_no_patterns(name, tmp_path):
    for sku in (name, "other"):
        for photo in ("1.jpg", f"{name}.jpg"):
            write(tmp_path / name, f"{sku}/{photo}")
    catalog = load_folder(str(tmp_path / name))
    assert sorted(set(catalog.skus.tolist())) == sorted([name, "other"])
    assert all(pathlib.Path(file).is_file() for file in catalog.files.tolist())


def test_an_empty_folder_says_what_it_found(tmp_path):
    write(tmp_path, "mug/1.heic", b"")
    with pytest.raises(
        CatalogError, match=r"lists no photos in folders of products. 2 files and folders are passed .*HEIC"
    ):
        load_dataset("folder", str(tmp_path))
