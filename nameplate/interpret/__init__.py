"""What named layers see: dreams, activations, saliency."""
