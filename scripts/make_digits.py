"""Write `lossviz/data/digits.npz` from the copy of the UCI digits that scikit-learn ships.

Needs scikit-learn (readers of the book do not): `python scripts/make_digits.py`. The arrays are always
the same; so are the file's bytes, for the same zlib.
"""

from pathlib import Path

import numpy as np

TARGET = Path(__file__).parent.parent / "lossviz" / "data" / "digits.npz"


def main() -> None:
    from sklearn.datasets import load_digits

    bunch = load_digits()
    images, labels = bunch.images.astype("uint8"), bunch.target.astype("uint8")
    if not (np.array_equal(images, bunch.images) and images.shape == (1797, 8, 8) and images.max() == 16):
        raise SystemExit("scikit-learn's digits are not the 1797 images of 8x8 counts from 0 to 16")
    np.savez_compressed(TARGET, images=images, labels=labels)
    print(f"{TARGET.name}: {len(images)} digits, {TARGET.stat().st_size} bytes")


if __name__ == "__main__":
    main()
