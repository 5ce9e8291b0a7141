"""The data and the models that every chapter meets: the same bytes everywhere, the promises kept."""

import hashlib
from pathlib import Path

import numpy as np
import pytest

from lossviz import examples
from lossviz.examples import CLASS_COLORS, CLASS_NAMES, digits, iou, scenes, trained_unet, unet, validation_scenes

DATA = Path(examples.__file__).parent / "data"


def sha256(*arrays: np.ndarray) -> str:
    return hashlib.sha256(b"".join(a.tobytes() for a in arrays)).hexdigest()[:16]


def test_digits_are_the_uci_digits():
    images, labels = digits()
    assert (images.shape, images.dtype, images.min(), images.max()) == ((1797, 8, 8), np.uint8, 0, 16)
    assert (labels.shape, labels.dtype) == ((1797,), np.uint8)
    # Digits per class in the test part, as the data set's own description counts them.
    assert np.bincount(labels).tolist() == [178, 182, 177, 183, 181, 182, 181, 179, 174, 180]


def test_digits_equal_those_of_scikit_learn():
    bunch = pytest.importorskip("sklearn.datasets", reason="scikit-learn is not installed").load_digits()
    images, labels = digits()
    assert np.array_equal(images, bunch.images) and np.array_equal(labels, bunch.target)


def test_data_files_are_small_and_attributed():
    assert (DATA / "digits.npz").stat().st_size < 50_000
    assert (DATA / "unet64.npz").stat().st_size < 1_000_000
    readme = (DATA / "README.md").read_text(encoding="utf-8")
    assert all(word in readme for word in ("Alpaydin", "Kaynak", "CC BY 4.0", "10.24432/C50P49"))


@pytest.mark.parametrize(("n", "size"), [(1, 16), (3, 64), (2, 80), (1, 256)])
def test_scenes_have_the_shapes_and_masks_promised(n, size):
    x, y = scenes(n, size=size, seed=5)
    assert (x.shape, x.dtype) == ((n, size, size, 3), np.uint8)
    assert (y.shape, y.dtype) == ((n, size, size, 5), np.float32)
    assert set(np.unique(y)) == {0.0, 1.0} and (y.sum(-1) == 1).all()
    assert len(CLASS_NAMES) == len(CLASS_COLORS) == 5


@pytest.mark.parametrize(
    ("size", "expected"), [(16, "0bee6d77672749e3"), (64, "390086c60b95a454"), (256, "60693646c8f4b183")]
)
def test_scenes_are_the_same_bytes_everywhere(size, expected):
    assert sha256(*scenes(3, size=size, seed=2)) == expected


def test_scenes_depend_on_the_seed_and_not_on_the_number():
    x, _ = scenes(2, seed=7)
    longer, _ = scenes(4, seed=7)
    assert np.array_equal(x, longer[:2])
    assert not np.array_equal(x, scenes(2, seed=8)[0])
    assert not np.array_equal(x[0], x[1])


def test_the_pencil_is_rare_and_faint():
    x, y = scenes(64, seed=9)
    share = y.mean((0, 1, 2))
    assert share[0] > 0.85 and (share[1:4] > 0.03).all() and 0.003 < share[4] < 0.008
    gray = x.mean(-1)
    paper, *pens, pencil = (gray[y[..., c] == 1].mean() for c in range(5))
    assert paper - pencil < 25 < 60 < paper - max(pens)


def test_full_size_unet_is_that_of_the_question():
    model = unet()
    assert model.input_shape == (None, 256, 256, 3) and model.output_shape == (None, 256, 256, 5)
    assert [layer.name for layer in model.layers][:3] == ["image", "rescale", "down1_conv1"]
    assert model.layers[-1].name == "mask"
    kinds = [type(layer).__name__ for layer in model.layers]
    assert {kind: kinds.count(kind) for kind in sorted(set(kinds))} == {
        "Concatenate": 4,
        "Conv2D": 19,  # two in each of nine blocks, and the head
        "Conv2DTranspose": 4,
        "InputLayer": 1,
        "MaxPooling2D": 4,
        "Rescaling": 1,
    }
    down = [model.get_layer(f"down{i}_conv{j}") for i in (1, 2, 3, 4) for j in (1, 2)]
    bottom = [model.get_layer(f"bottom_conv{j}") for j in (1, 2)]
    up = [model.get_layer(f"up{i}_conv{j}") for i in (4, 3, 2, 1) for j in (1, 2)]
    convs = [*down, *bottom, *up]
    widths = [8, 16, 32, 64, 128, 64, 32, 16, 8]
    assert [conv.filters for conv in convs] == [width for width in widths for _ in (1, 2)]
    for layer in convs:
        assert (layer.kernel_size, layer.padding, layer.activation.__name__) == ((3, 3), "same", "relu")
    assert model.get_layer("bottom_conv2").output.shape == (None, 16, 16, 128)
    for i, width in enumerate((8, 16, 32, 64), 1):
        assert model.get_layer(f"down{i}_pool").pool_size == (2, 2)
        assert model.get_layer(f"up{i}_transpose").strides == (2, 2)
        skip, joined = model.get_layer(f"down{i}_conv2").output, model.get_layer(f"up{i}_joined")
        assert any(tensor is skip for tensor in joined.input) and joined.output.shape[-1] == 2 * width
    head = model.get_layer("mask")
    assert (head.kernel_size, head.filters, head.activation.__name__) == ((1, 1), 5, "sigmoid")
    assert model.get_layer("rescale").scale == 1 / 255
    # 3x3 convolutions have (9 in + 1) out weights, 2x2 transposed ones (4 in + 1) out, the head (8 + 1) 5.
    pairs = [(3, 8), (8, 16), (16, 32), (32, 64), (64, 128), (128, 64), (64, 32), (32, 16), (16, 8)]
    convolutions = sum((9 * i + 1) * o + (9 * o + 1) * o for i, o in pairs)
    transposed = sum((4 * i + 1) * o for i, o in pairs[5:])
    assert model.count_params() == convolutions + transposed + 45 == 485_853


def test_unet_of_other_sizes():
    model = unet(size=32, classes=2, filters=(4, 8), bottleneck=16, name="tiny")
    assert model.name == "tiny" and model.output_shape == (None, 32, 32, 2)
    assert model.predict(scenes(2, size=32)[0], verbose=0).shape == (2, 32, 32, 2)


@pytest.fixture(scope="module")
def model():
    return trained_unet()


def test_the_puzzle_four_good_classes_one_bad_and_a_loss_that_looks_fine(model):
    x, y = validation_scenes()
    assert x.shape == (16, 64, 64, 3)
    predicted = model.predict(x, batch_size=16, verbose=0)
    assert iou(y, predicted) == pytest.approx([0.9913, 0.9535, 0.9621, 0.9621, 0.2149], abs=1e-4)
    assert model.evaluate(x, y, batch_size=16, verbose=0) == pytest.approx(0.009512, rel=1e-4)
    # No prediction so close to the threshold that another processor could move it to the other side.
    assert np.abs(predicted - 0.5).min() > 2e-5


@pytest.mark.parametrize("seed", [3, 4, 5, 6])
def test_the_puzzle_holds_on_other_scenes(model, seed):
    x, y = scenes(32, seed=seed)
    *good, pencil = iou(y, model.predict(x, verbose=0))
    assert min(good) > 0.9 and 0.1 < pencil < 0.4
    assert 0.005 < model.evaluate(x, y, verbose=0) < 0.02


def test_trained_unet_is_compiled_plainly_and_is_the_same_each_time(model):
    assert model.loss == "binary_crossentropy" and type(model.optimizer).__name__ == "Adam"
    assert model.output_shape == (None, 64, 64, 5)
    for one, other in zip(model.get_weights(), trained_unet().get_weights()):
        assert one.dtype == np.float32 and np.array_equal(one, other)


def test_iou_by_hand():
    y_true = np.array([[1, 0, 0], [1, 0, 0], [0, 1, 0], [0, 1, 0]], "float32")
    y_pred = np.array([[0.9, 0.2, 0.1], [0.4, 0.6, 0.1], [0.1, 0.9, 0.1], [0.1, 0.8, 0.5]], "float32")
    assert iou(y_true, y_pred)[:2].tolist() == [1 / 2, 2 / 3]
    assert np.isnan(iou(y_true, y_pred)[2])  # neither there nor predicted: 0.5 is not above 0.5
    assert iou(y_true, y_pred, threshold=0.3).tolist() == [1.0, 2 / 3, 0.0]
    assert iou(y_true.reshape(2, 2, 3), y_pred.reshape(2, 2, 3))[:2].tolist() == [1 / 2, 2 / 3]


@pytest.mark.parametrize(
    ("call", "message"),
    [
        (lambda: scenes(0), "n=0, but it must be a whole number, at least 1"),
        (lambda: scenes(2.5), "n=2.5, but it must be a whole number, at least 1"),
        (lambda: scenes(1, size=50), "size=50, but it must be a multiple of 16, at least 16; try 48 or 64"),
        (lambda: scenes(1, size=0), "size=0, but it must be a multiple of 16, at least 16"),
        (lambda: scenes(1, seed=-1), "seed=-1, but it must be a whole number, at least 0"),
        (lambda: unet(size=100), "size=100, but it must be a multiple of 16, at least 16; try 96 or 112"),
        (lambda: unet(classes=0), "classes=0, but it must be a whole number, at least 1"),
        (lambda: unet(filters=(8, -1)), "filters=-1, but it must be a whole number, at least 1"),
        (lambda: unet(bottleneck=True), "bottleneck=True, but it must be a whole number, at least 1"),
        (
            lambda: iou(np.zeros((2, 5)), np.zeros((3, 5))),
            "y_true has shape (2, 5) and y_pred (3, 5); give both the same shape, class last",
        ),
    ],
)
def test_bad_arguments_are_named_with_the_way_out(call, message):
    with pytest.raises(ValueError) as caught:
        call()
    assert str(caught.value) == message
