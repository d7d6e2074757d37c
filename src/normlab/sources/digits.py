"""scikit-learn's digits: small, and available offline."""

import numpy as np

from normlab.data.images import SIZE, Images


def load() -> tuple[Images, Images]:
    """The 1,797 digits, 8x8 grey scaled to 32x32 RGB; every fifth is a test image."""
    from sklearn.datasets import load_digits

    digits = load_digits()
    grey = np.rint(digits.images * (255 / 16)).astype(np.uint8)
    large = grey.repeat(SIZE // 8, axis=1).repeat(SIZE // 8, axis=2)
    everything = Images(
        np.repeat(large[..., None], 3, axis=3),
        digits.target.astype(np.int64),
        tuple(str(name) for name in digits.target_names),
    )
    test = np.arange(len(everything)) % 5 == 0
    return everything[~test], everything[test]
