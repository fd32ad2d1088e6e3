"""The readers of lists on disk: what each layout means, and every malformed list refused with its file and line."""

import pathlib
import re
import tracemalloc

import numpy as np
import pytest

from eet_tf.data.benchmarks import LOADERS, load_csv, load_dataset, load_folder, load_sop
from eet_tf.data.catalog import CatalogError
from eet_tf.data.folders import note_of_dataset

SHARED = pathlib.Path(__file__).parents[2] / ".." / "shared" / "data"
SOP_HEADER = "image_id class_id super_class_id path\n"


def touch(folder, *names):
    """Files that are not empty."""
    for name in names:
        (folder / name).parent.mkdir(parents=True, exist_ok=True)
        (folder / name).write_bytes(b"x")


def shared(name):
    """A folder of real photos, which not every machine has."""
    if not (SHARED / name).is_dir():
        pytest.skip(f"no real photos in {SHARED / name}")
    return str(SHARED / name)


# Stanford Online Products


@pytest.fixture
def sop(tmp_path):
    """Two training photos and three test photos, with the blanks and the empty line that real lists have."""
    touch(tmp_path, "bicycle_final/1 a.JPG", "bicycle_final/2.JPG", "chair/3.JPG", "chair/4.JPG", "chair/5.JPG")
    (tmp_path / "Ebay_train.txt").write_text(
        SOP_HEADER + "1 10 1 bicycle_final/1 a.JPG\n\n2\t11  1 bicycle_final/2.JPG  \n"
    )
    (tmp_path / "Ebay_test.txt").write_text(
        SOP_HEADER + "3 12 2 chair/3.JPG\r\n4 12 2 chair/4.JPG\r\n5 9 2 chair/5.JPG"
    )
    return tmp_path


def test_sop(sop):
    catalog = load_sop(str(sop))
    assert catalog.paths.tolist() == [
        "bicycle_final/1 a.JPG",
        "bicycle_final/2.JPG",
        "chair/3.JPG",
        "chair/4.JPG",
        "chair/5.JPG",
    ]
    assert catalog.skus.tolist() == ["10", "11", "12", "12", "9"]
    assert catalog.categories.tolist() == ["1", "1", "2", "2", "2"]
    assert catalog.splits.tolist() == ["train", "train", "test", "test", "test"]
    assert catalog.check_files() is catalog


def test_sop_without_its_header(sop):
    (sop / "Ebay_test.txt").write_text("3 12 2 chair/3.JPG\n")
    with pytest.raises(CatalogError, match=r"Ebay_test\.txt:1: the first line must be 'image_id class_id"):
        load_sop(str(sop))


def test_sop_empty_list(sop):
    (sop / "Ebay_train.txt").write_text("")
    with pytest.raises(CatalogError, match=r"Ebay_train\.txt:1: the first line must be"):
        load_sop(str(sop))


def test_sop_lists_without_rows(sop):
    for name in ("Ebay_train.txt", "Ebay_test.txt"):
        (sop / name).write_text(SOP_HEADER)
    with pytest.raises(CatalogError, match="no photos"):
        load_sop(str(sop))


def test_sop_short_row(sop):
    """Line 5: the header, a row, an empty line, a row, and then the short one."""
    with open(sop / "Ebay_train.txt", "a") as file:
        file.write("3 12 chair/3.JPG\n")
    with pytest.raises(CatalogError, match=r"train\.txt:5: a row must have 4 fields. Received: '3 12 chair/3.JPG'"):
        load_sop(str(sop))


def test_sop_missing_photo_names_the_line(sop):
    (sop / "chair/4.JPG").unlink()
    with pytest.raises(CatalogError, match=r"Ebay_test\.txt:3: photo file '.*chair/4\.JPG' does not exist"):
        load_sop(str(sop))


def test_sop_missing_list(sop):
    (sop / "Ebay_test.txt").unlink()
    with pytest.raises(CatalogError, match=r"Ebay_test\.txt' does not exist. Check `data_dir`"):
        load_sop(str(sop))


@pytest.mark.parametrize("line_end", ["\n", "\r\n"])
def test_sop_attributes_are_found_by_path(sop, line_end):
    """Rows in another order, one photo without a row, one row without a photo, a quoted comma and an empty cell."""
    rows = [
        "colour,path,class_id,material",
        "red,chair/5.JPG,9,wood",
        'blue,bicycle_final/1 a.JPG,10,"steel, rubber"',
        "green,unlisted.JPG,77,paper",
        ",chair/3.JPG,12,metal",
        " grey ,bicycle_final/2.JPG,11,",
    ]
    (sop / "attributes.csv").write_bytes(line_end.join(rows).encode())
    attributes = {name: column.tolist() for name, column in load_sop(str(sop)).attributes.items()}
    assert attributes == {
        "colour": ["blue", "grey", "", "", "red"],
        "material": ["steel, rubber", "", "metal", "", "wood"],
    }


def test_sop_without_attributes_has_none(sop):
    assert load_sop(str(sop)).attributes == {}


def test_sop_attributes_without_path(sop):
    (sop / "attributes.csv").write_text("photo,colour\nchair/3.JPG,red\n")
    with pytest.raises(CatalogError, match=r"attributes\.csv:1: the header must name a column 'path', once"):
        load_sop(str(sop))


def test_sop_attributes_with_two_rows_of_one_photo(sop):
    (sop / "attributes.csv").write_text("path,colour\nchair/3.JPG,red\nchair/4.JPG,red\n\nchair/3.JPG,red\n")
    message = r"attributes\.csv:5: photo 'chair/3\.JPG' has a second row \(the first is in line 2\)"
    with pytest.raises(CatalogError, match=message):
        load_sop(str(sop))


def test_sop_attributes_of_other_photos(sop):
    """Paths from another folder would make every attribute unknown, and nobody would know."""
    (sop / "attributes.csv").write_text("path,colour\nphotos/chair/3.JPG,red\n")
    with pytest.raises(CatalogError, match=r"attributes\.csv has no row for any listed photo"):
        load_sop(str(sop))


def test_sop_in_another_encoding(sop):
    (sop / "Ebay_test.txt").write_bytes((SOP_HEADER + "3 12 2 chair/caf\u00e9.JPG\n").encode("latin-1"))
    with pytest.raises(CatalogError, match=r"Ebay_test\.txt:2: the file is not encoded as UTF-8"):
        load_sop(str(sop))


def test_sop_attributes_as_a_spreadsheet_of_windows_saves_them(sop):
    text = "path;colour\nchair/3.JPG;\u00e9cru\n"
    (sop / "attributes.csv").write_bytes(text.encode("cp1252"))
    catalog = load_sop(str(sop))
    assert catalog.attributes["colour"].tolist() == ["", "", "\u00e9cru", "", ""]
    assert "attributes.csv is not encoded as UTF-8 and is read as Windows-1252" in catalog.notes[0]


def test_sop_photos_that_are_listed_twice_are_named_with_both_files(sop):
    with open(sop / "Ebay_test.txt", "a") as file:
        file.write("\n2 11 1 bicycle_final/2.JPG\n6 9 2 chair/5.JPG\n")
    with pytest.raises(CatalogError) as caught:
        load_sop(str(sop))
    first, second = str(caught.value).splitlines()
    assert "Ebay_test.txt:5: photo 'bicycle_final/2.JPG' is listed a second time" in first
    assert "Ebay_train.txt:4)" in first
    assert "Ebay_test.txt:6: photo 'chair/5.JPG'" in second
    assert "Ebay_test.txt:4)" in second


def test_sop_in_utf_16(sop):
    content = (sop / "Ebay_test.txt").read_text()
    (sop / "Ebay_test.txt").write_text(content, encoding="utf-16")
    with pytest.raises(CatalogError, match=r"Ebay_test\.txt is not encoded as UTF-8 but as UTF-16"):
        load_sop(str(sop))


# CSV


def write_csv(folder, text, photos=("1.jpg", "2.jpg", "3.jpg")):
    """A list named catalog.csv and its photos."""
    touch(folder, *photos)
    (folder / "catalog.csv").write_bytes(text.encode())
    return str(folder)


def test_csv_with_the_two_columns_it_needs(tmp_path):
    catalog = load_csv(write_csv(tmp_path, "path,sku\n1.jpg,mug\n2.jpg,cup\n"))
    assert catalog.paths.tolist() == ["1.jpg", "2.jpg"]
    assert catalog.skus.tolist() == ["mug", "cup"]
    assert catalog.categories is None
    assert catalog.splits is None
    assert catalog.attributes == {}
    assert catalog.where(1) == f"{tmp_path}/catalog.csv:3"


def test_csv_with_every_column_in_any_order(tmp_path):
    text = "colour,split,sku,category,path\nred,train,mug,kitchen,1.jpg\nblue,test,cup,table,2.jpg\n"
    catalog = load_csv(write_csv(tmp_path, text))
    assert catalog.categories.tolist() == ["kitchen", "table"]
    assert catalog.splits.tolist() == ["train", "test"]
    assert {name: column.tolist() for name, column in catalog.attributes.items()} == {"colour": ["red", "blue"]}


def test_csv_from_a_spreadsheet(tmp_path):
    """A byte order mark, Windows line ends, quoted commas and quotes, blanks around fields, an empty last line."""
    text = '\ufeffpath,sku,title\r\n1.jpg,"mug, ""big""",a\r\n 2.jpg , cup ,b\r\n\r\n'
    catalog = load_csv(write_csv(tmp_path, text))
    assert catalog.skus.tolist() == ['mug, "big"', "cup"]
    assert catalog.paths.tolist() == ["1.jpg", "2.jpg"]


def test_csv_line_numbers_count_lines_of_the_file(tmp_path):
    """The first row's title spans lines 2 and 3, so the photo that is missing is listed on line 4."""
    text = 'path,sku,title\n1.jpg,mug,"two\nlines"\nmissing.jpg,cup,b\n'
    with pytest.raises(CatalogError, match=r"catalog\.csv:4: photo file '.*missing\.jpg' does not exist"):
        load_csv(write_csv(tmp_path, text))


def test_csv_may_be_the_file_itself(tmp_path):
    folder = write_csv(tmp_path, "path,sku\n1.jpg,mug\n2.jpg,cup\n")
    (tmp_path / "catalog.csv").rename(tmp_path / "other.csv")
    assert load_csv(f"{folder}/other.csv").files.tolist() == [f"{folder}/1.jpg", f"{folder}/2.jpg"]


def test_csv_in_the_working_folder(tmp_path, monkeypatch):
    write_csv(tmp_path, "path,sku\n1.jpg,mug\n2.jpg,cup\n")
    monkeypatch.chdir(tmp_path)
    assert load_csv("catalog.csv").check_files().files.tolist() == ["1.jpg", "2.jpg"]


@pytest.mark.parametrize("row", ["2.jpg", "2.jpg,cup,extra"], ids=["short", "long"])
def test_csv_row_of_another_length(tmp_path, row):
    with pytest.raises(CatalogError, match=r"catalog\.csv:3: the row has not as many fields as the header, 2"):
        load_csv(write_csv(tmp_path, f"path,sku\n1.jpg,mug\n{row}\n"))


def test_csv_all_rows_of_another_length_are_named(tmp_path):
    with pytest.raises(CatalogError) as caught:
        load_csv(write_csv(tmp_path, "path,sku\n1.jpg\n2.jpg,cup\n3.jpg,mug,x,y\n"))
    lines = str(caught.value).splitlines()
    assert [line.partition("catalog.csv:")[2][:1] for line in lines] == ["2", "4"]
    assert lines[1].endswith("Received: 4 fields.")


@pytest.mark.parametrize("header", ["path,product", "file,sku", ""])
def test_csv_without_the_columns_it_needs(tmp_path, header):
    with pytest.raises(CatalogError, match=r"catalog\.csv:1: the header must name columns 'path' and 'sku'"):
        load_csv(write_csv(tmp_path, f"{header}\n1.jpg,mug\n"))


def test_csv_header_alone(tmp_path):
    with pytest.raises(CatalogError, match=r"catalog\.csv lists no photos"):
        load_csv(write_csv(tmp_path, "path,sku\n"))


@pytest.mark.parametrize("row", [",cup", "2.jpg,", "2.jpg,  "])
def test_csv_row_without_path_or_sku(tmp_path, row):
    with pytest.raises(CatalogError, match=r"catalog\.csv:3: a row has no path or no sku"):
        load_csv(write_csv(tmp_path, f"path,sku\n1.jpg,mug\n{row}\n"))


def test_csv_photo_listed_twice(tmp_path):
    with pytest.raises(CatalogError, match=r"catalog\.csv:4: photo '1\.jpg' is listed a second time .*catalog\.csv:2"):
        load_csv(write_csv(tmp_path, "path,sku\n1.jpg,mug\n2.jpg,cup\n1.jpg,cup\n"))


def test_csv_in_windows_1252_is_read_and_said(tmp_path):
    touch(tmp_path, "1.jpg")
    (tmp_path / "catalog.csv").write_bytes("path,sku\n1.jpg,caf\u00e9\n".encode("cp1252"))
    catalog = load_csv(str(tmp_path))
    assert catalog.skus.tolist() == ["caf\u00e9"]
    (note,) = catalog.notes
    assert re.search(r"catalog\.csv is not encoded as UTF-8 and is read as Windows-1252: line 2 has .*caf\u00e9", note)
    assert catalog.take([0]).notes == catalog.notes


def test_csv_with_a_quote_that_is_never_closed(tmp_path):
    """Read leniently, the quote would swallow every row after it into one field, and nobody would know."""
    text = 'path,sku,title\n1.jpg,mug,"10" screen\n2.jpg,cup,b\n3.jpg,cup,c\n'
    with pytest.raises(CatalogError, match=r"catalog\.csv:\d"):
        load_csv(write_csv(tmp_path, text))


def test_csv_that_names_a_column_twice(tmp_path):
    with pytest.raises(CatalogError, match=r"catalog\.csv:1: .*'sku'"):
        load_csv(write_csv(tmp_path, "path,sku,sku\n1.jpg,mug,cup\n"))


@pytest.mark.parametrize(
    "row, reason",
    [
        ('"2.jpg"x,cup,b', "text follows a closing quote"),
        ('2.jpg,cup,"12 inches', "never closed"),
        ("2.jpg,cup," + "x" * 200_000, "more than 131,072 characters"),
        ("2.jpg,cup", "not as many fields"),
        ('2.jpg,"a\nb\nc"', "not as many fields"),
        ("2.jpg,,b", "no path or no sku"),
        ("nowhere.jpg,cup,b", "does not exist"),
        ('nowhere.jpg,cup,"b\nc"', "does not exist"),
        ("1.jpg,cup,b", "a second time"),
    ],
)
def test_csv_rows_are_named_by_the_line_they_begin_on(tmp_path, row, reason):
    """Lines 2 to 4 are a row whose cell has three lines."""
    text = f'path,sku,text\n1.jpg,mug,"one\ntwo\nthree"\n{row}\n3.jpg,mug,x\n'
    with pytest.raises(CatalogError, match=rf"catalog\.csv:5: .*{reason}"):
        load_csv(write_csv(tmp_path, text))


@pytest.mark.parametrize("header, row", [(",path,sku", "{0},"), ("path,sku,", ",")], ids=["of pandas", "empty"])
def test_csv_column_without_a_name_that_says_nothing(tmp_path, header, row):
    rows = ["1.jpg,mug", "2.jpg,cup"]
    text = "\n".join([header, *(f"{n},{r}" if header[0] == "," else f"{r}," for n, r in enumerate(rows))])
    catalog = load_csv(write_csv(tmp_path, text))
    assert catalog.skus.tolist() == ["mug", "cup"]
    assert catalog.attributes == {}


@pytest.mark.parametrize("cells", [("red", ""), ("3", "4"), ("1", "1")])
def test_csv_column_without_a_name_that_says_something(tmp_path, cells):
    text = f"path,,sku\n1.jpg,{cells[0]},mug\n2.jpg,{cells[1]},cup\n"
    with pytest.raises(CatalogError, match=rf"catalog\.csv:1: column 2 has no name\..*first cell is '{cells[0]}'"):
        load_csv(write_csv(tmp_path, text))


def test_csv_all_missing_photos_and_all_wrong_rows_are_named_at_once(tmp_path):
    text = "path,sku,split\n1.jpg,mug,train\n4.jpg,mug,train\n2.jpg,,tset\n5.jpg,cup,test\n"
    with pytest.raises(CatalogError) as caught:
        load_csv(write_csv(tmp_path, text))
    lines = [line.partition("catalog.csv:")[2][:1] for line in str(caught.value).splitlines()]
    assert sorted(lines) == ["3", "4", "4", "5"]


def test_csv_of_a_table_with_one_long_cell_takes_room_for_its_content_only(tmp_path):
    """A table of 0.7 MB."""
    photos = [f"{row}.jpg" for row in range(3000)]
    rows = [f"{name},sku{row % 100},{'x' * 100_000 if row == 5 else 'short'}" for row, name in enumerate(photos)]
    folder = write_csv(tmp_path, "\n".join(["path,sku,text", *rows]), photos)
    tracemalloc.start()
    catalog = load_csv(folder)
    peak = tracemalloc.get_traced_memory()[1]
    tracemalloc.stop()
    assert len(catalog) == 3000
    assert peak < 10e6


def test_csv_missing(tmp_path):
    with pytest.raises(CatalogError, match=r"catalog\.csv' or '.*catalog\.tsv' does not exist. Check `data_dir`"):
        load_csv(str(tmp_path))


# Folders


def test_folder(tmp_path):
    touch(tmp_path, "mug/b.JPG", "mug/a.png", "cup/a.webp", "cup/notes.txt", "loose.jpg")
    (tmp_path / "empty").mkdir()
    catalog = load_folder(str(tmp_path))
    assert catalog.paths.tolist() == ["cup/a.webp", "mug/a.png", "mug/b.JPG"]
    assert catalog.skus.tolist() == ["cup", "mug", "mug"]
    assert catalog.notes == (note_of_dataset("folder", str(tmp_path)),)
    assert "loose.jpg" in catalog.notes[0] and "notes.txt" in catalog.notes[0]
    assert catalog.take([0]).notes == catalog.notes


def test_folder_of_which_all_is_read_has_no_notes(tmp_path):
    touch(tmp_path, "mug/a.png", "cup/a.webp")
    assert load_folder(str(tmp_path)).notes == ()


def test_folder_without_photos(tmp_path):
    touch(tmp_path, "mug/notes.txt")
    with pytest.raises(CatalogError, match=f"'{tmp_path}' lists no photos"):
        load_folder(str(tmp_path))


def test_folder_with_an_empty_photo(tmp_path):
    touch(tmp_path, "mug/a.jpg")
    (tmp_path / "mug/b.jpg").write_bytes(b"")
    with pytest.raises(CatalogError, match=r"photo file '.*mug/b\.jpg' is empty"):
        load_folder(str(tmp_path))


def test_folder_missing(tmp_path):
    with pytest.raises(CatalogError, match="`data_dir` must be a folder with one folder per sku"):
        load_folder(str(tmp_path / "none"))


# By name


def test_dataset_by_name(tmp_path):
    touch(tmp_path, "mug/a.jpg", "cup/b.jpg")
    assert load_dataset("folder", str(tmp_path)).paths.tolist() == ["cup/b.jpg", "mug/a.jpg"]


def test_unknown_dataset_lists_the_known_ones(tmp_path):
    with pytest.raises(
        ValueError,
        match=r"one of auto, cars196, .*csv, cub, folder, inshop, parquet, sop, synthetic, xlsx\..*'imagenet'",
    ):
        load_dataset("imagenet", str(tmp_path))


@pytest.mark.parametrize("name", sorted(LOADERS.keys() - {"synthetic"}))
@pytest.mark.parametrize("data_dir", [None, ""])
def test_dataset_without_data_dir(name, data_dir):
    with pytest.raises(ValueError, match=f"`data_dir` must say where the photos of a '{name}' dataset are"):
        load_dataset(name, data_dir)


@pytest.mark.parametrize("name", sorted(LOADERS.keys() - {"synthetic"}))
def test_every_reader_refuses_an_empty_folder(name, tmp_path):
    with pytest.raises(CatalogError, match=r"does not exist\. Check `data_dir`|lists no photos"):
        load_dataset(name, str(tmp_path))


# Real data, as its README describes it


def test_real_grocery():
    catalog = load_dataset("csv", shared("grocery"))
    train, test = catalog.split("train"), catalog.split("test")
    assert len(catalog) == 2936
    assert (train.num_classes, test.num_classes) == (41, 40)
    assert not set(train.skus) & set(test.skus)
    assert len(np.unique(catalog.attributes["department"])) == 3
    assert train.check_trainable() is train


def test_real_fashion():
    catalog = load_dataset("sop", shared("fashion"))
    train, test = catalog.split("train"), catalog.split("test")
    assert (len(train), train.num_classes) == (5989, 1926)
    assert (len(test), test.num_classes) == (5955, 1927)
    assert not set(train.skus) & set(test.skus)
    assert len(np.unique(catalog.categories)) == 30


def test_real_fashion_attributes():
    """Against the rows of the file, cut by hand where there are no quotes."""
    folder = shared("fashion")
    catalog = load_dataset("sop", folder)
    header, *rows = pathlib.Path(folder, "attributes.csv").read_text(encoding="utf-8").splitlines()
    known = {row.split(",")[0]: dict(zip(header.split(","), row.split(","))) for row in rows if '"' not in row}
    assert list(catalog.attributes) == header.split(",")[2:]
    for name, column in catalog.attributes.items():
        for path, value in zip(catalog.paths.tolist(), column.tolist()):
            assert path not in known or known[path][name].strip() == value
    assert len(np.unique(catalog.categorized_by("subCategory").categories)) == 30
