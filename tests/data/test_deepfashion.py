"""DeepFashion's lists as published, padded and with repeats; each mistake is refused with its file and line."""

import pytest

from eet_tf.data.attributes import _ANSWERS
from eet_tf.data.catalog import CatalogError
from eet_tf.data.deepfashion import load_consumer_to_shop, load_inshop

INSHOP = [
    ("img/WOMEN/Dresses/id_00000002/02_1_front.jpg", "id_00000002", "train"),
    ("img/WOMEN/Dresses/id_00000002/02_2_side.jpg", "id_00000002", "train"),
    ("img/MEN/Denim/id_00000080/01_1_front.jpg", "id_00000080", "train"),
    ("img/WOMEN/Blouses_Shirts/id_00000001/02_1_front.jpg", "id_00000001", "query"),
    ("img/WOMEN/Blouses_Shirts/id_00000001/02_3_back.jpg", "id_00000001", "gallery"),
    ("img/MEN/Tees_Tanks/id_00000390/09_4_full.jpg", "id_00000390", "gallery"),
]
CONSUMER = [
    ("img/CLOTHING/Blouse/id_00030769/comsumer_01.jpg", "img/CLOTHING/Blouse/id_00030769/shop_01.jpg", "train"),
    ("img/CLOTHING/Blouse/id_00030769/comsumer_02.jpg", "img/CLOTHING/Blouse/id_00030769/shop_01.jpg", "train"),
    ("img/DRESSES/Dress/id_00000007/comsumer_01.jpg", "img/DRESSES/Dress/id_00000007/shop_01.jpg", "val"),
    ("img/DRESSES/Dress/id_00000007/comsumer_01.jpg", "img/DRESSES/Dress/id_00000007/shop_02.jpg", "val"),
    ("img/TOPS/T_Shirt/id_00000009/comsumer_01.jpg", "img/TOPS/T_Shirt/id_00000009/shop_01.jpg", "test"),
]
CONSUMER = [(consumer, shop, shop.split("/")[3], split) for consumer, shop, split in CONSUMER]
INSHOP_HEADER = "image_name item_id evaluation_status"
CONSUMER_HEADER = "image_pair_name_1 image_pair_name_2 item_id evaluation_status"


def touch(folder, paths):
    for path in paths:
        (folder / path).parent.mkdir(parents=True, exist_ok=True)
        (folder / path).write_bytes(b"x")


def write_list(file, header, rows, count=None, line_end="\n"):
    """A count, a header and rows whose columns are padded to one width, as published."""
    widths = [max(map(len, column)) for column in zip(*rows)]
    padded = [" ".join(value.ljust(width) for value, width in zip(row, widths)) for row in rows]
    file.parent.mkdir(parents=True, exist_ok=True)
    lines = [str(len(rows) if count is None else count), header, *padded, ""]
    file.write_bytes(line_end.join(lines).encode())


def insert_line(file, number, line):
    """Puts a line in so that it has the given number, from 1."""
    lines = file.read_text().split("\n")
    file.write_text("\n".join([*lines[: number - 1], line, *lines[number - 1 :]]))


def write_attributes(folder, names, rows):
    """The two lists of attributes; `rows` is [(item, values)]."""
    folder.mkdir(parents=True, exist_ok=True)
    (folder / "list_attr_cloth.txt").write_text("\n".join([str(len(names)), "attribute_name", *names, ""]))
    answers = [f"{item} {' '.join(map(str, values))} " for item, values in rows]
    (folder / "list_attr_items.txt").write_text("\n".join([str(len(rows)), "item_id attribute_labels", *answers, ""]))


@pytest.fixture
def inshop(tmp_path):
    write_list(tmp_path / "Eval/list_eval_partition.txt", INSHOP_HEADER, INSHOP)
    touch(tmp_path, [row[0] for row in INSHOP])
    return tmp_path


@pytest.fixture
def consumer(tmp_path):
    """The count is of something else than pairs: photos, say."""
    write_list(tmp_path / "Eval/list_eval_partition.txt", CONSUMER_HEADER, CONSUMER, count=9)
    touch(tmp_path, [path for row in CONSUMER for path in row[:2]])
    return tmp_path


# In-Shop


def test_inshop(inshop):
    catalog = load_inshop(str(inshop))
    assert catalog.paths.tolist() == [path for path, _, _ in INSHOP]
    assert catalog.skus.tolist() == [item for _, item, _ in INSHOP]
    assert catalog.splits.tolist() == ["train", "train", "train", "test", "test", "test"]
    assert catalog.roles.tolist() == ["", "", "", "query", "gallery", "gallery"]
    assert catalog.categories.tolist() == [
        "WOMEN/Dresses",
        "WOMEN/Dresses",
        "MEN/Denim",
        "WOMEN/Blouses_Shirts",
        "WOMEN/Blouses_Shirts",
        "MEN/Tees_Tanks",
    ]
    assert catalog.attributes == {}
    assert catalog.check_files() is catalog
    assert catalog.where(3) == f"{inshop}/Eval/list_eval_partition.txt:6"


def test_inshop_with_windows_line_ends_and_blank_lines(inshop):
    plain = load_inshop(str(inshop))
    file = inshop / "Eval/list_eval_partition.txt"
    write_list(file, INSHOP_HEADER, INSHOP, line_end="\r\n")
    file.write_bytes(file.read_bytes().replace(b"gallery\r\n", b"gallery\r\n  \r\n\r\n"))
    catalog = load_inshop(str(inshop))
    for name in ("paths", "skus", "splits", "roles"):
        assert getattr(catalog, name).tolist() == getattr(plain, name).tolist()
    assert catalog.where(5) == f"{file}:10"


def test_inshop_photos_and_list_in_other_places(inshop):
    """As two of the archives unpack: the photos below Img, and the list beside everything."""
    (inshop / "Eval/list_eval_partition.txt").rename(inshop / "list_eval_partition.txt")
    (inshop / "Img").mkdir()
    (inshop / "img").rename(inshop / "Img/img")
    catalog = load_inshop(str(inshop))
    assert catalog.paths.tolist() == [path for path, _, _ in INSHOP]
    assert catalog.check_files().files[0] == f"{inshop}/Img/{INSHOP[0][0]}"


def test_inshop_list_missing_names_both_places(inshop):
    (inshop / "Eval/list_eval_partition.txt").unlink()
    message = r"Eval/list_eval_partition\.txt' or '.*/list_eval_partition\.txt' does not exist\. Check `data_dir`"
    with pytest.raises(CatalogError, match=message):
        load_inshop(str(inshop))


def test_inshop_missing_photo_names_the_line(inshop):
    (inshop / INSHOP[4][0]).unlink()
    message = r"list_eval_partition\.txt:7: photo file '.*/id_00000001/02_3_back\.jpg' does not exist"
    with pytest.raises(CatalogError, match=message):
        load_inshop(str(inshop))


@pytest.mark.parametrize("count", ["", INSHOP_HEADER, "six"])
def test_inshop_without_its_count(inshop, count):
    write_list(inshop / "Eval/list_eval_partition.txt", INSHOP_HEADER, INSHOP, count=count)
    with pytest.raises(CatalogError, match=r"list_eval_partition\.txt:[12]: the first line must be the number of rows"):
        load_inshop(str(inshop))


def test_inshop_cut_short(inshop):
    write_list(inshop / "Eval/list_eval_partition.txt", INSHOP_HEADER, INSHOP, count=52712)
    with pytest.raises(CatalogError, match=r"list_eval_partition\.txt: its first line promises 52,712 rows.*: 6"):
        load_inshop(str(inshop))


def test_inshop_empty_list(inshop):
    (inshop / "Eval/list_eval_partition.txt").write_text("")
    with pytest.raises(CatalogError, match=r"list_eval_partition\.txt:1: the first line must be the number of rows"):
        load_inshop(str(inshop))


def test_inshop_list_without_rows(inshop):
    (inshop / "Eval/list_eval_partition.txt").write_text(f"0\n{INSHOP_HEADER}\n")
    with pytest.raises(CatalogError, match=r"list_eval_partition\.txt lists no photos"):
        load_inshop(str(inshop))


def test_the_list_of_the_other_benchmark(inshop):
    with pytest.raises(CatalogError, match=r"partition\.txt:2: the second line must be 'image_pair_name_1 image_pair"):
        load_consumer_to_shop(str(inshop))


@pytest.mark.parametrize(
    "row, problem",
    [
        (
            "img/WOMEN/Dresses/id_1/a.jpg id_1",
            "a row must have 3 fields. Received: 'img/WOMEN/Dresses/id_1/a.jpg id_1'",
        ),
        ("img/WOMEN/Dresses/id_1/a.jpg id_1 val", "must be one of train, query, gallery. Received: 'val'"),
        ("img/WOMEN/Dresses/id_1/a.jpg id_1 train 4", "must be one of train, query, gallery. Received: 'train 4'"),
        ("img/id_1/a.jpg id_1 train", "a photo's path must be 'img/<category>/<item>/<photo>'.*'img/id_1/a.jpg'"),
        (" ".join(INSHOP[3]), "is listed a second time"),
    ],
    ids=["short", "unknown status", "long", "no category", "twice"],
)
def test_inshop_row_that_cannot_be_used(inshop, row, problem):
    """It stands in line 5; where the same photo follows in line 7, that one is the second."""
    write_list(inshop / "Eval/list_eval_partition.txt", INSHOP_HEADER, INSHOP, count=7)
    insert_line(inshop / "Eval/list_eval_partition.txt", 5, row)
    with pytest.raises(CatalogError, match=rf"list_eval_partition\.txt:[57]: .*{problem}"):
        load_inshop(str(inshop))


# Attributes of items


ITEMS = {
    "id_00000390": [0, 0, 0],
    "id_00000002": [1, -1, 0],
    "id_00000001": [-1, 1, 1],
    "id_99999999": [1, 1, 1],
}
WORDS = {1: "yes", -1: "no", 0: ""}


@pytest.mark.parametrize("folder", ["Anno/attributes", "Anno"])
def test_inshop_attributes(inshop, folder):
    """Rows in another order, an item without photos, and one without a row, which is unknown throughout."""
    names = ["acid wash", "a-line", "crew  neck 2"]
    write_attributes(inshop / folder, names, list(ITEMS.items()))
    catalog = load_inshop(str(inshop))
    assert list(catalog.attributes) == ["acid wash", "a-line", "crew neck 2"]
    for place, column in enumerate(catalog.attributes.values()):
        assert column.tolist() == [WORDS[ITEMS.get(item, [0, 0, 0])[place]] for _, item, _ in INSHOP]
        assert {id(text) for text in column} <= {id(text) for text in _ANSWERS}  # not one text for each cell


def test_attribute_names_with_their_type(consumer):
    """Every line ends in a number, so it is the type; the published names come in two languages."""
    names = ["\u9886\u578b collar 1", "\u8896\u957f sleeve length 2", "collar 1"]
    items = [("id_00030769", [1, -1, 0]), ("id_00000009", [0, 1, -1])]
    write_attributes(consumer / "Anno", names, items)
    attributes = load_consumer_to_shop(str(consumer)).split("test").attributes
    assert {name: column.tolist() for name, column in attributes.items()} == {
        "\u9886\u578b collar": ["", "", "", "", ""],
        "\u8896\u957f sleeve length": ["", "", "", "yes", "yes"],
        "collar": ["", "", "", "no", "no"],
    }


def test_an_attribute_name_that_occurs_again_gets_its_number(inshop):
    write_attributes(inshop / "Anno", ["print", "lace", "print"], [("id_00000080", [1, 0, -1])])
    attributes = load_inshop(str(inshop)).attributes
    assert {name: column[2] for name, column in attributes.items()} == {"print": "yes", "lace": "", "print (3)": "no"}


def test_an_item_may_have_the_same_row_again(inshop):
    write_attributes(inshop / "Anno", ["a", "b"], [("id_00000080", [1, 0]), ("id_00000080", [1, 0])])
    assert load_inshop(str(inshop)).attributes["a"][2] == "yes"


@pytest.mark.parametrize(
    "row, problem",
    [
        ("id_00000080 1 0", "item 'id_00000080' must have a value for each of the 3 attributes.*Received: 2 values"),
        (
            "id_00000080 1 0 1 1",
            "item 'id_00000080' must have a value for each of the 3 attributes.*Received: 4 values",
        ),
        ("id_00000080 1 2 0", r"an attribute must be 1 \(yes\), -1 \(no\) or 0 \(unknown\). Received: '2'"),
        ("id_00000390 0 0 1", "item 'id_00000390' has another row with other values"),
    ],
)
def test_an_item_row_that_cannot_be_used(inshop, row, problem):
    write_attributes(inshop / "Anno/attributes", ["a", "b", "c"], list(ITEMS.items()))
    insert_line(inshop / "Anno/attributes/list_attr_items.txt", 5, row)
    with pytest.raises(CatalogError, match=rf"Anno/attributes/list_attr_items\.txt:5: {problem}"):
        load_inshop(str(inshop))


def test_attributes_without_their_names(inshop):
    write_attributes(inshop / "Anno", ["a", "b", "c"], list(ITEMS.items()))
    (inshop / "Anno/list_attr_cloth.txt").unlink()
    with pytest.raises(CatalogError, match=r"Anno/list_attr_cloth\.txt' does not exist"):
        load_inshop(str(inshop))


def test_attribute_names_in_another_encoding(inshop):
    write_attributes(inshop / "Anno", ["a", "b", "c"], list(ITEMS.items()))
    (inshop / "Anno/list_attr_cloth.txt").write_bytes("1\nattribute_name\n\u9886\u578b collar 1\n".encode("gbk"))
    with pytest.raises(
        CatalogError, match=r"Anno/list_attr_cloth\.txt:3: the file is not encoded as UTF-8.*Save it as UTF-8"
    ):
        load_inshop(str(inshop))


# Consumer-to-Shop


def test_consumer_to_shop(consumer):
    """Each photo once, with the line that lists it first; consumers ask and shops answer, in training too."""
    catalog = load_consumer_to_shop(str(consumer))
    listed = {}
    for line, (asked, answered, item, status) in enumerate(CONSUMER, start=3):
        split = "train" if status == "train" else "test"
        listed.setdefault(asked, ("query", item, split, line))
        listed.setdefault(answered, ("gallery", item, split, line))
    assert len(listed) == 8
    rows = zip(catalog.roles.tolist(), catalog.skus.tolist(), catalog.splits.tolist(), catalog.lines.tolist())
    assert dict(zip(catalog.paths.tolist(), rows)) == listed
    assert sorted(set(catalog.categories.tolist())) == ["CLOTHING/Blouse", "DRESSES/Dress", "TOPS/T_Shirt"]
    assert catalog.categories[0] == "CLOTHING/Blouse"
    assert catalog.check_files() is catalog


def test_consumer_to_shop_tests_on_val_and_test(consumer):
    catalog = load_consumer_to_shop(str(consumer))
    assert catalog.split("test").label_skus.tolist() == ["id_00000007", "id_00000009"]
    assert catalog.split("train").label_skus.tolist() == ["id_00030769"]


@pytest.mark.parametrize(
    "row, problem",
    [
        ((CONSUMER[0][0], CONSUMER[0][1], "id_5", "train"), "id_5, train, query here, id_00030769, train, query in"),
        ((CONSUMER[0][0], "img/A/b/c/new.jpg", CONSUMER[0][2], "test"), "id_00030769, test, query here, id_0.* train"),
        (
            (CONSUMER[0][1], "img/A/b/c/new.jpg", CONSUMER[0][2], "train"),
            "id_00030769, train, query here, .*gallery in",
        ),
    ],
    ids=["another item", "another split", "another role"],
)
def test_a_photo_that_is_two_things_is_refused(consumer, row, problem):
    """It stands in line 6; the photo is listed before, in line 3."""
    insert_line(consumer / "Eval/list_eval_partition.txt", 6, "   ".join(row))
    message = rf"list_eval_partition\.txt:6: photo '{row[0]}' must have one item.*{problem}.* line 3\. Delete"
    with pytest.raises(CatalogError, match=message):
        load_consumer_to_shop(str(consumer))


def test_a_photo_of_val_and_of_test_is_in_one_split(consumer):
    consumer_path, shop, item, _ = CONSUMER[2]
    insert_line(consumer / "Eval/list_eval_partition.txt", 6, f"{consumer_path} {shop} {item} test")
    assert len(load_consumer_to_shop(str(consumer))) == 8


def test_consumer_to_shop_row_that_is_short(consumer):
    insert_line(consumer / "Eval/list_eval_partition.txt", 4, "img/A/b/c/1.jpg img/A/b/c/2.jpg train")
    with pytest.raises(CatalogError, match=r"list_eval_partition\.txt:4: a row must have 4 fields"):
        load_consumer_to_shop(str(consumer))


def test_consumer_to_shop_missing_photo_names_the_first_line(consumer):
    (consumer / CONSUMER[0][1]).unlink()
    with pytest.raises(CatalogError, match=r"list_eval_partition\.txt:3: photo file '.*shop_01\.jpg' does not exist"):
        load_consumer_to_shop(str(consumer))
