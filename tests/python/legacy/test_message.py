"""holepunch.message: the five messages, and that nothing received is evaluated."""

import pathlib
from typing import Any, Union

import pytest

from holepunch.message import Body, Message


@pytest.mark.parametrize(
    "data, method, body, text",
    [
        (b">203.0.113.2", ">", "203.0.113.2", ">203.0.113.2"),
        (b"<", "<", None, "<"),
        (b"<dropped", "<", None, "<"),
        (b"?", "?", None, "?"),
        (b"?dropped", "?", None, "?"),
        (b"*('203.0.113.2', 20001)", "*", ("203.0.113.2", 20001), "*('203.0.113.2', 20001)"),
        (b'*("203.0.113.2",20001)', "*", ("203.0.113.2", 20001), "*('203.0.113.2', 20001)"),
        (b"", ".", None, "."),
        ("<", "<", None, "<"),
        (bytearray(b"?"), "?", None, "?"),
        (memoryview(b"?"), "?", None, "?"),
        (Message(b">host"), ">", "host", ">host"),
    ],
)
def test_messages(data: Union[bytes, str, Message], method: str, body: Body, text: str) -> None:
    message = Message(data)
    assert (message.method, message.body) == (method, body)
    assert (str(message), bytes(message), format(message), f"{message:>30}") == (text, text.encode(), text, f"{text:>30}")
    assert repr(message) == f"Message({text.encode()!r})"


def test_parse_again() -> None:
    message = Message(b"<")
    message.parse(b">198.51.100.7")
    assert (message.method, message.body) == (">", "198.51.100.7")


@pytest.mark.parametrize(
    "body",
    [
        b"(",
        b"()",
        b"('203.0.113.2', 0)",
        b"('203.0.113.2', 65536)",
        b"('203.0.113.2', 99999999999999999999)",
        b"('203.0.113.2', 1, 2)",
        b"('203.0.113.2', 20001)*('203.0.113.3', 20001)",
        b"(b'203.0.113.2', 20001)",
        b"('\\x41', 20001)",
        b"(" * 100_000,
        b"\xff\xfe",
    ],
)
def test_broken_addresses(body: bytes) -> None:
    message = Message(b"*" + body)
    assert (message.method, message.body) == ("*", None)
    assert bytes(message) == b"*" + body


def test_nothing_is_evaluated(tmp_path: pathlib.Path) -> None:
    made = tmp_path / "made"
    assert Message(f"*(open({str(made)!r}, 'w').name, 1)".encode()).body is None
    assert not made.exists()


@pytest.mark.parametrize("data", [None, 5, 1 << 60, 1.5, [60]])
def test_what_is_no_text_and_no_bytes(data: Any) -> None:
    with pytest.raises(TypeError):
        Message(data)


@pytest.mark.parametrize("data", [b"\xff", b"x\x80", b">\xff\xfe"])
def test_bytes_that_are_no_text_stay_what_they_are(data: bytes) -> None:
    assert bytes(Message(data)) == data
