"""Names of folders are names: no pattern, no markup, no flag; and output that no terminal chokes on."""

import io
import os
import pathlib
import re
import sys

import numpy as np
import pytest
import tensorflow as tf

import eet_tf
from eet_tf import terminal
from eet_tf.audit import audit_catalog, write_page
from eet_tf.data import Catalog, load_csv
from eet_tf.data.synthetic import make_synthetic_catalog
from eet_tf.files import why_no_file, why_no_folder, without_pattern
from eet_tf.index import ExactIndex, ScannIndex, load_index
from eet_tf.pages.report import Neighbor, SearchResult, write_report
from eet_tf.serving import ServedEmbedder
from eet_tf.training.run import Progress, RunError, RunFolder, read_run

NAMES = ["[a]", "a*", "a?b", "a\\b", " a ", "a\"b'", "a%20b", "{a}", "-a", "k\u00e4se", "~", "a#b", "$HOME", "<b>&amp;"]
every_name = pytest.mark.parametrize("name", NAMES)


@pytest.fixture(scope="module")
def embedder():
    """A network of few weights."""
    return eet_tf.build_embedder("small_cnn", 4, image_size=32)


@pytest.fixture(scope="module")
def photos(tmp_path_factory):
    """Eight drawn photos."""
    return make_synthetic_catalog(
        tmp_path_factory.mktemp("photos"), num_products=4, photos_per_product=2, image_size=48
    )


@pytest.fixture(scope="module")
def exported(embedder, tmp_path_factory):
    """A SavedModel, which tests move."""
    return pathlib.Path(eet_tf.export_embedder(embedder, str(tmp_path_factory.mktemp("serving"))))


@pytest.mark.parametrize("name", ["[a]", "a\\b", "a*"])
def test_a_saved_model_is_read_from_any_folder(name, exported, photos, tmp_path):
    (tmp_path / name).mkdir()
    os.rename(exported, tmp_path / name / "1")
    try:
        vectors, is_image = ServedEmbedder(str(tmp_path / name)).embed([pathlib.Path(photos.files[0]).read_bytes()])
    finally:
        os.rename(tmp_path / name / "1", exported)
    assert is_image.all() and np.linalg.norm(vectors) == pytest.approx(1, abs=1e-5)


def test_a_saved_model_is_written_to_a_folder_that_looks_like_a_pattern(embedder, tmp_path):
    """All signs at once, relative to the working folder too."""
    folder = tmp_path / "[a]*?\\ {b}"
    ServedEmbedder(eet_tf.export_embedder(embedder, str(folder)))


@pytest.mark.parametrize("name", ["[a]", "a*", "a\\b"])
def test_a_run_goes_on_in_any_folder_and_keeps_to_it(name, tmp_path):
    """Two epochs' checkpoints of a run beside another one, `ab`, whose files a pattern would match."""
    other = tmp_path / "ab" / "checkpoints"
    other.mkdir(parents=True)
    for epoch in (1, 2, 3):
        (other / f"ckpt-{epoch}.index").touch()
        (other / f"ckpt-{epoch}.data-00000-of-00001").touch()
    settings = {"model_dir": str(tmp_path / name)}
    for epoch in (1, 2, 3):
        learner = _learner()
        run = RunFolder(str(tmp_path / name), settings)
        progress = Progress(run, learner)
        progress.set_model(learner)
        assert progress.restore() == epoch - 1
        progress.on_epoch_end(epoch - 1, {"loss": 1.0 / epoch})
        run._lock.close()
    kept = {name.partition(".")[0] for name in os.listdir(tmp_path / name / "checkpoints")} - {"checkpoint"}
    assert kept == {"ckpt-2", "ckpt-3"} and len(list(other.iterdir())) == 6
    assert read_run(str(tmp_path / name)).settings == settings
    eet_tf.load_embedder(str(tmp_path / name))


def _learner():
    learner = eet_tf.MetricLearner(eet_tf.build_embedder("small_cnn", 2, image_size=32))
    learner.compile(optimizer="sgd", loss=eet_tf.TripletLoss())
    return learner


@pytest.mark.parametrize("sign", ["\n", "\r", "\u2028", "\udce9"])
def test_a_run_in_more_than_one_line_is_refused_before_it_begins(sign, tmp_path):
    folder = str(tmp_path / f"a{sign}b")
    with pytest.raises(
        RunError, match="--model_dir must be one line of UTF-8. Received: --model_dir=.*Rename it"
    ) as refused:
        RunFolder(folder, {"model_dir": folder})
    str(refused.value).encode()
    assert not list(tmp_path.iterdir())


@every_name
@pytest.mark.parametrize("kind", [ExactIndex, ScannIndex])
def test_an_index_is_kept_in_any_folder(kind, name, tmp_path):
    kind.build(np.eye(3, dtype=np.float32), ["a", "b", "c"], [f"{name}/{row}.jpg" for row in range(3)]).save(
        tmp_path / name
    )
    found = load_index(tmp_path / name).search([0.0, 1.0, 0.0], k=1)
    assert found.photos.tolist() == [[f"{name}/1.jpg"]]


@every_name
def test_pages_show_any_name_as_it_is(name, photos, tmp_path):
    """Markup in a name stays text; the page has no other tags for it."""
    folder = tmp_path / name
    folder.mkdir()
    file = folder / f"{name}.jpg"
    file.write_bytes(pathlib.Path(photos.files[0]).read_bytes())
    (folder / "1.jpg").write_bytes(file.read_bytes())
    catalog = Catalog([f"{name}.jpg", "1.jpg"], [name, "x"], root=str(folder))
    write_page(folder / "audit.html", audit_catalog(catalog), name, {"Source": str(folder)})
    found = SearchResult(str(file), name, [Neighbor(str(folder / "1.jpg"), name, 0.5)])
    write_report(folder / "report.html", name, results=[found], facts={"Data": str(folder)})
    for page in ("audit.html", "report.html"):
        text = (folder / page).read_text(encoding="utf-8")
        assert "no picture</div>" not in text
        assert "<b>&amp;" not in text


@every_name
def test_a_list_names_photos_in_any_folder(name, photos, tmp_path):
    folder = tmp_path / name
    folder.mkdir()
    (folder / "1.jpg").write_bytes(pathlib.Path(photos.files[0]).read_bytes())
    (folder / "catalog.csv").write_text("path,sku\n1.jpg,mug\n", encoding="utf-8")
    assert tf.io.read_file(load_csv(str(folder)).files[0]).numpy()


def test_a_name_without_pattern_is_itself(tmp_path):
    with without_pattern(str(tmp_path)) as folder:
        assert folder == str(tmp_path)
    with without_pattern(str(tmp_path / "[1]")) as folder:
        assert os.path.islink(folder)
    assert not os.path.lexists(folder)


def test_names_that_are_not_utf8_are_refused_before_anything_is_written(embedder, tmp_path):
    folder = os.fsdecode(os.fsencode(tmp_path) + b"/caf\xe9")
    index = ExactIndex.build(np.eye(3, dtype=np.float32), ["a", "b", "c"])
    for write in (index.save, lambda place: eet_tf.export_embedder(embedder, place)):
        with pytest.raises(ValueError, match=r"UTF-8.*") as refused:
            write(folder)
        assert r"caf\xe9" in str(refused.value)
    assert not list(tmp_path.iterdir())


# Places to write to


@pytest.mark.parametrize(
    "path, why",
    {
        "": "names no file",
        "folder": "is a folder",
        "file/below.html": "where '.*file' is a file, not a folder",
        "file/a/b.html": "where '.*file' is a file, not a folder",
        "folder/" + "x" * 250: "File name too long",
        "nowhere/page.html": "where '.*nowhere' leads nowhere",
        "pipe": "a device or a pipe",
    }.items(),
)
def test_why_no_file_can_be_written(path, why, tmp_path):
    (tmp_path / "folder").mkdir()
    (tmp_path / "file").touch()
    (tmp_path / "nowhere").symlink_to(tmp_path / "gone")
    os.mkfifo(tmp_path / "pipe")
    before = sorted(tmp_path.rglob("*"))
    with pytest.MonkeyPatch.context() as patch:
        patch.chdir(tmp_path)
        assert re.search(why, why_no_file(path) or "")
    assert sorted(tmp_path.rglob("*")) == before


def test_a_place_that_can_be_written_to_is_left_as_it_is(tmp_path):
    assert why_no_file(str(tmp_path / "new" / "page.html")) is None
    assert why_no_folder(str(tmp_path / "new" / "run")) is None
    (tmp_path / "page.html").touch()
    assert why_no_file(str(tmp_path / "page.html")) is None
    assert [path.name for path in tmp_path.iterdir()] == ["page.html"]


@pytest.mark.parametrize(
    "number, text", [(28, "No space left"), (30, "Read-only file system"), (13, "Permission denied")]
)
def test_a_disk_that_takes_nothing_is_named(number, text, tmp_path, monkeypatch):
    """By a system that refuses, as tests may run with all rights."""

    def refusing(**_):
        raise OSError(number, os.strerror(number))

    monkeypatch.setattr("tempfile.TemporaryFile", refusing)
    assert why_no_folder(str(tmp_path / "new")) == f"where '{tmp_path}' cannot be written to: {os.strerror(number)}"
    assert text in os.strerror(number)


# Terminals


@pytest.mark.parametrize("encoding", ["ascii", "latin-1", "cp1252", "utf-8"])
def test_output_in_any_encoding(encoding, monkeypatch):
    streams = [io.TextIOWrapper(io.BytesIO(), encoding=encoding) for _ in range(2)]
    monkeypatch.setattr(sys, "stdout", streams[0])
    monkeypatch.setattr(sys, "stderr", streams[1])
    monkeypatch.setattr(sys, "argv", ["script"])
    terminal.open_door()
    text = "k\u00e4se \u65e5\u672c \U0001f45f caf\udce9"
    for stream in streams:
        stream.write(text)
        stream.flush()
        assert stream.buffer.getvalue() == text.encode(encoding, "backslashreplace")


def test_a_bar_of_progress_stays_one(monkeypatch):
    stream = io.TextIOWrapper(io.BytesIO(), encoding="ascii")
    monkeypatch.setattr(sys, "stdout", stream)
    monkeypatch.setattr(sys, "argv", ["script"])
    terminal.open_door()
    stream.write("1/2 \u2501\u2501\u2501 \xe9")
    stream.flush()
    assert stream.buffer.getvalue() == b"1/2 === \\xe9"


def test_arguments_that_are_no_text_are_refused_and_shown(monkeypatch):
    monkeypatch.setattr(sys, "argv", ["script", "--data_dir=/caf\udce9", "--model_dir=fine"])
    with pytest.raises(SystemExit, match=r"arguments must be UTF-8. Received: --data_dir=/caf\\xe9. Rename"):
        terminal.open_door()
