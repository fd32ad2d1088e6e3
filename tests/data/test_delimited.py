"""Text tables as shops save them: what parts the cells, in which encoding, and rows named by their lines."""

import codecs

import pytest

from eet_tf.data.catalog import CatalogError
from eet_tf.data.listings import load_csv

MARKS = [",", ";", "\t", "|"]


@pytest.fixture
def saved(tmp_path):
    """Writes photos 1.jpg to 3.jpg and a list of them; gives the list's name."""
    for name in ("1.jpg", "2.jpg", "3.jpg"):
        (tmp_path / name).write_bytes(b"x")

    def save(text, encoding="utf-8", name="catalog.csv"):
        (tmp_path / name).write_bytes(text.encode(encoding))
        return str(tmp_path / name)

    return save


@pytest.mark.parametrize("encoding", ["utf-8", "utf-8-sig", "utf-16", "cp1252"])
@pytest.mark.parametrize("line_end", ["\n", "\r\n", "\r"])
@pytest.mark.parametrize("mark", MARKS)
def test_every_mark_in_every_encoding(mark, line_end, encoding, saved):
    """The title holds all marks and a line of its own, in quotes."""
    title = f'"{"".join(MARKS)} ""caf\u00e9"" {line_end}x"'
    rows = ["path|sku|title|colour".replace("|", mark), f"1.jpg{mark}mug{mark}{title}{mark}red"]
    rows.append(f"2.jpg{mark} cup {mark}b{mark}")
    catalog = load_csv(saved(line_end.join(rows), encoding))
    assert catalog.skus.tolist() == ["mug", "cup"]
    assert catalog.attributes["title"].tolist() == [f'{"".join(MARKS)} "caf\u00e9" {line_end}x', "b"]
    assert catalog.attributes["colour"].tolist() == ["red", ""]
    assert [catalog.where(row).rpartition(":")[2] for row in range(2)] == ["2", "4"]
    assert len(catalog.notes) == (encoding == "cp1252")


def test_utf_16_of_the_other_byte_order(tmp_path, saved):
    saved("")
    text = codecs.BOM_UTF16_BE + "path\tsku\n1.jpg\tcaf\u00e9\n".encode("utf-16-be")
    (tmp_path / "list.txt").write_bytes(text)
    assert load_csv(str(tmp_path / "list.txt")).skus.tolist() == ["caf\u00e9"]


@pytest.mark.parametrize("mark", MARKS)
@pytest.mark.parametrize("other", MARKS)
def test_other_marks_in_cells_and_names_change_nothing(mark, other, saved):
    """As many of them as a row of its own would need."""
    if mark == other:
        return
    text = f"path{mark}sku{mark}x{other}y\n1.jpg{mark}a{other}b{mark}c{other}d\n2.jpg{mark}e{other}f{mark}g\n"
    catalog = load_csv(saved(text))
    assert catalog.skus.tolist() == [f"a{other}b", f"e{other}f"]
    assert catalog.attributes[f"x{other}y"].tolist() == [f"c{other}d", "g"]


def test_a_tab_separated_list_in_a_folder(tmp_path, saved):
    saved("path\tsku\n1.jpg\tmug\n", name="catalog.tsv")
    assert load_csv(str(tmp_path)).skus.tolist() == ["mug"]


def test_a_row_of_another_length_is_named_whatever_parts_it(saved):
    with pytest.raises(
        CatalogError, match=r"catalog\.csv:3: the row has not as many fields as the header, 2.*1 field\."
    ):
        load_csv(saved("path;sku\n1.jpg;mug\n2.jpg,cup\n"))


def test_a_header_that_is_parted_by_another_mark_than_the_rows(saved):
    message = r"catalog\.csv:3: the cells of the rows are parted by commas, those of the header by semicolons"
    with pytest.raises(CatalogError, match=message):
        load_csv(saved("path;sku\n\n1.jpg,mug\n2.jpg,cup\n"))


@pytest.mark.parametrize("mark", MARKS)
def test_a_header_without_the_columns_is_shown_in_its_own_words(mark, saved):
    text = f"photo{mark}price,old{mark}id\n1.jpg{mark}5{mark}7\n" if mark != "," else "photo,price|old,id\n1.jpg,5,7\n"
    with pytest.raises(CatalogError, match=r"catalog\.csv:1: .*Received: \['photo', 'price.old', 'id'\]"):
        load_csv(saved(text))


@pytest.mark.parametrize("text", ["", "path", "path\n1.jpg\n", "1.jpg\nmug\n", "\n\npath,sku\n1.jpg,a\n"])
def test_what_is_no_table_is_refused_by_its_header(text, saved):
    with pytest.raises(CatalogError, match=r"catalog\.csv:1: the header must name columns 'path' and 'sku'"):
        load_csv(saved(text))


def test_a_quote_that_is_never_closed_is_named_whatever_parts_the_cells(saved):
    with pytest.raises(CatalogError, match=r"catalog\.csv:3: a quote is opened in this row and never closed"):
        load_csv(saved('path;sku\n1.jpg;mug\n2.jpg;"cup\n3.jpg;cup\n'))
