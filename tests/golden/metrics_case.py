"""The features and pictures that the golden numbers of metrics.json were computed of."""

import numpy as np

PRC_NEIGHBOURS = (3, 5)
WEIGHTS_SEED = 0  # of the drawn Inception weights
SHOWN_FEATURES, SHOWN_LOGITS = slice(None, None, 128), slice(None, None, 63)


def feature_sets() -> dict[str, np.ndarray]:
    """real and fake float64 (250, 32), above 0 and correlated; logits float64 (250, 16)."""
    rng = np.random.default_rng(2015)
    mixing = rng.standard_normal((32, 32)) * 0.8 ** np.arange(32)[:, None]
    real, fake = (np.maximum(rng.standard_normal((250, 32)) @ mixing + shift, 0) for shift in (1.0, 1.3))
    return {"real": real, "fake": fake, "logits": 3 * rng.standard_normal((250, 16))}


def pictures() -> np.ndarray:
    """uint8 (3, 40, 40, 3)."""
    return np.random.default_rng(0).integers(0, 256, (3, 40, 40, 3), dtype=np.uint8)
