"""The network: layers, shapes, shortcuts, initialization."""

import pytest
import torch
import torch.nn.functional as F
from torch import nn

from normlab.nets.architecture import flops_per_image
from normlab.nets.resnet import Block, FixupBlock, ResNet
from normlab.norms.names import NORMS


@pytest.mark.parametrize("n", [1, 2, 3, 9])
def test_has_6n_plus_2_layers(n: int) -> None:
    layers = [m for m in ResNet(n, 10, "bn").modules() if isinstance(m, nn.Conv2d | nn.Linear)]
    assert len(layers) == 6 * n + 2


def test_parameters_are_those_of_the_paper() -> None:
    """Table 6 of the paper: 0.27 M parameters for 20 layers, 0.85 M for 56."""
    for n, millions in ((3, 0.27), (9, 0.85)):
        count = sum(p.numel() for p in ResNet(n, 10, "torch_bn").parameters())
        assert count / 1e6 == pytest.approx(millions, abs=0.006)


@pytest.mark.parametrize("norm", NORMS)
def test_shapes(norm: str) -> None:
    model = ResNet(1, 7, norm)
    x = torch.randn(2, 3, 32, 32)
    assert model.features(x).shape == (2, 64)
    assert model(x).shape == (2, 7)


def test_stages_halve_the_map_and_double_the_width() -> None:
    seen: list[tuple[int, ...]] = []
    model = ResNet(2, 10, "bn")
    for block in model.blocks:
        block.register_forward_hook(lambda module, inputs, output: seen.append(output.shape[1:]))
    model(torch.randn(1, 3, 32, 32))
    assert seen == [(16, 32, 32)] * 2 + [(32, 16, 16)] * 2 + [(64, 8, 8)] * 2


def test_shortcut_is_the_identity_with_zeros_for_new_channels() -> None:
    x = torch.randn(2, 16, 8, 8)
    shortcut = Block(16, 32, 2, "bn", 8).shortcut(x)
    assert torch.equal(shortcut[:, :16], x[:, :, ::2, ::2])
    assert not shortcut[:, 16:].any()
    assert Block(16, 16, 1, "bn", 8).shortcut(x) is x


def test_without_norm_convolutions_have_a_bias() -> None:
    model = ResNet(2, 10, "nn")
    x = torch.randn(2, 3, 32, 32)
    nn.init.normal_(model.norm.bias)
    expected = F.conv2d(x, model.conv.weight, model.norm.bias, padding=1)
    torch.testing.assert_close(model.norm(model.conv(x)), expected)


def test_without_norm_a_block_is_fixups() -> None:
    """One written down apart: a scale a branch, a bias before each convolution and activation."""
    block = FixupBlock(16, 32, 2, "nn", 8)
    for parameter in block.parameters():
        nn.init.normal_(parameter, std=0.1)
    x = torch.randn(2, 16, 8, 8)
    y = F.conv2d(x + block.bias1, block.conv1.weight, block.norm1.bias, stride=2, padding=1)
    y = F.conv2d(F.relu(y) + block.bias2, block.scale * block.conv2.weight, padding=1)
    expected = F.relu(block.shortcut(x) + y + block.norm2.bias[:, None, None])
    torch.testing.assert_close(block(x), expected)


def test_without_norm_the_network_starts_as_fixup_has_it() -> None:
    torch.manual_seed(0)
    model = ResNet(2, 10, "nn")
    x = torch.randn(2, 3, 32, 32)
    assert not model(x).any()
    # Each block starts as the identity: the features are those of the first convolution.
    first = torch.relu(model.norm(model.conv(x)))[:, :, ::4, ::4].mean((2, 3))
    torch.testing.assert_close(model.features(x)[:, :16], first)
    std = model.blocks[-1].conv1.weight.std().item()
    assert std == pytest.approx((2 / (9 * 64) / 6) ** 0.5, rel=0.02)


def test_initialization_is_he_normal() -> None:
    torch.manual_seed(0)
    weight = ResNet(1, 10, "bn").blocks[-1].conv1.weight  # of 32 channels to 64
    assert weight.std().item() == pytest.approx((2 / (9 * 64)) ** 0.5, rel=0.02)


def test_flops_agree_with_pytorchs_count() -> None:
    from torch.utils.flop_counter import FlopCounterMode

    model = ResNet(2, 10, "nn")
    with FlopCounterMode(display=False) as counter:
        model.features(torch.randn(1, 3, 32, 32))
    assert flops_per_image(2) == counter.get_total_flops()
