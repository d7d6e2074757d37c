"""The network's numbers, apart from its code: what needs them alone starts without torch."""

WIDTHS = (16, 32, 64)  #: channels of the three stages (He et al. 2016, section 4.2)


def flops_per_image(n: int) -> int:
    """Multiplications and additions of one forward pass of one 32x32 image's convolutions."""
    total, channels = 0, 3
    for stage, width in enumerate(WIDTHS):
        size = 32 >> stage
        for _ in range(2 * n + (stage == 0)):
            total += 2 * 9 * channels * width * size * size
            channels = width
    return total
