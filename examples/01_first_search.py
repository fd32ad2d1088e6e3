"""Your first search: train an embedder on photos of some products, then search among photos of other products.

    python examples/01_first_search.py

It draws 24 products with 8 photos each into runs/first_search/, trains on 12 of them, puts the photos of the other 12
into an index and searches it with one more photo. It takes about 10 seconds on 2 cores and prints:

    recall@1 on products never trained on: 0.23 before training, 0.44 after
    A photo of shoe-grey-stripes-cross finds:
      0.88  shoe-grey-stripes-star
      0.84  shoe-grey-stripes-cross
      0.59  bag-brown-bands-bolt
"""

import keras

from eet_tf import EETLoss, MetricLearner, build_embedder, evaluate_retrieval
from eet_tf.data import PKSampler, gallery_dataset, make_synthetic_catalog, training_dataset
from eet_tf.index import ExactIndex

SIZE = 32  # pixels; small photos train in seconds

keras.utils.set_random_seed(1)
catalog = make_synthetic_catalog("runs/first_search/photos", num_products=24, photos_per_product=8, image_size=SIZE)
known, new = catalog.split("train"), catalog.split("test")
new_photos = gallery_dataset(new, SIZE)

# An embedder is a Keras model from a photo to a vector of length 1.
embedder = build_embedder("small_cnn", embedding_dim=32, image_size=SIZE)
before = evaluate_retrieval(embedder.predict(new_photos, verbose=0), new.labels, ks=[1])

# A metric loss compares the photos of a batch, so each batch holds 6 products with 4 photos each.
sampler = PKSampler(known.labels, classes_per_batch=6, examples_per_class=4)
learner = MetricLearner(embedder)
learner.compile(optimizer=keras.optimizers.Adam(3e-3), loss=EETLoss())
learner.fit(training_dataset(known, sampler, SIZE), steps_per_epoch=60, verbose=0)

embeddings = embedder.predict(new_photos, verbose=0)
after = evaluate_retrieval(embeddings, new.labels, ks=[1])["recall@1"]
print(f"recall@1 on products never trained on: {before['recall@1']:.2f} before training, {after:.2f} after")

# The first photo is the query; the others are searched.
index = ExactIndex.build(embeddings[1:], skus=new.skus[1:], photos=new.paths[1:])
neighbors = index.search(embeddings[0], k=3, group_by_sku=True)
print(f"A photo of {new.skus[0]} finds:")
for sku, score in zip(neighbors.skus[0], neighbors.scores[0]):
    print(f"  {score:.2f}  {sku}")
