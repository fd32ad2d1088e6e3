"""Which encoding a list has: told by its mark, by all of its bytes, or refused with the line."""

import codecs

import pytest

from eet_tf.data import encodings
from eet_tf.data.catalog import CatalogError
from eet_tf.data.encodings import encoding_of

TEXT = "path,sku\n1.jpg,caf\u00e9\n2.jpg,cup\n"


@pytest.fixture
def written(tmp_path):
    """Writes bytes and gives the file's name."""

    def write(content):
        (tmp_path / "list.csv").write_bytes(content)
        return str(tmp_path / "list.csv")

    return write


@pytest.mark.parametrize(
    "content, name",
    [
        (TEXT.encode(), "utf-8"),
        (b"", "utf-8"),
        (b"path,sku\n", "utf-8"),
        (TEXT.encode("utf-8-sig"), "utf-8-sig"),
        (codecs.BOM_UTF16_LE + TEXT.encode("utf-16-le"), "utf-16"),
        (codecs.BOM_UTF16_BE + TEXT.encode("utf-16-be"), "utf-16"),
        ("path,sku\n1.jpg,\u043a\u0440\u0443\u0436\u043a\u0430\n".encode(), "utf-8"),
    ],
)
def test_marks_and_utf_8(content, name, written):
    file = written(content)
    assert encoding_of(file) == (name, "")
    with open(file, encoding=name) as opened:
        assert opened.read() == content.decode(name)


@pytest.mark.parametrize("size", [1, 2, 3, 7])
def test_a_letter_may_lie_across_two_reads(size, written, monkeypatch):
    monkeypatch.setattr(encodings, "_READ_AT_ONCE", size)
    assert encoding_of(written("\u20ac\u00e9\u043a".encode())).name == "utf-8"


@pytest.mark.parametrize(
    "text",
    [
        "caf\u00e9",
        "\u00dcbergr\u00f6\u00dfe",
        "19,90 \u20ac",
        "\u00ab\u00a0\u00c9t\u00e9\u00a0\u00bb",
        "it\u2019s 5\u00d73\u2026",
    ],
)
def test_western_texts_of_windows_are_read_and_said(text, written):
    encoding = encoding_of(written(f"path,sku\r\n1.jpg,mug\r\n2.jpg,{text}\r\n".encode("cp1252")))
    assert encoding.name == "cp1252"
    assert "is read as Windows-1252: line 3 has the text " in encoding.note
    assert encoding.note.endswith("save the file as UTF-8.")


@pytest.mark.parametrize(
    "content, problem",
    [
        (
            "\u043a\u0440\u0443\u0436\u043a\u0430".encode("cp1251"),
            r"cannot be told: as Windows-1252 .* '\u00ea\u00f0\u00f3\u00e6\u00ea\u00e0'",
        ),
        ("\u676f\u5b50".encode("gbk"), "cannot be told"),
        ("\u30b3\u30fc\u30d2".encode("shift_jis"), "Windows-1252 has no such text either|cannot be told"),
        (b"a\x81b", "Windows-1252 has no such text either"),
        (b"caf\xe9 \x02", "cannot be told"),
        ("caf\u00e9,".encode() + "caf\u00e9".encode("cp1252"), "although other parts of it are"),
        ((("\u20ac" * 9 + "\u00e9").encode()[:-1]), "although other parts of it are"),
    ],
)
def test_what_cannot_be_told_is_refused_with_its_line(content, problem, written):
    file = written(b"path,sku\n1.jpg,mug\n2.jpg," + content + b"\n")
    with pytest.raises(CatalogError, match=rf"list\.csv:3: the file is not encoded as UTF-8: \.\.\..*{problem}"):
        encoding_of(file)


def test_a_file_that_says_utf_8_and_is_not(written):
    with pytest.raises(CatalogError, match=r"list\.csv:2: the file is not encoded as UTF-8: .*Save all of it as UTF-8"):
        encoding_of(written(codecs.BOM_UTF8 + b"path,sku\n1.jpg,caf\xe9\n"))


@pytest.mark.parametrize("content", [TEXT.encode("utf-16-le"), b"path,sku\n1.jpg,a\0b\n"], ids=["utf-16", "NUL"])
def test_a_nul_is_no_text(content, written):
    line = content[: content.index(b"\0")].count(b"\n") + 1
    with pytest.raises(CatalogError, match=rf"list\.csv:{line}: the row holds a NUL character"):
        encoding_of(written(content))


def test_utf_32_and_damaged_utf_16_are_refused(written):
    with pytest.raises(CatalogError, match="encoded as UTF-32. Save it as UTF-8"):
        encoding_of(written(TEXT.encode("utf-32")))
    with pytest.raises(CatalogError, match="begins like UTF-16 and is damaged"):
        encoding_of(written(TEXT.encode("utf-16")[:-1]))


@pytest.mark.parametrize(
    "start, what",
    [
        (b"PK\x03\x04", "--dataset=xlsx"),
        (b"PAR1", "--dataset=parquet"),
        (b"\xd0\xcf\x11\xe0", "old Excel workbook. Save"),
    ],
)
def test_tables_of_other_programs_are_told_from_text(start, what, written):
    with pytest.raises(CatalogError, match=rf"list\.csv is no CSV, but .*{what}"):
        encoding_of(written(start + b"path,sku\n"))
