"""The `ckpt` tool: checkpoints listed, shown, verified and edited, without TensorFlow."""

from trainer.cli.ckpt.commands import main

__all__ = ["main"]
