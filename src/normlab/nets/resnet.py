"""The residual network for CIFAR-10 of He et al. 2016 (arXiv:1512.03385, section 4.2)."""

import math

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from normlab.nets.architecture import WIDTHS
from normlab.norms.base import make_norm, norm_class


class ResNet(nn.Module):
    """6n+2 layers: a 3x3 convolution, three stages of n residual blocks, one linear layer.

    The stages have 16, 32 and 64 channels on maps of 32x32, 16x16 and 8x8; the first block of the
    second and third stage halves the map by stride 2. Shortcuts are identities (option A). A
    global mean pool gives the 64 penultimate features.

    Args:
        n: blocks per stage, at least 1.
        num_classes: outputs of the linear layer.
        norm: a name in `normlab.norms.names`.
        groups: groups of channels, for `gn`.
    """

    def __init__(self, n: int, num_classes: int, norm: str, groups: int = 8) -> None:
        if n < 1 or num_classes < 1:
            raise ValueError(f"n = {n}, num_classes = {num_classes}: must be at least 1")
        super().__init__()
        self.conv = conv3x3(3, WIDTHS[0], 1)
        self.norm = make_norm(norm, WIDTHS[0], groups)
        block = Block if norm_class(norm).normalizes else FixupBlock
        blocks: list[Block] = []
        channels = WIDTHS[0]
        for width in WIDTHS:
            for _ in range(n):
                stride = 1 if width == channels else 2
                blocks.append(block(channels, width, stride, norm, groups))
                channels = width
        self.blocks = nn.Sequential(*blocks)
        self.head = nn.Linear(channels, num_classes)
        self.reset_parameters()

    def reset_parameters(self) -> None:
        """He et al. 2015's initialization (arXiv:1502.01852, equation 14), as in section 4.2.

        With no norm, blocks and the linear layer then start as `FixupBlock` says.
        """
        for module in self.modules():
            if isinstance(module, nn.Conv2d):
                nn.init.kaiming_normal_(module.weight, mode="fan_out", nonlinearity="relu")
        for block in self.blocks:
            if isinstance(block, FixupBlock):
                block.reset_parameters(len(self.blocks))
                nn.init.zeros_(self.head.weight)
                nn.init.zeros_(self.head.bias)

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


class FixupBlock(Block):
    """A block for a network with no norm: Fixup (Zhang et al. 2019, arXiv:1901.09321).

    `relu(shortcut(x) + norm(scale * conv(bias2 + relu(norm(conv(bias1 + x))))))`, where `norm` adds
    a bias per channel. Nothing else keeps the sum of shortcut and branch from growing block by
    block, and lr 0.1 diverges. The paper's three rules:

    1. The branch's last convolution is initialized to zero, and so is the network's linear layer.
    2. The branch's first convolution starts smaller, by the root of the number of blocks.
    3. A branch has a scalar scale, which starts at 1, and a scalar bias before each convolution,
       which starts at 0.
    """

    def __init__(self, inputs: int, outputs: int, stride: int, norm: str, groups: int) -> None:
        super().__init__(inputs, outputs, stride, norm, groups)
        self.bias1 = nn.Parameter(torch.zeros(1))
        self.bias2 = nn.Parameter(torch.zeros(1))
        self.scale = nn.Parameter(torch.ones(1))

    def reset_parameters(self, blocks: int) -> None:
        """Rules 1 and 2, for a network of `blocks` blocks."""
        with torch.no_grad():
            self.conv1.weight /= math.sqrt(blocks)
            self.conv2.weight.zero_()

    def forward(self, x: Tensor) -> Tensor:
        y = F.relu(self.norm1(self.conv1(x + self.bias1)))
        return F.relu(self.shortcut(x) + self.norm2(self.conv2(y + self.bias2) * self.scale))


def conv3x3(inputs: int, outputs: int, stride: int) -> nn.Conv2d:
    """A 3x3 convolution, without a bias: every norm has a shift of its own."""
    return nn.Conv2d(inputs, outputs, 3, stride, padding=1, bias=False)
