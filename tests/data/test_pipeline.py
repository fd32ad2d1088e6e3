"""Batches hold the photos that the sampler chose, a resumed run sees the same ones, and bad photos are named."""

import itertools
import os
import re
import shutil

import numpy as np
import pytest
import tensorflow as tf
from PIL import Image

from eet_tf.data.augment import augmentation
from eet_tf.data.benchmarks import load_dataset
from eet_tf.data.catalog import Catalog, CatalogError, MissingPhotosError
from eet_tf.data.images import decode_and_resize
from eet_tf.data.pipeline import (
    SkippedPhoto,
    check_photos,
    decode_photos,
    gallery_dataset,
    naming_unreadable,
    readable,
    training_dataset,
    write_skipped,
)
from eet_tf.data.reasons import unreadable_message
from eet_tf.data.sampling import PKSampler
from tests.data.photo_server import PhotoServer

SIZE = 32


@pytest.fixture(scope="module")
def catalog(tmp_path_factory):
    """Five products of 2 to 6 photos of one colour each: red is 40 x label, green numbers the photo; in mixed order."""
    folder = tmp_path_factory.mktemp("solid")
    rows = [(f"{label}-{number}.png", label, number) for label in range(5) for number in range(2 + label)]
    for path, label, number in rows:
        Image.new("RGB", (20, 30), (40 * label, 40 * number, 7)).save(folder / path)
    rows = [rows[row] for row in np.random.default_rng(0).permutation(len(rows))]
    return Catalog([row[0] for row in rows], [str(row[1]) for row in rows], root=str(folder))


@pytest.fixture
def sampler(catalog):
    return PKSampler(catalog.labels, classes_per_batch=3, examples_per_class=2, seed=4)


def take(dataset, number):
    """The first batches, as NumPy."""
    return list(itertools.islice(dataset.as_numpy_iterator(), number))


def colours(catalog, rows):
    """What the photos of some rows look like, from their names."""
    names = [catalog.paths[row].removesuffix(".png").split("-") for row in rows]
    return np.array([[40 * int(label), 40 * int(number), 7] for label, number in names])


def test_batches_are_the_photos_that_the_sampler_chose(catalog, sampler):
    batches = take(training_dataset(catalog, sampler, SIZE), 6)
    chosen = itertools.chain(epoch_of(sampler, 0), epoch_of(sampler, 1))
    for (images, labels), rows in zip(batches, chosen):
        assert images.shape == (6, SIZE, SIZE, 3)
        assert (images.dtype, labels.dtype) == (np.float32, np.int64)
        assert (labels == catalog.labels[rows]).all()
        np.testing.assert_allclose(
            images, np.broadcast_to(colours(catalog, rows)[:, None, None], images.shape), atol=0.01
        )


@pytest.mark.parametrize("is_decoded", [False, True], ids=["files", "decoded"])
def test_parts_put_together_are_the_batch(catalog, sampler, is_decoded):
    """Three workers, of which each reads a third of the photos and changes them as one alone would."""
    decoded = decode_photos(catalog, SIZE) if is_decoded else None
    augment = augmentation(SIZE, seed=5, noise=0.05)

    def batches(part):
        attributes = catalog.labels[:, np.newaxis] % 2
        return take(training_dataset(catalog, sampler, SIZE, augment, 2, 2, attributes, decoded, part), 3)

    parts = [batches((number, 3)) for number in range(3)]
    for number, (images, targets) in enumerate(batches((0, 1))):
        assert images.shape[0] == 6 and parts[0][number][0].shape[0] == 2
        np.testing.assert_allclose(np.concatenate([part[number][0] for part in parts]), images, atol=1e-3)
        for name, values in targets.items():
            np.testing.assert_array_equal(np.concatenate([part[number][1][name] for part in parts]), values)


def test_a_part_reads_its_own_photos_only(catalog, sampler, monkeypatch):
    """The generator behind it gives the rows of the part, and nothing else is asked of the files."""
    chosen = [batch[4:6] for batch in itertools.islice(epoch_of(sampler, 0), 2)]
    asked = []
    generator = tf.data.Dataset.from_generator

    def watched(function, output_signature):
        def rows():
            for row in function():
                asked.append(row)
                yield row

        return generator(rows, output_signature=output_signature)

    monkeypatch.setattr(tf.data.Dataset, "from_generator", watched)
    take(training_dataset(catalog, sampler, SIZE, part=(2, 3)), 2)
    np.testing.assert_array_equal(asked[:2], chosen)
    assert all(len(rows) == 2 for rows in asked)


@pytest.mark.parametrize("part", [(0, 4), (2, 2), (-1, 2)])
def test_parts_that_do_not_exist_are_refused(catalog, sampler, part):
    with pytest.raises(ValueError, match=r"`part` must be \(k, n\), .*the 6 photos of a batch.*Received: part="):
        training_dataset(catalog, sampler, SIZE, part=part)


def epoch_of(sampler, epoch):
    """The batches of one epoch."""
    return itertools.islice(sampler.batches(epoch), sampler.steps_per_epoch)


@pytest.mark.parametrize("steps", [None, 3])
def test_a_resumed_run_sees_what_the_first_would_have(catalog, sampler, steps):
    """Two epochs of `steps` batches (by default ceil(20 photos / 6) = 4) are passed over."""
    per_epoch = steps or 4
    assert sampler.steps_per_epoch == 4
    through = take(training_dataset(catalog, sampler, SIZE, steps_per_epoch=steps), 4 * per_epoch)
    resumed = take(training_dataset(catalog, sampler, SIZE, first_epoch=2, steps_per_epoch=steps), 2 * per_epoch)
    for (images, labels), (images_again, labels_again) in zip(through[2 * per_epoch :], resumed, strict=True):
        assert (images == images_again).all()
        assert (labels == labels_again).all()


def test_decoded_once_the_batches_are_the_same_to_half_a_step_of_255(catalog, sampler):
    decoded = decode_photos(catalog, SIZE)
    assert (decoded.shape, decoded.dtype) == ((len(catalog), SIZE, SIZE, 3), np.uint8)
    from_files = take(training_dataset(catalog, sampler, SIZE), 6)
    from_memory = take(training_dataset(catalog, sampler, SIZE, decoded=decoded), 6)
    for (images, labels), (images_again, labels_again) in zip(from_files, from_memory, strict=True):
        assert images_again.dtype == np.float32
        np.testing.assert_allclose(images_again, images, atol=0.5)
        np.testing.assert_array_equal(labels_again, labels)


def test_decoding_says_how_far_it_is(catalog):
    seen = []
    decode_photos(catalog, SIZE, seen.append)
    assert seen == [len(catalog)]


def test_decoding_names_what_cannot_be_read(catalog, tmp_path):
    spoilt = tmp_path / "spoilt"
    shutil.copytree(catalog.root, spoilt)
    (spoilt / "1-0.png").write_bytes(b"no picture")
    with pytest.raises(CatalogError, match="1 of 20 photos cannot be read.*\n.*1-0.png"):
        decode_photos(Catalog(catalog.paths, catalog.skus, root=str(spoilt)), SIZE)


@pytest.mark.parametrize(
    "decoded",
    [np.zeros([20, 16, 16, 3], np.uint8), np.zeros([7, SIZE, SIZE, 3], np.uint8), np.zeros([20, SIZE, SIZE, 3])],
)
def test_photos_decoded_for_something_else_are_refused(decoded, catalog, sampler):
    with pytest.raises(ValueError, match=r"`decoded` must be .*\(20, 32, 32, 3\) uint8. Received: \("):
        training_dataset(catalog, sampler, SIZE, decoded=decoded)


def test_epochs_differ(catalog, sampler):
    first, second = (take(training_dataset(catalog, sampler, SIZE, first_epoch=epoch), 4) for epoch in (0, 1))
    assert any((one[1] != other[1]).any() for one, other in zip(first, second))


def test_augment_is_given_whole_batches(catalog, sampler):
    plain = take(training_dataset(catalog, sampler, SIZE), 2)
    changed = take(training_dataset(catalog, sampler, SIZE, augment=lambda images, number: images[::-1] / 2), 2)
    for (images, labels), (half, same_labels) in zip(plain, changed):
        assert (half == images[::-1] / 2).all()
        assert (labels == same_labels).all()


def test_the_end_of_a_training_waits_for_no_tuning(catalog, sampler):
    """A tuned dataset has a thread that sleeps for up to a minute, and whoever lets go of the dataset waits for it."""
    assert not training_dataset(catalog, sampler, SIZE).options().autotune.enabled


@pytest.mark.parametrize("batch_size", [1, 7, 20, 64])
def test_gallery_keeps_the_order_of_the_catalogue(catalog, batch_size):
    batches = take(gallery_dataset(catalog, SIZE, batch_size), 99)
    assert [len(batch) for batch in batches[:-1]] == [batch_size] * (len(batches) - 1)
    images = np.concatenate(batches)
    np.testing.assert_allclose(images[:, 3, 5], colours(catalog, range(len(catalog))), atol=0.01)


def test_attributes_come_beside_the_labels(catalog, sampler):
    """Each photo's attributes are its own row: here its number in the catalogue, and whether its label is odd."""
    table = np.stack([np.arange(len(catalog)), catalog.labels % 2], axis=1).astype(np.int8)
    with_attributes = take(training_dataset(catalog, sampler, SIZE, attributes=table), 2)
    for (images, targets), (same_images, labels) in zip(
        with_attributes, take(training_dataset(catalog, sampler, SIZE), 2)
    ):
        np.testing.assert_array_equal(images, same_images)
        np.testing.assert_array_equal(targets["label"], labels)
        rows, is_odd = np.asarray(targets["attributes"]).T
        np.testing.assert_array_equal(catalog.labels[rows.astype(int)], labels)
        np.testing.assert_array_equal(is_odd, labels % 2)


def test_attributes_of_another_catalogue_are_refused(catalog, sampler):
    with pytest.raises(ValueError, match="one row per photo of the catalogue. Received: 3 rows for"):
        training_dataset(catalog, sampler, SIZE, attributes=np.zeros([3, 2]))


def test_a_resumed_run_sees_the_same_changes(catalog, sampler):
    """Two epochs of 3 batches are passed over: what comes then is changed as it was in the run that began at 0."""
    augment = augmentation(SIZE, seed=5, noise=0.05)
    through = take(training_dataset(catalog, sampler, SIZE, augment, steps_per_epoch=3), 10)
    resumed = take(training_dataset(catalog, sampler, SIZE, augment, first_epoch=2, steps_per_epoch=3), 4)
    for (images, _), (images_again, _) in zip(through[6:], resumed, strict=True):
        np.testing.assert_array_equal(images, images_again)


# Photos that cannot be read


@pytest.fixture
def listed(catalog, tmp_path):
    """Six photos in files that a test may spoil, listed from line 11 on."""
    for number in range(6):
        shutil.copy(catalog.files[number], tmp_path / f"{number}.png")
    lines = list(range(11, 17))
    paths = [f"{number}.png" for number in range(6)]
    return Catalog(paths, list("aabbcc"), root=str(tmp_path), source="list.csv", lines=lines)


def test_readable_photos_pass_and_are_counted(listed):
    counted = []
    assert check_photos(listed, counted.append) is listed
    assert counted == [6]


def test_unreadable_photos_are_named_all_at_once(listed, tmp_path):
    """Text, a truncated photo and a wrong format, on lines 12, 14 and 15."""
    (tmp_path / "1.png").write_bytes(b"<html>Not found</html>")
    (tmp_path / "3.png").write_bytes((tmp_path / "3.png").read_bytes()[:50])
    Image.new("RGB", (9, 9)).save(tmp_path / "4.png", "TIFF")
    with pytest.raises(CatalogError) as caught:
        check_photos(listed)
    first, *others = str(caught.value).splitlines()
    assert first.startswith("3 of 6 photos cannot be read. Replace them, delete their rows, or leave them out with --")
    assert len(others) == 3
    for line, number, place in zip(others, (1, 3, 4), (12, 14, 15)):
        assert line.startswith(f"list.csv:{place}: '{tmp_path}/{number}.png': ")
        assert len(line.split(": ", 2)[2]) > 10


def test_unreadable_photos_of_several_catalogues_are_named_together(catalog, listed, tmp_path):
    """Of a long message at most a thousand lines are shown."""
    for number in range(6):
        (tmp_path / f"{number}.png").write_bytes(b"text")
    parts = [listed.take([4, 1]), catalog, listed.take([0, 2, 3, 5])]
    with pytest.raises(CatalogError, match="^6 of 26 photos") as caught:
        check_photos(parts)
    places = [line.partition(": ")[0] for line in str(caught.value).splitlines()[1:]]
    assert places == [f"list.csv:{line}" for line in (15, 12, 11, 13, 14, 16)]
    assert check_photos([catalog]) == [catalog]
    message = unreadable_message(["line"] * 1003, 2000).splitlines()
    assert len(message) == 1002 and message[-1] == "... and 3 more"


def test_empty_and_missing_photos_are_named_beside_the_others(listed, tmp_path):
    (tmp_path / "2.png").write_bytes(b"")
    (tmp_path / "0.png").unlink()
    (tmp_path / "4.png").unlink()
    (tmp_path / "4.png").mkdir()
    (tmp_path / "5.png").write_bytes(b"GIF89a")
    with pytest.raises(CatalogError) as caught:
        check_photos(listed)
    said = [line.removeprefix("list.csv:").replace(f"{tmp_path}/", "") for line in str(caught.value).splitlines()]
    assert said == [
        "4 of 6 photos cannot be read. Replace them, delete their rows, or leave them out with --skip_unreadable:",
        "11: '0.png': the file does not exist",
        "13: '2.png': the file is empty",
        "15: '4.png': it is a folder",
        "16: '5.png': a GIF that is cut off",
    ]


def test_names_that_are_not_utf_8_are_read(listed, tmp_path):
    """As Linux has them: any bytes."""
    name = os.fsdecode(b"caf\xe9.png")
    shutil.copy(listed.files[0], tmp_path / name)
    odd = Catalog([name, "1.png"], ["a", "b"], root=str(tmp_path))
    assert check_photos(odd) is odd
    assert next(iter(gallery_dataset(odd, SIZE))).shape == [2, SIZE, SIZE, 3]


def test_what_passes_the_check_can_be_trained_on(listed):
    """The same decoder stands behind both."""
    check_photos(listed)
    images = np.concatenate(take(gallery_dataset(listed, SIZE), 9))
    expected = [decode_and_resize(tf.io.read_file(file), SIZE) for file in listed.files]
    assert (images == np.stack(expected)).all()


# Photos that are left out


@pytest.fixture
def quick_decoder(monkeypatch):
    """In place of the decoder, whose graph takes seconds to build, TensorFlow's own."""

    def decode(content, max_pixels=0):
        return tf.ensure_shape(tf.io.decode_image(content, 3, expand_animations=False), [None, None, 3])

    monkeypatch.setattr("eet_tf.data.pipeline.images.decode", decode)


@pytest.fixture
def spoilt(listed, tmp_path):
    """Of six photos one is text, one empty and one missing: lines 12, 14 and 15."""
    (tmp_path / "1.png").write_bytes(b"<html>Not found</html>")
    (tmp_path / "3.png").write_bytes(b"")
    (tmp_path / "4.png").unlink()
    return listed


def test_unreadable_photos_are_left_out_and_written_down(spoilt, quick_decoder, tmp_path):
    counted = []
    rest, skipped = readable(spoilt, counted.append)
    assert rest.paths.tolist() == ["0.png", "2.png", "5.png"] and rest.skus.tolist() == ["a", "b", "c"]
    assert [rest.where(row) for row in range(3)] == ["list.csv:11", "list.csv:13", "list.csv:16"]
    assert skipped == (
        SkippedPhoto("list.csv:12", "1.png", "a web page, which a download left in the place of the photo"),
        SkippedPhoto("list.csv:14", "3.png", "the file is empty"),
        SkippedPhoto("list.csv:15", "4.png", "the file does not exist"),
    )
    assert counted == [6]
    write_skipped(tmp_path / "out" / "skipped.csv", skipped)
    lines = (tmp_path / "out" / "skipped.csv").read_text(encoding="utf-8").splitlines()
    assert lines[0] == "place,photo,reason" and lines[2] == "list.csv:14,3.png,the file is empty"
    assert lines[1].endswith('"a web page, which a download left in the place of the photo"') and len(lines) == 4


def test_of_readable_photos_none_is_left_out(listed, quick_decoder):
    assert readable(listed) == (listed, ())


def test_a_catalogue_of_which_nothing_is_left_is_refused(spoilt, quick_decoder):
    with pytest.raises(CatalogError, match="^3 of 3 photos cannot be read.*\nlist.csv:12: .*\nlist.csv:14: .*"):
        readable(spoilt.take([1, 3, 4]))


def test_a_list_with_missing_photos_is_loaded_if_they_are_to_be_left_out(spoilt, quick_decoder, tmp_path):
    rows = "".join(f"{path},{sku}\n" for path, sku in zip(spoilt.paths, spoilt.skus))
    (tmp_path / "catalog.csv").write_text(f"path,sku\n{rows}", encoding="utf-8")
    with pytest.raises(MissingPhotosError, match="(?s)catalog.csv:5: photo file .* is empty.*catalog.csv:6: .* exist"):
        load_dataset("csv", str(tmp_path))
    catalog = load_dataset("csv", str(tmp_path), check_files=False)
    assert catalog.paths.tolist() == spoilt.paths.tolist()
    rest, skipped = readable(catalog)
    assert len(rest) == 3 and [photo.place for photo in skipped] == [f"{tmp_path}/catalog.csv:{n}" for n in (3, 5, 6)]
    (tmp_path / "catalog.csv").write_text(f"path,sku\n{rows},bowl\n", encoding="utf-8")
    with pytest.raises(CatalogError, match="a row has no path") as caught:  # which is no matter of photos
        load_dataset("csv", str(tmp_path), check_files=False)
    assert not isinstance(caught.value, MissingPhotosError)


# Errors in the middle of a training


def failing_with(content, tmp_path):
    """What TensorFlow raises for a file that cannot be read, from a pipeline that takes milliseconds to build."""
    (tmp_path / "odd.png").write_bytes(content)
    dataset = tf.data.Dataset.from_tensors(str(tmp_path / "odd.png"))
    return list(dataset.map(lambda file: tf.io.decode_image(tf.io.read_file(file))))


def test_what_cannot_be_read_in_the_middle_of_a_training_is_named(spoilt, quick_decoder, tmp_path):
    with pytest.raises(CatalogError) as caught, naming_unreadable(spoilt.take([0, 2]), spoilt.take([1, 5])):
        failing_with(b"text", tmp_path)
    assert re.match(r"1 of 4 photos cannot be read.*\nlist\.csv:12: '.*1\.png': a web page", str(caught.value))


def test_what_cannot_be_read_only_for_a_moment_is_said_to_be_so(listed, quick_decoder, tmp_path):
    with (
        pytest.raises(CatalogError, match="^A photo could not be read, though all .* again; "),
        naming_unreadable(listed),
    ):
        failing_with(b"text", tmp_path)


def test_other_errors_go_through_and_no_photo_is_read(listed, monkeypatch):
    monkeypatch.setattr("eet_tf.data.pipeline.read_files", lambda *_, **__: pytest.fail("photos were read"))
    with pytest.raises(tf.errors.InvalidArgumentError, match="Matrix size-incompatible"), naming_unreadable(listed):
        tf.matmul(tf.zeros([2, 3]), tf.zeros([2, 3]))
    with pytest.raises(KeyError), naming_unreadable(listed):
        raise KeyError("mine")


# Photos at URLs


def test_photos_at_urls_are_what_files_are(listed, tmp_path):
    """Every second photo lies on a server, which is asked once for each: the cache gives it from then on."""
    with PhotoServer() as server:
        paths = [
            server.put(f"/{row}.png?size=1", (tmp_path / f"{row}.png").read_bytes()) if row % 2 else f"{row}.png"
            for row in range(6)
        ]
        catalog = Catalog(paths, listed.skus, root=str(tmp_path), photo_cache=str(tmp_path / "cache"))
        expected = np.concatenate(take(gallery_dataset(listed, SIZE), 9))
        np.testing.assert_array_equal(np.concatenate(take(gallery_dataset(catalog, SIZE, 4), 9)), expected)
        sampler = PKSampler(catalog.labels, classes_per_batch=2, examples_per_class=2, seed=4)
        rows = next(sampler.batches(0))
        images, labels = take(training_dataset(catalog, sampler, SIZE), 1)[0]
        np.testing.assert_array_equal(images, expected[rows])
        np.testing.assert_array_equal(labels, catalog.labels[rows])
        assert server.asked == {f"/{row}.png?size=1": 1 for row in (1, 3, 5)}
    assert catalog.take([1]).photo_cache == catalog.photo_cache


def test_a_teachers_vectors_come_with_their_photos(catalog):
    """Each photo's own, whatever is drawn, beside attributes too; they are as many as there are photos."""
    sampler = PKSampler(catalog.labels, 2, 2, seed=3)
    teacher = np.random.default_rng(0).normal(size=[len(catalog), 5]).astype(np.float32)
    attributes = np.arange(len(catalog))[:, np.newaxis] % 2
    dataset = training_dataset(catalog, sampler, 16, attributes=attributes, teacher=teacher)
    for (_, targets), rows in zip(dataset.take(3), sampler.endless(0, None)):
        np.testing.assert_array_equal(targets["teacher"], teacher[rows])
        np.testing.assert_array_equal(targets["attributes"], attributes[rows])
        np.testing.assert_array_equal(targets["label"], catalog.labels[rows])
    with pytest.raises(ValueError, match=r"`teacher` must have one row per photo of the catalogue. Received: 1 rows"):
        training_dataset(catalog, sampler, 16, teacher=teacher[:1])
