"""export/serve_demo.py in a real browser, as a person uses it: on a desk and on a phone."""

import contextlib
import json
import os
import pathlib
import re
import socket
import sys
import urllib.request

import pytest

from eet_tf.data import make_synthetic_catalog
from tests.end_to_end.browser import browser, missing

pytest.importorskip("flask", reason="Flask is not installed, the extra [demo]")
needs_browser = pytest.mark.skipif(missing() is not None, reason=str(missing()))

WIDE, PHONE = (1280, 900), (390, 844)
FOUND = r"return /photos, \d+ ms/.test(document.getElementById('status').textContent)"


@pytest.fixture(scope="module")
def shop(tmp_path_factory):
    """A drawn catalogue of 8 products with 4 photos each, its index and the embedder, untrained."""
    import eet_tf
    from eet_tf.index import ExactIndex, typed_columns
    from eet_tf.serving import ServedEmbedder

    folder = tmp_path_factory.mktemp("shop")
    catalog = make_synthetic_catalog(folder / "photos", num_products=8, photos_per_product=4, image_size=64)
    served = ServedEmbedder(eet_tf.export_embedder(eet_tf.build_embedder("small_cnn", 16, 32), str(folder / "serving")))
    attributes = {**typed_columns(catalog.columns()), "price": list(range(32)), "new": [True, False] * 16}
    index = ExactIndex.build(
        served.embed_catalog(catalog),
        catalog.skus,
        catalog.paths,
        attributes,
        served.fingerprint,
        {"saved_model": "../serving", "photo_root": "../photos"},
    )
    index.save(folder / "index")
    (folder / "text.jpg").write_text("no photo")
    return folder, catalog, index


@contextlib.contextmanager
def serving(start_script, *flags):
    """The page's address; `export/serve_demo.py` runs until the end."""
    with start_script("export/serve_demo.py", "--port=0", *flags) as process:
        try:
            line = process.stdout.readline()
            address = re.search(r"http://\S+", line)
            assert address, f"{line}\n{process.stderr.read()}"
            yield address[0]
        finally:
            process.terminate()
            process.communicate(timeout=30)


@pytest.fixture(scope="module")
def address(shop, start_script):
    """Of a page that is served."""
    with serving(start_script, f"--index_dir={shop[0] / 'index'}") as address:
        yield address


@pytest.fixture(scope="module")
def windows():
    """A window on a desk and one on a phone, opened when first asked for: `(width, height) -> Browser`."""
    with contextlib.ExitStack() as stack:
        opened = {}

        def window(size):
            if size not in opened:
                opened[size] = stack.enter_context(browser(*size, phone=size == PHONE))
            return opened[size]

        yield window


@pytest.fixture
def begun(windows, address):
    """A function from a window's size to the window with the page in it, just loaded."""

    def begin(size):
        window = windows(size)
        window.go(address)
        window.until("return document.querySelectorAll('#neighbors img').length === 12")
        return window

    return begin


def search_by_file(window, path):
    window.type("#file", str(path))
    window.until(FOUND)


def choose(window, name, value):
    """Picks an option, as a person's click does."""
    script = """
const field = document.getElementsByName(arguments[0])[0];
field.value = arguments[1];
field.dispatchEvent(new Event("change", { bubbles: true }));
document.getElementById("status").textContent = "";"""
    window.run(script, name, value)


@needs_browser
def test_a_photo_finds_itself_and_the_console_has_no_complaints(begun, shop):
    _, catalog, _ = shop
    window = begun(WIDE)
    search_by_file(window, catalog.files[5])
    assert len(window.texts("#neighbors li")) == 24
    assert window.texts("#neighbors .sku")[0] == catalog.skus[5]
    assert window.texts("#neighbors .score")[0] == "1.000"
    assert window.texts("#query-heading") == ["Your photo"]
    window.run("document.querySelector('#neighbors').lastElementChild.scrollIntoView()")
    window.until("return [...document.querySelectorAll('#neighbors img')].every(one => one.naturalWidth === 64)")
    assert window.complaints() == []


@needs_browser
def test_filters_narrow_what_is_found_and_can_be_cleared(begun, shop):
    _, catalog, _ = shop
    window = begun(WIDE)
    search_by_file(window, catalog.files[0])
    category = catalog.categories[0]
    choose(window, "is:category", category)
    window.until(FOUND)
    found = set(window.texts("#neighbors .sku"))
    assert found == {sku for sku, other in zip(catalog.skus, catalog.categories) if other == category}
    assert window.texts("#active") == ["1"]
    window.click("[name='is:new']")
    window.until("return document.querySelector('#active').textContent === '2'")
    window.until(FOUND)
    window.type("[name='max:price']", "-5")
    window.until("return document.getElementById('status').textContent === 'No photo meets these filters.'")
    window.click("#clear")
    window.until("return document.querySelectorAll('#neighbors li').length === 24")
    assert window.run("return document.querySelector('#active').hidden")
    window.click("[name='group']")
    window.until("return document.querySelectorAll('#neighbors li').length === 8")
    assert sorted(window.texts("#neighbors .sku")) == sorted(set(catalog.skus))
    assert window.complaints() == []


@needs_browser
def test_a_neighbour_is_searched_by_with_the_keyboard_and_back_goes_back(begun, shop):
    _, catalog, index = shop
    window = begun(WIDE)
    search_by_file(window, catalog.files[9])
    begun(WIDE)  # what the history holds of the page that was loaded before is of no use to this one
    first = window.texts("#neighbors .sku")
    window.run("document.querySelector('#neighbors button').focus()")
    window.press("\ue007")  # Enter
    window.until(FOUND)
    assert window.texts("#query-heading") == [f"Photo of {first[0]}"]
    nearest = index.search(index.embeddings[0], 2).skus[0, 1]
    assert window.texts("#neighbors .sku")[0] == nearest
    assert window.run("return document.activeElement.id") == "results"
    window.run("history.back()")
    window.until("return document.querySelectorAll('#neighbors li').length === 12")
    assert window.texts("#neighbors .sku") == first
    window.run("history.forward()")
    window.until(FOUND)
    assert window.texts("#query-heading") == [f"Photo of {first[0]}"]
    assert window.complaints() == []


@needs_browser
@pytest.mark.parametrize("way", ["drop", "paste"])
def test_a_photo_may_be_dropped_or_pasted(begun, shop, way):
    """A photo that the page makes itself, handed to it as the browser would."""
    window = begun(WIDE)
    window.run(
        """
const canvas = Object.assign(document.createElement("canvas"), { width: 50, height: 50 });
canvas.getContext("2d").fillRect(9, 9, 9, 9);
canvas.toBlob((blob) => {
  const data = new DataTransfer();
  data.items.add(new File([blob], "mine.png", { type: "image/png" }));
  const event = arguments[0] === "drop" ? new DragEvent("drop", { dataTransfer: data, bubbles: true })
    : new ClipboardEvent("paste", { clipboardData: data, bubbles: true });
  document.body.dispatchEvent(event);
});""",
        way,
    )
    window.until(FOUND)
    assert window.run("return !preview.hidden && preview.alt") == "Your photo"
    assert window.complaints() == []


@needs_browser
def test_what_is_no_photo_is_said_so_where_it_is_read_aloud(begun, shop):
    """By the server, which looks into the file, and by the page, of one that does not even claim to be a photo."""
    folder, catalog, _ = shop
    window = begun(WIDE)
    window.type("#file", str(folder / "text.jpg"))
    window.until("return document.getElementById('error').textContent.includes('no photo that can be read')")
    assert window.run("return document.getElementById('error').getAttribute('role')") == "alert"
    assert window.run("return document.querySelectorAll('#neighbors li').length") == 0
    assert ["415" in line for line in window.complaints()] == [True]  # the browser's own note of the status
    window.type("#file", str(folder / "photos" / "catalog.csv"))
    window.until("return document.getElementById('error').textContent.includes('This is no photo')")
    search_by_file(window, catalog.files[0])
    assert window.run("return document.getElementById('error').hidden")
    assert window.complaints() == []


@needs_browser
def test_a_refused_file_stays_refused_when_an_earlier_search_is_answered(begun, shop):
    folder, catalog, _ = shop
    window = begun(WIDE)
    search_by_file(window, catalog.files[0])
    window.run("""
const atOnce = window.fetch;
window.fetch = async (...request) => {
  const answer = await atOnce(...request);
  while (!document.body.dataset.answered) await new Promise((done) => setTimeout(done, 10));
  return answer;
};""")
    choose(window, "is:category", catalog.categories[0])
    window.until("return document.getElementById('status').textContent.includes('Searching')")
    window.type("#file", str(folder / "photos" / "catalog.csv"))
    refused = "return document.getElementById('error').textContent.includes('This is no photo')"
    window.until(refused)
    window.run("document.body.dataset.answered = true")
    window.until(FOUND)
    assert window.run(refused)
    assert window.run("return document.getElementById('error').checkVisibility()")
    assert window.complaints() == []


@needs_browser
def test_nothing_is_cut_off_or_too_small_for_a_finger_on_a_phone(begun, shop):
    _, catalog, _ = shop
    window = begun(PHONE)
    fits = "return document.documentElement.scrollWidth <= innerWidth && innerWidth === 390"
    assert window.run(fits)
    assert window.run("return !document.getElementById('filters').open")
    assert window.run("return getComputedStyle(document.querySelector('.camera')).display") == "flex"
    assert window.run("return document.getElementById('camera').getAttribute('capture')") == "environment"
    search_by_file(window, catalog.files[3])
    assert window.run(fits)
    assert window.run("return results.getBoundingClientRect().top < 100")  # scrolled to what was found
    window.run("document.getElementById('filters').open = true; document.getElementsByName('is:new')[0].click()")
    window.until(FOUND)
    assert window.run(fits)
    window.run("document.getElementById('filters').scrollIntoView()")
    window.click(".narrow")
    window.until("return Math.abs(results.getBoundingClientRect().top) < 100")
    window.run("scrollTo(0, 0)")
    window.type("#file", str(shop[0] / "photos" / "catalog.csv"))
    message = "document.getElementById('error').getBoundingClientRect()"
    window.until(f"return {message}.height > 20 && {message}.top >= 0 && {message}.bottom <= innerHeight")
    small = """
return [...document.querySelectorAll(".button, select, summary, .check, input[type=number], .tile")]
  .filter((one) => one.offsetParent && one.getBoundingClientRect().height < 44).map((one) => one.outerHTML)"""
    assert window.run(small) == []
    assert window.complaints() == []


@needs_browser
def test_everything_has_a_name_for_those_who_hear_the_page(begun, shop):
    _, catalog, _ = shop
    window = begun(WIDE)
    search_by_file(window, catalog.files[0])
    unnamed = """
return [...document.querySelectorAll("input, select, button")]
  .filter((one) => !(one.labels?.length || one.getAttribute("aria-label") || one.textContent.trim()))
  .map((one) => one.outerHTML)"""
    assert window.run(unnamed) == []
    assert window.run("return [...document.querySelectorAll('#neighbors img, #preview')].every(one => one.alt)")
    label = window.run("return document.querySelector('#neighbors button').getAttribute('aria-label')")
    assert label.startswith(f"Search by {catalog.skus[0]}, similarity 1.000, ")
    assert window.run("return document.documentElement.lang") == "en"


@needs_browser
def test_a_server_that_has_gone_is_said_so(windows, shop, start_script):
    folder, catalog, _ = shop
    window = windows(WIDE)
    with serving(start_script, f"--index_dir={folder / 'index'}", "--title=Gone soon") as address:
        window.go(address)
        window.until("return document.querySelectorAll('#neighbors li').length === 12")
        assert window.texts("h1") == ["Gone soon"]
    window.type("#file", catalog.files[0])
    window.until("return document.getElementById('error').textContent.includes('does not answer')")
    window.complaints()


# Without a browser


def test_photos_are_embedded_on_a_server(tmp_path, start_script):
    """A stand-in for TensorFlow Serving, over REST; the index holds what it says of each file."""
    import numpy as np

    from eet_tf.index import ExactIndex

    pytest.importorskip("tensorflow_serving", reason="tensorflow-serving-api is not installed, the extra [serving]")
    from tests.serving.model_server import ModelServer
    from tests.serving.served_models import FINGERPRINT, PlainModel, expected_embedding

    names = ["one.jpg", "two.jpg", "three.jpg"]
    for name in names:
        (tmp_path / name).write_bytes(name.encode())
    embeddings = np.stack([expected_embedding(name.encode()) for name in names])
    ExactIndex.build(embeddings, names, names, fingerprint=FINGERPRINT).save(tmp_path / "index")
    flags = (f"--index_dir={tmp_path / 'index'}", f"--photo_root={tmp_path}")
    with (
        ModelServer({"embedder": {1: PlainModel()}}) as server,
        serving(start_script, *flags, f"--server=http://{server.rest_address}") as address,
    ):
        found = upload(address, b"two.jpg")
        assert [each["sku"] for each in found["neighbors"]][0] == "two.jpg"


def upload(address, photo):
    """The answer to a search by a photo."""
    head = b'--edge\r\nContent-Disposition: form-data; name="photo"; filename="x"\r\n\r\n'
    request = urllib.request.Request(f"{address}search", head + photo + b"\r\n--edge--\r\n")
    request.add_header("Content-Type", "multipart/form-data; boundary=edge")
    with urllib.request.urlopen(request, timeout=60) as answer:
        return json.load(answer)


@pytest.fixture(scope="module")
def refusals(shop, run_script, tmp_path_factory):
    """A function from what is wrong to how the script ended."""
    folder = shop[0]
    (folder / "empty").mkdir()
    index = f"--index_dir={folder / 'index'}"
    taken = socket.create_server(("127.0.0.1", 0))
    flags = {
        "no index": (f"--index_dir={folder / 'empty'}",),
        "no photos": (index, f"--photo_root={folder / 'none'}"),
        "other photos": (index, f"--photo_root={folder / 'empty'}"),
        "port in use": (index, f"--port={taken.getsockname()[1]}"),
        "no address": (index, "--host=1.2.3.4"),
        "no server": (index, "--server=http://localhost:1", "--server_deadline=0.5"),
        "no model": (index, f"--saved_model={folder / 'empty'}"),
    }
    yield lambda wrong: run_script("export/serve_demo.py", *flags[wrong])
    taken.close()


@pytest.mark.parametrize(
    "wrong, patterns",
    {
        "no index": (r"empty'", r"manifest\.json is missing"),
        "no photos": ("--photo_root must be there", r"none, which does not exist"),
        "other photos": (r"`photo_root` must be .*in which there is no '", "--photo_root"),
        "port in use": (r"`port` must be free .*Address already in use", "another port"),
        "no address": (r"--host=1\.2\.3\.4",),
        "no server": (r"server at http://localhost:1 did not answer",),
        "no model": (r"empty'.*Make one with `eet export`",),
    }.items(),
    ids=lambda value: value if isinstance(value, str) else "",
)
def test_refused_in_one_line_that_names_the_culprit(refusals, wrong, patterns):
    refusals(wrong).refused(*patterns)


def test_without_flask_it_says_what_to_install(shop, start_script, tmp_path):
    (tmp_path / "flask.py").write_text("raise ModuleNotFoundError('No module named flask', name='flask')")
    path = os.pathsep.join([str(tmp_path), *filter(None, sys.path), str(pathlib.Path.cwd())])
    flags = ("export/serve_demo.py", f"--index_dir={shop[0] / 'index'}")
    with start_script(*flags, environment={"PYTHONPATH": path}) as process:
        _, errors = process.communicate(timeout=60)
    assert process.returncode == 2
    assert "error: the page needs flask: pip install 'eet-tf[demo]'" in errors
