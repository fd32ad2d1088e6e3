"""Your own Keras model and your own training loop: a loss of this package is a function of labels and embeddings.

    python examples/04_own_keras_loop.py

Nothing but the loss and the batches comes from eet_tf here; the model ends in any vector, the loss brings it to length
1. It takes about 10 seconds on 2 cores and prints:

    step   0: loss 0.29
    step  40: loss 0.22
    step  80: loss 0.04
    recall@1 on new products: 0.38
"""

import itertools

import keras
import tensorflow as tf
from keras import layers

from eet_tf import TripletLoss, evaluate_retrieval
from eet_tf.data import PKSampler, gallery_dataset, make_synthetic_catalog, training_dataset

keras.utils.set_random_seed(1)
catalog = make_synthetic_catalog("runs/own_loop/photos", num_products=24, image_size=32, test_share=0.25)
known, new = catalog.split("train"), catalog.split("test")

model = keras.Sequential(
    [
        keras.Input([32, 32, 3]),
        layers.Rescaling(1 / 255),
        layers.Conv2D(32, 3, strides=2, activation="relu"),
        layers.Conv2D(64, 3, strides=2, activation="relu"),
        layers.Flatten(),
        layers.Dense(32),
    ]
)
optimizer = keras.optimizers.Adam(1e-3)
loss_of = TripletLoss(margin=0.3, negatives="semi_hard")


@tf.function
def train_step(images, labels):
    """Updates the model and returns the loss of the batch."""
    with tf.GradientTape() as tape:
        loss = loss_of(labels, model(images, training=True))
    gradients = tape.gradient(loss, model.trainable_variables)
    optimizer.apply_gradients(zip(gradients, model.trainable_variables))
    return loss


sampler = PKSampler(known.labels, classes_per_batch=6, examples_per_class=4)
batches = training_dataset(known, sampler, image_size=32)  # endless
for step, (images, labels) in enumerate(itertools.islice(batches, 81)):
    loss = train_step(images, labels)
    if step % 40 == 0:
        print(f"step {step:3}: loss {float(loss):.2f}")

embeddings = model.predict(gallery_dataset(new, image_size=32), verbose=0)
print(f"recall@1 on new products: {evaluate_retrieval(embeddings, new.labels, ks=[1])['recall@1']:.2f}")
