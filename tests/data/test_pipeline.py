"""Batches hold the photos that the sampler chose, a resumed run sees the same ones, and bad photos are named."""

import itertools
import shutil

import numpy as np
import pytest
import tensorflow as tf
from PIL import Image

from eet_tf.data.catalog import Catalog, CatalogError
from eet_tf.data.images import decode_and_resize
from eet_tf.data.pipeline import augmentation, check_photos, gallery_dataset, training_dataset
from eet_tf.data.sampling import PKSampler

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


def test_epochs_differ(catalog, sampler):
    first, second = (take(training_dataset(catalog, sampler, SIZE, first_epoch=epoch), 4) for epoch in (0, 1))
    assert any((one[1] != other[1]).any() for one, other in zip(first, second))


def test_augment_is_given_whole_batches(catalog, sampler):
    plain = take(training_dataset(catalog, sampler, SIZE), 2)
    changed = take(training_dataset(catalog, sampler, SIZE, augment=lambda images: images[::-1] / 2), 2)
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


# Augmentation


@pytest.fixture(scope="module")
def photos():
    """Eight smooth pictures, none like its mirror image."""
    corners = np.random.default_rng(0).uniform(20, 230, [8, 3, 3, 3])
    return tf.image.resize(corners, [SIZE, SIZE])


def identity_or_mirror(before, after):
    """For each picture whether it is (itself, its mirror image)."""
    same = np.isclose(before, after, atol=1e-3).all(axis=(1, 2, 3))
    mirrored = np.isclose(before[:, :, ::-1], after, atol=1e-3).all(axis=(1, 2, 3))
    return same, mirrored


def test_with_everything_off_only_the_mirror_is_left(photos):
    augment = augmentation(SIZE, crop=1, color=0, cutout=0, seed=1)
    mirrored_ever = []
    for _ in range(3):
        same, mirrored = identity_or_mirror(photos.numpy(), augment(photos).numpy())
        assert (same != mirrored).all()
        mirrored_ever.extend(mirrored)
    assert 0 < sum(mirrored_ever) < len(mirrored_ever)


@pytest.mark.parametrize(
    "settings",
    [{}, {"crop": 0.3}, {"color": 1.0}, {"cutout": 0.5}, {"noise": 0.1}],
    ids=["default", "crop", "color", "cutout", "noise"],
)
def test_augmentation_changes_images_and_keeps_their_form(photos, settings):
    if settings:
        settings = {"crop": 1, "color": 0, "cutout": 0, **settings}
    result = augmentation(SIZE, **settings, seed=2)(photos)
    assert result.shape == photos.shape
    assert result.dtype == tf.float32
    assert np.isfinite(result).all()
    assert 0 <= result.numpy().min() <= result.numpy().max() <= 255
    same, mirrored = identity_or_mirror(photos.numpy(), result.numpy())
    assert (same | mirrored).sum() <= (len(photos) - 1 if settings.get("noise") else 2)


def test_photos_of_a_batch_are_changed_differently(photos):
    """The same picture eight times; crops, colours and squares must not be drawn once for the whole batch."""
    same = tf.repeat(photos[:1], 8, axis=0)
    for settings in ({"crop": 0.3}, {"color": 0.5}, {"cutout": 0.5}):
        result = augmentation(SIZE, **{"crop": 1, "color": 0, "cutout": 0, **settings}, seed=3)(same).numpy()
        assert len({picture.tobytes() for picture in np.round(result)}) >= 5, settings


def test_cutout_blanks_at_most_its_share(photos):
    """A rectangle of at most half of each side is at most a quarter of the area; 127.5 is no pixel of the pictures."""
    result = augmentation(SIZE, crop=1, color=0, cutout=0.5, seed=4)(photos).numpy()
    blank = (result == 127.5).all(axis=3).mean(axis=(1, 2))
    assert 0 < blank.max() <= 0.25 + 2 / SIZE


def test_noise_falls_on_every_other_photo_with_its_deviation():
    """100 grey photos of 32 x 32 x 3: each is noisy with probability 1/2, so 50 +- 5 (one standard deviation) are; five
    of them are 25. The deviation of 3,072 values is 0.02 * 255 = 5.1 to within 5 * 5.1 / sqrt(2 * 3072) = 0.33."""
    grey = tf.fill([100, 32, 32, 3], 127.0)
    result = augmentation(32, crop=1, color=0, cutout=0, seed=5, noise=0.02)(grey).numpy()
    deviations = result.std(axis=(1, 2, 3))
    assert 25 <= np.sum(deviations > 0) <= 75
    assert np.all(np.abs(deviations[deviations > 0] - 5.1) < 0.33)


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


def test_augmentation_runs_inside_the_dataset(catalog, sampler):
    dataset = training_dataset(catalog, sampler, SIZE, augmentation(SIZE, seed=0))
    assert dataset.element_spec[0].shape[1:] == [SIZE, SIZE, 3]
    (first, _), (second, _) = take(dataset, 2)
    assert first.shape == second.shape == (6, SIZE, SIZE, 3)


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
    assert first.startswith("3 of 6 photos cannot be read. Replace them or delete their rows")
    assert len(others) == 3
    for line, number, place in zip(others, (1, 3, 4), (12, 14, 15)):
        assert line.startswith(f"list.csv:{place}: '{tmp_path}/{number}.png': ")
        assert len(line.split(": ", 2)[2]) > 10


def test_of_many_unreadable_photos_five_are_shown(listed, tmp_path):
    for number in range(6):
        (tmp_path / f"{number}.png").write_bytes(b"text")
    with pytest.raises(CatalogError, match="^6 of 6 photos") as caught:
        check_photos(listed)
    assert str(caught.value).count("list.csv:") == 5
    assert str(caught.value).endswith("... and 1 more")


def test_an_empty_and_a_missing_photo_are_named(listed, tmp_path):
    (tmp_path / "2.png").write_bytes(b"")
    with pytest.raises(CatalogError, match=r"list\.csv:13: photo file '.*/2\.png' is empty"):
        check_photos(listed)
    (tmp_path / "0.png").unlink()
    with pytest.raises(CatalogError, match=r"list\.csv:11: photo file '.*/0\.png' does not exist"):
        check_photos(listed)


def test_what_passes_the_check_can_be_trained_on(listed):
    """The same decoder stands behind both."""
    check_photos(listed)
    images = np.concatenate(take(gallery_dataset(listed, SIZE), 9))
    expected = [decode_and_resize(tf.io.read_file(file), SIZE) for file in listed.files]
    assert (images == np.stack(expected)).all()
