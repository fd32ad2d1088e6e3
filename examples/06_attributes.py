"""Attributes: learn them beside the embedding, predict them for a new photo, and filter a search by them.

    python examples/06_attributes.py

The embedder gets a second head with a probability for each attribute, such as `colour=red`. The loss pulls products
together that share attributes. It takes about 10 seconds on 2 cores and prints:

    10 attributes: colour=blue, colour=brown, colour=green, ...
    A photo of a pink product, as the network sees it: colour=pink 0.63, colour=red 0.18
    All photos: cap-pink-zigzag-bolt, mug-pink-zigzag-bolt, bag-pink-checks-star
    Mugs:       mug-pink-zigzag-bolt
"""

import keras
import numpy as np

from eet_tf import AttributeLoss, MetricLearner, SoftBinomialDevianceLoss, build_embedder
from eet_tf.data import PKSampler, encode_attributes, gallery_dataset, make_synthetic_catalog, training_dataset
from eet_tf.index import ExactIndex

SIZE = 32

keras.utils.set_random_seed(1)
catalog = make_synthetic_catalog(
    "runs/attributes/photos", num_products=60, photos_per_product=4, image_size=SIZE, test_share=0.2
)
known, new = catalog.split("train"), catalog.split("test")
table = encode_attributes(known, ["colour"])  # [N, A] of 1 = yes, 0 = no, -1 = unknown
print(f"{len(table.names)} attributes: {', '.join(table.names[:3])}, ...")

embedder = build_embedder("small_cnn", embedding_dim=32, image_size=SIZE, attribute_names=table.names)
learner = MetricLearner(embedder)
learner.compile(keras.optimizers.Adam(3e-3), loss=SoftBinomialDevianceLoss(), attribute_loss=AttributeLoss())
sampler = PKSampler(known.labels, classes_per_batch=8, examples_per_class=4)
batches = training_dataset(known, sampler, SIZE, attributes=table.values)
learner.fit(batches, steps_per_epoch=100, verbose=0)

# The model gives both: {"embedding": [N, 32], "attributes": [N, A] logits}.
outputs = embedder.predict(gallery_dataset(new, SIZE), verbose=0)
probabilities = 1 / (1 + np.exp(-outputs["attributes"]))
best = np.argsort(-probabilities[0])[:2]
seen = ", ".join(f"{table.names[column]} {probabilities[0, column]:.2f}" for column in best)
print(f"A photo of a {new.attributes['colour'][0]} product, as the network sees it: {seen}")

# What a catalogue says of its photos is kept in the index, and `where` filters by it.
index = ExactIndex.build(outputs["embedding"], new.skus, new.paths, new.attributes)
for title, where in [("All photos", None), ("Mugs", {"shape": "mug"})]:
    neighbors = index.search(outputs["embedding"][0], k=3, where=where, group_by_sku=True)
    print(f"{title + ':':11} {', '.join(neighbors.skus[0])}")
