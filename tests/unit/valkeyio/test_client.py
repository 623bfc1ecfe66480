"""What an engine's URL may be, and what is shown of it."""

import pytest
from redis.asyncio.connection import SSLConnection

from hostler.kernel.errors import SettingsError
from hostler.kernel.settings import EngineSettings
from hostler.valkeyio.client import make_pool
from hostler.valkeyio.urls import cluster_url, connection_options, redact, sentinel_url


@pytest.mark.parametrize(
    ("url", "wanted"),
    [
        ("unix:///run/engine.sock", {"path": "/run/engine.sock"}),
        (
            "unix://me:pw@/run/engine.sock?db=2",
            {"path": "/run/engine.sock", "username": "me", "password": "pw", "db": 2},
        ),
        ("redis://host", {"host": "host"}),
        ("redis://:p%40ss@host:7000/3", {"host": "host", "port": 7000, "db": 3, "password": "p@ss"}),
        ("rediss://host?ssl_ca_certs=/ca.pem", {"host": "host", "ssl_ca_certs": "/ca.pem"}),
    ],
)
def test_a_url_is_taken_apart(url: str, wanted: dict[str, object]) -> None:
    found = connection_options(url)
    assert {key: value for key, value in found.items() if key != "connection_class"} == wanted


@pytest.mark.parametrize(
    ("url", "said"),
    [
        ("http://u:secret@host", "http://"),
        ("host:6379", "host://"),
        ("", "nothing://"),
        ("unix://relative/path", "absolute path"),
        ("unix://", "absolute path"),
        ("redis://", "no host"),
        ("redis://u:secret@host/name", "not the number of a database"),
        ("redis://u:secret@host?socket_timeout=1", "unknown options socket_timeout"),
        ("redis://u:secret@host?retry_on_timeout=1", "unknown options retry_on_timeout"),
        ("redis://u:secret@host:port", "cannot be read"),
        ("redis://u:secret@host?db=x", "cannot be read"),
    ],
)
def test_a_wrong_url_is_refused_with_its_reason_and_never_with_its_password(url: str, said: str) -> None:
    with pytest.raises(SettingsError, match=said) as caught:
        connection_options(url)
    assert "secret" not in caught.value.message
    assert "secret" not in repr(caught.value.facts)
    assert caught.value.facts["field"] == "engine.url"


def test_a_url_of_sentinels_names_them_their_service_and_both_credentials() -> None:
    url = "rediss+sentinel://me:p%40ss@one:1,[::1]:2/stable?db=3&sentinel_password=s%26s&ssl_ca_certs=/ca.pem"
    found = sentinel_url(url)
    assert found is not None
    assert (found.service, found.places) == ("stable", (("one", 1), ("::1", 2)))
    server, sentinel = connection_options(found.server), connection_options(found.sentinel(("::1", 2)))
    wanted = {"username": "me", "password": "p@ss", "db": 3, "ssl_ca_certs": "/ca.pem"}
    assert {name: server[name] for name in wanted} == wanted
    wanted = {"host": "::1", "port": 2, "password": "s&s", "ssl_ca_certs": "/ca.pem"}
    assert {name: value for name, value in sentinel.items() if name != "connection_class"} == wanted
    assert issubclass(server["connection_class"], SSLConnection)
    assert issubclass(sentinel["connection_class"], SSLConnection)


@pytest.mark.parametrize("url", ["redis://h:1", "unix:///s", "rediss://h"])
def test_a_url_of_one_server_names_no_sentinels_and_no_cluster(url: str) -> None:
    assert sentinel_url(url) is None
    assert cluster_url(url) is None


def test_a_url_of_a_cluster_names_some_nodes_and_holds_for_all() -> None:
    found = cluster_url("valkeys+cluster://me:p%40ss@one:1,[::1]:2?ssl_ca_certs=/ca.pem")
    assert found is not None
    assert found.places == (("one", 1), ("::1", 2))
    node = connection_options(found.node(("::3", 3)))
    wanted = {"host": "::3", "port": 3, "username": "me", "password": "p@ss", "ssl_ca_certs": "/ca.pem"}
    assert {name: value for name, value in node.items() if name != "connection_class"} == wanted
    assert issubclass(node["connection_class"], SSLConnection)


@pytest.mark.parametrize(
    ("url", "said"),
    [
        ("redis+cluster://u:secret@", "names no node"),
        ("redis+cluster://u:secret@h:1,other", "'other' where host:port is wanted"),
        ("redis+cluster://u:secret@h:1/3", "has only one"),
        ("valkey+cluster://u:secret@h:1?db=3", "has only one"),
        ("redis+cluster://u:secret@h:1?socket_timeout=1", "unknown options socket_timeout"),
    ],
)
def test_a_wrong_url_of_a_cluster_is_refused_with_its_reason_and_never_with_its_password(url: str, said: str) -> None:
    with pytest.raises(SettingsError, match=said) as caught:
        cluster_url(url)
    assert "secret" not in caught.value.message


@pytest.mark.parametrize(
    ("url", "said"),
    [
        ("redis+sentinel://u:secret@h:1", "names no service"),
        ("valkey+sentinel://u:secret@h:1/a/b", "names no service"),
        ("redis+sentinel://u:secret@/stable", "names no sentinel"),
        ("redis+sentinel://u:secret@h:1,other/stable", "'other' where host:port is wanted"),
        ("redis+sentinel://u:secret@h:0/stable", "'h:0' where host:port is wanted"),
        ("redis+sentinel://u:secret@h:1/stable?socket_timeout=1", "unknown options socket_timeout"),
        ("redis+sentinel://u:secret@h:1/stable?db=x", "cannot be read"),
    ],
)
def test_a_wrong_url_of_sentinels_is_refused_with_its_reason_and_never_with_its_password(url: str, said: str) -> None:
    with pytest.raises(SettingsError, match=said) as caught:
        sentinel_url(url)
    assert "secret" not in caught.value.message


@pytest.mark.parametrize(
    ("url", "shown"),
    [
        ("redis+sentinel://u:secret@a:1,b:2/stable?sentinel_password=secret", "redis+sentinel://***@a:1,b:2/stable"),
        ("redis+cluster://u:secret@a:1,b:2", "redis+cluster://***@a:1,b:2"),
        ("redis://me:secret@host:6379/1", "redis://***@host:6379/1"),
        ("redis://host:6379", "redis://host:6379"),
        ("unix://:secret@/run/s?password=secret", "unix://***@/run/s"),
        ("rediss://h?password=secret&ssl_keyfile=/secret", "rediss://h"),
    ],
)
def test_a_shown_url_has_no_credentials(url: str, shown: str) -> None:
    assert redact(url) == shown


def test_connections_never_retry_and_always_end() -> None:
    pool = make_pool(
        EngineSettings(url="unix:///none", command_timeout=2.0, connect_timeout=1.0), "unix:///none", name="t"
    )
    connection = pool.make_connection()
    assert connection.retry.get_retries() == 0
    assert connection.retry_on_timeout is False
    assert connection.socket_timeout == 2.0
    assert connection.socket_connect_timeout == 1.0
    assert connection.health_check_interval == 0
