"""The package as such: versions, names, stubs, errors, arguments; nothing here needs a server."""

import importlib.metadata
import inspect
import logging
import pathlib
import pickle
import re
import subprocess
import sys
from types import ModuleType
from typing import Dict

import pytest

import holepunch
from holepunch import _native, errors

ROOT = pathlib.Path(__file__).parents[2]


def test_one_version() -> None:
    manifest = (ROOT / "Cargo.toml").read_text()
    found = re.search(r'^\[workspace\.package\]\nversion = "(.+)"$', manifest, re.MULTILINE)
    assert found is not None
    assert holepunch.__version__ == found[1] == importlib.metadata.version("libholepunch")


def test_command_says_the_version() -> None:
    done = subprocess.run([sys.executable, "-m", "holepunch", "--version"], capture_output=True, text=True, timeout=30)
    assert (done.returncode, done.stdout) == (0, f"holepunch {holepunch.__version__}\n")


def test_command_refuses_what_it_does_not_know() -> None:
    done = subprocess.run([sys.executable, "-m", "holepunch", "dance"], capture_output=True, text=True, timeout=30)
    assert done.returncode == 2
    assert "dance" in done.stderr


def test_public_names_exist() -> None:
    assert len(set(holepunch.__all__)) == len(holepunch.__all__)
    for public in holepunch.__all__:
        assert getattr(holepunch, public) is not None


@pytest.mark.parametrize("module", [holepunch, holepunch.aio])
def test_everything_public_is_documented(module: ModuleType) -> None:
    for public in module.__all__:
        thing = getattr(module, public)
        if public not in ("__version__", "aio"):
            assert inspect.getdoc(thing), public
        if inspect.isclass(thing) and (thing.__module__ == "holepunch" or module is holepunch.aio):
            for member, value in vars(thing).items():
                assert member.startswith("_") or inspect.getdoc(value), f"{public}.{member}"


def test_aio_has_the_same_arguments() -> None:
    """Those of the blocking calls, without `cancel`: a task is cancelled instead."""
    pairs = [(vars(holepunch)[name], vars(holepunch.aio)[name]) for name in ("connect", "listen", "listen_datagram")]
    pairs += [(vars(holepunch)["connect_datagram"], vars(holepunch.aio)["connect_datagram"])]
    for of in ("Endpoint", "Listener", "Stream", "Connection"):
        blocking, awaited = vars(getattr(holepunch, of)), vars(getattr(holepunch.aio, of))
        shared = [name for name in blocking if callable(awaited.get(name)) and not name.startswith("_")]
        assert shared, of
        pairs += [(blocking[name], awaited[name]) for name in shared]
    for call, parallel in pairs:
        before = inspect.signature(call).parameters
        after = inspect.signature(parallel).parameters
        assert [name for name in before if name != "cancel"] == list(after), call
        for name, parameter in after.items():
            assert (parameter.default, parameter.kind == parameter.KEYWORD_ONLY) == (
                before[name].default,
                before[name].kind == parameter.KEYWORD_ONLY,
            ) or name in ("self", "target"), (call, name)


def test_stubs_match_the_module() -> None:
    """Every public name, parameter and default of the native module is in its stub file, and nothing else."""
    command = [sys.executable, "-m", "mypy.stubtest", "holepunch._native"]
    done = subprocess.run(command, capture_output=True, text=True, cwd="/")
    assert done.returncode == 0, done.stdout + done.stderr


def test_package_is_typed() -> None:
    assert (pathlib.Path(holepunch.__file__).parent / "py.typed").exists()


def test_types_check() -> None:
    """The package, its examples and its tests, strictly."""
    done = subprocess.run([sys.executable, "-m", "mypy"], capture_output=True, text=True, cwd=ROOT)
    assert done.returncode == 0, done.stdout + done.stderr


def test_every_kind_has_its_exception() -> None:
    assert set(errors._BY_CODE) == {code for code, _, _ in _native.ERROR_KINDS}
    for code, kind, hint in _native.ERROR_KINDS:
        error = errors._from_core(code, kind, "what failed", hint, 5)
        assert type(error) is errors._BY_CODE[code] is not holepunch.HolepunchError
        assert (type(error).code, type(error).kind) == (code, kind)
        assert (error.code, error.kind, error.message, error.hint, error.os_errno) == (code, kind, "what failed", hint, 5)
        assert str(error) == f"what failed; {hint}"
        assert type(error).__name__ in holepunch.__all__
        again = pickle.loads(pickle.dumps(error))
        assert (type(again), str(again), vars(again)) == (type(error), str(error), vars(error))


def test_a_peer_of_2015_is_an_error_that_says_where_it_is() -> None:
    error = errors._from_core(25, "legacy_peer", "what failed", "what to try", None, ("192.0.2.7", 20001))
    assert isinstance(error, holepunch.LegacyPeerError)
    assert error.peer == ("192.0.2.7", 20001)
    assert pickle.loads(pickle.dumps(error)).peer == error.peer


def test_a_kind_of_a_later_core_is_the_root() -> None:
    error = errors._from_core(9999, "later", "what failed", "what to try", None)
    assert type(error) is holepunch.HolepunchError
    assert (error.code, error.kind) == (9999, "later")


def test_errors_are_exceptions_and_only_the_timeout_an_oserror() -> None:
    for code, error in errors._BY_CODE.items():
        assert issubclass(error, Exception)
        assert issubclass(error, OSError) == (error is holepunch.TimeoutError), code
    assert issubclass(holepunch.TimeoutError, TimeoutError)
    assert issubclass(holepunch.NotConnectedError, AttributeError)
    assert issubclass(holepunch.InvalidArgumentError, ValueError)


def test_logger_is_silent_by_default() -> None:
    logger = logging.getLogger("holepunch")
    assert logger.level == logging.NOTSET and logger.propagate
    assert [type(handler) for handler in logger.handlers] == [logging.NullHandler]


def test_addresses_are_tuples_that_print_well() -> None:
    address = holepunch.Address("192.0.2.1", 5)
    assert address == ("192.0.2.1", 5) and str(address) == "192.0.2.1:5"
    assert str(holepunch.Address("2001:db8::1", 5)) == "[2001:db8::1]:5"


@pytest.mark.parametrize(
    "arguments",
    [
        {"bind": "no address"},
        {"bind": ["127.0.0.1", "127.0.0.2"]},
        {"bind": "192.0.2.1:99999"},
        {"bind": ("127.0.0.1", 65536)},
        {"bind": [("127.0.0.1", -1)]},
        {"bind": ("127.0.0.1", 1 << 70)},
        {"family": 5},
        {"secret": b"short"},
        {"secret": "short"},
        {"servers": ""},
        {"servers": "127.0.0.1:port"},
    ],
)
def test_arguments_that_cannot_be_right(arguments: Dict[str, object]) -> None:
    with pytest.raises(holepunch.InvalidArgumentError) as caught:
        holepunch.Endpoint(**arguments)  # type: ignore[arg-type]
    assert caught.value.message and caught.value.hint


@pytest.mark.parametrize("arguments", [{"bind": 5}, {"bind": [5]}, {"servers": 5}, {"servers": [5]}, {"secret": 5}])
def test_arguments_of_the_wrong_type(arguments: Dict[str, object]) -> None:
    with pytest.raises(TypeError):
        holepunch.Endpoint(**arguments)  # type: ignore[arg-type]


@pytest.mark.parametrize("bind", ["127.0.0.1", "127.0.0.1:0", ("127.0.0.1", 0), ["127.0.0.1"], [("127.0.0.1", 0), "[::1]:0"]])
@pytest.mark.parametrize("secret", [None, "sixteen characters", b"sixteen bytes or more", bytearray(16), memoryview(bytes(16))])
def test_arguments_in_all_their_forms(bind: object, secret: object) -> None:
    with holepunch.Endpoint(["127.0.0.1:1", "[::1]:1"], bind=bind, secret=secret, family=None) as endpoint:  # type: ignore[arg-type]
        assert endpoint.fileno() >= 0
    assert endpoint.fileno() == -1


def test_a_bad_name(silent_server: str) -> None:
    with holepunch.Endpoint(silent_server) as endpoint:
        with pytest.raises(holepunch.InvalidArgumentError, match="Bob"):
            endpoint.listen("Bob")
        with pytest.raises(holepunch.InvalidArgumentError, match="Bob"):
            endpoint.connect_datagram("Bob")


@pytest.mark.parametrize("timeout", [-1, float("nan"), -float("inf")])
def test_a_timeout_is_not_negative(silent_server: str, timeout: float) -> None:
    with holepunch.Endpoint(silent_server) as endpoint:
        with pytest.raises(holepunch.InvalidArgumentError, match="timeout"):
            endpoint.listen("bob", timeout=timeout)


def test_closed_endpoint(silent_server: str) -> None:
    endpoint = holepunch.Endpoint(silent_server)
    endpoint.close()
    endpoint.close()
    for call in (
        endpoint.listen,
        endpoint.listen_datagram,
        endpoint.process,
        endpoint.next_timeout,
        lambda: endpoint.connect("bob"),
        lambda: endpoint.connect_datagram("bob"),
    ):
        with pytest.raises(holepunch.ClosedError):
            call()


def test_cancel_is_sticky() -> None:
    cancel = holepunch.Cancel()
    assert not cancel.is_cancelled()
    cancel.cancel()
    cancel.cancel()
    assert cancel.is_cancelled()
