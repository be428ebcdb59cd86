"""The training loop against `model.fit`, against the same step written by hand, and against bare PyTorch."""
