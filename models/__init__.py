"""The architectures that come with the project, one a file, every layer named at birth.

Each entry of the registry is the dotted path of a function `build(inputs, outputs, **parameters) -> keras.Model`:
`inputs` maps an input's name to its shape without the batch, `outputs` an output's name to its number of logits. The
registry imports neither TensorFlow nor Keras. To add an architecture, copy `mlp` and its dataclass in `config`; `ports`
has the named inputs and logits, `checks` the refusals.
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
