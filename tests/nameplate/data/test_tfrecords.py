from __future__ import annotations

import io
import re
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import tensorflow as tf
from PIL import Image

from nameplate.data import DataError, data_error, open_dataset
from nameplate.data.config import RecordsConfig
from nameplate.data.tfrecords import masked_crc, scan
from tests.nameplate.data.reading import piped, whole

RANDOM = np.random.RandomState(0)
PIXELS = RANDOM.randint(0, 256, (10, 4, 3, 3)).astype(np.uint8)
LABELS = np.arange(10) % 3
FEATURES = {"image": "image 4x3x3", "label": "int64"}


def png(pixels: np.ndarray) -> bytes:
    file = io.BytesIO()
    Image.fromarray(pixels).save(file, "png")
    return file.getvalue()


def feature(value: Any) -> tf.train.Feature:
    if isinstance(value, bytes):
        return tf.train.Feature(bytes_list=tf.train.BytesList(value=[value]))
    values = np.atleast_1d(value)
    if values.dtype.kind == "i":
        return tf.train.Feature(int64_list=tf.train.Int64List(value=values))
    return tf.train.Feature(float_list=tf.train.FloatList(value=values))


def write(path: Path, examples: list[dict[str, Any]], options: str | None = None) -> str:
    with tf.io.TFRecordWriter(str(path), options) as writer:
        for each in examples:
            features = {name: feature(value) for name, value in each.items()}
            example = tf.train.Example(features=tf.train.Features(feature=features))
            writer.write(example.SerializeToString())
    return str(path)


def images(rows: range) -> list[dict[str, Any]]:
    return [{"image": png(PIXELS[row]), "label": LABELS[row], "extra": 1.5} for row in rows]


def config(*files: str, **given: Any) -> RecordsConfig:
    usual: dict[str, Any] = {"features": FEATURES, "classes": {"label": 3}, "validation": 0.0}
    return RecordsConfig(files=list(files), **usual | given)


def test_records_of_several_files_come_in_any_order(tmp_path: Path) -> None:
    write(tmp_path / "b.tfrecord", images(range(4, 10)))
    write(tmp_path / "a.tfrecord", images(range(4)))
    data = open_dataset(config(str(tmp_path / "*.tfrecord")), seed=0)
    assert (data.train.size, data.outputs, data.kinds) == (10, {"label": 3}, {"label": "classes"})
    order = [9, 0, 3, 4, 4, 8]
    pixels, labels = piped(data.train, order)
    np.testing.assert_allclose(pixels, PIXELS[order] / np.float32(255), rtol=1e-6)
    np.testing.assert_array_equal(labels, LABELS[order])


def test_numbers_raw_bytes_and_weights_are_read_as_declared(tmp_path: Path) -> None:
    vectors = RANDOM.standard_normal((10, 2, 3)).astype(np.float32)
    examples = [
        {"raw": PIXELS[i].tobytes(), "vector": vectors[i].ravel(), "target": vectors[i, 0], "w": i / 10}
        for i in range(10)
    ]
    data = open_dataset(
        config(
            write(tmp_path / "a", examples),
            features={"raw": "uint8 4x3x3", "vector": "float32 2x3", "target": "float32 3", "w": "float32"},
            inputs=["vector", "raw"],
            targets=["target"],
            sample_weight="w",
            classes={},
        ),
        seed=0,
    )
    x, y, w = whole(data.train)
    np.testing.assert_array_equal(x["raw"], PIXELS)
    np.testing.assert_array_equal(x["vector"], vectors)
    np.testing.assert_array_equal(y, vectors[:, 0])
    np.testing.assert_array_equal(w, np.float32(np.arange(10) / 10))
    assert (list(data.inputs), data.outputs, data.kinds) == (["vector", "raw"], {"target": 3}, {"target": "values"})


def test_files_of_their_own_validate(tmp_path: Path) -> None:
    train, held = write(tmp_path / "a", images(range(7))), write(tmp_path / "b", images(range(7, 10)))
    data = open_dataset(config(train, validation_files=[held], validation=0.5), seed=0)
    assert (data.train.size, data.validation.size) == (7, 3)
    np.testing.assert_array_equal(whole(data.validation)[1], LABELS[7:])


def test_the_index_finds_what_the_writer_wrote(tmp_path: Path) -> None:
    path = tmp_path / "a"
    contents = [b"", b"one", b"x" * 1000]
    with tf.io.TFRecordWriter(str(path)) as writer:
        for each in contents:
            writer.write(each)
    spans = scan(path)
    held = path.read_bytes()
    assert [held[start : start + length] for start, length in spans] == contents


def test_the_checksum_is_that_of_the_standard() -> None:
    # RFC 3720, B.4: the CRC-32C of 32 zero bytes is 0x8A9136AA; masked as TFRecord files have it.
    crc = 0x8A9136AA
    assert masked_crc(bytes(32)) == (((crc >> 15) | (crc << 17)) + 0xA282EAD8) & 0xFFFFFFFF


def _cut(content: bytes) -> bytes:
    return content[:-5]


def _cut_in_header(content: bytes) -> bytes:
    return content + content[:7]


def _flip_length(content: bytes) -> bytes:
    return content[:1] + bytes([content[1] ^ 1]) + content[2:]


@pytest.mark.parametrize(
    ("damage", "message"),
    [
        (_cut, r"cut short: the record at byte \d+ ends at byte \d+, and the file at byte \d+"),
        (_cut_in_header, r"cut short: byte \d+ begins a record"),
        (_flip_length, r"not a TFRecord file: the checksum at byte 8 does not match"),
        (lambda _: b"", r"empty: no record at byte 0"),
        (lambda _: b"plain text, long enough to be read", r"not a TFRecord file"),
    ],
)
def test_a_damaged_file_is_refused_with_the_byte(tmp_path: Path, damage: Any, message: str) -> None:
    path = tmp_path / "a.tfrecord"
    write(path, images(range(3)))
    path.write_bytes(damage(path.read_bytes()))
    with pytest.raises(DataError, match=f"a.tfrecord: {message}"):
        open_dataset(config(str(path)), seed=0)


def test_damage_in_the_middle_names_that_byte(tmp_path: Path) -> None:
    path = tmp_path / "a.tfrecord"
    write(path, images(range(3)))
    content = bytearray(path.read_bytes())
    third = int(scan(path)[2][0]) - 12
    content[third] ^= 1
    path.write_bytes(content)
    with pytest.raises(DataError, match=f"damaged: the checksum of the record length at byte {third} "):
        open_dataset(config(str(path)), seed=0)


@pytest.mark.parametrize("kind", ["GZIP", "ZLIB"])
def test_a_compressed_file_is_refused_by_its_kind(tmp_path: Path, kind: str) -> None:
    path = write(tmp_path / "a", images(range(3)), kind)
    with pytest.raises(DataError, match=rf"compressed \({kind}\) from byte 0"):
        open_dataset(config(path), seed=0)


def test_features_that_the_records_do_not_hold_are_refused_together(tmp_path: Path) -> None:
    path = write(tmp_path / "a", images(range(3)))
    features = {"image": "float32 4", "label": "int64 2", "age": "int64"}
    with pytest.raises(DataError) as caught:
        open_dataset(config(path, features=features, inputs=["image", "age"]), seed=0)
    message = str(caught.value)
    assert "no feature 'age'; it has extra (float_list), image (bytes_list), label (int64_list)" in message
    assert "'image' is a bytes_list, but its declaration needs a float_list" in message
    assert "'label' has 1 values, but 2 are declared" in message


@pytest.mark.parametrize(
    ("wrong", "message"),
    [
        ({"image": png(PIXELS[0]), "label": 3}, r"a: record 2 \(byte \d+\) has a label outside 0 to 2"),
        ({"image": b"no image", "label": 1}, r"1 damaged or missing images .*\n  .*a: record 2 \(byte \d+\)"),
        ({"image": png(PIXELS[0])}, r"a: record 2 \(byte \d+\) does not match data.features.* label "),
    ],
)
def test_a_record_that_does_not_fit_is_named_while_training(
    tmp_path: Path, wrong: dict[str, Any], message: str
) -> None:
    path = write(tmp_path / "a", [*images(range(2)), wrong])
    source = open_dataset(config(path), seed=0).train
    with pytest.raises(tf.errors.OpError) as caught:
        whole(source)
    assert _matches(message, data_error(caught.value))


def test_a_record_that_is_damaged_is_named(tmp_path: Path) -> None:
    path = Path(write(tmp_path / "a", images(range(3))))
    source = open_dataset(config(str(path)), seed=0).train
    start, length = scan(path)[1]
    content = bytearray(path.read_bytes())
    content[start : start + length] = b"\xff" * length
    path.write_bytes(content)
    with pytest.raises(tf.errors.OpError) as caught:
        whole(source)
    assert _matches(r"a: record 1 \(byte \d+\) is damaged: not a tf.train.Example$", data_error(caught.value))


def test_a_file_that_shrinks_while_training_is_named(tmp_path: Path) -> None:
    path = write(tmp_path / "a", images(range(3)))
    source = open_dataset(config(path), seed=0).train
    Path(path).write_bytes(Path(path).read_bytes()[:-100])
    with pytest.raises(tf.errors.OpError) as caught:
        whole(source)
    assert _matches(r"a: record 2 \(byte \d+\) has been cut short", data_error(caught.value))


def _matches(pattern: str, error: Exception | None) -> bool:
    return re.search(pattern, str(error)) is not None
