"""HTTPS: the certificate that the settings name, for a port that nobody stands in front of.

Source: RFC 9325 (secure use of TLS): nothing below TLS 1.2, which is Python's default.
"""

from __future__ import annotations

import ssl

from service.errors import InvalidConfiguration
from service.settings import Settings


def tls_context(settings: Settings) -> ssl.SSLContext | None:
    """What the port speaks; None: plain HTTP.

    Raises:
        InvalidConfiguration: Certificate or key cannot be read, or do not belong together.
    """
    if settings.tls_certificate_file is None:
        return None
    context = ssl.create_default_context(ssl.Purpose.CLIENT_AUTH)
    certificate, key = settings.tls_certificate_file, settings.tls_key_file
    try:
        context.load_cert_chain(certificate, key, password=_no_passphrase)
    except (OSError, ValueError) as error:  # `ssl.SSLError` is an OSError
        files = f"{certificate}" if key is None else f"{certificate} with {key}"
        raise InvalidConfiguration(f"{files}: no certificate and key to serve with: {error}") from error
    return context


def _no_passphrase() -> str:
    """Instead of asking for one on the terminal."""
    raise ValueError("the key has a passphrase; store it without one, readable by this user alone")
