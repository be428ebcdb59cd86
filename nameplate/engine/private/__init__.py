"""What Keras and TensorFlow keep private, read in keras 3.15.1 and tensorflow 2.21.0.

When one of them changes, tests/trainer fails.
"""
