"""Other people's files by name, one format per module; nothing in a file is ever executed.

- `registry` knows every format and opens any file as `arrays`; `name_table` lists the layers and variables of a file.
- `limits`: how much may come out of a file, for every reader. `zip_archive`: a zip file checked before it is used.
- Keras: `keras_file` (.keras), `keras_weights` (.weights.h5 and .h5), `keras_shards` (.weights.json); the helpers
  `hdf5` and `hdf5_process` (HDF5 in a process of its own), `keras_variables` and `keras_config`.
- PyTorch: `pytorch_file`, read by `pytorch_pickle`; `pytorch_weights` and `pytorch_layouts` convert to Keras and back,
  with `torchvision_resnet` for torchvision's names.
- `policy_file`: a naming policy as YAML or JSON; `plain_yaml` reads YAML as data.
- `safetensors_file`; `saved_model`, which reads TensorFlow's `tensor_bundle`.
"""

from nameplate.errors import FileFormatError
from nameplate.formats.arrays import Arrays
from nameplate.formats.registry import open_weights

__all__ = ["Arrays", "FileFormatError", "open_weights"]
