"""Tables of shops in every form give the same catalogue, and the same refusals with the place of each row."""

import csv
import datetime
import decimal
import sys

import numpy as np
import pytest

from eet_tf.data.catalog import CatalogError
from eet_tf.data.listings import catalog_from_frame, load_csv, load_parquet, load_xlsx

NAMES = ["image", "product_id", "category", "split", "colour", "price", "new", "stock"]
ROWS = [
    ["1.jpg", "mug", "kitchen", "train", "red|blue", 19.9, True, 3],
    ["2.jpg", "mug", "", "train", "red", 5.0, False, 0],
    ["3.jpg", "cup", "table", "Test", "", None, True, 12],
]
COLUMNS = {"path": "image", "sku": "product_id"}


class PlainFrame:
    """The least that a DataFrame is."""

    def __init__(self, names, rows):
        self.columns = names
        self._cells = dict(zip(names, zip(*rows)))

    def __getitem__(self, name):
        return iter(self._cells[name])


def installed(package):
    """The package; the test is skipped where it is not installed, or not for this version of NumPy."""
    return pytest.importorskip(package, exc_type=ImportError)


def write_csv(file, names, rows):
    with open(file, "w", newline="") as opened:
        writer = csv.writer(opened, delimiter=";")
        writer.writerow(names)
        writer.writerows([str(cell).lower() if isinstance(cell, bool) else cell for cell in row] for row in rows)


def write_xlsx(file, names, rows):
    openpyxl = installed("openpyxl")
    book = openpyxl.Workbook()
    for row in [names, *rows]:
        book.active.append([None if cell == "" else cell for cell in row])
    book.save(file)


def write_parquet(file, names, rows):
    pyarrow = installed("pyarrow")
    parquet = installed("pyarrow.parquet")
    parquet.write_table(pyarrow.table(dict(zip(names, map(list, zip(*rows))))), file)


def frame_of(package):
    def load(folder, names, rows, columns=None, separator=None):
        cells = dict(zip(names, map(list, zip(*rows))))
        frame = PlainFrame(names, rows) if package is None else installed(package).DataFrame(cells)
        return catalog_from_frame(frame, str(folder), columns, separator)

    return load


def file_of(write, load, name):
    def load_it(folder, names, rows, columns=None, separator=None):
        write(folder / name, names, rows)
        return load(folder, columns, separator)

    return load_it


FORMS = {
    "csv": file_of(write_csv, load_csv, "catalog.csv"),
    "xlsx": file_of(write_xlsx, load_xlsx, "catalog.xlsx"),
    "parquet": file_of(write_parquet, load_parquet, "catalog.parquet"),
    "plain": frame_of(None),
    "pandas": frame_of("pandas"),
    "polars": frame_of("polars"),
}
every_form = pytest.mark.parametrize("form", FORMS)


@pytest.fixture
def folder(tmp_path):
    for name in ("1.jpg", "2.jpg", "3.jpg"):
        (tmp_path / name).write_bytes(b"x")
    return tmp_path


@every_form
def test_one_table_is_one_catalogue_in_every_form(form, folder):
    catalog = FORMS[form](folder, NAMES, ROWS, COLUMNS, "|")
    assert catalog.paths.tolist() == ["1.jpg", "2.jpg", "3.jpg"]
    assert catalog.skus.tolist() == ["mug", "mug", "cup"]
    assert catalog.categories.tolist() == ["kitchen", "", "table"]
    assert catalog.splits.tolist() == ["train", "train", "test"]
    assert list(catalog.attributes) == ["colour", "price", "new", "stock"]
    assert catalog.attributes["colour"].tolist() == [("red", "blue"), ("red",), ()]
    assert catalog.attributes["new"].tolist() == [True, False, True]
    assert catalog.attributes["stock"].tolist() == [3, 0, 12]
    np.testing.assert_array_equal(catalog.attributes["price"], [19.9, 5.0, np.nan])
    assert catalog.notes == ()


@every_form
def test_all_wrong_rows_are_named_at_once(form, folder):
    rows = [["1.jpg", "mug", "train"], ["4.jpg", "mug", "tset"], ["2.jpg", "", "test"], ["1.jpg", "cup", ""]]
    with pytest.raises(CatalogError) as caught:
        FORMS[form](folder, ["path", "sku", "split"], rows)
    places = {
        "csv": "{0}/catalog.csv:{1}",
        "xlsx": "{0}/catalog.xlsx, row {1}",
        "parquet": "{0}/catalog.parquet, row {2}",
    }
    place = places.get(form, "the frame, row {2}")
    complaints = [(1, "a split must be"), (1, "does not exist"), (2, "no path or no sku"), (3, "listed a second time")]
    lines = str(caught.value).splitlines()
    assert len(lines) == 4
    for row, complaint in complaints:
        assert any(
            line.startswith(f"{place.format(folder, row + 2, row)}: ") and complaint in line for line in lines
        ), row


@every_form
def test_other_names_are_refused_with_the_columns_to_pass(form, folder):
    with pytest.raises(CatalogError, match=r"--columns=path:image,sku:product_id"):
        FORMS[form](folder, NAMES, ROWS)


@every_form
def test_columns_that_are_not_there_are_refused(form, folder):
    with pytest.raises(
        CatalogError, match=r"`columns` must name columns of the table. Received: sku:item; its columns"
    ):
        FORMS[form](folder, NAMES, ROWS, {"path": "image", "sku": "item"})


@every_form
def test_without_a_separator_a_cell_is_one_value(form, folder):
    assert FORMS[form](folder, NAMES, ROWS, COLUMNS).attributes["colour"].tolist() == ["red|blue", "red", ""]


@every_form
@pytest.mark.parametrize("separator", ["", "a", " x ", 5])
def test_a_separator_is_a_mark(form, separator, folder):
    with pytest.raises(CatalogError, match="`separator` must be what stands between the values of one cell"):
        FORMS[form](folder, NAMES, ROWS, COLUMNS, separator)


@every_form
def test_numbers_may_be_skus_and_categories(form, folder):
    catalog = FORMS[form](folder, ["path", "sku", "category"], [["1.jpg", 4711, 7], ["2.jpg", 12, 7]])
    assert catalog.skus.tolist() == ["4711", "12"]
    assert catalog.categories.tolist() == ["7", "7"]


@pytest.mark.parametrize("form", ["csv", "plain"])
def test_decimal_commas_stay_text_and_are_said(form, folder):
    """The second column may as well be words with a comma between them, the third is empty."""
    rows = [["1.jpg", "mug", "1.019,90", "red,blue", ""], ["2.jpg", "cup", "", "1,5", ""]]
    catalog = FORMS[form](folder, ["path", "sku", "price", "what", "none"], rows)
    assert catalog.attributes["price"].tolist() == ["1.019,90", ""]
    (note,) = catalog.notes
    assert "column 'price', such as '1.019,90', looks like numbers with a decimal comma and stays text" in note


@pytest.mark.parametrize(
    "load, name, package, extra",
    [(load_xlsx, "catalog.xlsx", "openpyxl", "xlsx"), (load_parquet, "catalog.parquet", "pyarrow", "parquet")],
)
def test_what_must_be_installed_is_said(load, name, package, extra, folder, monkeypatch):
    (folder / name).write_bytes(b"x")
    monkeypatch.setitem(sys.modules, package, None)
    with pytest.raises(
        CatalogError, match=rf'{name} is .* {package} reads. Install it: pip install "eet-tf\[{extra}\]"'
    ):
        load(str(folder))


def test_a_pyarrow_for_another_numpy_is_said(folder, tmp_path, monkeypatch):
    (folder / "catalog.parquet").write_bytes(b"x")
    (tmp_path / "site").mkdir()
    (tmp_path / "site" / "pyarrow.py").write_text("raise ImportError('pyarrow requires NumPy 2.0')")
    monkeypatch.syspath_prepend(tmp_path / "site")
    monkeypatch.delitem(sys.modules, "pyarrow", raising=False)
    with pytest.raises(
        CatalogError, match=r'"eet-tf\[parquet\]"\. The one that is installed .*: pyarrow requires NumPy 2'
    ):
        load_parquet(str(folder))


@pytest.mark.parametrize(
    "load, name, package",
    [(load_xlsx, "catalog.xlsx", "openpyxl"), (load_parquet, "catalog.parquet", "pyarrow.parquet")],
)
def test_a_damaged_file_is_refused_by_name(load, name, package, folder):
    installed(package)
    for content in (b"", b"path,sku\n", b"PK\x03\x04 and no more", b"PAR1 and no more PAR1"):
        (folder / name).write_bytes(content)
        with pytest.raises(CatalogError, match=rf"{name} is no .*or is damaged"):
            load(str(folder))


# Excel


def workbook(folder, *sheets):
    """A workbook of sheets: (title, rows)."""
    openpyxl = installed("openpyxl")
    book = openpyxl.Workbook()
    book.remove(book.active)
    for title, rows in sheets:
        sheet = book.create_sheet(title)
        for row in rows:
            sheet.append(row)
    return book


def saved(book, folder):
    book.save(folder / "shop.xlsx")
    return str(folder / "shop.xlsx")


TABLE = [["path", "sku"], ["1.jpg", "mug"], ["2.jpg", "cup"]]
LEGEND = [["colour", "means"], ["red", "warm"]]


@pytest.mark.parametrize(
    "sheets",
    [
        [("Sheet1", TABLE), ("Sheet2", [])],
        [("Legend", LEGEND), ("Products", TABLE)],
        [("Catalog", TABLE), ("Old", TABLE)],
    ],
)
def test_the_sheet_that_has_the_table(sheets, folder):
    assert load_xlsx(saved(workbook(folder, *sheets), folder)).skus.tolist() == ["mug", "cup"]


@pytest.mark.parametrize("sheets", [[("A", TABLE), ("B", TABLE)], [("A", LEGEND), ("B", LEGEND)]])
def test_sheets_of_which_none_is_clear_are_listed(sheets, folder):
    with pytest.raises(CatalogError, match="shop.xlsx has 2 sheets, 'A', 'B', and it is not clear .* 'catalog'"):
        load_xlsx(saved(workbook(folder, *sheets), folder))


def test_hidden_sheets_are_not_asked(folder):
    book = workbook(folder, ("A", TABLE), ("B", TABLE))
    book["B"].sheet_state = "hidden"
    assert len(load_xlsx(saved(book, folder))) == 2


def test_rows_are_named_as_excel_numbers_them(folder):
    """Two empty rows stand above the header, one between the rows."""
    rows = [[], [], ["sku", "path", None], ["mug", " 1.jpg "], [None, None], ["cup", "9.jpg"]]
    with pytest.raises(CatalogError) as caught:
        load_xlsx(saved(workbook(folder, ("S", rows)), folder))
    assert str(caught.value).startswith(f"{folder}/shop.xlsx, row 6: photo file '{folder}/9.jpg' does not exist")


def test_cells_of_excel_are_what_they_show(folder):
    names = ["path", "sku", "day", "code", "weight", "size"]
    day = datetime.datetime(2026, 1, 2)
    book = workbook(folder, ("S", [names, ["1.jpg", 12.0, day, 42, 2.5, 38], ["2.jpg", 4711, None, 7, "#N/A", "M"]]))
    book["S"]["D2"].number_format = book["S"]["D3"].number_format = "0000"
    catalog = load_xlsx(saved(book, folder))
    assert catalog.skus.tolist() == ["12", "4711"]
    assert {name: column.tolist() for name, column in catalog.attributes.items() if name != "weight"} == {
        "day": ["2026-01-02", ""],
        "code": ["0042", "0007"],
        "size": ["38", "M"],
    }
    np.testing.assert_array_equal(catalog.attributes["weight"], [2.5, np.nan])


def test_errors_in_cells_are_all_named(folder):
    rows = [["path", "sku", "price"], ["1.jpg", "#REF!", 5], ["2.jpg", "cup", "#DIV/0!"]]
    with pytest.raises(CatalogError) as caught:
        load_xlsx(saved(workbook(folder, ("S", rows)), folder))
    first, second = str(caught.value).splitlines()
    assert first == f"{folder}/shop.xlsx, row 2, column 2: the cell shows the error #REF!. Mend it or empty it."
    assert "row 3, column 3: the cell shows the error #DIV/0!" in second


def test_an_old_workbook_is_refused(folder):
    installed("openpyxl")
    (folder / "catalog.xlsx").write_bytes(b"\xd0\xcf\x11\xe0\xa1\xb1\x1a\xe1" + bytes(512))
    with pytest.raises(CatalogError, match=r"catalog\.xlsx is an old \.xls file or has a password. Save it as \.xlsx"):
        load_xlsx(str(folder))


def test_a_column_of_excel_without_a_name_is_refused_where_it_says_something(folder):
    rows = [["path", None, "sku"], ["1.jpg", None, "mug"], ["2.jpg", "x", "cup", None]]
    with pytest.raises(CatalogError, match=r"shop\.xlsx, row 1: column 2 has no name\..*first cell is 'x'"):
        load_xlsx(saved(workbook(folder, ("S", rows)), folder))
    rows[2][1] = None
    assert load_xlsx(saved(workbook(folder, ("S", rows)), folder)).attributes == {}


def test_an_empty_workbook_is_refused_by_its_header(folder):
    with pytest.raises(CatalogError, match=r"shop\.xlsx, row 1: the header must name columns 'path' and 'sku'"):
        load_xlsx(saved(workbook(folder, ("S", [])), folder))


# Parquet and frames


def test_lists_decimals_and_days_of_parquet(folder):
    names = ["path", "sku", "colour", "price", "day"]
    day = datetime.date(2026, 1, 2)
    rows = [["1.jpg", "mug", ["red", "blue"], decimal.Decimal("19.90"), day], ["2.jpg", "cup", [], None, None]]
    catalog = FORMS["parquet"](folder, names, rows)
    assert catalog.attributes["colour"].tolist() == [("red", "blue"), ()]
    assert catalog.attributes["price"][0] == 19.9 and np.isnan(catalog.attributes["price"][1])
    assert catalog.column_texts("price").tolist() == ["19.90", ""]
    assert catalog.attributes["day"].tolist() == ["2026-01-02", ""]


def test_bytes_and_records_of_parquet_are_left_out_and_said(folder):
    names = ["path", "sku", "picture", "about"]
    catalog = FORMS["parquet"](folder, names, [["1.jpg", "mug", b"x", {"a": 1}], ["2.jpg", "cup", b"y", {"a": 2}]])
    assert catalog.attributes == {}
    assert catalog.notes == (
        f"{folder}/catalog.parquet: left out columns 'picture', 'about', which hold bytes or records.",
    )


def test_the_index_of_a_frame_in_parquet_is_no_attribute(folder):
    pandas = installed("pandas")
    installed("pyarrow.parquet")
    frame = pandas.DataFrame({"path": ["1.jpg", "2.jpg"], "sku": ["mug", "cup"]}, index=[0, 1])
    frame.to_parquet(folder / "catalog.parquet", index=True)
    assert load_parquet(str(folder)).attributes == {}


def test_missing_values_of_pandas(folder):
    pandas = installed("pandas")
    cells = {"path": ["1.jpg", "2.jpg"], "sku": ["mug", "cup"], "category": ["x", pandas.NA], "split": [None, "test"]}
    frame = pandas.DataFrame({**cells, "n": pandas.array([1, None], dtype="Int64")})
    catalog = catalog_from_frame(frame, str(folder))
    assert catalog.categories.tolist() == ["x", ""]
    assert catalog.splits.tolist() == ["", "test"]
    np.testing.assert_array_equal(catalog.attributes["n"], [1.0, np.nan])
    frame["sku"] = [4711.0, None]
    with pytest.raises(CatalogError, match=r"the frame, row 0: .*dtype=str\.\nthe frame, row 1: .*the sku is missing"):
        catalog_from_frame(frame, str(folder))


@pytest.mark.parametrize("frame", [{}, None, 5, ["path", "sku"], PlainFrame], ids=str)
def test_what_is_no_frame_is_refused(frame):
    with pytest.raises(CatalogError, match="`frame` must be a DataFrame, which has the names of its columns"):
        catalog_from_frame(frame)


@pytest.mark.parametrize("names", [["path", "sku", 7], ["path", "sku", "sku"]])
def test_names_of_a_frame_are_strings_of_their_own(names):
    with pytest.raises(
        CatalogError, match="`frame` must have columns with names of their own, strings. Received: .*(7|'sku')"
    ):
        catalog_from_frame(PlainFrame(names, [["1.jpg", "mug", "x"]]))
