import numpy as np

from anonlib.training.glasses import fit_readout


def test_wearers_are_told_apart_and_fifteen_percent_of_the_others_are_given_up() -> None:
    rng = np.random.default_rng(0)
    wears = rng.random(600) < 0.3
    vectors = rng.normal(size=(600, 40)).astype(np.float32)
    vectors[wears, :5] += 2.0
    model = fit_readout(vectors, wears)
    logits = vectors @ model.weight + model.bias
    assert (logits[wears] > 0).mean() > 0.95
    assert abs((logits[~wears] > 0).mean() - 0.15) < 0.02
