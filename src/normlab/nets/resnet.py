"""The residual network for CIFAR-10 of He et al. 2016 (arXiv:1512.03385, section 4.2)."""

import math

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from normlab.base.architecture import WIDTHS
from normlab.norms.base import make_norm


class ResNet(nn.Module):
    """6n+2 layers: a 3x3 convolution, three stages of n residual blocks, one linear layer.

    The stages have 16, 32 and 64 channels on maps of 32x32, 16x16 and 8x8; the first block of the
    second and third stage halves the map by stride 2. Shortcuts are identities (option A). A
    global mean pool gives the 64 penultimate features.

    Args:
        n: blocks a stage, at least 1.
        num_classes: outputs of the linear layer.
        norm: a name in `normlab.base.registry`.
        groups: groups of channels, for `gn`.
    """

    def __init__(self, n: int, num_classes: int, norm: str, groups: int = 8) -> None:
        if n < 1 or num_classes < 1:
            raise ValueError(f"n = {n}, num_classes = {num_classes}: must be at least 1")
        super().__init__()
        self.conv = conv3x3(3, WIDTHS[0], 1)
        self.norm = make_norm(norm, WIDTHS[0], groups)
        blocks: list[nn.Module] = []
        channels = WIDTHS[0]
        for width in WIDTHS:
            for _ in range(n):
                stride = 1 if width == channels else 2
                blocks.append(Block(channels, width, stride, norm, groups))
                channels = width
        self.blocks = nn.Sequential(*blocks)
        self.head = nn.Linear(channels, num_classes)
        self.reset_parameters()

    def reset_parameters(self) -> None:
        """He et al. 2015's initialization (arXiv:1502.01852, equation 14), as in section 4.2.

        Without a norm, nothing keeps the sum of shortcut and branch from growing block by block,
        and lr 0.1 diverges. There it is Fixup's (Zhang et al. 2019, arXiv:1901.09321): the last
        convolution of each branch and the linear layer start at zero (rule 1), the first
        convolution of each branch smaller by the root of the number of blocks (rule 2).
        """
        for module in self.modules():
            if isinstance(module, nn.Conv2d):
                nn.init.kaiming_normal_(module.weight, mode="fan_out", nonlinearity="relu")
        if not getattr(self.norm, "normalizes", True):
            with torch.no_grad():
                for block in self.blocks:
                    assert isinstance(block, Block)
                    block.conv1.weight /= math.sqrt(len(self.blocks))
                    block.conv2.weight.zero_()
                self.head.weight.zero_()
                self.head.bias.zero_()

    def features(self, x: Tensor) -> Tensor:
        """Penultimate features `[N, 64]` of images `x` `[N, 3, H, W]`, normalized per channel."""
        x = F.relu(self.norm(self.conv(x)))
        return self.blocks(x).mean((2, 3))

    def forward(self, x: Tensor) -> Tensor:
        """Logits `[N, num_classes]` of images `x` `[N, 3, H, W]`, normalized per channel."""
        return self.head(self.features(x))


class Block(nn.Module):
    """`relu(shortcut(x) + norm(conv(relu(norm(conv(x))))))`, He et al. 2016, figure 2."""

    def __init__(self, inputs: int, outputs: int, stride: int, norm: str, groups: int) -> None:
        super().__init__()
        self.stride, self.new_channels = stride, outputs - inputs
        self.conv1 = conv3x3(inputs, outputs, stride)
        self.norm1 = make_norm(norm, outputs, groups)
        self.conv2 = conv3x3(outputs, outputs, 1)
        self.norm2 = make_norm(norm, outputs, groups)

    def forward(self, x: Tensor) -> Tensor:
        y = F.relu(self.norm1(self.conv1(x)))
        return F.relu(self.shortcut(x) + self.norm2(self.conv2(y)))

    def shortcut(self, x: Tensor) -> Tensor:
        """Option A: every `stride`-th pixel, and zeros for the channels that are new."""
        if self.stride == 1 and not self.new_channels:
            return x
        return F.pad(x[:, :, :: self.stride, :: self.stride], (0, 0, 0, 0, 0, self.new_channels))


def conv3x3(inputs: int, outputs: int, stride: int) -> nn.Conv2d:
    """A 3x3 convolution, without a bias: every norm has a shift of its own."""
    return nn.Conv2d(inputs, outputs, 3, stride, padding=1, bias=False)


def constrained(model: nn.Module) -> list[nn.Module]:
    """The norms that put parameters back where they belong after every step, by `project()`."""
    return [module for module in model.modules() if hasattr(module, "project")]
