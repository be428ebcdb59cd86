"""The training loop, compared with `model.fit`, with the same step written by hand, and with plain PyTorch."""
