"""A real S3 server, versitygw, on the loopback interface by default."""

from __future__ import annotations

import subprocess
import time
from pathlib import Path
from types import TracebackType
from typing import Any, ClassVar, Self

import boto3
from botocore.config import Config
from botocore.exceptions import BotoCoreError, ClientError

from control_planes import skip_without_go
from s3.binary import VERSITYGW
from web_server import unused_port, wait_until

ACCESS_KEY, SECRET_KEY = "AKIDOFTESTS", "a-secret-key-of-tests"


class S3Server:
    """versitygw on an empty directory. A context manager; ``KEYS`` are the environment variables of its owner."""

    KEYS: ClassVar = {"AWS_ACCESS_KEY_ID": ACCESS_KEY, "AWS_SECRET_ACCESS_KEY": SECRET_KEY}

    def __init__(
        self, folder: Path, *, certificate: tuple[Path, Path] | None = None, versions: bool = False, host: str = "127.0.0.1"
    ) -> None:
        self.folder = folder
        self._certificate = certificate
        self._versions = versions
        self.port = unused_port(host)
        self.address = f"{host}:{self.port}"
        self.url = f"http{'s' if certificate else ''}://{self.address}"

    def __enter__(self) -> Self:
        skip_without_go()
        data, versions = self.folder / "data", self.folder / "versions"
        data.mkdir(parents=True)
        versions.mkdir()
        tls = ["--cert", str(self._certificate[0]), "--key", str(self._certificate[1])] if self._certificate else []
        command = [
            str(VERSITYGW.find()), "--access", ACCESS_KEY, "--secret", SECRET_KEY, "--port", self.address, "--quiet", *tls,
            "--iam-dir", str(self.folder), "posix", *(["--versioning-dir", str(versions)] if self._versions else []), str(data),
        ]  # fmt: skip
        self._log = (self.folder / "log").open("wb")
        self._process = subprocess.Popen(command, stdout=self._log, stderr=subprocess.STDOUT, cwd=self.folder)
        self.client = self.client_of(ACCESS_KEY, SECRET_KEY)
        wait_until(self._answers)
        return self

    def __exit__(self, _type: type[BaseException] | None, _error: BaseException | None, _trace: TracebackType | None) -> None:
        self._process.terminate()
        self._process.wait(20)
        self._log.close()

    def client_of(self, access: str, secret: str) -> Any:
        """A client with these keys."""
        return boto3.Session().client(
            "s3", endpoint_url=self.url, region_name="us-east-1", aws_access_key_id=access, aws_secret_access_key=secret,
            verify=str(self._certificate[0]) if self._certificate else None,
            config=Config(retries={"total_max_attempts": 1}, connect_timeout=2, read_timeout=10, s3={"addressing_style": "path"}),
        )  # fmt: skip

    def put(self, bucket: str, **objects: bytes) -> None:
        """Create the bucket if necessary, and write objects; ``__`` in a name is a slash and ``_`` a dot."""
        self.bucket(bucket)
        for name, content in objects.items():
            self.client.put_object(Bucket=bucket, Key=name.replace("__", "/").replace("_", "."), Body=content)

    def bucket(self, name: str) -> None:
        """Create a bucket if necessary."""
        if name not in {one["Name"] for one in self.client.list_buckets()["Buckets"]}:
            self.client.create_bucket(Bucket=name)

    def _answers(self) -> bool:
        if self._process.poll() is not None:
            raise RuntimeError((self.folder / "log").read_text())
        try:
            self.client.list_buckets()
        except (BotoCoreError, ClientError):
            time.sleep(0.05)
            return False
        return True
