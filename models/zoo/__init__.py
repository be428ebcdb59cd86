"""The architectures that come with the project, one a file, every layer named at birth.

Looking at the registry imports neither TensorFlow nor Keras. Each entry is the dotted path of a function
`build(inputs, outputs, **parameters) -> keras.Model`: `inputs` maps an input's name to its shape without the
batch, `outputs` maps an output's name to its number of logits.
"""

ARCHITECTURES: dict[str, str] = {
    "mlp": "models.zoo.mlp.build",
    "convnet": "models.zoo.convnet.build",
    "resnet": "models.zoo.resnet.build",
    "vit": "models.zoo.vit.build",
    "two_tower": "models.zoo.two_tower.build",
    "one_tower": "models.zoo.one_tower.build",
    "subclassed": "models.zoo.subclassed.build",
    "applications": "models.zoo.applications.build",
}
