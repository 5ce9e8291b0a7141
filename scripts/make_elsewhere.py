"""Makes lossviz/data/elsewhere.json: what other libraries give for the same tensors as Keras 3.

    python scripts/make_elsewhere.py [--cache FOLDER]

For each library it makes an environment with the real package from PyPI (some 6 GB in all, under `--cache`, by default
~/.cache/lossviz-elsewhere; kept for the next run), and evaluates in it the calls of this file as they stand here. The
chapter `elsewhere` shows calls and values; tests/test_elsewhere.py runs those of Keras 3 again.
"""

from __future__ import annotations

import argparse
import json
import os
import subprocess
import sys
from pathlib import Path

import numpy as np

RECORD = Path(__file__).parent.parent / "lossviz" / "data" / "elsewhere.json"
PYTHONS = ("3.11", "3.12", "3.13")

#: library: (its packages, what its calls are written with)
LIBRARIES = {
    "Keras 3": (("keras==3.15.1", "tensorflow-cpu==2.21.0"), "from keras import losses"),
    "tf.keras 2": (("tf_keras==2.21.0", "tensorflow-cpu==2.21.0"), "from tf_keras import losses"),
    "PyTorch": (("torch==2.14.1", "numpy"), "import torch.nn.functional as F"),
    "optax": (("optax==0.2.8",), "import optax"),
    "scikit-learn": (("scikit-learn==1.9.1",), "from sklearn import metrics"),
}
VERSIONS = {
    "Keras 3": "keras",
    "tf.keras 2": "tf_keras",
    "PyTorch": "torch",
    "optax": "optax",
    "scikit-learn": "sklearn",
}

#: The tensors that the calls name, float32 or int32.
ARRAYS = {
    "y": [0, 1],
    "p": [[0.5, 0.5], [0.75, 0.25]],
    "logits": np.log([[0.5, 0.5], [0.75, 0.25]]).tolist(),
    "w": [1.0, 3.0],
    "zeros": [[0.0], [0.0]],
    "errors": [[1.0], [3.0]],
    "one": [[1.0]],
    "zero": [[0.0]],
    "three": [[3.0]],
    "four": [[4.0]],
    "very_wrong": [[-100.0]],
    "ignored": [0, -100],
    "coin": [[0.5, 0.5]],
    "guess": [[0.25, 0.75]],
    "log_guess": np.log([[0.25, 0.75]]).tolist(),
    "column": [[0.0], [1.0], [2.0], [3.0]],
    "flat": [0.0, 1.0, 2.0, 3.0],
    "east": [[1.0, 0.0]],
    "far_east": [[5.0, 0.0]],
    "class_0": [0],
    "one_hot": [[1.0, 0.0, 0.0, 0.0]],
    "four_p": [[0.7, 0.1, 0.1, 0.1]],
    "four_logits": np.log([[0.7, 0.1, 0.1, 0.1]]).tolist(),
}

#: case: {library: call}. What a library has no function for is missing.
CALLS = {
    "weighted crossentropy": {
        "Keras 3": "losses.SparseCategoricalCrossentropy()(y, p, w)",
        "tf.keras 2": "losses.SparseCategoricalCrossentropy()(y, p, w)",
        "PyTorch": "F.cross_entropy(logits, y, weight=w)",
        "optax": "(w * optax.softmax_cross_entropy_with_integer_labels(logits, y)).mean()",
        "scikit-learn": "metrics.log_loss(y, p, sample_weight=w)",
    },
    "the same, summed": {
        "Keras 3": "losses.SparseCategoricalCrossentropy(reduction='sum')(y, p, w)",
        "tf.keras 2": "losses.SparseCategoricalCrossentropy(reduction='sum')(y, p, w)",
        "PyTorch": "F.cross_entropy(logits, y, weight=w, reduction='sum')",
        "optax": "(w * optax.softmax_cross_entropy_with_integer_labels(logits, y)).sum()",
        "scikit-learn": "metrics.log_loss(y, p, sample_weight=w, normalize=False)",
    },
    "weighted squared error": {
        "Keras 3": "losses.MeanSquaredError()(zeros, errors, w)",
        "tf.keras 2": "losses.MeanSquaredError()(zeros, errors, w)",
        "PyTorch": "F.mse_loss(errors, zeros, weight=w[:, None])",
        "optax": "(w[:, None] * optax.squared_error(errors, zeros)).mean()",
        "scikit-learn": "metrics.mean_squared_error(zeros, errors, sample_weight=w)",
    },
    "a label to ignore": {
        "Keras 3": "losses.SparseCategoricalCrossentropy(ignore_class=-100)(ignored, p)",
        "tf.keras 2": "losses.SparseCategoricalCrossentropy(ignore_class=-100)(ignored, p)",
        "PyTorch": "F.cross_entropy(logits, ignored)",
    },
    "certain, wrong: probability": {
        "Keras 3": "losses.BinaryCrossentropy()(one, zero)",
        "tf.keras 2": "losses.BinaryCrossentropy()(one, zero)",
        "PyTorch": "F.binary_cross_entropy(zero, one)",
        "scikit-learn": "metrics.log_loss(one[0], zero[0], labels=[0, 1])",
    },
    "certain, wrong: logit": {
        "Keras 3": "losses.BinaryCrossentropy(from_logits=True)(one, very_wrong)",
        "tf.keras 2": "losses.BinaryCrossentropy(from_logits=True)(one, very_wrong)",
        "PyTorch": "F.binary_cross_entropy_with_logits(very_wrong, one)",
        "optax": "optax.sigmoid_binary_cross_entropy(very_wrong, one).mean()",
    },
    "label smoothing 0.1": {
        "Keras 3": "losses.CategoricalCrossentropy(label_smoothing=0.1)(one_hot, four_p)",
        "tf.keras 2": "losses.CategoricalCrossentropy(label_smoothing=0.1)(one_hot, four_p)",
        "PyTorch": "F.cross_entropy(four_logits, class_0, label_smoothing=0.1)",
        "optax": "optax.softmax_cross_entropy(four_logits, optax.smooth_labels(one_hot, 0.1)).mean()",
    },
    "Kullback-Leibler": {
        "Keras 3": "losses.KLDivergence()(coin, guess)",
        "tf.keras 2": "losses.KLDivergence()(coin, guess)",
        "PyTorch": "F.kl_div(log_guess, coin)",
        "optax": "optax.losses.kl_divergence(log_guess, coin).mean()",
    },
    "squared error of 3": {
        "Keras 3": "losses.MeanSquaredError()(zero, three)",
        "tf.keras 2": "losses.MeanSquaredError()(zero, three)",
        "PyTorch": "F.mse_loss(three, zero)",
        "optax": "optax.l2_loss(three, zero).mean()",
        "scikit-learn": "metrics.mean_squared_error(zero, three)",
    },
    "Huber, error 3, delta 2": {
        "Keras 3": "losses.Huber(delta=2.0)(zero, three)",
        "tf.keras 2": "losses.Huber(delta=2.0)(zero, three)",
        "PyTorch": "F.smooth_l1_loss(three, zero, beta=2.0)",
        "optax": "optax.huber_loss(three, zero, delta=2.0).mean()",
    },
    "cosine, same direction": {
        "Keras 3": "losses.CosineSimilarity()(east, far_east)",
        "tf.keras 2": "losses.CosineSimilarity()(east, far_east)",
        "PyTorch": "F.cosine_similarity(east, far_east)",
        "optax": "optax.cosine_distance(far_east, east).mean()",
    },
    "Poisson, count 4 predicted": {
        "Keras 3": "losses.Poisson()(four, four)",
        "tf.keras 2": "losses.Poisson()(four, four)",
        "PyTorch": "F.poisson_nll_loss(four, four, log_input=False)",
        "scikit-learn": "metrics.mean_poisson_deviance(four[0], four[0])",
    },
    "(4, 1) against (4,)": {
        "Keras 3": "losses.MeanSquaredError()(column, flat)",
        "tf.keras 2": "losses.MeanSquaredError()(column, flat)",
        "PyTorch": "F.mse_loss(column, flat)",
        "optax": "optax.squared_error(column, flat).mean()",
        "scikit-learn": "metrics.mean_squared_error(column, flat)",
    },
}


def evaluate(library: str) -> dict:
    """Versions, and the value of each call of `library`, in the environment that this runs in."""
    space: dict = {}
    exec(LIBRARIES[library][1], space)
    for name, values in ARRAYS.items():
        array = np.array(values)
        array = array.astype("int32" if array.dtype.kind == "i" else "float32")
        if library == "PyTorch":
            import torch

            array = torch.tensor(array.astype("int64") if array.dtype.kind == "i" else array)
        space[name] = array
    values = {}
    for case, calls in CALLS.items():
        if library in calls:
            try:
                values[case] = round(float(eval(calls[library], space)), 6)
            except Exception as error:
                values[case] = type(error).__name__
    return {"version": __import__(VERSIONS[library]).__version__, "values": values}


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.split("\n")[0])
    parser.add_argument("--cache", type=Path, default=Path.home() / ".cache" / "lossviz-elsewhere")
    parser.add_argument("--here", choices=LIBRARIES, help="only this library, in this environment; prints JSON")
    arguments = parser.parse_args()
    if arguments.here:
        print(json.dumps(evaluate(arguments.here)))
        return
    from make_regime_goldens import environment

    results = {}
    for library, (packages, _) in LIBRARIES.items():
        python = environment(arguments.cache / library.replace(" ", "-"), PYTHONS, packages)
        settings = {
            **os.environ,
            "TF_CPP_MIN_LOG_LEVEL": "3",
            "KERAS_BACKEND": "tensorflow",
            "PYTHONWARNINGS": "ignore",
        }
        run = [python, Path(__file__).resolve(), "--here", library]
        done = subprocess.run(run, env=settings, stdout=subprocess.PIPE, stderr=subprocess.DEVNULL, check=True)
        results[library] = json.loads(done.stdout)
        print(library, results[library]["version"], flush=True)
    cases = {
        case: {library: {"call": call, "value": results[library]["values"][case]} for library, call in calls.items()}
        for case, calls in CALLS.items()
    }
    record = {"versions": {library: result["version"] for library, result in results.items()}, "cases": cases}
    RECORD.write_text(json.dumps(record, indent=1) + "\n")


if __name__ == "__main__":
    sys.exit(main())
