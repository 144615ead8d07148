import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from skimage.metrics import structural_similarity

from tasks.checks.pairs import grain, luma, ssim_map
from tests.checks.drawing import scene


@pytest.mark.parametrize("seed", [1, 2, 3])
@pytest.mark.parametrize("sigma", [2.0, 12.0])
def test_similarity_agrees_with_scikit_image(seed: int, sigma: float) -> None:
    rng = np.random.default_rng(seed)
    one = luma(np.asarray(scene(192, 160, seed))) + rng.normal(0, 3, (160, 192))
    two = one + rng.normal(0, sigma, one.shape)
    _, expected = structural_similarity(  # type: ignore[no-untyped-call]
        one, two, data_range=255, gaussian_weights=True, sigma=1.5,
        use_sample_covariance=False, full=True,
    )  # fmt: skip
    got = ssim_map(one.astype(np.float32), two.astype(np.float32))
    # The windows end at 3.5 and at 4 sigma, and the edges are treated in other ways.
    inner = (slice(12, -12), slice(12, -12))
    assert float(np.abs(got[inner] - expected[inner]).max()) < 0.025
    assert float(got[inner].mean()) == pytest.approx(float(expected[inner].mean()), abs=0.002)


@given(st.integers(0, 2**31), st.floats(0, 60))
def test_similarity_is_bounded_symmetric_and_one_for_the_same(seed: int, sigma: float) -> None:
    rng = np.random.default_rng(seed)
    one = rng.uniform(0, 255, (40, 56)).astype(np.float32)
    two = np.clip(one + rng.normal(0, sigma, one.shape), 0, 255).astype(np.float32)
    there, back = ssim_map(one, two), ssim_map(two, one)
    assert np.allclose(there, back, atol=1e-4)
    assert there.min() >= -1.001
    assert there.max() <= 1.001
    assert ssim_map(one, one) == pytest.approx(1.0, abs=1e-3)


@pytest.mark.parametrize("sigma", [2.0, 8.0, 20.0])
def test_grain_finds_the_noise_that_was_added(sigma: float) -> None:
    rng = np.random.default_rng(4)
    clean = luma(np.asarray(scene(320, 320)))
    assert grain(clean) < 0.3
    noisy = (clean + rng.normal(0, sigma, clean.shape)).astype(np.float32)
    assert grain(noisy) == pytest.approx(sigma, rel=0.06)
