"""Any arrays under any names come back; the cost is proportional to their size."""

from __future__ import annotations

import subprocess
import sys
import tempfile
from pathlib import Path

import numpy as np
from hypothesis import given
from hypothesis import strategies as st
from hypothesis.extra import numpy as arrays

from nameplate import checkpoint as store
from nameplate.checkpoint import dtypes
from tests.long import drawn
from tests.nameplate.checkpoint.samples import array, same, snapshot

PART = st.from_regex(r"[A-Za-z0-9_][A-Za-z0-9_.\-]{0,12}", fullmatch=True)
NAME = st.lists(PART, min_size=1, max_size=4).map("/".join)
PLAIN = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats() | st.text(),
    lambda inner: (
        st.lists(inner, max_size=4)
        | st.dictionaries(st.text().filter(lambda key: not key.startswith("$")), inner, max_size=4)
    ),
    max_leaves=12,
)


@st.composite
def any_array(draw: st.DrawFn) -> np.ndarray:
    dtype = dtypes.of_name(draw(st.sampled_from(dtypes.KNOWN)))
    assert dtype is not None
    shape = draw(arrays.array_shapes(min_dims=0, max_dims=4, min_side=0, max_side=5))
    raw = draw(st.binary(min_size=0, max_size=64))
    size = int(np.prod(shape)) * dtype.itemsize
    data = np.resize(np.frombuffer(raw or b"\0", np.uint8), size).copy()
    if dtype == np.bool_:
        data &= 1
    found = data.view(dtype).reshape(shape)
    return found.T if draw(st.booleans()) else found


@drawn(few=20, many=60)
@given(weights=st.dictionaries(NAME, any_array(), max_size=6), about=st.dictionaries(PART, PLAIN, max_size=4))
def test_anything_that_is_accepted_comes_back(weights: dict[str, np.ndarray], about: dict[str, object]) -> None:
    with tempfile.TemporaryDirectory() as directory:
        path = store.save(Path(directory), snapshot(weights=weights, about=about), largest_file=300)
        assert store.verify(path) == []
        with store.open(path) as opened:
            assert set(opened.weights) == set(weights)
            for name, value in weights.items():
                assert same(opened.weights[name], np.ascontiguousarray(value).reshape(value.shape))
            assert repr(opened.manifest.about) == repr(about)


@drawn(few=100, many=300)
@given(data=st.binary(max_size=400))
def test_no_bytes_in_the_place_of_a_file_do_more_than_be_refused(data: bytes) -> None:
    with tempfile.TemporaryDirectory() as directory:
        path = Path(directory) / "x.safetensors"
        path.write_bytes(data)
        try:
            opened = store.open_tensors(path)
        except store.DamagedError:
            return
        assert all(opened[name].nbytes >= 0 for name in opened)


def test_ten_thousand_variables_with_long_names_are_saved(tmp_path: Path) -> None:
    weights = {f"{'container_' * 12}{index}/layer_with_a_long_name/kernel": array(2) for index in range(10_000)}
    path = store.save(tmp_path, snapshot(weights=weights))
    with store.open(path) as opened:
        assert len(opened.weights) == 10_000


MEMORY = """
import re, sys
from pathlib import Path
import numpy as np
from nameplate import checkpoint as store
from tests.nameplate.checkpoint.samples import snapshot
def peak():
    return int(re.search(r"VmHWM:\\s+(\\d+)", Path("/proc/self/status").read_text())[1]) / 1000
weights = {"plain": np.ones((4000, 5000), np.float32), "turned": np.ones((4000, 5000), np.float32).T}
store.save(Path(sys.argv[1]) / "warm", snapshot())
Path("/proc/self/clear_refs").write_text("5")
before = peak()
store.save(Path(sys.argv[1]), snapshot(weights=weights))
print(peak() - before)
"""


def test_a_save_needs_little_memory_beside_the_arrays(tmp_path: Path) -> None:
    command = [sys.executable, "-c", MEMORY, str(tmp_path)]
    done = subprocess.run(command, capture_output=True, text=True, check=True)
    assert float(done.stdout) < 64  # MB, of 160 in the arrays
