"""The core's log lines as records of the logger "holepunch"."""

import logging
import queue
from logging.handlers import QueueHandler
from typing import Iterator

import pytest

import holepunch


@pytest.fixture
def records() -> Iterator["queue.Queue[logging.LogRecord]"]:
    logger = logging.getLogger("holepunch")
    found: "queue.Queue[logging.LogRecord]" = queue.Queue()
    handler = QueueHandler(found)
    logger.addHandler(handler)
    logger.setLevel(logging.DEBUG)
    yield found
    logger.setLevel(logging.NOTSET)
    logger.removeHandler(handler)


def test_records(records: "queue.Queue[logging.LogRecord]", server: str, name: str) -> None:
    secret = "no log may ever tell this"
    with holepunch.Endpoint(server, bind="127.0.0.1", secret=secret) as endpoint, endpoint.listen(name):
        with pytest.raises(holepunch.NameTakenError):
            endpoint.listen(name)
    record = records.get(timeout=5)
    assert (record.name, record.levelno) == ("holepunch", logging.WARNING)
    assert name in record.getMessage()
    while not records.empty():
        assert secret not in records.get().getMessage()


def test_a_handler_may_use_the_library(records: "queue.Queue[logging.LogRecord]", server: str, name: str) -> None:
    """A handler that closes the very endpoint that logs cannot deadlock."""

    class Closing(logging.Handler):
        def emit(self, record: logging.LogRecord) -> None:
            endpoint.close()

    handler = Closing()
    logging.getLogger("holepunch").addHandler(handler)
    try:
        with holepunch.listen_datagram(name, servers=server, bind="127.0.0.1"):
            endpoint = holepunch.Endpoint(server, bind="127.0.0.1")
            with pytest.raises((holepunch.NameTakenError, holepunch.ClosedError)):
                endpoint.listen(name)
            with pytest.raises(holepunch.ClosedError):
                endpoint.connect_datagram(f"{name}.nobody", wait=20)
    finally:
        logging.getLogger("holepunch").removeHandler(handler)
