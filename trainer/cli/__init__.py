"""The commands beside training: `names`, `ckpt`, `dream` (with `pictures`) and `doctor`, over the library."""
