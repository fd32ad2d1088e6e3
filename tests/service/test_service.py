"""The page's server: what it finds, what it refuses and in which words, and which files it gives out."""

import io
import os
import sys
import zlib

import numpy as np
import pytest
from PIL import Image

from eet_tf.client import ServingError
from eet_tf.index import CatalogIndexError, ExactIndex, load_index

flask = pytest.importorskip("flask", reason="Flask is not installed, the extra [demo]")
from eet_tf.service import DemoError, create_app  # noqa: E402
from eet_tf.service.filters import filters_of, read_form  # noqa: E402
from eet_tf.service.photos import Thumbnails  # noqa: E402

# name -> colour, sku, category, price, in stock; two photos of product A, the nearest to each other
CATALOG = {
    "red.png": ((250, 0, 0), "A", "shoes", 10, True),
    "folder/darker & red.png": ((220, 10, 0), "A", "shoes", 20, False),
    "green.png": ((0, 250, 0), "B", "bags", 30, True),
    "blue.png": ((0, 0, 250), "C", "bags", 40, False),
}


def png(colour, size=(40, 30)):
    file = io.BytesIO()
    Image.new("RGB", size, colour).save(file, "PNG")
    return file.getvalue()


class MeanColour:
    """Embeds a photo as its mean colour, of unit length; knows what is no photo."""

    fingerprint, max_pixels = "mean colour", 1_000_000

    def __init__(self):
        self.error = None

    def embed(self, photos):
        if self.error:
            raise self.error
        embeddings, ok = np.zeros([len(photos), 3], np.float32), np.zeros(len(photos), bool)
        for row, photo in enumerate(photos):
            try:
                colour = np.asarray(Image.open(io.BytesIO(photo)).convert("RGB"), np.float32).mean((0, 1)) + 1
            except OSError:
                continue
            embeddings[row], ok[row] = colour / np.linalg.norm(colour), True
        return embeddings, ok


def build(folder):
    """An index of the catalogue, saved in `folder`, and its photos beside it."""
    for name, (colour, *_) in CATALOG.items():
        path = folder / "photos" / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_bytes(png(colour))
    embeddings, _ = MeanColour().embed([png(colour) for colour, *_ in CATALOG.values()])
    _, skus, categories, prices, stocked = zip(*CATALOG.values())
    attributes = {"category": categories, "price": prices, "in stock": stocked}
    index = ExactIndex.build(embeddings, skus, list(CATALOG), attributes, MeanColour.fingerprint)
    index.save(folder / "index")
    return index


@pytest.fixture
def shop(tmp_path):
    """The folder, the index that others write to, the embedder, and a client of the page."""

    class Shop:
        folder, writer, embedder = tmp_path, build(tmp_path), MeanColour()
        app = create_app(
            load_index(tmp_path / "index", read_only=True), embedder, tmp_path / "photos", "My <shop>", 5000
        )
        client = app.test_client()

        def search(self, photo=None, **fields):
            """The answer to a search by an uploaded photo, or by what `fields` say."""
            files = {} if photo is None else {"photo": (io.BytesIO(photo), "../../any name.png")}
            return self.client.post("/search", data={**fields, **files})

    return Shop()


def photos(answer):
    assert answer.status_code == 200, answer.json
    return [found["photo"] for found in answer.json["neighbors"]]


def refused(answer, status, *words):
    assert answer.status_code == status, answer.text
    for word in words:
        assert word in answer.json["error"]


# Searching


def test_an_uploaded_photo_finds_its_nearest_first(shop):
    answer = shop.search(png((230, 20, 0)), k="2")
    assert photos(answer) == ["folder/darker & red.png", "red.png"]
    first = answer.json["neighbors"][0]
    assert (first["sku"], first["facts"]) == ("A", ["shoes"])
    assert first["score"] == pytest.approx(0.999, abs=2e-3)
    assert answer.json["searched"] == 4 and answer.json["seconds"] >= 0
    assert shop.client.get(first["url"]).mimetype == "image/jpeg"


def test_more_like_this_leaves_out_the_photo_itself(shop):
    assert photos(shop.search(like="red.png")) == ["folder/darker & red.png", "green.png", "blue.png"]
    assert photos(shop.search(like="red.png", k="1")) == ["folder/darker & red.png"]
    assert sorted(photos(shop.search(like="red.png", group="on"))) == ["blue.png", "green.png"]


def test_each_product_once(shop):
    answer = shop.search(png((230, 20, 0)), group="on")
    assert [found["sku"] for found in answer.json["neighbors"]][0] == "A"
    assert sorted(found["sku"] for found in answer.json["neighbors"]) == ["A", "B", "C"]


@pytest.mark.parametrize(
    "fields, expected",
    [
        ({"is:category": "bags"}, ["blue.png", "green.png"]),
        ({"min:price": "20", "max:price": "30"}, ["folder/darker & red.png", "green.png"]),
        ({"max:price": " 10 "}, ["red.png"]),
        ({"is:in stock": "true"}, ["green.png", "red.png"]),
        ({"is:in stock": "true", "is:category": "bags"}, ["green.png"]),
        ({"is:category": "hats"}, []),
        ({"is:category": "", "min:price": "", "other": "field"}, sorted(CATALOG)),
    ],
)
def test_filters_allow_what_meets_them_all(shop, fields, expected):
    assert sorted(photos(shop.search(png((9, 9, 9)), **fields))) == expected


def test_samples_are_photos_of_the_catalogue(shop):
    answer = shop.client.get("/samples")
    assert photos(answer) == list(CATALOG)
    assert {found["score"] for found in answer.json["neighbors"]} == {None}


def test_what_others_write_is_found_by_the_next_search(shop):
    """A new photo of a new category, a deleted one, and an index that is built anew."""
    violet = png((200, 0, 200))
    (shop.folder / "photos" / "violet.png").write_bytes(violet)
    values = {"category": ["hats"], "price": [50], "in stock": [True]}
    shop.writer.upsert(MeanColour().embed([violet])[0], ["D"], ["violet.png"], values)
    shop.writer.delete("blue.png")
    assert photos(shop.search(violet))[0] == "violet.png"
    assert "blue.png" not in photos(shop.search(violet))
    assert "hats (1)" in shop.client.get("/").text
    refused(shop.search(like="blue.png"), 404, "not in the catalogue")
    shop.writer.compact()
    assert photos(shop.search(violet, k="1")) == ["violet.png"]


def test_an_index_that_is_damaged_while_it_is_shown_stays_as_it_was(shop):
    (shop.folder / "index" / "manifest.json").write_text("{")
    assert photos(shop.search(png((250, 0, 0)), k="1")) == ["red.png"]


# Refusals


def test_no_photo_is_said_so(shop):
    refused(shop.search(), 400, "Choose a photo first")
    refused(shop.search(b""), 415, "no photo", "empty")
    refused(shop.search(b"<svg onload=alert(1)>"), 415, "no photo", "an SVG drawing", "JPEG, PNG")
    refused(shop.search(b"\0\0\0\x18ftypheic"), 415, "a HEIC photo, which TensorFlow does not read")


@pytest.mark.parametrize("size", [5001, 200_000])
def test_a_photo_that_is_too_large_is_said_so(shop, size):
    """Past the limit, and far past it, where the rest is not read at all."""
    refused(shop.search(b"x" * size), 413, "larger than 0.00477 MB")


def test_a_photo_of_too_many_pixels_is_not_decoded(shop):
    """A PNG of one colour is a thousand times smaller than its pixels; the header alone says how many there are."""
    header = bytearray(png(0))
    for side, words in ((20_000, "more than 89 million pixels;"), (1_001, "more than 1 million pixels, the limit of")):
        header[16:24] = side.to_bytes(4, "big") * 2
        header[29:33] = zlib.crc32(header[12:29]).to_bytes(4, "big")
        refused(shop.search(bytes(header)), 413, words)


@pytest.mark.parametrize(
    "fields, word",
    [
        ({"k": "0"}, "1 to 100"),
        ({"k": "101"}, "1 to 100"),
        ({"k": "many"}, "1 to 100"),
        ({"min:price": "cheap"}, "price must be a number"),
        ({"max:price": "nan"}, "price must be a number"),
        ({"is:colour": "red"}, "Reload the page"),
        ({"min:category": "1"}, "Reload the page"),
        ({"is:price": "1"}, "Reload the page"),
    ],
)
def test_what_cannot_be_searched_is_said_so(shop, fields, word):
    refused(shop.search(png((1, 2, 3)), **fields), 400, word)


def test_a_server_that_does_not_answer_is_said_so_without_its_address(shop):
    shop.embedder.error = ServingError("the server at secret:8500 did not answer")
    answer = shop.search(png((1, 2, 3)))
    refused(answer, 502, "did not answer", "Try again")
    assert "secret" not in answer.text


def test_what_nobody_foresaw_is_said_in_general(shop):
    shop.embedder.error = RuntimeError("secret")
    answer = shop.search(png((1, 2, 3)))
    refused(answer, 500, "Something went wrong")
    assert "secret" not in answer.text


def test_an_embedder_that_was_replaced_is_refused(shop):
    shop.embedder.fingerprint = "another"
    refused(shop.search(png((1, 2, 3))), 500, "embedded by different models")


@pytest.mark.parametrize("method, path, status", [("get", "/search", 405), ("post", "/", 405), ("get", "/index", 404)])
def test_other_addresses_are_refused(shop, method, path, status):
    refused(getattr(shop.client, method)(path), status)


# Photos


def test_a_photo_is_given_small_and_made_anew(shop):
    large = Image.new("RGB", (1200, 900), (250, 0, 0))
    exif = Image.Exif()
    exif[0x0112] = 6  # turn a quarter
    exif[0x010E] = "taken at home"
    large.save(shop.folder / "photos" / "red.png", "JPEG", exif=exif)
    answer = shop.client.get("/photo", query_string={"id": "red.png"})
    image = Image.open(io.BytesIO(answer.data))
    assert (image.format, image.size, dict(image.getexif())) == ("JPEG", (288, 384), {})
    assert b"taken at home" not in answer.data


@pytest.mark.parametrize(
    "address",
    [
        "/photo",
        "/photo?id=",
        "/photo?id=../secret.png",
        "/photo?id=..%2Fsecret.png",
        "/photo?id=%2e%2e%2fsecret.png",
        "/photo?id=..%252fsecret.png",
        "/photo?id=..%5Csecret.png",
        "/photo?id=red.png%00",
        "/photo?id=folder/../red.png",
        "/photo?id=./red.png",
        "/photo?id={folder}/secret.png",
        "/photo?id=file:///{folder}/secret.png",
        "/photo/../secret.png",
        "/photo/red.png",
        "/static/../app.py",
        "/static/..%2fapp.py",
        "/static/%2e%2e/templates/page.html",
    ],
)
def test_only_ids_of_the_index_are_given_out(shop, address):
    """Not even a path that leads to a photo of the catalogue, if it is not as the index has it."""
    (shop.folder / "secret.png").write_bytes(png((1, 2, 3)))
    answer = shop.client.get(address.format(folder=shop.folder))
    assert answer.status_code == 404
    assert answer.mimetype == "application/json"


@pytest.mark.parametrize(
    "photo", ["../secret.png", "{folder}/secret.png", "link.png", "linked/secret.png", "a\0.png", "."]
)
def test_what_lies_outside_the_folder_is_not_given_out_even_if_the_index_names_it(tmp_path, photo):
    outside, root = tmp_path / "outside", tmp_path / "photos"
    outside.mkdir()
    root.mkdir()
    (tmp_path / "secret.png").write_bytes(png((1, 2, 3)))
    (outside / "secret.png").write_bytes(png((1, 2, 3)))
    os.symlink(tmp_path / "secret.png", root / "link.png")
    os.symlink(outside, root / "linked")
    (root / "inside.png").write_bytes(png((1, 2, 3)))
    photo = photo.format(folder=tmp_path)
    embeddings, _ = MeanColour().embed([png((1, 2, 3))] * 2)
    index = ExactIndex.build(embeddings, ["A", "B"], ["inside.png", photo])
    client = create_app(index, MeanColour(), root).test_client()
    assert client.get("/photo", query_string={"id": "inside.png"}).status_code == 200
    refused(client.get("/photo", query_string={"id": photo}), 404, "cannot be shown")


def test_a_link_within_the_folder_is_followed(tmp_path):
    (tmp_path / "one.png").write_bytes(png((1, 2, 3)))
    os.symlink("one.png", tmp_path / "link.png")
    os.symlink(tmp_path, tmp_path.parent / f"{tmp_path.name}-link")
    for root in (tmp_path, tmp_path.parent / f"{tmp_path.name}-link"):
        assert Thumbnails(root).jpeg("link.png")[:2] == b"\xff\xd8"


def test_a_photo_that_is_gone_or_broken_cannot_be_shown(shop):
    (shop.folder / "photos" / "red.png").unlink()
    (shop.folder / "photos" / "green.png").write_text("no photo")
    for name, why in (("red.png", "no such file"), ("green.png", "a text, not a photo")):
        refused(shop.client.get("/photo", query_string={"id": name}), 404, "cannot be shown", why)


def test_a_photo_that_was_replaced_is_made_anew(shop):
    before = shop.client.get("/photo?id=red.png").data
    path = shop.folder / "photos" / "red.png"
    path.write_bytes(png((0, 0, 0)))
    os.utime(path, ns=(1, 1))
    assert shop.client.get("/photo?id=red.png").data != before


# The page


def test_the_page_offers_what_can_be_filtered_by(shop):
    page = shop.client.get("/").text
    for part in (
        "bags (2)",
        'name="min:price" placeholder="10"',
        'placeholder="40"',
        'name="is:in stock" value="true"',
    ):
        assert part in page
    assert "4 photos of 3 products" in page
    assert "My &lt;shop&gt;" in page and "<shop>" not in page


def test_names_and_values_are_text_and_nothing_else(tmp_path):
    """Whoever fills the catalogue does not write the page."""
    (tmp_path / "a.png").write_bytes(png((1, 2, 3)))
    evil = '"><script>alert(1)</script>'
    embeddings, _ = MeanColour().embed([png((1, 2, 3))] * 2)
    index = ExactIndex.build(embeddings, ["A", "B"], ["a.png", "b.png"], {evil: [evil, "x"]})
    assert "<script>alert" not in create_app(index, MeanColour(), tmp_path).test_client().get("/").text


@pytest.mark.parametrize(
    "address", ["/", "/samples", "/photo?id=red.png", "/static/page.js", "/static/page.css", "/no"]
)
def test_every_answer_has_the_headers(shop, address):
    """No script, style or picture of another's is run or shown, and nothing is guessed or framed."""
    with shop.client.get(address) as answer:
        policy = answer.headers["Content-Security-Policy"]
        assert "default-src 'none'" in policy and "frame-ancestors 'none'" in policy
        assert "unsafe" not in policy and "http" not in policy and "data:" not in policy
        assert answer.headers["X-Content-Type-Options"] == "nosniff"
        assert answer.headers["Referrer-Policy"] == "no-referrer"


def test_the_page_needs_nothing_from_elsewhere(shop):
    """No address of another server, and nothing that the policy above would forbid."""
    page = shop.client.get("/").text
    assert "//" not in page.replace("<!DOCTYPE html>", "")
    assert " style=" not in page and "<style" not in page and " onclick=" not in page
    for name in ("page.js", "page.css", "icon.svg"):
        with shop.client.get(f"/static/{name}") as answer:
            text = answer.text.replace("http://www.w3.org/2000/svg", "")
            assert answer.status_code == 200
            assert "http:" not in text and "https:" not in text and "innerHTML" not in text


# Filters


def test_filters_are_those_that_can_tell_photos_apart():
    count = 1200
    attributes = {
        "two": ["b", "a"] * (count // 2),
        "one": ["same"] * count,
        "missing": ["", "x", "y"] * (count // 3),
        "name": [f"name {number}" for number in range(count)],
        "price": [None, *range(count - 1)],
        "constant": [7] * count,
        "new": [True] * count,
        "tags": [("x", "y"), ("y",), ()] * (count // 3),
    }
    index = ExactIndex.build(
        np.tile(np.eye(2, dtype=np.float32), [count // 2, 1]), ["s"] * count, attributes=attributes
    )
    found = {each.name: each for each in filters_of(index)}
    assert list(found) == ["two", "missing", "price", "new", "tags"]
    assert found["two"].choices == (("a", 600), ("b", 600))
    assert found["missing"].choices == (("x", 400), ("y", 400))
    assert (found["tags"].kind, found["tags"].choices) == ("string", (("x", 400), ("y", 800)))
    assert (found["price"].low, found["price"].high) == (0, 1198)


def test_an_attribute_may_have_any_name():
    kinds = {"a:b": "string", "min": "number", "": "bool", "is": "strings"}
    fields = {"is:a:b": "x:y", "min:min": "1e3", "max:min": "-2", "is:": "true", "is:is": "true"}
    expected = {"a:b": "x:y", "min": {"min": 1000.0, "max": -2.0}, "": True, "is": "true"}
    assert read_form(fields, kinds) == expected


# Starting


def test_a_folder_that_is_missing_or_another_is_refused(tmp_path):
    build(tmp_path)
    index = load_index(tmp_path / "index")
    with pytest.raises(DemoError, match=r"`photo_root` must be .*missing', which is no folder.*--photo_root"):
        create_app(index, MeanColour(), tmp_path / "missing")
    with pytest.raises(DemoError, match=r"in which there is no 'red\.png'"):
        create_app(index, MeanColour(), tmp_path / "index")


def test_an_index_of_another_embedder_is_refused(tmp_path):
    build(tmp_path)
    embedder = MeanColour()
    embedder.fingerprint = "another"
    with pytest.raises(CatalogIndexError, match="embedded by different models"):
        create_app(load_index(tmp_path / "index"), embedder, tmp_path / "photos")


def test_the_embedder_is_tried_at_the_start(tmp_path):
    build(tmp_path)
    embedder = MeanColour()
    embedder.error = ServingError("no answer")
    with pytest.raises(ServingError, match="no answer"):
        create_app(load_index(tmp_path / "index"), embedder, tmp_path / "photos")


def test_the_page_needs_no_tensorflow(run_python):
    assert run_python("import sys, eet_tf.service; print('tensorflow' in sys.modules)", fresh=True) == ["False\n"]
    assert "eet_tf.service" in sys.modules
