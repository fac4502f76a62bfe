"""The websocket of a server that does not keep to bounds."""

import time

import pytest

from doctor.api import Server
from doctor.events import LARGEST, Events, Lost, read
from tests.doctor.double import serving


def test_a_message_without_end_costs_bounded_memory():
    with serving("websocket floods") as (_, url):
        events = Events(Server(url), "client")
        with pytest.raises(Lost, match=f"more than {LARGEST} bytes"):
            events.next(30.0)
        events.close()


def test_silence_is_no_loss_and_takes_as_long_as_was_asked():
    with serving() as (_, url):
        events, began = Events(Server(url), "client"), time.monotonic()
        assert events.next(0.3) is None
        assert time.monotonic() - began < 3
        events.close()


def test_what_is_no_websocket_is_lost():
    with serving("no websocket") as (_, url), pytest.raises(Lost):
        Events(Server(url, patience=2.0), "client")


@pytest.mark.parametrize(
    "data", [b"", b"[]", b"{}", b'{"type": 1, "data": 2}', b"\xff", b"[" * 9999]
)
def test_what_is_no_message_is_an_event_that_nobody_waits_for(data):
    assert read(data).data == {}
