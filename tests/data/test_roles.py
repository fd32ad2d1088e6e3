"""Which column is the path and which the sku: told by the user, never guessed, and proposed where names are common."""

import re

import pytest

from eet_tf.data.catalog import CatalogError
from eet_tf.data.listings import load_csv
from eet_tf.data.roles import check_columns, read_columns, roles_of


@pytest.mark.parametrize(
    "text, columns",
    [
        ("", {}),
        ("  ", {}),
        ("path:image", {"path": "image"}),
        ("path:image,sku:product_id", {"path": "image", "sku": "product_id"}),
        (" path : the image , sku:a:b ", {"path": "the image", "sku": "a:b"}),
        ("category:kind,split:part", {"category": "kind", "split": "part"}),
    ],
)
def test_columns_as_a_flag_writes_them(text, columns):
    assert read_columns(text) == columns


@pytest.mark.parametrize(
    "text, problem",
    [
        ("image", "'image' is no role:column"),
        ("path:", "'path:' is no role:column"),
        (":image", "':image' is no role:column"),
        ("path:image,", "'' is no role:column"),
        ("photo:image", "'photo' is none of the roles path, sku, category, split"),
        ("path:a,path:b", "path is there twice"),
        ("path:a,sku:a", "two roles have one column"),
    ],
)
def test_columns_that_are_none(text, problem):
    with pytest.raises(CatalogError, match=f"Received: columns='{re.escape(text)}'; {re.escape(problem)}"):
        read_columns(text)


@pytest.mark.parametrize("columns", ["path:image", 5, {"photo": "image"}, {"path": ""}, {"path": None}, {1: "image"}])
def test_columns_of_another_kind(columns):
    with pytest.raises(CatalogError, match="`columns` must say which column"):
        check_columns(columns)


def test_roles_are_the_columns_of_their_names_or_those_that_are_given():
    names = ["kind", "path", "id", "colour", "sku"]
    assert roles_of("list", names, {}) == {"path": "path", "sku": "sku"}
    assert roles_of("list", names, {"sku": "id", "category": "kind"}) == {
        "path": "path",
        "sku": "id",
        "category": "kind",
    }


def test_a_column_that_is_not_there_lists_what_there_is():
    message = r"list:1: `columns` must name columns of the table. Received: sku:id; its columns are \['path', 'sku'\]"
    with pytest.raises(CatalogError, match=message):
        roles_of("list:1", ["path", "sku"], {"sku": "id", "path": "path"})


def test_a_second_column_named_category_is_refused():
    with pytest.raises(CatalogError, match="another column is named 'category'. Rename that one"):
        roles_of("list:1", ["path", "sku", "kind", "category"], {"category": "kind"})


@pytest.mark.parametrize(
    "names, columns, flag",
    [
        (["image", "product_id"], {}, "--columns=path:image,sku:product_id"),
        (["Item ID", "File-Name"], {}, "--columns=path:File-Name,sku:Item ID"),
        (["id", "product", "photo"], {}, "--columns=path:photo,sku:product"),
        (["path", "item_id"], {}, "--columns=sku:item_id"),
        (["Path", "SKU"], {}, "--columns=path:Path,sku:SKU"),
        (["picture", "kind", "number"], {}, "--columns=path:picture,sku:..."),
        (["number", "image", "item"], {"path": "number"}, "--columns=path:number,sku:item"),
        (["image", "what"], {"path": "image"}, "--columns=path:...,sku:..."),
        (["a", "b"], {}, "--columns=path:...,sku:..."),
        (["File Name", "sku"], {}, "'--columns=path:File Name'"),
    ],
)
def test_the_columns_of_shops_are_proposed(names, columns, flag):
    with pytest.raises(CatalogError, match=re.escape(flag) + r"['\s.]"):
        roles_of("list:1", names, columns)


def test_a_name_with_a_comma_is_proposed_for_python_alone():
    with pytest.raises(CatalogError, match=re.escape("say so with columns={'path': 'File,Name'} in Python.")):
        roles_of("list:1", ["File,Name", "sku"], {})


def test_what_is_proposed_works(tmp_path):
    for name in ("1.jpg", "2.jpg"):
        (tmp_path / name).write_bytes(b"x")
    (tmp_path / "shop.csv").write_text("product_id;image;sku_name;kind\nmug;1.jpg;a;x\ncup;2.jpg;b;y\n")
    with pytest.raises(CatalogError) as caught:
        load_csv(str(tmp_path / "shop.csv"))
    proposed = re.search(r"--columns=(\S+)", str(caught.value))[1]
    catalog = load_csv(str(tmp_path / "shop.csv"), columns={**read_columns(proposed), "category": "kind"})
    assert catalog.paths.tolist() == ["1.jpg", "2.jpg"]
    assert catalog.skus.tolist() == ["mug", "cup"]
    assert catalog.categories.tolist() == ["x", "y"]
    assert list(catalog.attributes) == ["sku_name"]


def test_a_name_that_stands_twice_is_refused():
    with pytest.raises(CatalogError, match="each once. .* These stand there twice: 'x'"):
        roles_of("list:1", ["path", "sku", "x", "x"], {})
