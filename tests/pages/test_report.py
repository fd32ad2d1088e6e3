"""The page a person looks at: it needs nothing but itself, shows the worst first, and survives any photo and name."""

import base64
import dataclasses
import html
import io
import itertools
import re
import subprocess
import sys
from pathlib import Path

import pytest
from PIL import Image

from eet_tf.data import reading
from eet_tf.pages.report import Neighbor, SearchResult, plot_curves, write_report

HISTORY = [
    {"epoch": 1, "loss": 0.9, "margin": 0.5, "val_recall@1": 0.2, "learning_rate": 1e-3},
    {"epoch": 2, "loss": 0.6, "margin": 0.4},
    {"epoch": 3, "loss": 0.5, "margin": None, "val_recall@1": 0.613, "learning_rate": 1e-4},
]


def photo(folder, name, size=(40, 30), color="red", **save_options):
    path = folder / name
    Image.new("RGB", size, color).save(path, **save_options)
    return str(path)


def result(sku, *neighbor_skus, query="missing.jpg", scores=None):
    scores = scores or [0.9 - 0.1 * place for place in range(len(neighbor_skus))]
    neighbors = [Neighbor(f"{found}.jpg", found, score) for found, score in zip(neighbor_skus, scores, strict=True)]
    return SearchResult(query, sku, neighbors)


def page_of(folder, **content):
    path = folder / "report.html"
    write_report(path, "A title", **content)
    return path.read_text(encoding="utf-8")


def headings(page):
    return [html.unescape(heading) for heading in re.findall("<h3>(.*?)</h3>", page)]


def pictures(page):
    """The inlined images of a page, decoded."""
    return [Image.open(io.BytesIO(base64.b64decode(data))) for data in re.findall("base64,([^\"']+)", page)]


def test_page_needs_nothing_but_itself(tmp_path):
    found = [Neighbor(photo(tmp_path, "b.png", color="blue"), "mug", 0.5)]
    results = [SearchResult(photo(tmp_path, "a.jpg"), "mug", found)]
    page = page_of(tmp_path, results=results, history=HISTORY, before={"recall@1": 0.1}, after={"recall@1": 0.2})
    assert not re.search("https?://|@import|url[(]|<link|<iframe", page)
    links = re.findall(r"\b(?:src|srcset|href)\s*=\s*(\S+)", page)
    assert links and all(link.startswith('"data:image/') for link in links)


def test_page_is_readable_by_people_and_machines(tmp_path):
    """Language, viewport, one first heading, no skipped level, and an alternative text for every image."""
    path = photo(tmp_path, "a.jpg")
    page = page_of(tmp_path, results=[result("mug", "mug", query=path)], history=HISTORY, after={"recall@1": 0.2})
    assert '<html lang="en">' in page and 'name="viewport"' in page and '<meta charset="utf-8">' in page
    levels = [int(level) for level in re.findall("<h([1-6])>", page)]
    assert levels[0] == 1 and levels.count(1) == 1
    assert all(following <= level + 1 for level, following in itertools.pairwise(levels))
    images = re.findall("<img[^>]*>", page)
    assert images and all(re.search('alt="[^"]+"', image) for image in images)


def test_user_data_is_escaped_everywhere(tmp_path):
    evil = "<script>alert('1')</script>\" onload=\"$title"
    found = [Neighbor(evil, evil, 0.5), Neighbor(photo(tmp_path, "a.jpg"), evil, 0.4)]
    page_of(tmp_path)
    num_scripts = (tmp_path / "report.html").read_text(encoding="utf-8").count("<script")
    write_report(
        tmp_path / "report.html",
        evil,
        results=[SearchResult(evil, evil, found), SearchResult(evil, "other", found)],
        history=[{"epoch": 1, evil.replace("$", ""): 0.5}],
        before={evil: 1},
        after={evil: 2},
        facts={evil: evil},
    )
    page = (tmp_path / "report.html").read_text(encoding="utf-8")
    assert page.count("<script") == num_scripts
    assert 'onload="' not in page and html.escape(evil) in page


def test_worst_queries_stand_first(tmp_path):
    """Not found, then rank 3, then rank 1 by rising score of the first right neighbour; unknown answers last."""
    results = [
        result("first, sure", "first, sure", scores=[0.9]),
        result(None, "x"),
        result("first, unsure", "first, unsure", scores=[0.3]),
        result("third", "x", "y", "third", "third"),
        result("not found", "x", "y"),
    ]
    page = page_of(tmp_path, results=results)
    assert headings(page) == ["not found", "third", "first, unsure", "first, sure", "unnamed product"]
    assert "2 of 4 shown queries have the right product in first place" in page
    assert "The product of 1 shown query is not known." in page
    assert re.findall('class="note">([^<]*)</p></div></div>', page) == [
        "not among the first 2",
        "first found at rank 3",
        "found in first place",
        "found in first place",
        "the product of this photo is not known",
    ]


def test_neighbors_are_marked_in_words_and_signs(tmp_path):
    page = page_of(tmp_path, results=[result("mug", "cup", "mug")])
    neighbors = re.findall("<li.*?</li>", page)
    for neighbor, word, sign, rank, score in zip(neighbors, ["wrong", "right"], "✗✓", "12", [0.9, 0.8], strict=True):
        assert neighbor.startswith(f'<li class="{word}">')
        assert f'<span aria-hidden="true">{sign}</span><span class="unseen">{word}</span>' in neighbor
        assert f"#{rank}" in neighbor and f"{score:.3f}" in neighbor


def test_nothing_is_marked_where_no_answer_is_known(tmp_path):
    page = page_of(tmp_path, results=[result(None, "cup", "mug")])
    assert page.count("<li>") == 2
    assert not re.search('class="(right|wrong|mark)"', page)


def test_a_query_without_neighbors_is_shown(tmp_path):
    assert "nothing found" in page_of(tmp_path, results=[result("mug")])


def test_filter_buttons_appear_only_where_they_tell_results_apart(tmp_path):
    """They are hidden until the script shows them, so that without a script there is no dead button."""
    buttons = re.compile('<div class="filters"[^>]* hidden>')
    assert buttons.search(page_of(tmp_path, results=[result("a", "a"), result("a", "b")]))
    assert not buttons.search(page_of(tmp_path, results=[result("a", "a"), result("b", "b")]))


def test_photos_that_cannot_be_read_become_a_neutral_tile(tmp_path):
    (tmp_path / "text.jpg").write_text("this is no photo")
    whole = Path(photo(tmp_path, "whole.jpg", size=(400, 300))).read_bytes()
    (tmp_path / "cut.jpg").write_bytes(whole[: len(whole) // 2])
    paths = [str(tmp_path / name) for name in ("text.jpg", "cut.jpg", "missing.jpg", "")] + ["", "nul\0byte.jpg"]
    page = page_of(tmp_path, results=[SearchResult(paths[0], "a", [Neighbor(path, "a", 0.5) for path in paths])])
    assert page.count(">no picture</div>") == 1 + len(paths)
    assert "<img" not in page


@pytest.mark.parametrize("name, mode", [("a.png", "RGBA"), ("a.png", "P"), ("a.png", "L"), ("a.jpg", "CMYK")])
def test_every_kind_of_photo_becomes_a_small_jpeg(tmp_path, name, mode):
    """640 x 400 pixels become 160 x 100: the longer side is 160."""
    Image.new(mode, (640, 400)).save(tmp_path / name)
    page = page_of(tmp_path, results=[SearchResult(str(tmp_path / name), "a", [])])
    (thumbnail,) = pictures(page)
    assert (thumbnail.format, thumbnail.mode, thumbnail.size) == ("JPEG", "RGB", (160, 100))


def test_transparent_photos_stand_on_white(tmp_path):
    Image.new("RGBA", (8, 8), (0, 0, 0, 0)).save(tmp_path / "a.png")
    page = page_of(tmp_path, results=[SearchResult(str(tmp_path / "a.png"), "a", [])])
    assert pictures(page)[0].getpixel((4, 4)) == (255, 255, 255)


def test_photos_are_upright(tmp_path):
    """EXIF orientation 6: the stored left side is the top, so 320 x 160 is shown as 160 x 320, here 80 x 160."""
    exif = Image.Exif()
    exif[0x0112] = 6
    image = Image.new("RGB", (320, 160), "blue")
    image.paste("red", (0, 0, 160, 160))
    image.save(tmp_path / "a.jpg", exif=exif)
    page = page_of(tmp_path, results=[SearchResult(str(tmp_path / "a.jpg"), "a", [])])
    (thumbnail,) = pictures(page)
    assert thumbnail.size == (80, 160)
    red, _, blue = thumbnail.getpixel((40, 20))
    assert red > 200 and blue < 50


def test_a_photo_found_by_many_queries_is_read_once(tmp_path, monkeypatch):
    opened = []
    original = reading.shrunk
    monkeypatch.setattr(reading, "shrunk", lambda path, *rest: opened.append(path) or original(path, *rest))
    hub = photo(tmp_path, "hub.jpg")
    results = [SearchResult(hub, "a", [Neighbor(hub, "a", 0.5)] * 3)] * 4
    page = page_of(tmp_path, results=results)
    assert opened == [hub]
    assert page.count("<img") == 16


@pytest.mark.parametrize(
    "before_model, head", [(None, ">Before</th>"), ("pretrained <i>", ">Before: pretrained &lt;i&gt;")]
)
def test_what_was_measured_before_is_named(before_model, head, tmp_path):
    whole = {"num_photos": 20, "before": {"recall@1": 0.1}, "after": {"recall@1": 0.2}}
    given = {"before": {"recall@1": 0.1}, "after": {"recall@1": 0.2}, "whole_catalogue": whole}
    assert page_of(tmp_path, **given, before_model=before_model).count(head) == 2


def test_before_and_after_show_the_difference_in_percentage_points(tmp_path):
    before = {"recall@1": 0.212, "map@r": 0.134, "num_queries": 1600, "loss": 0.5}
    after = {"recall@1": 0.653, "map@r": 0.129, "num_queries": 1600, "recall@10": 0.9, "loss": None}
    rows = re.findall('<tr><th scope="row">(.*?)</tr>', page_of(tmp_path, before=before, after=after))
    cells = {row.split("<")[0]: re.findall("<td[^>]*>(.*?)</td>", row) for row in rows}
    assert cells == {
        "recall@1": ["21.2%", "65.3%", "+44.1 pp"],
        "map@r": ["13.4%", "12.9%", "−0.5 pp"],
        "num_queries": ["1,600", "1,600", "0"],
        "loss": ["0.5", "–", ""],
        "recall@10": ["–", "90.0%", ""],
    }
    assert 'class="better">+44.1' in rows[0] and 'class="worse">−0.5' in rows[1]
    assert re.findall("width: ([0-9.]+%)", rows[0]) == ["21.2%", "65.3%"]


def test_prefixes_have_a_table_for_each_gallery(tmp_path):
    alone = {"4": {"recall@1": 0.25, "num_queries": 8}, "16": {"recall@1": 0.375, "num_queries": 8}}
    whole = {"num_photos": 1234, "prefixes": {"4": {"recall@1": 0.125}, "16": {"recall@1": 0.5}}}
    page = page_of(tmp_path, prefixes=alone, whole_catalogue=whole)
    tables = re.findall("<h2>(With the first dimensions[^<]*)</h2>(.*?)</section>", page, re.DOTALL)
    found = {heading: re.findall('<tr><th scope="row">(.*?)</th><td>(.*?)</td></tr>', rows) for heading, rows in tables}
    assert found == {
        "With the first dimensions alone, in the whole catalogue of 1,234 photos": [("4", "12.5%"), ("16", "50.0%")],
        "With the first dimensions alone, among the products measured on": [("4", "25.0%"), ("16", "37.5%")],
    }
    assert list(found)[0].endswith("photos")
    assert page_of(tmp_path, prefixes=alone).count("With the first dimensions alone</h2>") == 1


def test_one_measurement_alone_has_no_change(tmp_path):
    page = page_of(tmp_path, after={"recall@1": 0.5})
    assert "50.0%" in page and "Change" not in page


def test_page_with_history_only(tmp_path):
    """Three panels (loss, shares, learning rate), each drawn in ink for light and for dark."""
    page = page_of(tmp_path, history=HISTORY)
    assert re.findall('alt="([^"]*)"', page) == [
        "Loss by epoch: loss, margin",
        "Retrieval by epoch: val_recall@1",
        "Learning rate by epoch: learning_rate",
    ]
    assert [picture.format for picture in pictures(page)] == ["PNG"] * 6
    assert "Last: val_recall@1 61.3%" in page
    assert "Search results" not in page and "Before" not in page


def test_page_with_results_only(tmp_path):
    page = page_of(tmp_path, results=[result("mug", "mug")])
    assert re.findall("<h2>(.*?)</h2>", page) == ["Search results"]


def test_page_with_nothing_but_facts(tmp_path):
    page = page_of(tmp_path, facts={"Photos": 120, "Command": "python train/main.py"})
    assert "<dt>Photos</dt><dd>120</dd>" in page and "<h2>" not in page


def test_missing_folders_are_created_and_nothing_else_is_left(tmp_path):
    write_report(tmp_path / "new" / "deep" / "report.html", "A title")
    plot_curves(HISTORY, str(tmp_path / "new" / "deep" / "curves.png"))
    assert sorted(path.name for path in (tmp_path / "new" / "deep").iterdir()) == ["curves.png", "report.html"]


def test_relative_paths_are_written_where_they_point(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    write_report("report.html", "A title")
    assert (tmp_path / "report.html").exists()


@pytest.mark.parametrize("moment", ["drawing", "replacing"])
def test_a_failing_write_leaves_the_old_page(tmp_path, monkeypatch, moment):
    old = page_of(tmp_path, facts={"Run": "old"})
    content = {"facts": {"Run": "new"}}
    if moment == "drawing":
        content["history"] = [{"epoch": 1, "loss": "abc"}]
    else:
        monkeypatch.setattr("os.replace", lambda *paths: (_ for _ in ()).throw(OSError("disk full")))
    with pytest.raises((OSError, ValueError)):
        page_of(tmp_path, **content)
    assert (tmp_path / "report.html").read_text(encoding="utf-8") == old
    assert [path.name for path in tmp_path.iterdir()] == ["report.html"]


def test_names_that_are_no_text_are_written(tmp_path):
    """A file name with bytes that are not UTF-8 reaches Python as lone surrogates."""
    page = page_of(tmp_path, results=[result("caf\udce9", "x")])
    assert headings(page) == ["caf?"]


def test_curves_are_a_png_of_sensible_size(tmp_path):
    plot_curves(HISTORY, tmp_path / "curves.png")
    with Image.open(tmp_path / "curves.png") as picture:
        picture.load()
        assert picture.format == "PNG"
        assert 1200 <= picture.width <= 2400 and 300 <= picture.height <= 800
        assert len(picture.convert("RGB").getcolors(maxcolors=1 << 20)) > 10  # something is drawn


@pytest.mark.parametrize(
    "history",
    [
        [{"loss": 0.5}],
        [{"epoch": "1", "loss": "0.5", "recall@1": ""}, {"epoch": "2", "loss": "nan", "recall@1": "0.25"}],
        [{"epoch": 1, "loss": float("nan")}, {"epoch": 2, "loss": float("inf")}],
        [{"epoch": epoch, **{f"recall@{k}": 0.1 for k in range(16)}} for epoch in range(50)],
    ],
    ids=["no epoch", "read from CSV", "diverged", "many curves"],
)
def test_unusual_histories_are_drawn(tmp_path, history):
    plot_curves(history, tmp_path / "curves.png")
    assert "Last: " in page_of(tmp_path, history=history)


def test_history_without_curves_is_refused(tmp_path):
    with pytest.raises(ValueError, match="`history` must hold at least one epoch.*Received: history="):
        plot_curves([{"epoch": 1}], tmp_path / "curves.png")
    assert not (tmp_path / "curves.png").exists()


@pytest.mark.parametrize("argument, value", [("history", [{"day": "Monday"}]), ("after", {"day": "Monday"})])
def test_what_is_no_number_is_named(tmp_path, argument, value):
    with pytest.raises(ValueError, match=f"`{argument}` must hold numbers.*Received: day='Monday'"):
        page_of(tmp_path, **{argument: value})


def test_results_are_values():
    """Frozen: what the page shows cannot change under the sorting."""
    with pytest.raises(dataclasses.FrozenInstanceError):
        Neighbor("a.jpg", "a", 0.5).score = 1.0
    assert result("a", "b") == result("a", "b")


def test_importing_loads_neither_matplotlib_nor_tensorflow():
    check = "import eet_tf.pages.report, sys; sys.exit(', '.join({'matplotlib', 'tensorflow'} & set(sys.modules)))"
    root = Path(__file__).parents[1]
    finished = subprocess.run([sys.executable, "-c", check], cwd=root, capture_output=True, text=True, check=False)
    assert not finished.stderr.strip()


def test_products_that_were_trained_on_are_marked_and_counted_apart(tmp_path):
    neighbors = [Neighbor("a.jpg", "mug", 0.9)]
    results = [
        SearchResult("1.jpg", "mug", neighbors, "train"),
        SearchResult("2.jpg", "cup", neighbors, "validation"),
        SearchResult("3.jpg", "mug", neighbors, "test"),
        SearchResult("4.jpg", "mug", neighbors),
    ]
    page = page_of(tmp_path, results=results)
    assert "2 of 2 shown queries of unseen products have the right product in first place." in page
    assert "1 of 2 shown queries of trained products have the right product in first place." in page
    assert re.findall(r'title="split: (\w+)">([\w ]+)<', page) == [
        ("validation", "trained"),
        ("train", "trained"),
        ("test", "unseen product"),
    ]


def test_measures_are_explained_and_attributes_shown(tmp_path):
    attributes = {
        "colour=red": {"accuracy": 0.9, "majority": 0.8, "num_known": 1200},
        "<b>": {"accuracy": 0.5, "majority": 0.9, "num_known": 7},
    }
    meanings = {"recall@1": "Share of photos & more.", "map@r": "Not shown."}
    page = page_of(tmp_path, after={"recall@1": 0.5}, meanings=meanings, attributes=attributes)
    assert "<dt>recall@1</dt><dd>Share of photos &amp; more.</dd>" in page and "Not shown" not in page
    assert page.index("colour=red") < page.index("&lt;b&gt;") and "<td>90.0%</td><td>80.0%</td><td>1,200</td>" in page
