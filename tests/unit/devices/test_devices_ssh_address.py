from __future__ import annotations

import re

import pytest

from targets.devices.ssh_address import DEFAULT_FOLDER, parse_address
from targets.errors import ConfigError


def parts(text: str) -> tuple[str, str | None, int | None, str, str]:
    one = parse_address(text)
    return one.host, one.user, one.port, one.folder, one.python


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("ssh://pi@board", ("board", "pi", None, DEFAULT_FOLDER, "python3")),
        ("ssh://Board", ("Board", None, None, DEFAULT_FOLDER, "python3")),
        ("ssh://pi@board:2222/", ("board", "pi", 2222, DEFAULT_FOLDER, "python3")),
        ("ssh://pi@board/mnt/big disk/", ("board", "pi", None, "/mnt/big disk", "python3")),
        ("ssh://pi@board/mnt/big%20disk", ("board", "pi", None, "/mnt/big disk", "python3")),
        ("ssh://pi@board/~/cache", ("board", "pi", None, "~/cache", "python3")),
        ("ssh://pi@[::1]:22/a", ("::1", "pi", 22, "/a", "python3")),
        ("ssh://a%40b@board", ("board", "a@b", None, DEFAULT_FOLDER, "python3")),
        (
            "ssh://pi@board?python=~/venv/bin/python",
            ("board", "pi", None, DEFAULT_FOLDER, "~/venv/bin/python"),
        ),
    ],
)
def test_an_address_is_read(text, expected):
    assert parts(text) == expected
    assert parse_address(text).text == text


@pytest.mark.parametrize(
    ("text", "why"),
    [
        ("ssh://", "no host is named"),
        ("ssh:///folder", "no host is named"),
        ("ssh:pi@board", "no host is named"),
        ("http://board", "it is no ssh address"),
        ("ssh://pi@board:port", "[Pp]ort"),
        ("ssh://pi@board:70000", "[Pp]ort"),
        ("ssh://pi@board?pyhton=/a", "unknown option pyhton"),
        ("ssh://pi@board?python", "bad query field"),
        ("ssh://pi@board#python", "part behind #"),
        ("ssh://-oProxyCommand=x@board", "dash"),
        ("ssh://-oProxyCommand", "dash"),
    ],
)
def test_a_wrong_address_is_refused(text, why):
    with pytest.raises(ConfigError, match="names no SSH device") as caught:
        parse_address(text)
    assert re.search(why, caught.value.why)


def test_a_password_is_refused_and_not_repeated():
    with pytest.raises(ConfigError) as caught:
        parse_address("ssh://pi:secret@board")
    assert "passwords are not used" in caught.value.why
    assert "secret" not in str(caught.value)


@pytest.mark.parametrize(
    ("text", "login"),
    [("ssh://pi@board:22", "-p 22 pi@board"), ("ssh://board", "board")],
)
def test_hints_name_the_login(text, login):
    assert parse_address(text).login == login
