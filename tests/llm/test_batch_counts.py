"""How many batches there are of each model, and how far their requests are."""

from typing import Any

from actorrt.serve.llm.batches.counts import Counts, Kept, ModelBatches, counted, together
from actorrt.serve.llm.fronts import Fronts

KEPT = [
    Kept("m", "completed", 2, 10, 9, 1),
    Kept("m", "in_progress", 1, 10, 3, 1),
    Kept("m", "cancelling", 1, 5, 1, 0),
    Kept("m", "expired", 1, 4, 2, 2),
    Kept("", "validating", 3, 0, 0, 0),
    Kept("", "failed", 1, 0, 0, 0),
]


def test_a_batch_is_queued_until_its_file_is_read_and_then_runs_until_it_has_ended() -> None:
    unread, model = counted(KEPT, {})
    assert unread == ModelBatches("", Counts(queued=3, failed=1), Counts())
    assert model == ModelBatches("m", Counts(running=2, done=2, failed=1), Counts(queued=6, done=15, failed=4))


def test_requests_that_a_model_has_in_hand_run_and_no_more_than_are_left() -> None:
    assert counted(KEPT, {"m": 4})[1].requests == Counts(queued=2, running=4, done=15, failed=4)
    assert counted(KEPT, {"m": 99})[1].requests == Counts(running=10, done=15, failed=4)


def test_replicas_of_a_front_keep_the_same_and_have_their_own_in_hand() -> None:
    rows = [tuple(each) for each in KEPT]
    said = [(rows, {"m": 1}), TimeoutError(), ([], {}), (rows, {"m": 2})]
    assert together(said) == (KEPT, counted(KEPT, {"m": 3}))


def test_what_a_batch_leaves_unanswered_as_it_ends_is_not_to_come() -> None:
    ends = [Kept("m", status, 1, 10, 4, 1) for status in ("finalizing", "cancelling")]
    (model,) = counted(ends, {"m": 3})
    assert model == ModelBatches("m", Counts(running=2), Counts(running=3, done=8, failed=2))


class Others(Fronts):
    """Two replicas of a front of which the second keeps batches."""

    def __init__(self) -> None:
        self.asked: list[bool] = []

    async def _all(self, method: str, *args: Any) -> dict[str, Any]:
        assert method == "batch_counts"
        (kept,) = args
        self.asked.append(kept)
        return {"one": ([], {"m": 1}), "two": ([tuple(each) for each in KEPT] if kept else [], {"m": 2})}


async def test_replicas_are_asked_for_what_is_kept_only_where_nothing_is_known_of_it_here() -> None:
    fronts, all_of_them = Others(), (KEPT, counted(KEPT, {"m": 3}))
    assert await fronts.batches(KEPT) == all_of_them
    assert await fronts.batches([]) == all_of_them
    assert fronts.asked == [False, True]
