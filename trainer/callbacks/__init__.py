"""What a run tells to whoever watches it: progress, records, TensorBoard; and what Keras callbacks remember."""
