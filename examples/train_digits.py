"""Train the small merged ViT of `examples/digits_tome.pt` on scikit-learn's handwritten digits.

    python examples/train_digits.py            # some minutes on 2 cores

The images are real (1,797 scans of 8 x 8 pixels, shipped with scikit-learn), brought to 32 x 32. The model is trained
with merging on: ToMe removes 8 tokens in every block. Test accuracy is measured on a fifth of the images, which the
training never sees; a few of them are written to `examples/digits/`.
"""

from __future__ import annotations

import argparse
import math
import time
from pathlib import Path

import numpy as np
import torch
import torch.nn.functional as F
from PIL import Image
from sklearn.datasets import load_digits
from sklearn.model_selection import train_test_split

import tmdeploy
from tmdeploy.card.arch import VitConfig
from tmdeploy.card.preprocessing import Preprocessing
from tmdeploy.models.checkpoint import save_checkpoint
from tmdeploy.models.vit import VisionTransformer
from tmdeploy.patching import reduction_of, unpatch

HERE = Path(__file__).parent
CONFIG = VitConfig(
    name="vit_digits_patch4_32",
    image_size=(32, 32),
    patch_size=4,
    width=96,
    depth=6,
    heads=3,
    mlp_width=384,
    num_classes=10,
)
PREPROCESSING = Preprocessing(
    image_size=(32, 32), mean=(0.5, 0.5, 0.5), std=(0.5, 0.5, 0.5), interpolation="bicubic", crop_pct=1.0
)
R_PER_BLOCK = 8


def enlarge(digit: np.ndarray) -> Image.Image:
    """One 8 x 8 scan with values 0 to 16, as a 32 x 32 picture."""
    return Image.fromarray((digit * (255 / 16)).round().astype(np.uint8)).resize((32, 32), Image.Resampling.BICUBIC)


def to_tensor(pictures: list[Image.Image]) -> torch.Tensor:
    """Normalised float32 [count, 3, 32, 32], as the preprocessing of the checkpoint makes it."""
    pixels = np.stack([np.asarray(picture.convert("RGB"), np.float32) for picture in pictures]) / 255.0
    return torch.from_numpy((pixels - 0.5) / 0.5).permute(0, 3, 1, 2).contiguous()


def jitter(images: torch.Tensor) -> torch.Tensor:
    """Rotate, scale and shift a little; background is -1."""
    count = images.shape[0]
    angle = (torch.rand(count) - 0.5) * math.radians(24)
    scale = 1 + (torch.rand(count) - 0.5) * 0.24
    theta = torch.zeros(count, 2, 3)
    theta[:, 0, 0] = theta[:, 1, 1] = scale * angle.cos()
    theta[:, 0, 1], theta[:, 1, 0] = -scale * angle.sin(), scale * angle.sin()
    theta[:, :, 2] = (torch.rand(count, 2) - 0.5) * 0.24
    grid = F.affine_grid(theta, list(images.shape), align_corners=False)
    return F.grid_sample(images + 1, grid, align_corners=False) - 1


@torch.inference_mode()
def accuracy(model: torch.nn.Module, images: torch.Tensor, labels: torch.Tensor) -> float:
    """Share of images classified right."""
    model.eval()
    return float((model(images).argmax(1) == labels).float().mean())


def main() -> None:
    """Train, measure, and write the checkpoint and the example images."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--epochs", type=int, default=50)
    parser.add_argument("--output", type=Path, default=HERE / "digits_tome.pt")
    arguments = parser.parse_args()
    torch.manual_seed(0)

    data = load_digits()
    pictures = [enlarge(digit) for digit in data.images]
    labels = torch.from_numpy(data.target)
    train, test = train_test_split(np.arange(len(pictures)), test_size=0.2, random_state=0, stratify=data.target)
    images = to_tensor(pictures)

    model = tmdeploy.patch(VisionTransformer(CONFIG), "tome", r=R_PER_BLOCK)
    optimizer = torch.optim.AdamW(model.parameters(), lr=1e-3, weight_decay=0.05)
    batch, start = 64, time.perf_counter()
    total = arguments.epochs * math.ceil(len(train) / batch)
    schedule = torch.optim.lr_scheduler.OneCycleLR(optimizer, max_lr=1.5e-3, total_steps=total, pct_start=0.15)
    for epoch in range(arguments.epochs):
        model.train()
        for rows in torch.from_numpy(np.random.default_rng(epoch).permutation(train)).split(batch):
            loss = F.cross_entropy(model(jitter(images[rows])), labels[rows], label_smoothing=0.1)
            optimizer.zero_grad()
            loss.backward()
            torch.nn.utils.clip_grad_norm_(model.parameters(), 1.0)
            optimizer.step()
            schedule.step()
        if epoch % 5 == 4:
            print(f"epoch {epoch + 1}: loss {loss.item():.3f}, {time.perf_counter() - start:.0f} s")

    merged = accuracy(model, images[test], labels[test])
    recipe = reduction_of(model).recipe
    plain = accuracy(unpatch(model), images[test], labels[test])
    print(f"test accuracy on {len(test)} images: {merged:.4f} merged, {plain:.4f} with merging off")
    save_checkpoint(
        arguments.output,
        model,
        recipe=recipe,
        preprocessing=PREPROCESSING,
        class_names=tuple(str(digit) for digit in range(10)),
    )
    folder = HERE / "digits"
    folder.mkdir(exist_ok=True)
    for digit in range(10):
        for number, row in enumerate([row for row in test if data.target[row] == digit][:3]):
            pictures[row].save(folder / f"{digit}_{number}.png", optimize=True)


if __name__ == "__main__":
    main()
