"""The architectures that come with the project, one a file, every layer named at birth.

Looking at the registry imports neither TensorFlow nor Keras. Each entry is the dotted path of a function
`build(inputs, outputs, **parameters) -> keras.Model`: `inputs` maps an input's name to its shape without the
batch, `outputs` maps an output's name to its number of logits.
"""

ARCHITECTURES: dict[str, str] = {
    "mlp": "trainer.models.mlp.build",
    "convnet": "trainer.models.convnet.build",
    "resnet": "trainer.models.resnet.build",
    "vit": "trainer.models.vit.build",
    "two_tower": "trainer.models.two_tower.build",
    "one_tower": "trainer.models.one_tower.build",
    "subclassed": "trainer.models.subclassed.build",
    "applications": "trainer.models.applications.build",
}
