"""SSRF: no connection to a private address, whatever is tried."""

import asyncio

import httpcore2
import pytest

from scrapers.crawl.fetch import Fetcher
from scrapers.crawl.records import FetchError, PictureItem
from scrapers.crawl.ssrf_guard import GuardedNetwork, PrivateAddress, check_url, is_public
from tests.scrapers.faulty_site import Reply, SiteNetwork, fetch, make_picture, quick_politeness
from tests.scrapers.local.local_set import lines_of

PRIVATE = """127.0.0.1 127.255.255.254 10.0.0.1 172.16.0.1 172.31.255.255 192.168.1.1 169.254.169.254 100.64.0.1 0.0.0.0
 0.1.2.3 224.0.0.1 239.1.1.1 240.0.0.1 255.255.255.255 192.0.0.1 192.0.2.1 198.18.0.1 198.51.100.1 203.0.113.1
 192.88.99.1 ::1 :: fe80::1 fe80::1%eth0 fc00::1 fd12::1 ff02::1 2001:db8::1 100::1 ::ffff:127.0.0.1 ::ffff:10.0.0.1
 ::ffff:8.8.8.8 ::127.0.0.1 64:ff9b::7f00:1 64:ff9b::a00:1 64:ff9b:1::a00:1 2002:7f00:1:: 2002:a00:1:: 2001:0:7f00:1::
 fec0::1 5f00::1 nonsense 1.2.3 127.1 0x7f000001 2130706433 """.split()
PUBLIC = "8.8.8.8 151.101.1.1 1.1.1.1 100.128.0.1 172.32.0.1 192.169.0.1 2606:4700::1111 2a00:1450:4001::1".split()

# Spellings of addresses that must not be asked for; each would lead to this machine or its network.
BAD_URLS = (
    """http://127.0.0.1/ http://2130706433/ http://0x7f000001/ http://0x7f.0.0.1/ http://0177.0.0.1/ http://127.1/ http://0/
 http://127.0.0.1./ http://[::1]/ http://[::ffff:127.0.0.1]/ http://[::ffff:7f00:1]/ http://[64:ff9b::127.0.0.1]/
 http://[2002:7f00:1::]/ http://[fe80::1%25eth0]/ http://169.254.169.254/latest/meta-data/ http://localhost/ http://LocalHost./
 http://printer/ http://nas.local/ http://metadata.google.internal/ http://127。0。0。1/ http://①②⑦.0.0.1/
 http://１２７.0.0.1/ http://%31%32%37.0.0.1/ http://user:word@cars.example/ http://cars.example@127.0.0.1/
 http://cars.example:22/ https://cars.example:80/ http://cars.example:6379/ ftp://cars.example/
 file:///etc/passwd gopher://cars.example/ data:,x
 javascript:alert(1) http:/// http:// //cars.example/a /a a http://-a.example/ http://a..example/ http://[1/
 """.split()
    + ["http://cars.example/a\r\nX: y", "http://cars.example/" + "a" * 5000, "http://ca rs.example/", ""]
)

NAMES = {
    "cars.example": ["151.101.1.1"],
    "rebind.example": ["151.101.2.2 then 127.0.0.1"],  # public when it is looked at, ours when it is used
    "mixed.example": ["151.101.3.3", "10.0.0.5"],
    "inside.example": ["192.168.0.7"],
    "mapped.example": ["::ffff:127.0.0.1"],
    "nat64.example": ["64:ff9b::7f00:1"],
    "empty.example": [],
}


@pytest.mark.parametrize("address", PRIVATE)
def test_private_addresses(address):
    assert not is_public(address)


def test_public_addresses():
    assert [address for address in PUBLIC if not is_public(address)] == []


@pytest.mark.parametrize("url", BAD_URLS)
def test_addresses_that_are_never_asked_for(url):
    with pytest.raises(FetchError) as refusal:
        check_url(url)
    assert refusal.value.status == "refused" and refusal.value.reason.startswith("address: ")


@pytest.mark.parametrize(
    "url, expected",
    [
        ("http://cars.example/a.jpg#top", "http://cars.example/a.jpg"),
        ("https://Cars.Example:8443/a b", "https://cars.example:8443/a%20b"),
        ("http://münchen.example/ä", "http://xn--mnchen-3ya.example/%C3%A4"),
        ("http://8.8.8.8/", "http://8.8.8.8/"),
        ("http://1.1.1.1.nip.example/", "http://1.1.1.1.nip.example/"),
    ],
)
def test_good_addresses(url, expected):
    assert str(check_url(url)) == expected


def test_tests_may_ask_this_machine_and_nothing_else_changes():
    assert check_url("http://127.0.0.1:1234/a", allow_private=True)
    for url in ("file:///etc/passwd", "http://a:b@127.0.0.1/", "http://2130706433/"):
        with pytest.raises(FetchError):
            check_url(url, allow_private=True)


def test_no_connection_to_a_private_address_whatever_is_tried(site, tmp_path):
    site.pages["/robots.txt"] = Reply(b"")
    site.pages["rebind.example/robots.txt"] = Reply(b"", headers={"Connection": "close"})  # the next look-up is another
    site.pages["/good.jpg"] = Reply(make_picture(0), content_type="image/jpeg")
    ways = [f"http://{name}/good.jpg" for name in NAMES if name != "cars.example"]
    bad = [url for url in BAD_URLS if url] + ways
    for number, url in enumerate(bad):
        if url.isprintable() and len(url) < 1000:
            site.pages[f"/to/{number}.jpg"] = Reply(status=302, headers={"Location": url.encode().decode("latin-1")})
    hops = [f"http://cars.example{path}" for path in site.pages if path.startswith("/to/")]
    site.pages["hop.example/robots.txt"] = Reply(status=302, headers={"Location": "http://127.0.0.1/robots.txt"})
    network = SiteNetwork(site, {**NAMES, "hop.example": ["151.101.4.4"]})
    urls = [*bad, *hops, "http://hop.example/good.jpg", "http://cars.example/good.jpg"]
    with Fetcher(tmp_path, quick_politeness(allow_private=False, attempts=2), network) as fetcher:
        counts = fetcher.fetch_pictures([PictureItem(url, "list") for url in urls])
    assert set(network.connected) == {"151.101.1.1", "151.101.2.2", "151.101.4.4"}
    by_url = {line["url"]: line for line in lines_of(tmp_path)}
    # Relative redirects ("/a", "a", "//cars.example/a") stay where they are and find nothing.
    assert [url for url, line in by_url.items() if line["status"] == "done"] == ["http://cars.example/good.jpg"]
    assert set(site.wholes()) == {"/good.jpg"} and counts.done == 1
    assert (by_url["http://empty.example/good.jpg"]["status"], fetcher.stopped) == ("failed", {})
    for name in ("rebind", "mixed", "inside", "mapped", "nat64"):
        assert by_url[f"http://{name}.example/good.jpg"]["reason"].startswith(f"address: {name}.example leads to")
    assert "not a public address" in by_url["http://hop.example/good.jpg"]["reason"]


def test_the_address_that_was_checked_is_the_one_that_is_used():
    """Rebinding between check and use cannot be: there is one look-up, and its answer is what connect gets."""
    connected = []

    async def resolve(host, port):
        return ["151.101.2.2"] if not connected else ["127.0.0.1"]

    async def connect(address, port, *_):
        connected.append((address, port))
        raise httpcore2.ConnectError("that will do")

    network = GuardedNetwork(resolve=resolve, connect=connect)
    with pytest.raises(httpcore2.ConnectError):
        asyncio.run(network.connect_tcp("rebind.example", 443))
    with pytest.raises(PrivateAddress):
        asyncio.run(network.connect_tcp("rebind.example", 443))
    assert connected == [("151.101.2.2", 443)]


def test_tls_still_checks_the_name(tmp_path):
    names = []

    class Stream(httpcore2.AsyncNetworkStream):
        async def start_tls(self, ssl_context, server_hostname=None, timeout=None):
            names.append((server_hostname, ssl_context.check_hostname, ssl_context.verify_mode.name))
            raise httpcore2.ConnectError("that will do")

        async def aclose(self):
            pass

    async def resolve(host, port):
        return ["151.101.2.2"]

    async def connect(address, port, *_):
        return Stream()

    with Fetcher(tmp_path, quick_politeness(attempts=1), GuardedNetwork(resolve=resolve, connect=connect)) as fetcher:
        fetcher.fetch_pictures([PictureItem("https://cars.example/a.jpg", "list")])
    assert names == [("cars.example", True, "CERT_REQUIRED")]


def test_nothing_of_the_environment_is_used(site, tmp_path, monkeypatch):
    for name in ("http_proxy", "HTTP_PROXY", "all_proxy", "https_proxy"):
        monkeypatch.setenv(name, "http://127.0.0.1:9")
    (tmp_path / "netrc").write_text("machine 127.0.0.1 login me password secret\n")
    monkeypatch.setenv("NETRC", str(tmp_path / "netrc"))
    site.pages["/good.jpg"] = Reply(make_picture(0), content_type="image/jpeg")
    assert fetch(tmp_path / "set", [site.url("/good.jpg")], attempts=1)[0].done == 1
    assert not any("Authorization" in request.headers for request in site.requests)
