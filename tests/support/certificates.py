"""Authorities and certificates for tests, made with openssl."""

from __future__ import annotations

import ssl
import subprocess
from dataclasses import dataclass
from pathlib import Path

from is_db_bootstrap.settings import ClientCertificate

#: With characters that an address must escape. It is long enough to be hidden.
KEY_PASSWORD = "k€y p%@ss:word"
_NEW_KEY = ("-newkey", "ec", "-pkeyopt", "ec_paramgen_curve:P-256", "-nodes")
#: An authority whose key is gone, for tests that connect nowhere.
AUTHORITY = """\
-----BEGIN CERTIFICATE-----
MIIBczCCARmgAwIBAgIUdhE1/6mcI2rOBKEqUKLxwB9ktaYwCgYIKoZIzj0EAwIw
DzENMAsGA1UEAwwEb3VyczAeFw0yNjExMzAwMDIzMjRaFw0yNjEyMDIwMDIzMjRa
MA8xDTALBgNVBAMMBG91cnMwWTATBgcqhkjOPQIBBggqhkjOPQMBBwNCAASmfPkY
1JEvu0Naam0Bgl2+gHxYibfzOw1G8+7zUaSSOnMxJB6T3t/yYk/4rtm2OOJee6uh
V/cep7La9JHFZr0Fo1MwUTAdBgNVHQ4EFgQUVHWnTbzpv//UI8psjBwnlVEkYoow
HwYDVR0jBBgwFoAUVHWnTbzpv//UI8psjBwnlVEkYoowDwYDVR0TAQH/BAUwAwEB
/zAKBggqhkjOPQQDAgNIADBFAiEA3+n+tVH4j76D/8jpa7zLnDww0ygyyIFITWMI
O935/8ECIC8QO+P8PI61Dldp12yp+meZIsexCfUkNBDwiVz1qqdS
-----END CERTIFICATE-----
"""
#: What a certificate is good for, and for which hosts. The servers are called `localhost` only, so
#: that the same server under its number has the wrong name.
SERVER = "subjectAltName=DNS:localhost\nextendedKeyUsage=serverAuth\n"
NUMBERED_SERVER = "subjectAltName=IP:127.0.0.1\nextendedKeyUsage=serverAuth,clientAuth\n"
CLIENT = "extendedKeyUsage=clientAuth\n"


def openssl(*arguments):
    subprocess.run(["openssl", *map(str, arguments)], check=True, capture_output=True)


@dataclass(frozen=True)
class Certificates:
    """`ours` and `theirs` are authorities. All else is signed by ours unless its name says so."""

    folder: Path

    def pem(self, name):
        return str(self.folder / f"{name}.crt")

    def key(self, name):
        return str(self.folder / f"{name}.key")

    def client(self, name="client"):
        """A certificate that a client shows."""
        password = KEY_PASSWORD if name == "encrypted" else ""
        return ClientCertificate(self.pem(name), self.key(name), password)

    @classmethod
    def make(cls, folder):
        made = cls(folder)
        folder.chmod(0o755)
        for authority in ("ours", "theirs"):
            made._authority(authority)
        made._signed("server", SERVER)
        made._signed("numbered-server", NUMBERED_SERVER)
        made._signed("expired-server", SERVER, days=-1)
        made._signed("client", CLIENT)
        made._signed("expired-client", CLIENT, days=-1)
        made._signed("foreign-client", CLIENT, authority="theirs")
        made._encrypt("client", "encrypted")
        return made

    def _authority(self, name):
        files = ("-keyout", self.key(name), "-out", self.pem(name))
        openssl("req", "-x509", *_NEW_KEY, "-days", 2, "-subj", f"/CN={name}", *files)

    def _signed(self, name, extensions, *, authority="ours", days=2):
        """A certificate for the user `postgres`.

        That is the name which PostgreSQL's method `cert` reads.
        """
        request, wanted = self.folder / f"{name}.csr", self.folder / f"{name}.ext"
        wanted.write_text(extensions)
        subject = ("-subj", "/CN=postgres")
        openssl("req", *_NEW_KEY, *subject, "-keyout", self.key(name), "-out", request)
        signer = ("-CA", self.pem(authority), "-CAkey", self.key(authority), "-CAcreateserial")
        files = ("-in", request, "-extfile", wanted, "-out", self.pem(name))
        openssl("x509", "-req", *signer, "-days", days, *files)

    def _encrypt(self, name, copy):
        Path(self.pem(copy)).write_bytes(Path(self.pem(name)).read_bytes())
        target = ("-aes256", "-passout", f"pass:{KEY_PASSWORD}", "-out", self.key(copy))
        openssl("pkey", "-in", self.key(name), *target)
        Path(self.key(copy)).chmod(0o600)

    def context(self):
        """What an independent client needs to reach a server that asks for a certificate."""
        context = ssl.create_default_context(cafile=self.pem("ours"))
        context.load_cert_chain(self.pem("client"), self.key("client"))
        return context
