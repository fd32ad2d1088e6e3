"""What is converted and how it looks then, what stays as it was, and what is said of photos that nothing reads."""

import csv
import os
import re
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
from PIL import Image, features

from eet_tf.cli.main import main as eet
from eet_tf.convert import convert_catalog, load_folder_of_any_kind
from eet_tf.data import check_photos, images, load_csv
from eet_tf.data.catalog import Catalog, CatalogError
from tests.data.photo_server import PhotoServer
from tests.odd_photos import PICTURE, PIXELS, TURNS, bmp, packed

ROOT = Path(__file__).parents[2]


def main(flags):
    """`eet convert` in this process."""
    return eet(["convert", *flags])


def rows_of(list_file):
    with open(list_file, encoding="utf-8", newline="") as opened:
        return list(csv.DictReader(opened))


def catalog_of(folder, **columns):
    names = sorted(entry.name for entry in folder.iterdir())
    return Catalog(
        names,
        [name[0] for name in names],
        root=str(folder),
        source="list.csv",
        lines=range(2, 99)[: len(names)],
        **columns,
    )


def read(file):
    return images.decode(Path(file).read_bytes()).numpy()


@pytest.fixture
def folder(tmp_path):
    (tmp_path / "photos").mkdir()
    return tmp_path / "photos"


def exif(turn):
    block = Image.Exif()
    block[0x0112] = turn
    return block


def test_a_catalogue_of_many_kinds(folder, tmp_path):
    """What training reads is kept to the byte; the others are upright, and the list has all columns."""
    PICTURE.save(folder / "a.jpg", exif=exif(6))
    PICTURE.save(folder / "b.tif", compression="tiff_lzw")
    PICTURE.save(folder / "c.tif", exif=exif(8))
    indices = np.arange(16)[:, np.newaxis] % 2 * np.ones([1, 8], int)
    (folder / "d.bmp").write_bytes(bmp(np.zeros([28, 80], np.uint8), 16))
    (folder / "e.bmp").write_bytes(bmp(packed(indices, 8), 8, palette=[[1, 2, 3], [4, 5, 6]], height=16, width=8))
    before = {file.name: (file.read_bytes(), file.stat().st_mtime_ns) for file in folder.iterdir()}
    catalog = catalog_of(folder, categories=list("vwxyz"), splits=["train"] * 5, attributes={"colour": list("12345")})
    result = convert_catalog(catalog, tmp_path / "new")
    assert (result.num_converted, result.num_kept, result.failed) == (3, 2, ())
    assert {file.name: (file.read_bytes(), file.stat().st_mtime_ns) for file in folder.iterdir()} == before
    rows = rows_of(result.list_file)
    assert [row["path"] for row in rows] == ["a.jpg", "b.tif.jpg", "c.tif.jpg", "d.bmp.jpg", "e.bmp"]
    assert rows[1] == {"path": "b.tif.jpg", "sku": "b", "category": "w", "split": "train", "colour": "2"}
    assert (tmp_path / "new" / "a.jpg").read_bytes() == before["a.jpg"][0]
    np.testing.assert_allclose(read(tmp_path / "new" / "b.tif.jpg"), PIXELS, atol=12)
    np.testing.assert_allclose(read(tmp_path / "new" / "c.tif.jpg"), TURNS[8](PIXELS), atol=12)
    loaded = load_csv(str(tmp_path / "new"))
    assert check_photos(loaded) is loaded and loaded.categories.tolist() == list("vwxyz")


def test_it_goes_on_where_it_was_stopped(folder, tmp_path):
    for name in "abc":
        PICTURE.save(folder / f"{name}.tif")
    catalog = catalog_of(folder)
    convert_catalog(catalog, tmp_path / "new")
    files = [tmp_path / "new" / f"{name}.tif.jpg" for name in "abc"]
    before = [file.stat().st_ino for file in files]
    files[1].unlink()
    os.utime(folder / "c.tif", ns=(2**62, 2**62))  # changed since
    assert convert_catalog(catalog, tmp_path / "new").num_converted == 3
    after = [file.stat().st_ino for file in files]
    assert after[0] == before[0] and after[2] != before[2]


def test_what_nothing_reads_is_named_and_left_out(folder, tmp_path):
    PICTURE.save(folder / "a.tif")
    (folder / "b.tif").write_bytes((folder / "a.tif").read_bytes()[:200])
    (folder / "c.jpg").write_text("<html>")
    (folder / "d.heic").write_bytes(b"\0\0\0\x18ftypheic\0\0\0\0mif1heic" + b"\1" * 400)
    Image.new("F", (8, 8)).save(folder / "e.tif")
    result = convert_catalog(catalog_of(folder), tmp_path / "new")
    assert result.num_converted == 1 and [row["path"] for row in rows_of(result.list_file)] == ["a.tif.jpg"]
    for line, number, name, why in zip(
        result.failed, range(3, 7), ["b.tif", "c.jpg", "d.heic", "e.tif"], WHY, strict=True
    ):
        assert line.startswith(f"list.csv:{number}: '{folder / name}': ") and why in line


WHY = ["a TIFF photo that is damaged", "a web page", "a HEIC photo", "floating-point"]


@pytest.mark.parametrize("mode", ["1", "L", "P", "CMYK", "I;16", "RGBA", "LA"])
def test_every_mode_of_tiff(folder, tmp_path, mode):
    """Grey of 16 bits is divided by 257, not cut off; transparent pixels stay so, in a PNG."""
    if mode == "I;16":
        grey = np.asarray(PICTURE.convert("L"))
        image, right = Image.fromarray(grey.astype(np.uint16) * 257), np.repeat(grey[..., np.newaxis], 3, 2)
    else:
        image = PICTURE.convert(mode)
        right = np.asarray(image.convert("RGB"))
    image.save(folder / "a.tif")
    convert_catalog(catalog_of(folder), tmp_path / "new")
    name = "a.tif.png" if mode in ("RGBA", "LA") else "a.tif.jpg"
    found = read(tmp_path / "new" / name)
    assert np.abs(found - right).mean() < (16 if mode == "1" else 5)


@pytest.mark.skipif(not features.check("avif"), reason="this Pillow does not write AVIF")
def test_avif(folder, tmp_path):
    PICTURE.save(folder / "a.jpg", "AVIF", quality=95)
    result = convert_catalog(catalog_of(folder), tmp_path / "new")
    assert result.num_converted == 1
    np.testing.assert_allclose(read(tmp_path / "new" / "a.jpg.jpg"), PIXELS, atol=25)


def test_heic(folder, tmp_path):
    """As a phone writes it: turned, with a colour profile."""
    heif = pytest.importorskip("pillow_heif", reason="pillow-heif is the extra [convert]")
    heif.register_heif_opener()
    PICTURE.resize((160, 112)).save(
        folder / "a.heic", "HEIF", quality=95, exif=exif(6).tobytes(), icc_profile=b"p" * 200
    )
    result = convert_catalog(catalog_of(folder), tmp_path / "new")
    assert result.failed == () and result.num_converted == 1
    found = read(tmp_path / "new" / "a.heic.jpg")
    right = TURNS[6](np.asarray(PICTURE.resize((160, 112)), np.float32))
    assert found.shape == right.shape and np.abs(found - right).mean() < 6


def test_heic_without_the_extra_says_how_to_install_it(folder, tmp_path, monkeypatch):
    monkeypatch.setitem(sys.modules, "pillow_heif", None)
    monkeypatch.setattr(Image, "OPEN", {name: how for name, how in Image.OPEN.items() if name != "HEIF"})
    (folder / "a.heic").write_bytes(b"\0\0\0\x18ftypheic\0\0\0\0mif1heic" + b"\1" * 400)
    result = convert_catalog(catalog_of(folder), tmp_path / "new")
    assert "a HEIC photo, which is read with pillow-heif: pip install 'eet-tf[convert]'" in result.failed[0]


def test_folders_and_photos_from_elsewhere(tmp_path):
    for place in (
        "shop/mug/front.tif",
        "shop/mug/more/back.TIFF",
        "shop/cup/front.png",
        "shop/.hidden/x.png",
        "other.png",
    ):
        (tmp_path / place).parent.mkdir(parents=True, exist_ok=True)
        PICTURE.save(tmp_path / place)
    catalog = load_folder_of_any_kind(str(tmp_path / "shop"))
    assert sorted(zip(catalog.skus.tolist(), catalog.paths.tolist())) == [
        ("cup", "cup/front.png"),
        ("mug", "mug/front.tif"),
        ("mug", "mug/more/back.TIFF"),
    ]
    assert convert_catalog(catalog, tmp_path / "new").num_converted == 2
    assert (tmp_path / "new" / "mug" / "more" / "back.TIFF.jpg").is_file()
    outside = Catalog(["../other.png", str(tmp_path / "other.png")], ["a", "b"], root=str(tmp_path / "shop"))
    convert_catalog(outside, tmp_path / "more")
    paths = [row["path"] for row in rows_of(tmp_path / "more" / "catalog.csv")]
    assert len(set(paths)) == 2 and all(path.startswith("elsewhere/") for path in paths)
    with pytest.raises(CatalogError, match="folder per sku"):
        load_folder_of_any_kind(str(tmp_path / "none"))


def test_a_converted_photo_takes_no_other_ones_name(folder, tmp_path):
    PICTURE.save(folder / "a.tif")
    Image.new("RGB", (9, 9)).save(folder / "a.tif.jpg")
    convert_catalog(catalog_of(folder), tmp_path / "new")
    assert [row["path"] for row in rows_of(tmp_path / "new" / "catalog.csv")] == ["a.tif.converted.jpg", "a.tif.jpg"]


@pytest.mark.parametrize("place", ["photos", "photos/new", "file"])
def test_unusable_output_folders_are_refused(folder, tmp_path, place):
    PICTURE.save(folder / "a.png")
    (tmp_path / "file").write_text("")
    with pytest.raises(ValueError, match="`output_dir` must .* Received: output_dir="):
        convert_catalog(catalog_of(folder), tmp_path / place)


def test_the_command(folder, tmp_path, capsys):
    PICTURE.save(folder / "a.tif")
    PICTURE.save(folder / "b.png")
    (folder / "catalog.csv").write_text("path,sku\na.tif,mug\nb.png,cup\n", encoding="utf-8")
    flags = [f"--data_dir={folder}", f"--output_dir={tmp_path / 'new'}"]
    assert main(flags) == 0
    assert capsys.readouterr().out == f"1 photo converted, 1 as it was.\nThe list is {tmp_path}/new/catalog.csv.\n"
    (folder / "b.png").write_text("text")
    assert main(flags) == 1
    assert f"{folder}/catalog.csv:3: '{folder}/b.png': a text, not a photo\n" in capsys.readouterr().out
    assert main([flags[0], f"--output_dir={folder}"]) == 2
    assert main([f"--data_dir={tmp_path}/none", flags[1]]) == 2
    assert main([]) == 2
    assert capsys.readouterr().err.count("error: ") == 3


def test_an_output_that_cannot_be_written_to_is_refused_before_photos_are_read(folder, tmp_path, capsys, monkeypatch):
    PICTURE.save(folder / "a.tif")
    (folder / "catalog.csv").write_text("path,sku\na.tif,mug\n", encoding="utf-8")
    (tmp_path / "file").write_text("mine")
    monkeypatch.setattr("eet_tf.data.reading.survey_files", lambda *_: pytest.fail("photos were read"))
    for place in (tmp_path / "file", tmp_path / "file" / "below", folder / "inside"):
        assert main([f"--data_dir={folder}", f"--output_dir={place}"]) == 2
        assert re.match("error: (--|`)output_dir`? must ", capsys.readouterr().err)


def test_a_list_that_cannot_hold_the_catalogue_is_refused(folder, tmp_path):
    PICTURE.save(folder / "a.png")
    with_roles = Catalog(["a.png"], ["mug"], roles=["query"], root=str(folder))
    with pytest.raises(CatalogError, match="queries or gallery"):
        convert_catalog(with_roles, tmp_path / "new")
    clashing = Catalog(["a.png"], ["mug"], attributes={"split": ["x"], "colour": ["red"]}, root=str(folder))
    with pytest.raises(CatalogError, match="attributes named 'split'"):
        convert_catalog(clashing, tmp_path / "new")


def test_photos_of_paths_that_are_one_file_get_files_of_their_own(folder, tmp_path):
    PICTURE.save(folder / "a.tif")
    catalog = Catalog(["a.tif", "./a.tif"], ["mug", "cup"], root=str(folder))
    result = convert_catalog(catalog, tmp_path / "new")
    assert result.num_converted == 2
    converted = load_csv(result.list_file)
    assert converted.skus.tolist() == ["mug", "cup"]


def test_folders_go_by_the_rules_of_training(tmp_path, capsys):
    """Tools' folders are no products, a JPEG without an ending is a photo, and raw files are no TIFF."""
    shop = tmp_path / "shop"
    for name in (
        "mug/a.jpg",
        "mug/b",
        "mug/deep/c.tif",
        "mug/@eaDir/t.jpg",
        "#recycle/old.jpg",
        "mug/raw.dng",
        "d.tif",
    ):
        (shop / name).parent.mkdir(parents=True, exist_ok=True)
        PICTURE.save(shop / name, "TIFF" if name.endswith((".tif", ".dng")) else "JPEG")
    assert load_folder_of_any_kind(str(shop)).paths.tolist() == ["mug/a.jpg", "mug/b", "mug/deep/c.tif"]
    assert main(["--dataset=folder", f"--data_dir={shop}", f"--output_dir={tmp_path / 'new'}"]) == 0
    printed = capsys.readouterr().out
    assert "1 photo converted, 2 as they were." in printed
    assert "1 beside the products' folders: d.tif" in printed
    assert "1 camera's raw file, to be exported as JPEG: mug/raw.dng" in printed


def test_photos_at_urls_are_converted_and_kept(folder, tmp_path, capsys):
    """Under a name of the host's making no file leaves the output's folder, and no two photos meet."""
    content = {}
    for name, kind in {"a.tif": "TIFF", "b.png": "PNG"}.items():
        PICTURE.save(folder / name, kind)
        content[name] = (folder / name).read_bytes()
    with PhotoServer() as server:
        urls = [
            server.put("/mugs/a.tif?size=1", content["a.tif"]),
            server.put("/mugs/b.png", content["b.png"]),
            server.put("/cups/b.png", content["b.png"]),
            server.put("/..", content["b.png"]),
            server.put("/gone.png", 404),
        ]
        rows = "".join(f"{url},mug\n" for url in urls)
        (folder / "catalog.csv").write_text(f"path,sku\n{rows}missing.png,mug\n", encoding="utf-8")
        flags = [f"--data_dir={folder}", f"--output_dir={tmp_path / 'new'}", f"--photo_cache={tmp_path / 'cache'}"]
        for _ in range(2):
            assert main(flags) == 1
        assert [server.asked[url.removeprefix(server.address)] for url in urls] == [1, 1, 1, 1, 2]
    printed = capsys.readouterr().out
    assert f"catalog.csv:6: '{urls[4]}': the server has no such photo (HTTP 404)\n" in printed
    assert f"catalog.csv:7: '{folder}/missing.png': the file does not exist\n" in printed
    assert "2 photos cannot be converted; the list leaves them out.\n1 photo converted, 3 as they were.\n" in printed
    names = [row["path"] for row in rows_of(tmp_path / "new" / "catalog.csv")]
    assert [os.path.basename(name) for name in names] == ["a.tif.jpg", "b.png", "b.png", "photo"]
    assert len(set(names)) == 4 and all(name.startswith("elsewhere/") for name in names)
    assert {(tmp_path / "new" / name).read_bytes() for name in names[1:]} == {content["b.png"]}
    check_photos(load_csv(str(tmp_path / "new")))


def test_the_command_is_a_module(tmp_path):
    command = [
        sys.executable,
        "-m",
        "eet_tf.convert",
        f"--data_dir={tmp_path}/none.csv",
        f"--output_dir={tmp_path}/new",
    ]
    ended = subprocess.run(command, cwd=ROOT, capture_output=True, text=True, timeout=120, check=False)
    said = (
        f"error: --data must be the path of your photos. Received: --data={tmp_path}/none.csv, which does not exist.\n"
    )
    assert (ended.returncode, ended.stderr) == (2, said)
