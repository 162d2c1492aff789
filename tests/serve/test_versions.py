"""Who has acted on which version of a value: a model with questions, cancellations and news that cross."""

from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, invariant, precondition, rule

from actorrt.serve.base.versions import Holds, Versions

LISTENERS = st.sampled_from("abc")


class Listening(RuleBasedStateMachine):
    """Each listener asks, is answered when there is another version, acts on it and asks anew."""

    def __init__(self) -> None:
        super().__init__()
        self.versions = Versions("first", 10)
        # What each listener has, and with which version it asks at the moment.
        self.has: dict[str, int] = {}
        self.asking: dict[str, list[int]] = {}
        self.value = "first"

    @rule(value=st.sampled_from(["first", "second", "third"]))
    def offer(self, value: str) -> None:
        assert self.versions.is_news(value) == (value != self.value)
        if self.versions.is_news(value):
            before = self.versions.version
            assert self.versions.publish(value) == self.versions.version > before
            self.value = value

    @rule(listener=LISTENERS)
    def ask(self, listener: str) -> None:
        self.versions.asks(listener, self.has.get(listener, 0))
        self.asking.setdefault(listener, []).append(self.has.get(listener, 0))

    @rule(listener=LISTENERS)
    def answer(self, listener: str) -> None:
        for version in self.asking.get(listener, []):
            if self.versions.has_next(version):
                self.asking[listener].remove(version)
                self.has[listener] = self.versions.version
                return

    @rule(listener=LISTENERS)
    def cancel(self, listener: str) -> None:
        for version in self.asking.pop(listener, []):
            self.versions.stops_asking(listener, version)

    @rule(listener=LISTENERS)
    def leave(self, listener: str) -> None:
        self.versions.forget(listener)
        self.asking.pop(listener, None)
        self.has.pop(listener, None)

    @precondition(lambda self: self.versions.has_listeners)
    @rule()
    def give_up(self) -> None:
        self.versions.give_up(self.versions.version)
        assert self.versions.is_acted_on(self.versions.version)

    @invariant()
    def nobody_has_what_was_never_published(self) -> None:
        assert all(version <= self.versions.version for version in self.has.values())
        assert self.versions.value == self.value

    @invariant()
    def who_asks_for_the_newest_has_acted_on_it(self) -> None:
        if not self.versions.has_listeners:
            assert self.versions.is_acted_on(self.versions.version)


TestListening = Listening.TestCase


def test_a_listener_of_a_version_that_is_not_the_newest_is_waited_for() -> None:
    versions = Versions("first", 10)
    versions.asks("one", 10)
    versions.asks("two", 10)
    second = versions.publish("second")
    assert not versions.is_acted_on(second)
    versions.asks("one", second)
    assert not versions.is_acted_on(second)
    versions.give_up(second)
    assert versions.is_acted_on(second)
    # It was slow, and is back: it counts again.
    versions.asks("two", 10)
    assert not versions.is_acted_on(second)


def test_a_question_that_is_cancelled_late_does_not_take_a_listener_away() -> None:
    versions = Versions("first", 10)
    versions.asks("one", 10)
    second = versions.publish("second")
    versions.asks("one", second)
    assert not versions.stops_asking("one", 10)
    assert versions.has_listeners
    assert versions.stops_asking("one", second)
    assert not versions.has_listeners


def test_a_value_goes_with_its_last_listener_unless_it_is_published() -> None:
    versions, holds = Versions("first", 10), Holds(("routes",))
    assert not holds.may_drop(("routes",), versions)
    assert holds.may_drop(("other",), versions)
    versions.asks("one", 0)
    assert not holds.may_drop(("other",), versions)
    versions.forget("one")
    holds.hold(("other",))
    assert not holds.may_drop(("other",), versions)
    holds.release(("other",))
    assert holds.may_drop(("other",), versions)
