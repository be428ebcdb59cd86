"""What Keras and TensorFlow keep private, read in keras 3.15.1 and tensorflow 2.21.0.

tests/trainer/replicas/private fails when one of them changes.
"""
