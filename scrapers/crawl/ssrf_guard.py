"""SSRF protection: connects only to public addresses over http(s).

A name may resolve to a public address when it is checked and to 127.0.0.1 when it is used (DNS rebinding). So the check
is part of the connection: resolve, check every address, connect to one of them. TLS still verifies the name. Redirects
are checked too, as each is a connection of its own.
"""

import asyncio
import ipaddress
import re
import socket
import ssl
from collections.abc import Awaitable, Callable, Iterable
from functools import cache
from ipaddress import IPv4Address, IPv6Address
from typing import Any

import httpcore2
import httpx2
from httpcore2 import AnyIOBackend  # pyright: ignore

from harness.runtime.daemon import in_daemon_thread
from scrapers.crawl.records import REFUSED, FetchError

ALLOWED_PORTS = {"http": (80, 8080), "https": (443, 8443)}
MAX_URL_CHARS = 4096

# IPv6 networks with an embedded IPv4 address, which may be private: NAT64 (RFC 6052, 8215), 6to4 (RFC 3056), Teredo
# (RFC 4380), and the IPv4-compatible and -mapped forms (RFC 4291).
WITH_IPV4 = ("64:ff9b::/96", "64:ff9b:1::/48", "2002::/16", "2001::/32", "::/96", "::ffff:0:0/96")
# Public, but never a web site: shared address space, benchmarking, the old 6to4 relay, segment routing.
NO_SITES = ("100.64.0.0/10", "198.18.0.0/15", "192.88.99.0/24", "5f00::/16")
CLOSED = [ipaddress.ip_network(network) for network in (*WITH_IPV4, *NO_SITES)]

Resolve = Callable[[str, int], Awaitable[list[str]]]
Connect = Callable[..., Awaitable[Any]]

# The name server knows that the name does not exist (offline, it says "try again").
NO_SUCH_NAME = (socket.EAI_NONAME, getattr(socket, "EAI_NODATA", socket.EAI_NONAME))


class PrivateAddress(Exception):
    """A name or an address in a private network."""


class NoSuchName(Exception):
    """A name without an address."""


def is_public(address: str) -> bool:
    """Whether an IP address is clearly public."""
    try:
        ip = ipaddress.ip_address(address)
    except ValueError:
        return False
    if isinstance(ip, IPv6Address) and (ip.scope_id is not None or ip.is_site_local):
        return False
    if any(ip in network for network in CLOSED):  # False for the other IP version
        return False
    odd = ip.is_multicast or ip.is_reserved or ip.is_loopback or ip.is_link_local or ip.is_unspecified
    return ip.is_global and not ip.is_private and not odd


def check_url(url: str, allow_private: bool = False) -> httpx2.URL:
    """The parsed URL without its fragment; FetchError (refused) if it may not be fetched."""

    def refuse(reason: str) -> FetchError:
        return FetchError(url, REFUSED, f"address: {reason}")

    if len(url) > MAX_URL_CHARS or not url.isprintable():
        raise refuse(f"longer than {MAX_URL_CHARS} characters, or with control characters")
    try:
        parsed = httpx2.URL(url)
        host, port = parsed.raw_host.decode("ascii").lower(), parsed.port
    except (httpx2.InvalidURL, ValueError) as error:  # UnicodeError is a ValueError
        raise refuse(f"not valid ({error})") from error
    if parsed.scheme not in ALLOWED_PORTS:
        raise refuse(f"found {parsed.scheme or 'no'} scheme, allowed http and https")
    if parsed.userinfo:
        raise refuse("found a user name or password, allowed none")
    if not allow_private and port not in (None, *ALLOWED_PORTS[parsed.scheme]):
        raise refuse(f"port {port}, allowed {', '.join(map(str, ALLOWED_PORTS[parsed.scheme]))} for {parsed.scheme}")
    if problem := _host_problem(host, allow_private):
        raise refuse(problem)
    return parsed.copy_with(fragment=None)


def _host_problem(host: str, allow_private: bool) -> str | None:
    """Why a host may not be used, or None."""
    if not host:
        return "no host"
    try:
        literal: IPv4Address | IPv6Address | None = ipaddress.ip_address(host.strip("[]"))
    except ValueError:
        literal = None
    if literal is not None:
        return None if allow_private or is_public(str(literal)) else f"{host} is not a public address"
    labels = host.rstrip(".").split(".")
    # 2130706433, 0x7f.1, 0177.0.0.1: read as IPv4 by inet_aton and browsers (WHATWG URL, "ends in a number").
    if re.fullmatch(r"\d+|0x[0-9a-f]*", labels[-1]):
        return f"{host} is an IP address in an odd form, allowed names and plain IP addresses"
    if not all(re.fullmatch(r"[a-z0-9_]([a-z0-9_-]{0,61}[a-z0-9_])?", label) for label in labels):
        return f"{host} is not a host name"
    local = labels[-1] in ("localhost", "local", "internal", "lan", "home", "localdomain") or len(labels) == 1
    return f"{host} is a name of a local network" if local and not allow_private else None


async def resolve_name(host: str, port: int) -> list[str]:
    """All addresses of a name from the system's resolver, in a daemon thread: a hanging one does not block an exit."""
    infos = await in_daemon_thread(socket.getaddrinfo, host, port, 0, socket.SOCK_STREAM)
    return list(dict.fromkeys(str(info[4][0]) for info in infos))


class GuardedNetwork(httpcore2.AsyncNetworkBackend):
    """Connects only to checked addresses. `resolve` and `connect` are for tests."""

    def __init__(
        self, allow_private: bool = False, resolve: Resolve = resolve_name, connect: Connect | None = None
    ) -> None:
        self.allow_private, self.resolve = allow_private, resolve
        self.connect: Connect = connect or AnyIOBackend().connect_tcp

    async def connect_tcp(
        self,
        host: str,
        port: int,
        timeout: float | None = None,
        local_address: str | None = None,
        socket_options: Iterable[Any] | None = None,
    ) -> httpcore2.AsyncNetworkStream:
        try:
            async with asyncio.timeout(timeout):
                addresses = await self.resolve(host, port)
        except TimeoutError as error:
            raise httpcore2.ConnectTimeout(f"{host}: the name server does not respond") from error
        except (OSError, UnicodeError) as error:
            if isinstance(error, socket.gaierror) and error.errno in NO_SUCH_NAME:
                raise NoSuchName(f"{host}: no such name") from error
            raise httpcore2.ConnectError(f"{host}: {getattr(error, 'strerror', None) or error}") from error
        bad = [address for address in addresses if not (self.allow_private or is_public(address))]
        if bad:  # all must be public: rebinding mixes a private address among public ones
            raise PrivateAddress(f"{host} leads to {bad[0]}, which is not a public address")
        failure: Exception = NoSuchName(f"{host}: the name has no address")
        for address in addresses:
            try:
                return await self.connect(address, port, timeout, local_address, socket_options)
            except (httpcore2.ConnectError, httpcore2.ConnectTimeout) as error:
                failure = error
        raise failure

    async def connect_unix_socket(self, *_: Any, **__: Any) -> httpcore2.AsyncNetworkStream:
        raise PrivateAddress("a socket of this machine")

    async def sleep(self, seconds: float) -> None:
        await asyncio.sleep(seconds)


class GuardedTransport(httpx2.AsyncHTTPTransport):
    """httpx2's transport over guarded connections: no proxies, no environment variables."""

    def __init__(self, network: GuardedNetwork, connections: int) -> None:
        super().__init__(verify=_tls_context(), trust_env=False)
        # If another version keeps its pool elsewhere, connections would silently bypass the guard.
        assert isinstance(self._pool, httpcore2.AsyncConnectionPool)
        self._pool = httpcore2.AsyncConnectionPool(
            ssl_context=_tls_context(),
            max_connections=connections,
            max_keepalive_connections=connections,
            keepalive_expiry=15.0,
            network_backend=network,
        )


@cache
def _tls_context() -> ssl.SSLContext:
    return httpx2.create_ssl_context(trust_env=False)  # slow to create
