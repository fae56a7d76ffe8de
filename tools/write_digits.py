"""Writes zoo/data/digits.npz: scikit-learn's handwritten digits and the split that zoo holds fixed.

    python -m tools.write_digits

Needs scikit-learn. The file is checked by its sha256 whenever it is read, and
tests/data/test_digits.py compares it with scikit-learn's own arrays, so this runs only if the
format ever changes.
"""

from __future__ import annotations

from pathlib import Path

import numpy as np


def main() -> None:
    """Writes the file and prints the checksum to put into zoo/data/digits.py."""
    from sklearn.datasets import load_digits
    from sklearn.model_selection import train_test_split

    from zoo.data.digits import FILE, checksum

    images, labels = load_digits(return_X_y=True)
    images = images.reshape(-1, 8, 8).astype(np.uint8)  # whole numbers 0..16
    labels = labels.astype(np.uint8)
    _, held_out = train_test_split(
        np.arange(len(labels)), test_size=0.2, stratify=labels, random_state=0
    )
    held_out = np.sort(held_out).astype(np.uint16)
    np.savez_compressed(FILE, images=images, labels=labels, held_out=held_out)
    print(Path(FILE).stat().st_size, "bytes, sha256", checksum(images, labels, held_out))


if __name__ == "__main__":
    main()
