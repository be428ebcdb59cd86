"""A run in an object store, reached through fsspec: its address, its cache on this machine, its objects.

An object appears whole or not at all; that is all that is expected of a store.
"""

from __future__ import annotations

import hashlib
import importlib
import os
import re
from collections.abc import Iterable, Iterator
from contextlib import contextmanager, suppress
from importlib.util import find_spec
from pathlib import Path
from typing import Any

from nameplate.checkpoint.errors import StoreError

CACHE = "NAMEPLATE_CACHE"  # environment variable: directory for copies of remote runs

_URL = re.compile(r"([a-z][a-z0-9+]+):/{1,2}(?!/)(.*)\Z", re.DOTALL)  # `Path` makes one slash of two
_PACKAGES = {  # scheme -> its package and the extra of this project that brings it
    "s3": ("s3fs", "s3"),
    "gs": ("gcsfs", "gcs"),
    "gcs": ("gcsfs", "gcs"),
    "az": ("adlfs", "azure"),
    "abfs": ("adlfs", "azure"),
    "memory": ("fsspec", "s3"),  # of this process alone: for tests
}
_PART = re.compile(r"[^\x00-\x1f\x7f/\\?#]{1,255}\Z")
# Without these a store that is away would hold a call for minutes. boto's own retries would do the same.
_PATIENCE = {"connect_timeout": 5, "read_timeout": 30, "retries": {"max_attempts": 1}}
_REFUSALS = ("NoCredentialsError", "PartialCredentialsError", "ProfileNotFound", "ParamValidationError")


class RemoteError(StoreError):
    """A store refuses: no such bucket, no permission, no credentials."""


class AwayError(RemoteError):
    """A store cannot be reached, or does not answer as it should; later it may."""


def url_of(path: str | os.PathLike[str]) -> str | None:
    """Return the address of a run in a store, e.g. `s3://bucket/runs/mine`; None for a path on this machine."""
    match = _URL.match(os.fspath(path))
    if match is None or match[1] not in _PACKAGES:
        return None
    return f"{match[1]}://{match[2].rstrip('/')}"


def problem(path: str | os.PathLike[str]) -> str | None:
    """Return why nothing can be kept at an address, e.g. a package that is not installed; None if nothing is wrong."""
    text = os.fspath(path)
    url = url_of(text)
    if url is None:
        known = ", ".join(f"{scheme}://" for scheme in ("s3", "gs", "az"))
        scheme = text.partition("://")[0]
        return f"{text!r:.120} is not a directory; stores are {known}" if _is_scheme(scheme, text) else None
    scheme, _, rest = url.partition("://")
    parts = rest.split("/")
    if wrong := [part for part in parts if part in (".", "..") or not _PART.match(part)]:
        return f"{url!r:.120}: {wrong[0]!r:.40} cannot be part of an address such as {scheme}://bucket/runs"
    package, extra = _PACKAGES[scheme]
    if find_spec(package) is None:
        return f"{url}: {package} is not installed; pip install 'nameplate[{extra}]', or pip install {package}"
    return None


def _is_scheme(scheme: str, text: str) -> bool:
    return "://" in text and scheme.isalnum()


def cache_of(url: str, cache: str | os.PathLike[str] | None = None, *, kind: str = "runs") -> Path:
    """Return the directory on this machine for the run at an address; it has the run's name.

    Args:
        url: address of the run.
        cache: directory of all caches; None: `$NAMEPLATE_CACHE`, or nameplate in the user's directory for caches.
        kind: `runs` for one that trains here, `read` for copies that are only read.
    """
    given = cache or os.environ.get(CACHE)
    own = Path(given) if given else Path(os.environ.get("XDG_CACHE_HOME") or Path.home() / ".cache") / "nameplate"
    parent, _, name = url.rpartition("/")
    return own / kind / hashlib.sha256(parent.encode()).hexdigest()[:16] / name


class Remote:
    """The objects of one run, by their path in it: `checkpoints/step_00000100/manifest.json`."""

    def __init__(self, url: str) -> None:
        """Take the address; nothing is sent yet.

        Raises:
            RemoteError: the address cannot be used, or its package is not installed.
        """
        if fault := problem(url):
            raise RemoteError(fault)
        self.url = url
        with self._worded("Opening"):
            self._files = _file_system(url.partition("://")[0])
            self._root: str = self._files._strip_protocol(url).rstrip("/")

    def sizes(self) -> dict[str, int]:
        """Return the size in bytes of every object of the run, by its path; names that no file could have are left out.

        A path has no `..`, is relative, and its parts are printable, so it stays inside any directory.
        """
        with self._worded("Listing"):
            try:
                found = self._files.find(self._root, detail=True, withdirs=False)
            except FileNotFoundError:
                return {}
        start = f"{self._root}/"
        names = {path.removeprefix(start): about for path, about in found.items() if path.startswith(start)}
        return {name: int(about.get("size") or 0) for name, about in names.items() if is_relative_name(name)}

    def read(self, name: str, *, most: int) -> bytes | None:
        """Return an object's content; None if there is none. Raises `RemoteError` if it has more than `most` bytes."""
        with self._worded(f"Reading {name} in"):
            try:
                size = int(self._files.info(self._at(name))["size"] or 0)
                if size <= most:
                    return bytes(self._files.cat_file(self._at(name))) if size else b""
            except FileNotFoundError:
                return None
        raise RemoteError(f"{self.url}/{name} has {size} bytes; at most {most} were expected. It is not ours")

    def write(self, name: str, data: bytes) -> None:
        """Put an object, whole, in the place of any other."""
        with self._worded(f"Writing {name} in"):
            self._files.pipe_file(self._at(name), data)

    def create(self, name: str, data: bytes) -> bool:
        """Put a new object and return True; False if there is one. A store without such a call replaces it."""
        with self._worded(f"Writing {name} in"):
            try:
                self._files.pipe_file(self._at(name), data, mode="create")
            except FileExistsError:
                return False
            except (TypeError, NotImplementedError):
                self._files.pipe_file(self._at(name), data)
        return True

    def upload(self, path: Path, name: str) -> None:
        """Put a file. Raises `FileNotFoundError` if it is gone."""
        with path.open("rb"):  # a missing file is not a missing bucket
            pass
        with self._worded(f"Writing {name} in"):
            self._files.put_file(str(path), self._at(name))

    def download(self, name: str, path: Path) -> None:
        """Write an object to a new file. Raises `RemoteError` if it is gone."""
        with self._worded(f"Reading {name} in"):
            self._files.get_file(self._at(name), str(path))

    def delete(self, names: Iterable[str]) -> None:
        """Delete objects in order; those that are gone already are fine."""
        for name in names:
            with self._worded(f"Deleting {name} in"), suppress(FileNotFoundError):
                self._files.rm_file(self._at(name))

    def _at(self, name: str) -> str:
        return f"{self._root}/{name}"

    @contextmanager
    def _worded(self, action: str) -> Iterator[None]:
        """Turn the errors of a store's libraries, which are of many kinds, into one that says what to do."""
        try:
            yield
        except (StoreError, FileExistsError):
            raise
        except FileNotFoundError as error:
            raise RemoteError(f"{action} {self.url} failed: {_first_line(error)}. Does the bucket exist?") from error
        except PermissionError as error:
            raise RemoteError(f"{action} {self.url} failed: permission denied ({_first_line(error)}).") from error
        except Exception as error:
            kind = RemoteError if type(error).__name__ in _REFUSALS else AwayError
            raise kind(f"{action} {self.url} failed: {_first_line(error)}") from error


def is_relative_name(name: str) -> bool:
    """Return whether a path of an object stays inside the directory that it is written to."""
    parts = name.split("/")
    return all(_PART.match(part) and part not in (".", "..") for part in parts) and len(name) < 1024


def _first_line(error: BaseException) -> str:
    text = str(error).strip().partition("\n")[0]
    return f"{text or type(error).__name__}"[:300]


def _file_system(scheme: str) -> Any:
    """Return fsspec's access to a store, configured by its own files and environment variables."""
    fsspec = importlib.import_module("fsspec")
    options: dict[str, Any] = {"use_listings_cache": False}  # another machine may write there
    if scheme == "s3":
        own = importlib.import_module("fsspec.config").conf.get("s3", {}).get("config_kwargs", {})
        options["config_kwargs"] = {**_PATIENCE, **own}
    return fsspec.filesystem(scheme, **options)
