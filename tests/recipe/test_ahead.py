"""Made ahead by a thread: the same things in the same order, errors where they belong, and a thread that ends."""

import threading
from contextlib import closing

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from recipe.features.ahead import made_ahead

PATIENCE = 30  # seconds, for what should happen at once


def threads():
    return [thread for thread in threading.enumerate() if thread.name.startswith("made-ahead")]


@given(st.lists(st.integers()), st.integers(1, 6))
def test_the_same_things_in_the_same_order(items, ahead):
    assert list(made_ahead(lambda item: item * 2, items, ahead)) == [item * 2 for item in items]
    assert not threads()


def test_it_runs_ahead_and_no_further_than_it_may():
    made = [threading.Event() for _ in range(10)]

    def make(number):
        made[number].set()
        return number

    with closing(made_ahead(make, range(10), 3)) as ready:
        for taken in range(10):
            assert not any(event.is_set() for event in made[taken + 3 :])
            assert next(ready) == taken
            assert all(event.wait(PATIENCE) for event in made[taken : taken + 4])


def test_nothing_is_made_before_it_is_wanted():
    made_ahead(pytest.fail, range(3), 2)  # no one has asked yet
    assert not threads()


def test_an_error_comes_where_its_result_would_have_been():
    def make(number):
        if number == 2:
            raise ValueError("features of 2.wav: the map is gone")
        return number

    ready, found = made_ahead(make, range(9), 4), []
    with pytest.raises(ValueError, match=r"^features of 2\.wav: the map is gone$"):
        found.extend(ready)
    assert found == [0, 1]
    assert not threads()


def test_a_closed_iterator_ends_its_thread():
    made = []
    ready = made_ahead(made.append, range(1000), 4)
    next(ready)
    assert len(threads()) == 1
    ready.close()
    assert not threads()
    assert len(made) <= 5


@pytest.mark.parametrize("error", [KeyboardInterrupt, RuntimeError])
def test_whoever_takes_them_may_fail(error):
    def work():
        with closing(made_ahead(torch.zeros, range(1000), 4)) as ready:
            for number, _ in enumerate(ready):
                if number == 3:
                    raise error

    with pytest.raises(error):
        work()
    assert not threads()
