"""Which web servers are never asked: those where clouds tell machines their secrets."""

from __future__ import annotations

import ipaddress
import socket
from typing import Any

import urllib3
from urllib3.connection import HTTPConnection, HTTPSConnection
from urllib3.connectionpool import HTTPConnectionPool, HTTPSConnectionPool

from flowerray.errors import FlowerrayError

# Of AWS, Alibaba, Azure, Oracle and Google, beside the link-local ones.
METADATA = {
    ipaddress.ip_address(address)
    for address in (
        *("fd00:ec2::254", "100.100.100.200", "168.63.129.16"),
        *("192.0.0.192", "fd20:ce::254"),
    )
}
METADATA_NAMES = {"metadata.google.internal", "metadata.goog", "metadata"}
NAT64 = ipaddress.ip_network("64:ff9b::/96")


def check(host: str) -> None:
    """
    Raises:
        FlowerrayError: `host`, a name or an address, is or leads to one that is never asked.
    """
    name = host.strip("[]").rstrip(".").lower()
    try:
        found = {str(entry[4][0]) for entry in socket.getaddrinfo(name, None)}
    except (OSError, UnicodeError):  # the request will tell
        found = set()
    if name in METADATA_NAMES or any(_is_refused(address) for address in found):
        raise FlowerrayError(
            f"{host} is a link-local or metadata address, where a cloud keeps its machines' "
            "secrets: no photographs are read there"
        )


def _is_refused(text: str) -> bool:
    address = ipaddress.ip_address(text.partition("%")[0])
    if isinstance(address, ipaddress.IPv6Address):
        inner = address.ipv4_mapped or address.sixtofour
        if address in NAT64:
            inner = ipaddress.IPv4Address(int(address) & 0xFFFFFFFF)
        if inner is not None:
            return _is_refused(str(inner))
    return address.is_link_local or address in METADATA


class _Checked:
    """A connection that looks at its peer before and after it connects: a name may change."""

    host: str
    sock: Any

    def connect(self) -> None:
        check(self.host)
        super().connect()  # type: ignore[misc]
        try:
            check(self.sock.getpeername()[0])
        except FlowerrayError:
            self.close()  # type: ignore[attr-defined]
            raise


class _Http(_Checked, HTTPConnection):
    pass


class _Https(_Checked, HTTPSConnection):
    pass


class _HttpPool(HTTPConnectionPool):
    ConnectionCls = _Http


class _HttpsPool(HTTPSConnectionPool):
    ConnectionCls = _Https


def pool(**options: Any) -> urllib3.PoolManager:
    """A pool of connections, none of them to such an address."""
    manager = urllib3.PoolManager(**options)
    manager.pool_classes_by_scheme = {"http": _HttpPool, "https": _HttpsPool}
    return manager
