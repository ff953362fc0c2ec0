"""Pillow and numpy against timm's evaluation transform."""

from types import ModuleType

import numpy as np
import pytest
from PIL import Image

from tmdeploy.card.preprocessing import Preprocessing
from tmdeploy.data.preprocessing import normalise, pixels, resized_size


def _picture(width: int, height: int, mode: str = "RGB", seed: int = 0) -> Image.Image:
    rng = np.random.default_rng(seed)
    return Image.fromarray(rng.integers(0, 256, (height, width, 3), dtype=np.uint8)).convert(mode)


def _timms(timm: ModuleType, spec: Preprocessing, **options: object) -> object:
    return timm.data.create_transform(
        input_size=(3, *spec.image_size),
        interpolation=spec.interpolation,
        crop_pct=spec.crop_pct,
        mean=spec.mean,
        std=spec.std,
        **options,
    )


SIZES = [(500, 375), (375, 500), (333, 501), (224, 224), (100, 80), (81, 640), (513, 257), (1, 7)]


@pytest.mark.parametrize("size", SIZES)
@pytest.mark.parametrize(("crop_pct", "interpolation"), [(0.875, "bicubic"), (0.9, "bicubic"), (1.0, "bilinear")])
def test_square_models_see_timms_pixels(
    timm: ModuleType, size: tuple[int, int], crop_pct: float, interpolation: str
) -> None:
    spec = Preprocessing(image_size=(224, 224), crop_pct=crop_pct, interpolation=interpolation)
    picture = _picture(*size)
    want = _timms(timm, spec)(picture).numpy()
    np.testing.assert_allclose(normalise(pixels(picture, spec), spec), want, atol=1e-6)


@pytest.mark.parametrize("size", [(500, 375), (97, 203)])
@pytest.mark.parametrize(("image_size", "crop_pct"), [((224, 224), 1.0), ((224, 224), 0.9), ((96, 160), 0.9)])
def test_squashed_pictures_are_timms(
    timm: ModuleType, size: tuple[int, int], image_size: tuple[int, int], crop_pct: float
) -> None:
    spec = Preprocessing(image_size=image_size, crop_pct=crop_pct, crop_mode="squash")
    picture = _picture(*size)
    want = _timms(timm, spec, crop_mode="squash")(picture).numpy()
    np.testing.assert_allclose(normalise(pixels(picture, spec), spec), want, atol=1e-6)


@pytest.mark.parametrize("size", [(500, 375), (375, 500), (97, 203)])
def test_other_models_see_timms_pixels(timm: ModuleType, size: tuple[int, int]) -> None:
    spec = Preprocessing(image_size=(96, 160), crop_pct=0.9)
    picture = _picture(*size)
    want = _timms(timm, spec)(picture).numpy()
    np.testing.assert_allclose(normalise(pixels(picture, spec), spec), want, atol=1e-6)


def test_the_longer_side_is_truncated():
    spec = Preprocessing(image_size=(224, 224), crop_pct=0.875)
    assert resized_size((333, 501), spec) == (256, int(256 * 501 / 333)) == (256, 385)
    assert resized_size((501, 333), spec) == (385, 256)


@pytest.mark.parametrize("mode", ["L", "RGBA", "P", "CMYK", "1", "LA"])
def test_every_mode_becomes_rgb(mode: str):
    spec = Preprocessing(image_size=(32, 32), crop_pct=1.0)
    got = pixels(_picture(40, 40, "L" if mode == "LA" else "RGB").convert(mode), spec)
    assert (got.shape, got.dtype) == ((32, 32, 3), np.uint8)
    if mode in {"L", "LA", "1"}:
        assert (got[..., 0] == got[..., 1]).all()


def test_sixteen_bit_greys_are_scaled_and_not_clipped():
    grey = np.linspace(0, 65535, 32 * 32).reshape(32, 32).astype(np.uint16)
    got = pixels(Image.fromarray(grey), Preprocessing(image_size=(32, 32), crop_pct=1.0))
    assert abs(int(got[16, 0, 0]) - 128) <= 1
    assert got.max() == 255
    assert got[0, 0, 0] == 0


def test_normalise_by_hand():
    spec = Preprocessing(image_size=(1, 1), mean=(0.5, 0.25, 0.0), std=(0.5, 0.25, 1.0))
    got = normalise(np.array([[[[255, 0, 51]]]], np.uint8), spec)
    assert got.shape == (1, 3, 1, 1)
    np.testing.assert_allclose(got.ravel(), [1.0, -1.0, 0.2], rtol=1e-6)
