"""A certificate authority, and the certificates of servers and clients of a control plane."""

from __future__ import annotations

import base64
import datetime as dt
import ipaddress
import ssl
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import yaml
from cryptography import x509
from cryptography.hazmat.primitives import hashes, serialization
from cryptography.hazmat.primitives.asymmetric import ec
from cryptography.x509.oid import ExtendedKeyUsageOID, NameOID

_LIFE = dt.timedelta(days=30)
"""New ones are made at every start."""
_LOOPBACK = ("localhost", "127.0.0.1")


@dataclass(frozen=True)
class Pair:
    """A certificate and its key, as PEM files."""

    certificate: Path
    key: Path


class Authority:
    """A certificate authority with its files in ``folder``, which only the owner can read."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        self.pair = Pair(folder / "ca.crt", folder / "ca.key")

    def create(self) -> None:
        """Create a new key, which makes earlier certificates invalid."""
        self.folder.mkdir(parents=True, exist_ok=True, mode=0o700)
        key, name = ec.generate_private_key(ec.SECP256R1()), _name("finetune-control-plane", ())
        usage = x509.KeyUsage(
            digital_signature=True, key_cert_sign=True, crl_sign=True, content_commitment=False, key_encipherment=False,
            data_encipherment=False, key_agreement=False, encipher_only=False, decipher_only=False,
        )  # fmt: skip
        builder = _builder(name, name, key.public_key()).add_extension(usage, critical=True)
        builder = builder.add_extension(x509.BasicConstraints(ca=True, path_length=0), critical=True)
        self._write("ca", key, builder.sign(key, hashes.SHA256()))

    def server(self, name: str, places: Sequence[str] = ()) -> Pair:
        """Return a certificate for a server on the loopback interface, and at ``places`` (addresses and host names).

        etcd also uses it as a client of its peer port.
        """
        usages = [ExtendedKeyUsageOID.SERVER_AUTH, ExtendedKeyUsageOID.CLIENT_AUTH]
        return self._issue(name, _name(name, ()), usages, list(dict.fromkeys([*_LOOPBACK, *places])))

    def client(self, name: str, user: str, groups: Sequence[str] = ()) -> Pair:
        """Return a certificate for ``user`` in ``groups`` of the API server."""
        return self._issue(name, _name(user, groups), [ExtendedKeyUsageOID.CLIENT_AUTH])

    def signing_key(self, name: str) -> Pair:
        """Return a key pair for tokens of ServiceAccounts; its certificate is only the container of the public key."""
        return self._issue(name, _name(name, ()), [])

    def tls(self, client: Pair | None) -> ssl.SSLContext:
        """Return the TLS context for servers of this authority, with or without a client certificate."""
        context = ssl.create_default_context(cafile=str(self.pair.certificate))
        if client is not None:
            context.load_cert_chain(client.certificate, client.key)
        return context

    def kubeconfig(self, path: Path, address: str, credential: Pair | str) -> Path:
        """Write a kubeconfig without references to files; ``credential`` is a certificate or a token."""
        cluster = {"server": address, "certificate-authority-data": _base64(self.pair.certificate)}
        if isinstance(credential, str):
            user = {"token": credential}
        else:
            user = {"client-certificate-data": _base64(credential.certificate), "client-key-data": _base64(credential.key)}
        document = {
            "apiVersion": "v1", "kind": "Config", "current-context": "control-plane",
            "clusters": [{"name": "control-plane", "cluster": cluster}],
            "users": [{"name": path.stem, "user": user}],
            "contexts": [{"name": "control-plane", "context": {"cluster": "control-plane", "user": path.stem}}],
        }  # fmt: skip
        _write_private(path, yaml.safe_dump(document).encode())
        return path

    def _issue(self, name: str, subject: x509.Name, usages: list[x509.ObjectIdentifier], places: Sequence[str] = ()) -> Pair:
        signer = serialization.load_pem_private_key(self.pair.key.read_bytes(), None)
        assert isinstance(signer, ec.EllipticCurvePrivateKey)
        issuer = x509.load_pem_x509_certificate(self.pair.certificate.read_bytes()).subject
        key = ec.generate_private_key(ec.SECP256R1())
        builder = _builder(subject, issuer, key.public_key())
        if usages:
            builder = builder.add_extension(x509.ExtendedKeyUsage(usages), critical=False)
        if places:
            builder = builder.add_extension(x509.SubjectAlternativeName([_place(one) for one in places]), critical=False)
        return self._write(name, key, builder.sign(signer, hashes.SHA256()))

    def _write(self, name: str, key: ec.EllipticCurvePrivateKey, certificate: x509.Certificate) -> Pair:
        pair = Pair(self.folder / f"{name}.crt", self.folder / f"{name}.key")
        form = serialization.PrivateFormat.TraditionalOpenSSL
        _write_private(pair.key, key.private_bytes(serialization.Encoding.PEM, form, serialization.NoEncryption()))
        _write_private(pair.certificate, certificate.public_bytes(serialization.Encoding.PEM))
        return pair


def _name(user: str, groups: Sequence[str]) -> x509.Name:
    organizations = [x509.NameAttribute(NameOID.ORGANIZATION_NAME, group) for group in groups]
    return x509.Name([*organizations, x509.NameAttribute(NameOID.COMMON_NAME, user)])


def _place(text: str) -> x509.GeneralName:
    try:
        return x509.IPAddress(ipaddress.ip_address(text))
    except ValueError:
        return x509.DNSName(text)


def _builder(subject: x509.Name, issuer: x509.Name, key: ec.EllipticCurvePublicKey) -> x509.CertificateBuilder:
    now = dt.datetime.now(dt.UTC)
    return (
        x509.CertificateBuilder()
        .subject_name(subject)
        .issuer_name(issuer)
        .public_key(key)
        .serial_number(x509.random_serial_number())
        .not_valid_before(now - dt.timedelta(minutes=5))
        .not_valid_after(now + _LIFE)
    )


def _base64(path: Path) -> str:
    return base64.b64encode(path.read_bytes()).decode()


def _write_private(path: Path, content: bytes) -> None:
    path.unlink(missing_ok=True)
    path.touch(mode=0o600)
    path.write_bytes(content)
