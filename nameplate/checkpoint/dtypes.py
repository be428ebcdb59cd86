"""The dtypes that can be stored, by NumPy's names (in the manifest) and by safetensors' codes (in headers).

https://huggingface.co/docs/safetensors, "Format". Formats smaller than a byte have no NumPy dtype and are left out.
"""

from __future__ import annotations

import ml_dtypes
import numpy as np

_SAFETENSORS: dict[str, np.dtype] = {
    "BOOL": np.dtype(np.bool_),
    "U8": np.dtype(np.uint8),
    "I8": np.dtype(np.int8),
    "F8_E5M2": np.dtype(ml_dtypes.float8_e5m2),
    "F8_E4M3": np.dtype(ml_dtypes.float8_e4m3fn),
    "F8_E5M2FNUZ": np.dtype(ml_dtypes.float8_e5m2fnuz),
    "F8_E4M3FNUZ": np.dtype(ml_dtypes.float8_e4m3fnuz),
    "F8_E8M0": np.dtype(ml_dtypes.float8_e8m0fnu),
    "U16": np.dtype("<u2"),
    "I16": np.dtype("<i2"),
    "F16": np.dtype("<f2"),
    "BF16": np.dtype(ml_dtypes.bfloat16),
    "U32": np.dtype("<u4"),
    "I32": np.dtype("<i4"),
    "F32": np.dtype("<f4"),
    "U64": np.dtype("<u8"),
    "I64": np.dtype("<i8"),
    "F64": np.dtype("<f8"),
    "C64": np.dtype("<c8"),
}
_CODES = {dtype.name: code for code, dtype in _SAFETENSORS.items()}
_BY_NAME = {dtype.name: dtype for dtype in _SAFETENSORS.values()}

KNOWN = tuple(_BY_NAME)  # NumPy's names: float32, bfloat16, ...


def code(name: str) -> str | None:
    """Return safetensors' code for the dtype that NumPy calls `name` ("float32" -> "F32"), None where it has none."""
    return _CODES.get(name)


def of_code(code: str) -> np.dtype | None:
    """Return the dtype of safetensors' `code`, or None for an unknown code."""
    return _SAFETENSORS.get(code)


def of_name(name: str) -> np.dtype | None:
    """Return the dtype that NumPy calls `name` ("bfloat16"), or None when it cannot be stored."""
    return _BY_NAME.get(name)
