"""Small training scripts of different style for `test_guard.py`: each returns what must be the same with a guard."""

from __future__ import annotations

import keras
import numpy as np
import tensorflow as tf
from keras import layers, ops

import lossviz

SCRIPTS: dict[str, tuple] = {}
X = np.random.default_rng(1).normal(size=(40, 4)).astype("float32")
Y = (X[:, :1] > 0).astype("float32")  # 0 and 1
LARGE = 20 + 30 * Y  # what no sigmoid reaches
CLASSES = np.arange(40) % 3


def script(*rules: str, says: str = ""):
    """A script that has findings of these rules, and on which the guard says this."""

    def add(function):
        SCRIPTS[function.__name__] = (function, set(rules), says)
        return function

    return add


def net(last: str | None = "sigmoid", units: int = 1) -> keras.Model:
    entry = keras.Input((4,))
    hidden = layers.Dropout(0.5)(layers.Dense(8, activation="tanh")(entry))
    return keras.Model(entry, layers.Dense(units, activation=last)(hidden))


@script()
def functional():
    model = net()
    model.compile("adam", "binary_crossentropy", metrics=["accuracy"])
    return model, model.fit(X, Y, epochs=2, batch_size=16, verbose=0).history, model.predict(X, verbose=0)


@script("out-of-reach")
def sequential_without_input():
    model = keras.Sequential([layers.Dense(8), layers.BatchNormalization(), layers.Dense(1, activation="sigmoid")])
    model.compile("sgd", "mse", metrics=["mae"])
    return model, model.fit(X, LARGE, validation_split=0.25, epochs=2, batch_size=7, verbose=0).history


class Subclassed(keras.Model):
    def __init__(self):
        super().__init__()
        self.first, self.drop, self.last = layers.Dense(8), layers.Dropout(0.3), layers.Dense(1, activation="sigmoid")

    def call(self, x, training=False):
        return self.last(self.drop(self.first(x), training=training))


@script("out-of-reach")
def subclassed():
    model = Subclassed()
    model.compile("adam", "mse")
    return model, model.fit(X, LARGE, epochs=2, verbose=0).history


class OwnStep(Subclassed):
    def train_step(self, data):
        x, y = data
        with tf.GradientTape() as tape:
            loss = self.compute_loss(x, y, self(x, training=True))
        weights = self.trainable_weights
        self.optimizer.apply_gradients(zip(tape.gradient(loss, weights), weights))
        return {"loss": loss}


@script("out-of-reach")
def own_train_step():
    model = OwnStep()
    model.compile("sgd", "mse")
    return model, model.fit(X, LARGE, epochs=2, verbose=0).history


class OwnLoss(Subclassed):
    def train_step(self, data):
        x, y = data
        with tf.GradientTape() as tape:
            loss = ops.mean(ops.square(y - 40 * self(x, training=True)))
        weights = self.trainable_weights
        self.optimizer.apply_gradients(zip(tape.gradient(loss, weights), weights))
        return {"loss": loss}


@script(says="the train_step of OwnLoss computes a loss without compute_loss")
def own_loss_in_the_step():
    model = OwnLoss()
    model.compile("sgd", "mse")
    return model, model.fit(X, LARGE, epochs=2, verbose=0).history


@script("out-of-reach")
def generator():
    drawn = []

    def batches():
        for k in range(100):
            drawn.append(k)
            yield X[k % 4 * 8 :][:8], LARGE[k % 4 * 8 :][:8], np.random.random(8)

    model = net()
    model.compile("sgd", "mse")
    history = model.fit(batches(), steps_per_epoch=3, epochs=2, verbose=0).history
    return model, history, drawn


@script("out-of-reach")
def tf_data():
    data = tf.data.Dataset.from_tensor_slices((X, LARGE)).shuffle(40, seed=3).batch(16).prefetch(2)
    model = net()
    model.compile("sgd", "mse")
    return model, model.fit(data, epochs=2, verbose=0).history, model.evaluate(data, verbose=0)


@script("out-of-reach")
def tf_data_with_random_maps():
    def noisy(x, y):
        return x + tf.random.stateless_normal(tf.shape(x), seed=(1, 2)), y

    data = tf.data.Dataset.from_tensor_slices((X, LARGE)).map(noisy).repeat().batch(16, drop_remainder=True)
    model = net()
    model.compile("sgd", "mse")
    return model, model.fit(data, steps_per_epoch=4, epochs=2, verbose=0).history


class Batches(keras.utils.PyDataset):
    def __len__(self):
        return 5

    def __getitem__(self, index):
        return X[8 * index :][:8], LARGE[8 * index :][:8]


@script("out-of-reach")
def py_dataset():
    model = net()
    model.compile("sgd", "mse")
    return model, model.fit(Batches(), epochs=2, shuffle=False, verbose=0).history


@script("out-of-reach")
def several_fits():
    model = net()
    model.compile("sgd", "binary_crossentropy")
    first = model.fit(X, Y, verbose=0).history
    model.compile("sgd", "mse")  # another loss: another look
    return model, first, model.fit(X, LARGE, verbose=0).history, model.fit(X, LARGE, verbose=0).history


@script("out-of-reach")
def train_on_batch():
    model = net()
    model.compile("sgd", "mse")
    found = [model.train_on_batch(X[k : k + 8], LARGE[k : k + 8]) for k in range(0, 40, 8)]
    return model, found, model.test_on_batch(X, LARGE)


@script("out-of-reach")
def evaluate_only():
    model = net()
    model.compile(loss="mse", metrics=["mae"])
    return model, model.evaluate(X, LARGE, verbose=0)


@script()
def own_loop_without_fit():
    model, optimizer = net(), keras.optimizers.SGD(0.1)
    losses = []
    for _ in range(3):
        with tf.GradientTape() as tape:
            losses.append(ops.mean(keras.losses.mean_squared_error(LARGE, model(X, training=True))))
        weights = model.trainable_weights
        optimizer.apply_gradients(zip(tape.gradient(losses[-1], weights), weights))
    return model, [float(loss) for loss in losses]


@script("out-of-reach")
def several_outputs():
    entry = keras.Input((4,))
    heads = {
        "a": layers.Dense(1, activation="sigmoid", name="a")(entry),
        "b": layers.Dense(3, activation="softmax", name="b")(entry),
    }
    model = keras.Model(entry, heads)
    model.compile("adam", {"a": "mse", "b": "sparse_categorical_crossentropy"}, loss_weights={"a": 1.0, "b": 2.0})
    return model, model.fit(X, {"a": LARGE, "b": CLASSES}, epochs=2, verbose=0).history


@script("out-of-reach")
def loss_parts_and_callbacks():
    model = net()
    model.compile("sgd", "mse")
    stop = keras.callbacks.EarlyStopping("val_data_loss", mode="min", patience=1)
    parts = lossviz.LossParts()
    history = model.fit(X, LARGE, epochs=3, validation_data=(X, LARGE), verbose=0, callbacks=[parts, stop]).history
    return model, history, model.fit(X, LARGE, verbose=0, callbacks=[parts]).history


@script("out-of-reach")
def mixed_precision():
    entry = keras.Input((4,))
    hidden = layers.Dense(8, dtype="mixed_float16")(entry)
    model = keras.Model(entry, layers.Dense(1, activation="sigmoid", dtype="float32")(hidden))
    model.compile(keras.optimizers.LossScaleOptimizer(keras.optimizers.SGD(0.01)), "mse")
    return model, model.fit(X, LARGE, epochs=2, verbose=0).history


@script("out-of-reach")
def run_eagerly():
    model = net()
    model.compile("sgd", "mse", run_eagerly=True)
    return model, model.fit(X, LARGE, epochs=2, verbose=0).history


@script("out-of-reach")
def run_eagerly_unbuilt():
    model = Subclassed()
    model.compile("sgd", "mse", metrics=["mae"], run_eagerly=True)
    return model, model.fit(X, LARGE, validation_data=(X, LARGE), verbose=0).history


@script("out-of-reach")
def steps_per_execution():
    model = net()
    model.compile("sgd", "mse", steps_per_execution=3)
    return model, model.fit(X, LARGE, epochs=2, batch_size=8, verbose=0).history


@script("out-of-reach")
def jit_compile():
    model = net()
    model.compile("sgd", "mse", jit_compile=True)
    return model, model.fit(X, LARGE, epochs=2, batch_size=20, verbose=0).history


class Noise(layers.Layer):
    """Random numbers from everywhere, a count of its own and a penalty."""

    def build(self, shape):
        self.inner = layers.Dense(4)
        self.inner.build(shape)
        self.count = self.add_weight(shape=(), initializer="zeros", trainable=False)

    def call(self, x):
        self.count.assign_add(1.0)
        self.add_loss(1e-3 * ops.sum(ops.square(x)))
        return self.inner(x) + keras.random.normal(ops.shape(x)) + tf.random.normal(tf.shape(x))


@script("out-of-reach")
def random_layers_of_its_own():
    model = keras.Sequential([Noise(), layers.GaussianNoise(0.1), layers.Dense(1, activation="sigmoid")])
    model.compile("sgd", "mse")
    return model, model.fit(X, LARGE, epochs=2, batch_size=16, verbose=0).history


@script("out-of-reach")
def stateful_rnn():
    model = keras.Sequential([layers.GRU(3, stateful=True), layers.Dense(1, activation="sigmoid")])
    model.compile("sgd", "mse")
    x = X[:, :, None]
    return model, model.fit(x, LARGE, epochs=2, batch_size=8, shuffle=False, verbose=0).history


@script("out-of-reach")
def gan_with_two_models():
    critic, maker = net(), net(None, 4)
    critic.compile("sgd", "mse")
    both = keras.Sequential([maker, critic])
    both.compile("sgd", "mse")
    losses = []
    for _ in range(3):
        noise = np.random.normal(size=(8, 4)).astype("float32")
        losses.append(critic.train_on_batch(X[:8], LARGE[:8]))
        losses.append(critic.train_on_batch(maker.predict(noise, verbose=0), 0 * LARGE[:8]))
        losses.append(both.train_on_batch(noise, LARGE[:8]))
    return both, losses


@script(says="it is distributed by tf.distribute")
def distributed():
    with tf.distribute.MirroredStrategy(["cpu:0"]).scope():
        model = net()
        model.compile("sgd", "mse")
    return model, model.fit(X, LARGE, verbose=0).history
