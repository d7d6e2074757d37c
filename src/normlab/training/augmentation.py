"""Random crops and flips, drawn per image, applied to a whole batch by one gather."""

from dataclasses import dataclass

import torch
import torch.nn.functional as F
from torch import Tensor

from normlab.data.images import SIZE


@dataclass(frozen=True)
class Draws:
    """What an epoch draws for its images, in the order of training: `[N]` each."""

    order: Tensor  #: int64, indices into the images
    top: Tensor  #: int64, first row of the crop, 0 to 2 * padding
    left: Tensor  #: int64, first column
    flip: Tensor  #: bool, whether left and right are exchanged


def draw(count: int, padding: int, flip: bool, generator: torch.Generator) -> Draws:
    """Draw order, crops and flips of `count` images; `generator` is the only source of chance."""
    return Draws(
        torch.randperm(count, generator=generator),
        torch.randint(0, 2 * padding + 1, (count,), generator=generator),
        torch.randint(0, 2 * padding + 1, (count,), generator=generator),
        torch.randint(0, 2, (count,), generator=generator).bool() & flip,
    )


def pad(pixels: Tensor, padding: int) -> Tensor:
    """Pad images `[N, H, W, 3]` with black on each side."""
    return F.pad(pixels, (0, 0, padding, padding, padding, padding)) if padding else pixels


def crop(padded: Tensor, draws: Draws, batch: slice) -> Tensor:
    """The images of `batch`, cropped and flipped as drawn, out of the `padded` ones.

    Gives uint8 `[B, 3, 32, 32]`, in memory channels last, as convolutions like it.
    """
    pixel = torch.arange(SIZE, device=padded.device)
    rows = draws.top[batch, None] + pixel
    columns = draws.left[batch, None] + torch.where(draws.flip[batch, None], pixel.flip(0), pixel)
    index = draws.order[batch]
    cut = padded[index[:, None, None], rows[:, :, None], columns[:, None, :]]
    return cut.permute(0, 3, 1, 2)
