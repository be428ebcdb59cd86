"""The commands beside training: names, ckpt, dream, doctor."""
