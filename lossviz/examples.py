"""Data and small models for the book: real handwritten digits, scenes made of them, and the U-Net of the
five-class question. Everything is deterministic and works offline; Keras is imported only where a model
is built, so `digits`, `scenes` and `iou` need NumPy alone.
"""

from __future__ import annotations

from collections.abc import Sequence
from importlib.resources import files
from typing import TYPE_CHECKING

import numpy as np

from lossviz.backend.quiet import import_tensorflow

if TYPE_CHECKING:
    import keras

#: What each channel of a scene's mask says about a pixel. The last class is the rare, faint one.
CLASS_NAMES = ("paper", "blue pen", "red pen", "green pen", "pencil")

#: One colour per class, for masks and plots; the pens and the pencil draw with theirs.
CLASS_COLORS = ("#d9c9a3", "#0072b2", "#cc4411", "#009e73", "#55535a")

#: Seeds of `scenes`: the network learned from the first and is judged on the second.
TRAINING_SEED, VALIDATION_SEED = 1, 2

_PAPER = (244, 240, 228)
_PEN = (222, 235)  # of 255: how strongly a pen covers the paper
_PENCIL = (15, 39)  # a pencil hardly covers it
_GRAIN = 9  # the camera's noise: +-9 grey values for the three colours together, and +-9 for each


def digits() -> tuple[np.ndarray, np.ndarray]:
    """Real handwritten digits: `(images, labels)`, uint8 arrays of shape (1797, 8, 8) and (1797,).

    Pixels are 0 (paper) to 16 (ink); labels are 0 to 9. This is the test part of "Optical Recognition of
    Handwritten Digits" (E. Alpaydin and C. Kaynak, UCI Machine Learning Repository, 1998,
    https://doi.org/10.24432/C50P49, CC BY 4.0), the same images as `sklearn.datasets.load_digits()`.
    """
    with (files("lossviz") / "data" / "digits.npz").open("rb") as file, np.load(file) as data:
        return data["images"], data["labels"]


class _Draw:
    """Whole random numbers that are the same on every platform and NumPy: PCG64's raw stream is guaranteed
    not to change, while NumPy may change the methods of its `Generator`."""

    def __init__(self, seed: int):
        self._bits = np.random.PCG64(seed)

    def integers(self, low: int, high: int, shape: int | tuple[int, ...] = ()) -> np.ndarray:
        """int64 numbers with low <= number < high."""
        raw = np.asarray(self._bits.random_raw(int(np.prod(shape)))).reshape(shape) >> np.uint64(32)
        return low + ((raw * np.uint64(high - low)) >> np.uint64(32)).astype(np.int64)

    def shuffled(self, n: int) -> np.ndarray:
        """0..n-1 in random order."""
        return np.argsort(self.integers(0, 2**31, n), kind="stable")


def _enlarged(image: np.ndarray, side: int, scale: int) -> np.ndarray:
    """A square image, bilinearly resized to (side, side) and multiplied by `scale`, in whole numbers."""
    n = image.shape[0]
    centre = np.clip((2 * np.arange(side) + 1) * n - side, 0, 2 * side * (n - 1))
    left, part = np.divmod(centre, 2 * side)
    right = np.minimum(left + 1, n - 1)
    rows = image[left] * (2 * side - part)[:, None] + image[right] * part[:, None]
    both = rows[:, left] * (2 * side - part) + rows[:, right] * part
    return both * scale // (2 * side) ** 2


def _scene(draw: _Draw, glyphs: np.ndarray, size: int) -> tuple[np.ndarray, np.ndarray]:
    colors = np.array([[int(c[i : i + 2], 16) for i in (1, 3, 5)] for c in CLASS_COLORS], dtype=np.int64)

    # Squared paper, a little uneven in its light.
    shade = _enlarged(draw.integers(0, 21, (4, 4)), size, 1)
    image = np.array(_PAPER) + draw.integers(-3, 4, 3) - shade[..., None]
    first, step, width = draw.integers(0, size // 8, 2), size // 8, max(1, size // 64)
    ruled = [(np.arange(size) - f) % step < width for f in first]
    image[ruled[0][:, None] | ruled[1][None, :]] -= np.array([24, 14, 6])

    label = np.zeros((size, size), np.int64)

    def write(kind, top, left, side, strength, color):
        glyph = _enlarged(glyphs[draw.integers(0, len(glyphs))], side, 16)
        alpha = np.clip((glyph - 128) * 8 + 128, 0, 255) * draw.integers(*strength) // 255
        place = np.s_[top : top + side, left : left + side]
        image[place] += (color - image[place]) * alpha[..., None] // 255
        label[place][glyph >= 128] = kind

    # One digit a field, nine fields, some of them empty: pens first, then up to two small ones in pencil.
    pens = [1, 2, 3, *draw.integers(1, 4, int(draw.integers(2, 5)))]
    pencils = [4] * int(draw.integers(0, 3))
    third = size // 3
    for field, kind in zip(draw.shuffled(9), [*pens, *pencils]):
        low, high = (size // 7, size // 5) if kind == 4 else (size * 9 // 32, third)
        side = int(draw.integers(low, high + 1))
        top, left = np.array(divmod(field, 3)) * third + draw.integers(0, third - side + 1, 2)
        write(kind, top, left, side, _PENCIL if kind == 4 else _PEN, colors[kind] + draw.integers(-12, 13))

    for channels in (1, 3):
        grain = draw.integers(0, _GRAIN + 1, (2, size, size, channels))
        image += grain[0] - grain[1]
    return np.clip(image, 0, 255).astype(np.uint8), label


def scenes(n: int, size: int = 64, seed: int = 0) -> tuple[np.ndarray, np.ndarray]:
    """Photographs of squared paper with handwritten digits on it, and which pen drew each pixel.

    Returns `(x, y)`: `x` uint8 of shape (n, size, size, 3), RGB from 0 to 255 (the U-Net divides by 255
    itself), and `y` float32 of shape (n, size, size, 5), one binary mask per class of `CLASS_NAMES`. Each
    pixel has exactly one class, so `y.argmax(-1)` is the true class. A scene holds five to seven digits
    drawn with three pens, each used at least once, and up to two more that are small and faint: the pencil.

    `size` is a multiple of 16. The same `seed` gives the same bytes on every platform, and the first scenes
    of a longer call are those of a shorter one.
    """
    _check_whole("n", n, least=1)
    _check_whole("size", size, least=16, multiple=16)
    _check_whole("seed", seed, least=0)
    glyphs = np.pad(digits()[0].astype(np.int64), ((0, 0), (1, 1), (1, 1)))  # the margin rounds stroke ends
    draw = _Draw(seed)
    x = np.empty((n, size, size, 3), np.uint8)
    y = np.empty((n, size, size, len(CLASS_NAMES)), np.float32)
    one_hot = np.eye(len(CLASS_NAMES), dtype=np.float32)
    for i in range(n):
        x[i], label = _scene(draw, glyphs, size)
        y[i] = one_hot[label]
    return x, y


def validation_scenes() -> tuple[np.ndarray, np.ndarray]:
    """The batch of the book, `scenes(16, size=64, seed=2)`: drawn from the same digits as the scenes that
    `trained_unet` learned from, but none of those scenes."""
    return scenes(16, size=64, seed=VALIDATION_SEED)


def unet(
    size: int = 256,
    classes: int = 5,
    filters: Sequence[int] = (8, 16, 32, 64),
    bottleneck: int = 128,
    name: str = "unet",
) -> keras.Model:
    """The U-Net of the five-class question, not compiled: images (size, size, 3) from 0 to 255 in, one
    sigmoid per class (size, size, classes) out.

    Each level has two 3x3 convolutions; 2x2 max pooling leads down, a 2x2 transposed convolution of stride 2
    leads up and is joined with the level's encoder output. Layers are named `down1_conv1`, `bottom_conv1`,
    `up1_joined`, ...; the input is `image`, the output `mask`. `filters` has one width per level, outermost
    first, and `size` must be divisible by 2 once per level: a multiple of 16 for the default four.
    """
    _check_whole("classes", classes, least=1)
    _check_whole("bottleneck", bottleneck, least=1)
    for width in filters:
        _check_whole("filters", width, least=1)
    _check_whole("size", size, least=2 ** len(filters), multiple=2 ** len(filters))
    import_tensorflow()
    from keras import Input, Model, layers

    def convolutions(tensor, width, place):
        for i in (1, 2):
            conv = layers.Conv2D(width, 3, padding="same", activation="relu", name=f"{place}_conv{i}")
            tensor = conv(tensor)
        return tensor

    image = Input((size, size, 3), name="image")
    tensor = layers.Rescaling(1 / 255, name="rescale")(image)
    skips = []
    for level, width in enumerate(filters, 1):
        tensor = convolutions(tensor, width, f"down{level}")
        skips.append(tensor)
        tensor = layers.MaxPooling2D(2, name=f"down{level}_pool")(tensor)
    tensor = convolutions(tensor, bottleneck, "bottom")
    for level, width in reversed(list(enumerate(filters, 1))):
        transpose = layers.Conv2DTranspose(width, 2, strides=2, padding="same", name=f"up{level}_transpose")
        tensor = transpose(tensor)
        tensor = layers.Concatenate(name=f"up{level}_joined")([tensor, skips[level - 1]])
        tensor = convolutions(tensor, width, f"up{level}")
    mask = layers.Conv2D(classes, 1, activation="sigmoid", name="mask")(tensor)
    return Model(image, mask, name=name)


def trained_unet() -> keras.Model:
    """`unet(size=64)`, trained on scenes and compiled with plain `binary_crossentropy` and Adam.

    The weights come with the package (float16 in the file, float32 in the model); `scripts/train_unet.py`
    made them.
    """
    model = unet(size=64)
    with (files("lossviz") / "data" / "unet64.npz").open("rb") as file, np.load(file) as data:
        model.set_weights([data[weight.path].astype(np.float32) for weight in model.weights])
    model.compile(optimizer="adam", loss="binary_crossentropy")
    return model


def iou(y_true: np.ndarray, y_pred: np.ndarray, threshold: float = 0.5) -> np.ndarray:
    """Intersection over union per class: float64 of shape (classes,), from 0 to 1.

    Both arguments have the class as last axis; pixels of the whole batch are counted together. A pixel is in
    a mask where the value is above `threshold` (0.5 for `y_true`). A class that is neither there nor
    predicted has no IoU: NaN.
    """
    y_true, y_pred = np.asarray(y_true), np.asarray(y_pred)
    if y_true.shape != y_pred.shape:
        raise ValueError(
            f"y_true has shape {y_true.shape} and y_pred {y_pred.shape}; give both the same shape, class last"
        )
    there, found = y_true > 0.5, y_pred > threshold
    pixels = tuple(range(there.ndim - 1))
    both, either = (there & found).sum(pixels), (there | found).sum(pixels)
    return np.where(either > 0, both / np.maximum(either, 1), np.nan)


def _check_whole(argument: str, value: int, least: int, multiple: int = 1) -> None:
    is_whole = isinstance(value, int | np.integer) and not isinstance(value, bool)
    if not is_whole or value < least or value % multiple:
        kind = f"a multiple of {multiple}" if multiple > 1 else "a whole number"
        below = value // multiple * multiple if is_whole else 0
        hint = f"; try {below} or {below + multiple}" if below >= least and multiple > 1 else ""
        raise ValueError(f"{argument}={value!r}, but it must be {kind}, at least {least}{hint}")
