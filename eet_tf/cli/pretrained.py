"""An embedder without training: a backbone with its weights, and a whitening that photos of a catalogue teach."""

from __future__ import annotations

from eet_tf.cli import catalogs
from eet_tf.cli.complaints import Complaints
from eet_tf.training.recipes import PHOTOS_PER_DIM
from eet_tf.wording import counted

_OF_DATA = ("whiten_dim", "columns", "separator", "photo_cache", "split", "dataset")
# flags that an export of a trained model has not
NAMES = ("weights", "pooling", "pixel_scaling", "fit", "data", *_OF_DATA)
_IMAGE_SIZE = 224
_DIM = 512  # chosen on training products, docs/backbones.md


def checked(flags, complaints: Complaints) -> tuple:
    """The embedder of pooled features, and the catalogue that teaches a whitening, if one is given.

    Either is None where complaints say what is wrong with it.
    """
    complaints.number("image_size", flags.image_size, 32, 4096)
    complaints.number("whiten_dim", flags.whiten_dim, 1)
    catalog = None
    if flags.data is not None:
        catalog = complaints.check(_catalog, flags)
        if flags.whitening is not None:
            complaints.add(
                "--whitening must be left out with --data, whose photos teach one. Received: --whitening="
                f"{flags.whitening} and --data={flags.data}."
            )
    for name in _OF_DATA:
        if flags.data is None and flags[name].present:
            complaints.add(f"--{name} needs --data. Received: --{name}={flags[name].value}, without it.")
    return (complaints.check(_backbone, flags) if complaints.are_none else None), catalog


def _backbone(flags):
    """Builds it; refuses a named one without weights, whose features would find nothing."""
    from eet_tf import build_embedder
    from eet_tf.embedder.build import check_name, has_weights_of_its_own

    if not has_weights_of_its_own(flags.backbone):
        check_name(flags.backbone)
        if flags.weights is None:
            raise ValueError(
                "--weights must be given for a backbone of the list: imagenet, or the path of a file. Received: none, "
                f"and --backbone={flags.backbone}."
            )
    size = _IMAGE_SIZE if flags.image_size is None else flags.image_size
    how = {"pixel_scaling": flags.pixel_scaling, "fit": flags.fit}
    return build_embedder(flags.backbone, None, size, flags.weights, flags.pooling, **how)


def _catalog(flags):
    """The photos of the split; all of them where nobody asked for a split and there is none."""
    catalog = catalogs.load(flags)
    return catalog if catalog.splits is None and not flags["split"].present else catalog.split(flags.split)


def whitened_by_photos(embedder, catalog, dim: int | None):
    """The embedder with a whitening behind it that the photos of a catalogue teach."""
    from eet_tf import data
    from eet_tf.embedder import photo_fit
    from eet_tf.embedder.features import whitened
    from eet_tf.evaluation.callback import embed
    from eet_tf.evaluation.postprocessing import Whitening, fit_whitening
    from eet_tf.training.lines import verbosity

    catalogs.tell_notes(catalog)
    print(f"Learning a whitening from {counted(len(catalog), 'photo')}.", flush=True)
    with data.naming_unreadable(catalog):
        photos = data.gallery_dataset(catalog, embedder.input_shape[1], fit=photo_fit(embedder))
        vectors = embed(embedder, photos, verbose=verbosity())
    whitening = fit_whitening(vectors, dim)
    if dim is None:
        kept = min(_DIM, whitening.dim, max(len(vectors) // PHOTOS_PER_DIM, 1))
        whitening = Whitening(whitening.mean, whitening.projection[:, :kept])
    print(f"It keeps {whitening.dim} of {vectors.shape[1]} dimensions.", flush=True)
    return whitened(embedder, whitening)
