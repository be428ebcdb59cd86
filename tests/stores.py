"""A server of S3's protocol in this process, for tests of runs in a store: it stops, starts, and keeps its objects."""

from __future__ import annotations

import logging
import os
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any
from unittest import mock

BUCKET = "bucket"


class Server:
    """A bucket behind an address of this machine."""

    def __init__(self) -> None:
        self._server: Any = None
        self._port = 0
        self.start()

    @property
    def environment(self) -> dict[str, str]:
        """What leads boto's clients here."""
        return {
            "AWS_ENDPOINT_URL": f"http://127.0.0.1:{self._port}",
            "AWS_ACCESS_KEY_ID": "tests",
            "AWS_SECRET_ACCESS_KEY": "tests",
            "AWS_DEFAULT_REGION": "us-east-1",
            "AWS_EC2_METADATA_DISABLED": "true",
        }

    def start(self) -> None:
        """Answer, at the same port as before; the objects are still there. Nothing happens if it answers already."""
        if self._server is not None:
            return
        from moto.server import ThreadedMotoServer

        logging.getLogger("werkzeug").setLevel(logging.ERROR)  # else it writes a line for each request
        self._server = ThreadedMotoServer(ip_address="127.0.0.1", port=self._port, verbose=False)
        self._server.start()
        self._port = self._server.get_host_and_port()[1]

    def stop(self) -> None:
        """Refuse connections."""
        if self._server is not None:
            self._server.stop()
            self._server = None

    def objects(self, prefix: str) -> dict[str, bytes]:
        """Return the objects under a prefix by their path after it, straight from the server's memory."""
        keys = self._bucket().keys
        return {name.removeprefix(f"{prefix}/"): keys[name].value for name in keys if name.startswith(f"{prefix}/")}

    def put(self, key: str, data: bytes) -> None:
        """Change an object behind everybody's back."""
        from moto.s3.models import s3_backends

        s3_backends["123456789012"]["aws"].put_object(BUCKET, key, data)

    def delete(self, *keys: str) -> None:
        """Delete objects behind everybody's back."""
        from moto.s3.models import s3_backends

        for key in keys:
            s3_backends["123456789012"]["aws"].delete_object(BUCKET, key)

    def _bucket(self) -> Any:
        from moto.s3.models import s3_backends

        return s3_backends["123456789012"]["aws"].buckets[BUCKET]


@contextmanager
def serving() -> Iterator[Server]:
    """Serve a bucket inside the block, to this process and to those that it starts."""
    import fsspec
    from moto.s3.models import s3_backends

    server = Server()
    with mock.patch.dict(os.environ, server.environment):
        fsspec.filesystem("s3").clear_instance_cache()
        if BUCKET not in s3_backends["123456789012"]["aws"].buckets:  # of another module of this process
            s3_backends["123456789012"]["aws"].create_bucket(BUCKET, "us-east-1")
        try:
            yield server
        finally:
            fsspec.filesystem("s3").clear_instance_cache()
            server.stop()
