"""The Beam pipeline in this process: its files hold what the SavedModel says of each photo, and it counts them."""

import os

import keras
import numpy as np
import pytest

import eet_tf
from eet_tf.data import make_synthetic_catalog
from eet_tf.embedding.files import EmbeddingFolder
from eet_tf.serving import ServedEmbedder
from tests.data.photo_server import PhotoServer

beam = pytest.importorskip("apache_beam", reason="Apache Beam does not go with TensorFlow 2.15")

from apache_beam.internal import pickler  # noqa: E402
from apache_beam.metrics import MetricsFilter  # noqa: E402
from apache_beam.options.pipeline_options import DirectOptions, StandardOptions  # noqa: E402

from eet_tf.embedding.beam import (  # noqa: E402
    EmbeddingPipelineError,
    EmbedShard,
    ShardSummary,
    embed_shards,
    pipeline_options,
)

NUM_SHARDS = 3


@pytest.fixture(scope="module")
def place(tmp_path_factory):
    """A folder with 24 drawn photos, the fourth of which is a text and the ninth missing, and a SavedModel."""
    folder = tmp_path_factory.mktemp("beam")
    catalog = make_synthetic_catalog(folder / "photos", num_products=8, photos_per_product=3, image_size=32)
    with open(catalog.files[3], "w") as file:
        file.write("no image")
    os.remove(catalog.files[8])
    keras.utils.set_random_seed(7)
    saved_model = eet_tf.export_embedder(eet_tf.build_embedder("small_cnn", 16, image_size=32), str(folder / "serving"))
    return folder, catalog, ServedEmbedder(saved_model)


@pytest.fixture
def work(place, tmp_path):
    """An empty folder of embeddings, what embeds a shard into it, and all the shards."""
    _, catalog, embedder = place
    files = EmbeddingFolder(str(tmp_path / "embeddings"), embedder.fingerprint, 16, NUM_SHARDS, "serving")
    files.save()
    shards = [(shard, catalog.paths[rows].tolist()) for shard, rows in enumerate(files.deal(catalog.paths))]
    return files, EmbedShard(files, embedder.folder, catalog.root, batch_size=5), shards


def read_bytes(files):
    photos = []
    for name in files:
        with open(name, "rb") as file:
            photos.append(file.read())
    return photos


def test_the_files_hold_the_embeddings_of_the_saved_model(place, work):
    """In batches of 5 or all at once is the same to 1e-6; a photo that cannot be read is marked and harms no other."""
    _, catalog, embedder = place
    files, embed, shards = work
    embed_shards(pipeline_options([]), embed, shards)
    assert files.unreadable(catalog.paths) == [3, 8]
    rows = np.setdiff1d(np.arange(len(catalog)), [3, 8])
    expected, is_image = embedder.embed(read_bytes(catalog.files[rows].tolist()))
    assert is_image.all()
    np.testing.assert_allclose(files.read(catalog.paths[rows]), expected, atol=1e-6)


def test_each_shard_has_a_summary_that_names_its_unreadable_photos(place, work):
    """Called as a runner calls it, but twice, as one may: the file is then the same."""
    _, catalog, _ = place
    files, embed, shards = work
    broken = catalog.files[[3, 8]].tolist()
    embed.setup()
    for shard, photos in shards:
        (first,) = embed.process((shard, photos))
        written = read_bytes([files.file(shard)])
        (second,) = embed.process((shard, photos))
        of_shard = [os.path.join(catalog.root, photo) for photo in photos]
        assert first == second == ShardSummary(shard, len(photos), [name for name in of_shard if name in broken])
        assert read_bytes([files.file(shard)]) == written


def test_photos_at_urls_are_embedded(place, work, tmp_path):
    """Relative to a URL or named by one; on workers that have no folder of photos."""
    _, catalog, embedder = place
    files, _, _ = work
    photos = read_bytes(catalog.files[:3].tolist())
    with PhotoServer() as server:
        for row, photo in enumerate(photos):
            server.put(f"/photos/{row}.jpg", photo)
        listed = ["0.jpg", f"{server.address}/photos/1.jpg", "gone.jpg", "2.jpg"]
        embed = EmbedShard(files, embedder.folder, f"{server.address}/photos", 2, str(tmp_path / "cache"))
        embed.setup()
        (summary,) = embed.process((0, listed))
        assert summary == ShardSummary(0, 4, [f"{server.address}/photos/gone.jpg"])
    with np.load(files.file(0)) as stored:
        (vectors,) = (stored[name] for name in stored.files if stored[name].ndim == 2)
    np.testing.assert_allclose(vectors[[0, 1, 3]], embedder.embed(photos)[0], atol=1e-6)


def test_photos_are_counted(work):
    _, embed, shards = work
    pipeline = beam.Pipeline(options=pipeline_options([]))
    _ = pipeline | beam.Create(shards) | beam.ParDo(embed)
    result = pipeline.run()
    counters = result.metrics().query(MetricsFilter().with_namespace(EmbedShard))["counters"]
    assert {one.key.metric.name: one.result for one in counters} == {"photos_embedded": 22, "photos_unreadable": 2}


def test_the_threads_of_a_process_share_one_saved_model(work, monkeypatch):
    """Two copies, as a runner makes for two threads: the shared handle travels with them."""
    loaded = []
    monkeypatch.setattr(
        "eet_tf.embedding.beam.ServedEmbedder", lambda path: loaded.append(path) or ServedEmbedder(path)
    )
    copies = [pickler.loads(pickler.dumps(work[1])) for _ in range(2)]
    for one in copies:
        one.setup()
    assert len(loaded) == 1


def test_a_pipeline_that_fails_keeps_what_is_done_and_says_why(work):
    """Where the second file should go there is a folder."""
    files, embed, shards = work
    os.mkdir(files.file(1))
    with pytest.raises(EmbeddingPipelineError, match="the pipeline stopped: .*embeddings-00001.*run the same command"):
        embed_shards(pipeline_options([]), embed, shards)
    assert not [name for name in os.listdir(files.folder) if name.startswith(".")]


def test_beams_own_flags_reach_it():
    options = pipeline_options(["--direct_num_workers=2", "--direct_running_mode", "multi_processing"])
    assert options.view_as(DirectOptions).direct_num_workers == 2
    assert options.view_as(DirectOptions).direct_running_mode == "multi_processing"
    assert pipeline_options(["--runner=FlinkRunner"]).view_as(StandardOptions).runner == "FlinkRunner"


@pytest.mark.parametrize(
    "arguments, message",
    [
        (["--num_shard=3"], "unknown flag '--num_shard=3'"),
        (["--direct_num_workers=2", "--direct_num_worker", "3"], "unknown flag '--direct_num_worker'"),
        (["photos.csv"], "unknown flag 'photos.csv'"),
        (["--direct_num_workers=two"], "--direct_num_workers.*'two'"),
    ],
)
def test_flags_that_nobody_has_are_refused(arguments, message, capfd):
    """Without the two pages of usage that argparse prints."""
    with pytest.raises(EmbeddingPipelineError, match=message):
        pipeline_options(arguments)
    assert "usage" not in "".join(capfd.readouterr())
