"""A real S3 server on the loopback for the tests; faults come from faults/proxy.py.

It checks signatures and policies of IAM users; its root key is not checked, so whatever is claimed about secrets and
permissions is tested as a user.
"""

import json
import os
import signal
import socket
import subprocess
import sys
import time
from collections.abc import Iterator
from contextlib import closing, contextmanager, suppress
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any
from uuid import uuid4

import pytest
from botocore.session import Session

from anonlib.storage import Storage, StorageOptions

START_TIMEOUT_S = 20
REGION = "us-east-1"


@dataclass(frozen=True)
class Credentials:
    key_id: str
    secret: str


@dataclass
class S3Server:
    """Where the server answers, and its root user."""

    endpoint: str
    root: Credentials
    process: subprocess.Popen[bytes] = field(repr=False)
    clients: dict[str, Any] = field(default_factory=dict, repr=False)

    @property
    def options(self) -> StorageOptions:
        return StorageOptions(endpoint_url=self.endpoint, region=REGION)

    def client(self, service: str = "s3") -> Any:
        """A client of the root user."""
        if service not in self.clients:
            self.clients[service] = self.client_of(self.root, service)
        return self.clients[service]

    def client_of(self, who: Credentials, service: str) -> Any:
        """A client of one user."""
        session = Session()
        keys = {"aws_access_key_id": who.key_id, "aws_secret_access_key": who.secret}
        return session.create_client(service, region_name=REGION, endpoint_url=self.endpoint, **keys)

    def bucket(self) -> str:
        """A new, empty bucket."""
        name = f"bucket-{uuid4().hex[:12]}"
        self.client().create_bucket(Bucket=name)
        return name

    def user(self, policy: dict[str, Any], name: str | None = None) -> Credentials:
        """A new IAM user with this policy document."""
        iam, name = self.client("iam"), name or f"user-{uuid4().hex[:12]}"
        iam.create_user(UserName=name)
        iam.put_user_policy(UserName=name, PolicyName="test", PolicyDocument=json.dumps(policy))
        made = iam.create_access_key(UserName=name)["AccessKey"]
        return Credentials(made["AccessKeyId"], made["SecretAccessKey"])

    @contextmanager
    def acting_as(self, who: Credentials | None = None) -> Iterator[pytest.MonkeyPatch]:
        """Set AWS_* in the environment for root or a user, and nothing else of the machine's, for a block."""
        who = who or self.root
        with pytest.MonkeyPatch.context() as patch:
            for name in [name for name in os.environ if name.startswith("AWS_") and name != "AWS_CA_BUNDLE"]:
                patch.delenv(name)
            patch.setenv("AWS_ACCESS_KEY_ID", who.key_id)
            patch.setenv("AWS_SECRET_ACCESS_KEY", who.secret)
            patch.setenv("AWS_DEFAULT_REGION", REGION)
            patch.setenv("AWS_EC2_METADATA_DISABLED", "true")
            for name in ("AWS_CONFIG_FILE", "AWS_SHARED_CREDENTIALS_FILE"):
                patch.setenv(name, os.devnull)
            patch.setenv("NO_PROXY", "127.0.0.1")
            for service in ("SECRETS_MANAGER", "KMS"):
                patch.setenv(f"AWS_ENDPOINT_URL_{service}", self.endpoint)
            yield patch


def policy(bucket: str, *actions: str) -> dict[str, Any]:
    """A policy that allows these actions on a bucket and its objects."""
    resources = [f"arn:aws:s3:::{bucket}", f"arn:aws:s3:::{bucket}/*"]
    statement = {"Effect": "Allow", "Action": list(actions), "Resource": resources}
    return {"Version": "2012-10-17", "Statement": [statement]}


def free_port() -> int:
    with closing(socket.socket()) as probe:
        probe.bind(("127.0.0.1", 0))
        return int(probe.getsockname()[1])


@contextmanager
def running(folder: Path, host: str = "127.0.0.1") -> Iterator[S3Server]:
    """Start the server with its data below `folder`, wait until it answers, and stop it at the end."""
    port, root = free_port(), Credentials("root", uuid4().hex)
    environment = {name: value for name, value in os.environ.items() if not name.startswith("AWS_")}
    environment |= {"BIND_HOST": host, "GATEWAY_PORT": str(port), "AUTH": "true", "TMPDIR": str(folder)}
    environment |= {"S3_PERSIST": "1", "S3_DATA_DIR": str(folder / "objects")}
    environment |= {"AWS_ACCESS_KEY_ID": root.key_id, "AWS_SECRET_ACCESS_KEY": root.secret}
    command = [str(Path(sys.executable).with_name("ministack"))]
    with (folder / "server.log").open("wb") as log:
        process = subprocess.Popen(command, env=environment, cwd=folder, stdout=log, stderr=log)
    try:
        _wait_for((host, port), process, folder / "server.log")
        yield S3Server(f"http://{host}:{port}", root, process)
    finally:
        process.send_signal(signal.SIGTERM)
        try:
            process.wait(10)
        except subprocess.TimeoutExpired:
            process.kill()
            process.wait()


def _wait_for(address: tuple[str, int], process: subprocess.Popen[bytes], log: Path) -> None:
    deadline = time.monotonic() + START_TIMEOUT_S
    while time.monotonic() < deadline and process.poll() is None:
        with suppress(OSError), closing(socket.create_connection(address, 1)) as connection:
            connection.sendall(b"GET / HTTP/1.0\r\n\r\n")
            if connection.recv(1):
                return
        time.sleep(0.05)
    raise RuntimeError(f"the S3 server did not answer within {START_TIMEOUT_S} s: {log.read_text()[-2000:]}")


def download(storage: Storage, to: Path) -> Path:
    """Everything in a storage, on this disk."""
    for entry in storage.list(unfinished=True):
        (to / entry.path).parent.mkdir(parents=True, exist_ok=True)
        (to / entry.path).write_bytes(storage.read(entry.path))
    return to


def one_sentence(error: BaseException) -> bool:
    """Whether an error's text is what a person at the terminal is told."""
    text = str(error)
    return text.endswith(".") and "\n" not in text and len(text) < 300
