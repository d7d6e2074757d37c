"""Random crops and flips, drawn per image, applied to a whole batch by one gather."""

from typing import NamedTuple

import torch
import torch.nn.functional as F
from torch import Tensor

from normlab.data.images import SIZE


class Draws(NamedTuple):
    """What is drawn for images, in the order of training: int64 `[N]` each."""

    order: Tensor  #: indices into the images
    top: Tensor  #: first row of the crop, 0 to 2 * padding
    left: Tensor  #: first column
    flip: Tensor  #: whether left and right are exchanged, 0 or 1


def draw(count: int, padding: int, flip: bool, generator: torch.Generator) -> Draws:
    """Draw order, crops and flips of `count` images; `generator` is the only randomness."""
    return Draws(
        torch.randperm(count, generator=generator),
        torch.randint(0, 2 * padding + 1, (count,), generator=generator),
        torch.randint(0, 2 * padding + 1, (count,), generator=generator),
        torch.randint(0, 2, (count,), generator=generator) * flip,
    )


def pad(pixels: Tensor, padding: int) -> Tensor:
    """Pad images `[N, H, W, 3]` with black on each side."""
    return F.pad(pixels, (0, 0, padding, padding, padding, padding)) if padding else pixels


def crop(padded: Tensor, draws: Draws) -> Tensor:
    """The images that `draws` `[B]` name, cropped and flipped as drawn, out of the `padded` ones.

    Gives uint8 `[B, 3, 32, 32]`, in memory channels last, as convolutions like it.
    """
    pixel = torch.arange(SIZE, device=padded.device)
    rows = draws.top[:, None] + pixel
    columns = draws.left[:, None] + torch.where(draws.flip[:, None] == 1, pixel.flip(0), pixel)
    cut = padded[draws.order[:, None, None], rows[:, :, None], columns[:, None, :]]
    return cut.permute(0, 3, 1, 2)
