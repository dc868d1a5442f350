"""Ctrl-C and SIGTERM, put off."""

from __future__ import annotations

import signal
import threading

import pytest

from optim.common.interrupts import held_back, terminate_on_sigterm


def test_the_first_one_is_noted_and_acts_when_it_is_told_to(ctrl_c, capfd):
    did = []

    def body() -> None:
        with held_back() as stopped:
            stopped.act()
            ctrl_c()
            did.append(stopped.noted)
            stopped.act()
            did.append("more")

    with pytest.raises(KeyboardInterrupt):
        body()
    assert did == [signal.SIGINT]
    assert "saved first" in capfd.readouterr().err
    assert signal.getsignal(signal.SIGINT) is signal.default_int_handler


def test_the_second_one_acts_at_once(ctrl_c):
    did = []

    def body() -> None:
        with held_back():
            ctrl_c()
            did.append("saves")
            ctrl_c()
            did.append("more")

    with pytest.raises(KeyboardInterrupt):
        body()
    assert did == ["saves"]


@pytest.mark.parametrize("fails", [False, True])
def test_one_that_the_body_left_acts_at_its_end(ctrl_c, fails):
    def body() -> None:
        with held_back():
            ctrl_c()
            if fails:
                raise ValueError("of the body, and no reason to go on with the next point")

    with pytest.raises(KeyboardInterrupt):
        body()


def test_sigterm_does_what_it_would_have_done():
    told = []
    before = signal.signal(signal.SIGTERM, lambda number, frame: told.append(number))
    try:
        with held_back() as stopped:
            signal.raise_signal(signal.SIGTERM)
            assert told == []
            stopped.act()
            assert told == [signal.SIGTERM]
        assert told == [signal.SIGTERM]
    finally:
        signal.signal(signal.SIGTERM, before)


def test_a_handler_that_has_changed_the_next_one_is_left_alone():
    """A scheduler repeats SIGTERM: the second one must not cut short the closing that the first one began."""

    def body() -> None:
        with held_back() as stopped:
            signal.raise_signal(signal.SIGTERM)
            stopped.act()

    with terminate_on_sigterm():
        with pytest.raises(SystemExit):
            body()
        assert signal.getsignal(signal.SIGTERM) is signal.SIG_IGN


def test_what_is_ignored_stays_so_and_no_other_thread_holds_anything_back():
    before = signal.signal(signal.SIGINT, signal.SIG_IGN)
    try:
        with held_back() as stopped:
            signal.raise_signal(signal.SIGINT)
            assert stopped.noted is None
        seen = []

        def body() -> None:
            with held_back() as stopped:
                seen.append((stopped.noted, signal.getsignal(signal.SIGINT)))

        thread = threading.Thread(target=body)
        thread.start()
        thread.join()
        assert seen == [(None, signal.SIG_IGN)]
    finally:
        signal.signal(signal.SIGINT, before)
