"""Normalization layers: one module for each, with its paper's equation.

All of them normalize `x` of shape `[N, C, H, W]` to `(x - mean) / sqrt(var + eps)`, then apply a
learned scale `weight` and shift `bias` per channel. They differ in *whose* mean and variance:

    bn   every channel, over the batch and the image      N, H, W
    in   every channel of every sample                    H, W
    bin  a learned mixture of BN and IN
    ln   every sample                                     C, H, W
    gn   every group of channels of every sample          C/G, H, W
    torch_bn is PyTorch's own batch normalization, nn is none.

A new norm `x` is a module x.py here that sets `Norm` to its class, a line in names.py, and a line
in params.yaml's section `norms`. Each norm has its own module because DVC tracks code by file: a
run depends on the file of its norm alone, so that a change of one norm retrains no other.
"""
