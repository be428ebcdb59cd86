"""The grammar of names: strings only.

A layer's own name is one component, `stem_conv`; a qualified name starts with those of its containers,
`backbone/stem_conv`; a variable adds its own name, `backbone/stem_conv/kernel`; an optimizer's slot adds its kind,
`backbone/stem_conv/kernel@momentum`.
"""

from __future__ import annotations

import difflib
import functools
import re
import unicodedata
from collections.abc import Iterable

SEPARATOR = "/"
UNKNOWN_CLASS = "?"  # of a layer whose class is not in its file
LIMIT = 200  # bytes of an own name: file systems allow 255, and suffixes need room

# Words that YAML and Hydra do not read as strings, that Windows does not allow as file names, and the key that
# safetensors reserves for metadata.
RESERVED = frozenset(
    [
        "null",
        "none",
        "true",
        "false",
        "yes",
        "no",
        "on",
        "off",
        "nan",
        "inf",
        "con",
        "prn",
        "aux",
        "nul",
        "__metadata__",
    ]
    + [f"{port}{digit}" for port in ("com", "lpt") for digit in range(1, 10)]
)

# The words of Keras' layers, for files without classes (keras 3.15; a test compares them).
_WORDS = """
    activation activity_regularization adaptive_average_pooling1d adaptive_average_pooling2d
    adaptive_average_pooling3d adaptive_max_pooling1d adaptive_max_pooling2d adaptive_max_pooling3d add
    additive_attention alpha_dropout attention aug_mix auto_contrast average average_pooling1d average_pooling2d
    average_pooling3d batch_normalization bidirectional category_encoding center_crop concatenate
    contrast_limited_adaptive_histogram_equalization conv1d conv1d_transpose conv2d conv2d_transpose conv3d
    conv3d_transpose conv_lstm1d conv_lstm2d conv_lstm3d cropping1d cropping2d cropping3d cut_mix dense
    depthwise_conv1d depthwise_conv2d discretization dot dropout einsum_dense elu embedding equalization flatten
    flax_layer functional gaussian_dropout gaussian_noise global_average_pooling1d global_average_pooling2d
    global_average_pooling3d global_max_pooling1d global_max_pooling2d global_max_pooling3d group_normalization
    grouped_query_attention gru gru_cell hashed_crossing hashing identity integer_lookup jax_layer lambda layer
    layer_normalization leaky_re_lu lstm lstm_cell masking max_num_bounding_boxes max_pooling1d max_pooling2d
    max_pooling3d maximum mel_spectrogram minimum mix_up multi_head_attention multiply normalization p_re_lu permute
    pipeline rand_augment random_brightness random_color_degeneration random_color_jitter random_contrast random_crop
    random_elastic_transform random_erasing random_flip random_gaussian_blur random_grayscale random_hue random_invert
    random_perspective random_posterization random_rotation random_saturation random_sharpness random_shear
    random_translation random_zoom re_lu repeat_vector rescaling reshape resizing reversible_embedding
    rms_normalization rnn separable_conv1d separable_conv2d sequential simple_rnn simple_rnn_cell softmax solarization
    spatial_dropout1d spatial_dropout2d spatial_dropout3d spectral_normalization stacked_rnn_cells stft_spectrogram
    string_lookup subtract text_vectorization tfsm_layer time_distributed torch_module_wrapper unit_normalization
    up_sampling1d up_sampling2d up_sampling3d wrapper zero_padding1d zero_padding2d zero_padding3d
"""
KERAS_WORDS = frozenset(_WORDS.split())

_OWN = re.compile(r"[A-Za-z0-9][A-Za-z0-9_.-]*")
_COUNTED = re.compile(r"(?:_[0-9]+)?")


def fault(name: object, *, limit: int = LIMIT) -> str | None:
    """Return what is wrong with a layer's own name, in a few words, or None when nothing is."""
    if not isinstance(name, str):
        return "not a string"
    if not name:
        return "empty"
    if not _OWN.fullmatch(name):
        strangers = sorted({char for char in name if not re.fullmatch(r"[A-Za-z0-9_.-]", char)})
        if strangers:
            return f"has {' '.join(ascii(char) for char in strangers)}; allowed are A-Z a-z 0-9 _ . -"
        return f"begins with {name[0]!r}; a letter or a digit comes first"
    if len(name) > limit:  # the name is ASCII here, so characters are bytes
        return f"{len(name)} bytes long; at most {limit}"
    if name.casefold() in RESERVED:
        return "a reserved word"
    return None


def join(*parts: str) -> str:
    """Return the qualified name of `parts`, from the outermost; empty parts, as the top's name, are left out."""
    return SEPARATOR.join(part for part in parts if part)


def split(qualified: str) -> tuple[str, str]:
    """Return the container (empty at the top) and the own name of a qualified name."""
    container, _, own = qualified.rpartition(SEPARATOR)
    return container, own


def slot(variable: str, kind: str) -> str:
    """Return the name of an optimizer's slot for a variable: `backbone/stem_conv/kernel@momentum`."""
    return f"{variable}@{kind}"


@functools.lru_cache(maxsize=4096)
def snake(class_name: str) -> str:
    """Return the word that Keras numbers for a class: `conv2d` for `Conv2D`."""
    word = re.sub(r"\W+", "", class_name)
    word = re.sub("(.)([A-Z][a-z]+)", r"\1_\2", word)
    return re.sub("([a-z])([A-Z])", r"\1_\2", word).lower()


def is_automatic(name: object, class_name: str) -> bool:
    """Return whether Keras could have made up `name` for this class: its word, alone or with a number.

    The prefixes `forward_` and `backward_` of a wrapper are ignored. An input's automatic name may also be
    `keras_tensor_3`, which Keras uses when it clones an unnamed input.
    """
    if not isinstance(name, str):
        return False
    words = _words(class_name)
    bare = name.removeprefix("forward_").removeprefix("backward_")
    if class_name == "InputLayer":  # an inner tensor used as an input (functional.py, keras 3.15.1)
        bare = re.sub(r"(?:CLONE|_clone)+$", "", bare)
    return any(bare.startswith(word) and _COUNTED.fullmatch(bare[len(word) :]) is not None for word in words if word)


def model_name(class_name: str) -> str:
    """Return a name for a model of this class, as one would write it: `model`, or `siamese_model` for `Siamese`."""
    word = snake(class_name).removesuffix("_model")
    if word in ("functional", "sequential", "model", ""):  # Keras' own
        return "model"
    return f"{word}_model" if is_automatic(word, class_name) else word


def _words(class_name: str) -> Iterable[str]:
    if class_name == UNKNOWN_CLASS:
        return KERAS_WORDS
    return ("input_layer", "keras_tensor") if class_name == "InputLayer" else (snake(class_name),)


def renumbered(own: str, class_name: str, taken: set[str]) -> str:
    """Return an automatic name numbered within its container, `add`, `add_1`, and add it to `taken`; others stay."""
    name = own
    if is_automatic(own, class_name):
        word = re.sub(r"_[0-9]+$", "", own) if own != snake(class_name) else own
        number = 0
        name = word
        while name.casefold() in taken:
            number += 1
            name = f"{word}_{number}"
    taken.add(name.casefold())
    return name


def sanitized(name: object) -> str:
    """Return the nearest text that the grammar allows, empty when nothing of `name` can stay."""
    plain = unicodedata.normalize("NFKD", str(name)).encode("ascii", "ignore").decode()
    kept = re.sub(r"[^A-Za-z0-9_.-]+", "_", plain)
    return re.sub(r"^[^A-Za-z0-9]+", "", kept).rstrip("_.-")[:LIMIT]


def nearest(word: str, candidates: Iterable[str], limit: int = 3) -> list[str]:
    """Return the candidates that `word` probably means, best first; empty when none is close."""
    names = list(dict.fromkeys(candidates))
    folded: dict[str, str] = {}
    for name in names:
        folded.setdefault(name.casefold(), name)
    return [folded[match] for match in difflib.get_close_matches(word.casefold(), folded, n=limit, cutoff=0.6)]


def did_you_mean(word: str, candidates: Iterable[str]) -> str:
    """Return ` Did you mean 'a' or 'b'?` with a leading space, or an empty string when no candidate is close."""
    close = nearest(word, candidates)
    return f" Did you mean {' or '.join(repr(name) for name in close)}?" if close else ""
