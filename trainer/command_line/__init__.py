"""What a command line is made of: overrides, search path, completion; and TensorFlow kept quiet."""
