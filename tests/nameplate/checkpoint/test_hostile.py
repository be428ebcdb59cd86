"""Hostile files are refused quickly, in little memory."""

from __future__ import annotations

import json
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from safetensors.numpy import load_file
from xxhash import xxh3_128_hexdigest

from nameplate import checkpoint as store
from tests.nameplate.checkpoint.samples import array, same, snapshot

ENTRY = {"dtype": "F32", "shape": [2], "data_offsets": [0, 8]}


def file_of(header: bytes | dict[str, Any] | str, data: bytes = bytes(8), *, claim: int | None = None) -> bytes:
    """A safetensors file with this header, which may claim another length than it has."""
    if isinstance(header, dict):
        header = json.dumps(header)
    text = header.encode() if isinstance(header, str) else header
    return (len(text) if claim is None else claim).to_bytes(8, "little") + text + data


def entry(**changes: Any) -> dict[str, Any]:
    return {"a": ENTRY | changes}


def two(first: list[int], second: list[int]) -> dict[str, Any]:
    sizes = [[(stop - start) // 4] for start, stop in (first, second)]
    return {
        name: {"dtype": "F32", "shape": size, "data_offsets": offsets}
        for name, size, offsets in zip("ab", sizes, (first, second), strict=True)
    }


ONE = json.dumps(ENTRY)

HEADERS: dict[str, tuple[bytes, str]] = {
    "empty file": (b"", "ends after 0 bytes"),
    "seven bytes": (bytes(7), "ends after 7 bytes"),
    "1 GB header": (file_of(entry(), claim=1 << 30), "claims 1073741824 bytes"),
    "header of 2**64 - 1": (b"\xff" * 8 + b"{}", "claims 18446744073709551615 bytes"),
    "header longer than the file": (file_of(entry(), claim=500), "but the file has"),
    "no header at all": (file_of(b"", b""), "expected at byte 0"),
    "not JSON": (file_of(b"\x00" * 64), "not JSON"),
    "a list": (file_of("[]", b""), "not JSON"),
    "a key twice": (file_of(f'{{"a":{ONE},"a":{ONE}}}'), "'a' twice"),
    "a key twice, once escaped": (file_of(f'{{"a":{ONE},"\\u0061":{ONE}}}'), "'a' twice"),
    "a field twice": (
        file_of('{"a":{"dtype":"F32","dtype":"I32","shape":[2],"data_offsets":[0,8]}}'),
        "exactly one",
    ),
    "metadata twice": (file_of(f'{{"__metadata__":{{}},"__metadata__":{{}},"a":{ONE}}}'), "twice"),
    "metadata key twice": (file_of('{"__metadata__":{"k":"1","k":"2"}}', b""), "'k' twice"),
    "metadata as a tensor": (file_of({"__metadata__": ENTRY}), "string was expected"),
    "metadata of numbers": (file_of('{"__metadata__":{"k":1}}', b""), "string was expected"),
    "a path upwards": (file_of({"../../etc/passwd": ENTRY}), "leaves its directory"),
    "an absolute path": (file_of({"/etc/passwd": ENTRY}), "leaves its directory"),
    "a windows path": (file_of({"..\\up": ENTRY}), "leaves its directory"),
    "NUL in a name": (file_of({"a\0b": ENTRY}), "control characters"),
    "a direction mark": (file_of({"a\u202eb": ENTRY}), "direction marks"),
    "half a character": (file_of('{"\\ud800":' + ONE + "}"), "unpaired surrogates"),
    "an empty name": (file_of({"": ENTRY}), "0 characters long"),
    "a name of 10 kB": (file_of({"x" * 10_000: ENTRY}), "10000 characters long"),
    "an escape sequence": (file_of({"\x1b[2Ja": ENTRY}), "control characters"),
    "not UTF-8": (file_of(b'{"\xff":' + ONE.encode() + b"}"), "not UTF-8"),
    "a nesting bomb": (file_of('{"a":' * 100_000), "small JSON object"),
    "a nesting bomb of lists": (file_of('{"a":' + "[" * 1_000_000), "small JSON object"),
    "a bomb inside a shape": (file_of('{"a":{"shape":' + "[" * 1000 + "}}"), "not described by JSON"),
    "unknown dtype": (file_of(entry(dtype="F7")), "unknown dtype 'F7'"),
    "dtype of another kind": (file_of(entry(dtype=[1])), "unknown dtype"),
    "negative size": (file_of(entry(shape=[-2])), "impossible shape"),
    "true as a size": (file_of(entry(shape=[2, True])), "impossible shape"),
    "a size with a point": (file_of(entry(shape=[2.0])), "impossible shape"),
    "a number of 5000 digits": (file_of('{"a":{"shape":[' + "9" * 900 + "]}}"), "exactly one"),
    "a shape that overflows 64 bits": (file_of(entry(shape=[1 << 40, 1 << 40])), "impossible shape"),
    "a shape that overflows to the right size": (file_of(entry(shape=[1 << 62, 4, 2])), "impossible shape"),
    "an empty array of impossible size": (
        file_of(entry(shape=[1 << 61, 1 << 61, 0], data_offsets=[0, 0]), b""),
        "impossible shape",
    ),
    "a hundred dimensions": (file_of(entry(shape=[1] * 100)), "impossible shape"),
    "offsets backwards": (file_of(entry(data_offsets=[8, 0])), "its offsets span -8"),
    "three offsets": (file_of(entry(data_offsets=[0, 4, 8])), "impossible shape"),
    "size and offsets disagree": (file_of(entry(shape=[1])), "needs 4 bytes, but its offsets span 8"),
    "overlap": (file_of(two([0, 8], [4, 12]), bytes(12)), "overlaps"),
    "the same bytes twice": (file_of(two([0, 8], [0, 8])), "overlaps"),
    "a gap": (file_of(two([0, 8], [12, 20]), bytes(20)), "leaves a gap"),
    "a gap at the beginning": (file_of(entry(data_offsets=[8, 16]), bytes(16)), "leaves a gap"),
    "bytes behind the last tensor": (file_of(entry(), bytes(9)), "but the file has"),
    "the last tensor cut short": (file_of(entry(), bytes(7)), "but the file has"),
    "something behind the header": (file_of(f'{{"a":{ONE}}}{{}}'), "after its end"),
    "an extra field": (file_of(entry(code="import os")), "exactly one"),
    "no comma": (file_of(f'{{"a":{ONE} "b":{ONE}}}'), "',' was expected"),
    "a comma too many": (file_of(f'{{"a":{ONE},}}'), "string was expected"),
    "UTF-16": (file_of(json.dumps(entry()).encode("utf-16-le")), "not JSON"),
}


@pytest.mark.parametrize("case", HEADERS)
def test_a_hostile_header_is_refused_with_the_reason(tmp_path: Path, case: str) -> None:
    content, reason = HEADERS[case]
    (tmp_path / "x.safetensors").write_bytes(content)
    with pytest.raises(store.DamagedError) as caught:
        store.open_tensors(tmp_path / "x.safetensors")
    assert reason in str(caught.value)
    assert str(caught.value).isascii()


def test_a_plain_file_of_someone_else_opens(tmp_path: Path) -> None:
    header = (
        ' { "__metadata__" : { "format" : "pt", "note": "a } { \\" b é" } ,\n "model.layers.0.weight" : '
        '{"data_offsets":[4,12],"dtype":"F32","shape":[2]}, "b ias":{"shape":[],"dtype":"I32","data_offsets":[0,4]} } '
    )
    (tmp_path / "x.safetensors").write_bytes(file_of(header, bytes(range(12))))
    opened = store.open_tensors(tmp_path / "x.safetensors")
    reference = load_file(tmp_path / "x.safetensors")
    assert opened.metadata == {"format": "pt", "note": 'a } { " b é'}
    assert list(opened) == ["b ias", "model.layers.0.weight"]
    assert all(same(opened[name], reference[name]) for name in reference)


def test_a_file_that_is_reached_by_a_link_opens(tmp_path: Path) -> None:
    store.save_tensors(tmp_path / "blob", {"a": array(3)}, metadata={"format": "np"})
    (tmp_path / "x.safetensors").symlink_to("blob")
    assert same(store.open_tensors(tmp_path / "x.safetensors")["a"], array(3))


def _sealed(body: str) -> bytes:
    text = body.encode()
    return f'{{"manifest_xxh3":"{xxh3_128_hexdigest(text)}",\n'.encode() + text


def _edited(path: Path, edit: Callable[[dict[str, Any]], object]) -> bytes:
    """The manifest at `path` after `edit`, sealed again: an attacker can compute hashes too."""
    fields = json.loads((path / "manifest.json").read_bytes())
    del fields["manifest_xxh3"]
    edit(fields)
    return _sealed(json.dumps(fields)[1:])


def _rename(fields: dict[str, Any], old: str, new: str) -> None:
    fields["tensors"]["weights"][new] = fields["tensors"]["weights"].pop(old)


MANIFESTS: dict[str, tuple[Callable[[dict[str, Any]], object], str]] = {
    "a path upwards": (lambda m: _rename(m, "stem_conv/bias", "../../bias"), "'../../bias'"),
    "NUL in a name": (lambda m: _rename(m, "stem_conv/bias", "a\0b"), "the tensor name"),
    "a direction mark": (lambda m: _rename(m, "stem_conv/bias", "a\u202eb"), "the tensor name"),
    "a file elsewhere": (
        lambda m: m["files"].update({"../config.yaml": m["files"].pop("config.yaml")}),
        "which does not belong",
    ),
    "a tensor in a file elsewhere": (
        lambda m: m["tensors"]["weights"]["stem_conv/bias"].update(file="/etc/passwd"),
        "not a file of its group",
    ),
    "a tensor of the wrong group": (
        lambda m: m["tensors"]["weights"]["stem_conv/bias"].update(file="state.safetensors"),
        "not a file of its group",
    ),
    "overlap": (lambda m: m["tensors"]["weights"]["stem_conv/bias"].update(offset=400), "begins at byte"),
    "a shape that overflows": (
        lambda m: m["tensors"]["weights"]["stem_conv/bias"].update(shape=[1 << 61, 8]),
        "impossible shape",
    ),
    "another size": (lambda m: m["tensors"]["weights"]["stem_conv/bias"].update(shape=[9]), "begins at byte"),
    "an unknown dtype": (
        lambda m: m["tensors"]["weights"]["stem_conv/bias"].update(dtype="object"),
        "unknown dtype",
    ),
    "a negative step": (lambda m: m.update(step=-1), "missing or of the wrong type"),
    "no tensors": (lambda m: m.pop("tensors"), "missing or of the wrong type"),
    "tensors as a list": (lambda m: m.update(tensors=[]), "missing or of the wrong type"),
    "an extra group": (lambda m: m["tensors"].update(code={}), "missing or of the wrong type"),
    "a hash of another kind": (lambda m: m["files"]["config.yaml"].update(xxh3=7), "missing or of the wrong type"),
    "a header for a text": (
        lambda m: m["files"]["config.yaml"].update(header_size=9),
        "lists config.yaml with a header",
    ),
    "another format": (lambda m: m.update(format="zip"), "it is not a nameplate checkpoint"),
    "version zero": (lambda m: m.update(version=0), "does not exist"),
}


@pytest.mark.parametrize("case", MANIFESTS)
def test_a_hostile_manifest_is_refused_though_its_hash_is_right(tmp_path: Path, case: str) -> None:
    edit, reason = MANIFESTS[case]
    path = store.save(tmp_path, snapshot())
    (path / "manifest.json").write_bytes(_edited(path, edit))
    with pytest.raises(store.DamagedError) as caught:
        store.open(path)
    assert reason in str(caught.value)
    assert store.verify(path)


def test_a_manifest_with_a_key_twice_is_refused(tmp_path: Path) -> None:
    path = store.save(tmp_path, snapshot())
    body = (path / "manifest.json").read_text().partition("\n")[2]
    (path / "manifest.json").write_bytes(_sealed('"step":7,' + body))
    with pytest.raises(store.DamagedError, match="a key appears twice"):
        store.open(path)


def test_a_manifest_that_contradicts_the_header_is_found_by_verify(tmp_path: Path) -> None:
    weights = {"a": array(4), "b": array(4, seed=1)}
    path = store.save(tmp_path, snapshot(weights=weights))

    def swap(fields: dict[str, Any]) -> None:
        table = fields["tensors"]["weights"]
        table["a"], table["b"] = table["b"], table["a"]

    (path / "manifest.json").write_bytes(_edited(path, swap))
    assert [str(damage) for damage in store.verify(path)] == [
        "weights.safetensors: tensor a: its header and the manifest differ",
        "weights.safetensors: tensor b: its header and the manifest differ",
    ]


COST = """
import re, sys, time
from nameplate import checkpoint as store
def peak():  # in kB; getrusage would count the process that started this one, too
    return int(re.search(r"VmHWM:\\s+(\\d+)", open("/proc/self/status").read())[1])
before = peak()
started = time.process_time()
try:
    getattr(store, sys.argv[1])(sys.argv[2])
    refused = False
except store.StoreError:
    refused = True
seconds = time.process_time() - started
print(refused, seconds, (peak() - before) / 1024)
"""


def cost(verb: str, path: Path) -> tuple[bool, float, float]:
    """Whether a process of its own refused `path`, the seconds of processor time it took, and the MB that it
    needed.
    """
    done = subprocess.run([sys.executable, "-c", COST, verb, str(path)], capture_output=True, text=True, check=True)
    refused, seconds, megabytes = done.stdout.split()
    return refused == "True", float(seconds), float(megabytes)


def _many(count: int) -> bytes:
    fields = {f"layer_{index}/kernel": {"dtype": "U8", "shape": [0], "data_offsets": [0, 0]} for index in range(count)}
    return file_of(fields, b"")


LARGE: dict[str, tuple[str, Callable[[], bytes]]] = {
    "100,000 names": ("open_tensors", lambda: _many(100_000)),
    "16 MB of nesting": ("open_tensors", lambda: file_of('{"a":' + "[" * (16_000_000))),
    "16 MB of spaces": ("open_tensors", lambda: file_of(" " * 16_000_000)),
    "16 MB of one string": ("open_tensors", lambda: file_of('{"' + "\\u0041" * 2_600_000 + '":{}}')),
    "16 MB of an unfinished string": ("open_tensors", lambda: file_of('{"' + "\\\\" * 8_000_000)),
    "16 MB of metadata": ("open_tensors", lambda: file_of('{"__metadata__":{"k":"' + "é" * 7_000_000 + '"}}')),
    "16 MB of emoji": ("open_tensors", lambda: file_of('{"' + "é" * 7_000_000 + '\N{GRINNING FACE}":{}}')),
    "manifest: 16 MB of nesting": ("open", lambda: _sealed('"a":' + "[" * 16_000_000)),
    "manifest: deep": ("open", lambda: _sealed('"a":' + "[" * 100_000)),
    "manifest: 150,000 dictionaries": ("open", lambda: _sealed('"a":[' + '{"k":0},' * 150_000 + "0]}")),
    "manifest: 700,000 strings": (
        "open",
        lambda: _sealed('"a":[' + ",".join(f'"{index:x}"' for index in range(700_000)) + "]}"),
    ),
    "manifest: one string of 16 MB": ("open", lambda: _sealed('"a":"' + "x" * 16_000_000 + '"}')),
    "manifest: 1 GB": ("open", lambda: b""),
}


@pytest.mark.parametrize("case", LARGE)
def test_a_bomb_costs_less_than_a_second_and_64_mb(tmp_path: Path, case: str) -> None:
    verb, make = LARGE[case]
    path = tmp_path / ("manifest.json" if verb == "open" else "x.safetensors")
    path.write_bytes(make())
    if not path.stat().st_size:
        with path.open("wb") as file:
            file.truncate(1 << 30)
    refused, seconds, megabytes = cost(verb, tmp_path if verb == "open" else path)
    assert refused
    assert seconds < 1
    assert megabytes < 64


def test_numbers_read_from_a_file_do_not_share_its_memory(tmp_path: Path) -> None:
    store.save_tensors(tmp_path / "x.safetensors", {"a": np.ones(1000)})
    value = store.open_tensors(tmp_path / "x.safetensors")["a"]
    (tmp_path / "x.safetensors").write_bytes(b"")  # a mapped file would now end the process with SIGBUS
    assert value.sum() == 1000
