"""Ask the cluster what there is in it: the node of this program asks all nodes, and each its processes."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from typing import Any

from actorrt.core import option_checks as check
from actorrt.core import state_join as join
from actorrt.core.state_join import Listing
from actorrt.core.state_records import id_column
from actorrt.core.state_scan import MAX_LIMIT, IdText, checked_filters, checked_limit
from actorrt.types import ProcessId
from actorrt.wire.messages import Facts, Query, Scope, Survey

from . import program

Answers = join.Answers


def ask(survey: Survey, timeout: float | None) -> Answers:
    """What the nodes answer. Raises TimeoutError if the own one does not in time; others are named in the answer."""
    runtime = program.runtime()
    limit_s = check.seconds("timeout", timeout)
    question = Survey(
        survey.what,
        Scope.CLUSTER,
        survey.filters,
        survey.id,
        survey.limit,
        survey.group_by,
        survey.ids,
        survey.processes,
        limit_s or 0.0,
    )
    try:
        facts: Facts = runtime.thread.call_sync(runtime.node.ask(question), limit_s)
    except TimeoutError:
        raise TimeoutError(f"the node has not answered for {timeout:g} s") from None
    return facts.data["nodes"]


def list_of(
    kind: str, filters: Iterable[Sequence[object]] | None, limit: int, timeout: float | None, id: str = ""
) -> Listing[Any]:
    """The things of a kind that the filters let pass."""
    chosen = checked_filters(kind, filters or ())
    checked_limit(limit)
    first = ask(
        Survey(
            kind,
            filters=[(each.column, each.is_equal, each.value) for each in join.first_filters(kind, chosen)],
            id=id,
            limit=join.first_limit(kind, chosen, limit),
        ),
        timeout,
    )
    rows = join.rows_in(first)
    about = join.open_questions(kind, rows)
    if about:
        ids = [each for ids in about.values() for each in ids]
        processes = [ProcessId(bytes.fromhex(each)) for each in about if each]
        what = "running" if kind == "tasks" else "segments"
        join.completed(kind, rows, ask(Survey(what, ids=ids, processes=processes), timeout))
    return join.listing(kind, first, rows, chosen, limit)


def one_of(kind: str, text: object, timeout: float | None) -> Any:
    """The thing that has this id; None if there is none. Raises ValueError if there are several."""
    IdText.read(text)
    id = str(text)
    return join.the_one(kind, id, list_of(kind, None, MAX_LIMIT, timeout, id))


def counts_of(kind: str, group_by: Sequence[str], timeout: float | None) -> join.Counts:
    """How many things there are, by these columns, and who has not answered."""
    answers = ask(Survey(kind, group_by=list(group_by)), timeout)
    return join.Counts(join.counted(answers), join.missing_in(answers))


def nodes(timeout: float | None) -> list[dict[str, Any]]:
    """The machines of the cluster, as `actorrt.nodes()` tells of them, with what is free of their resources."""
    runtime = program.runtime()
    limit_s = check.seconds("timeout", timeout)
    try:
        known: Facts = runtime.thread.call_sync(runtime.node.ask(Query("nodes")), limit_s)
        free: Facts = runtime.thread.call_sync(runtime.node.ask(Query("available")), limit_s)
    except TimeoutError:
        raise TimeoutError(f"the node has not answered for {timeout:g} s") from None
    only_one = len(known.data) == 1
    return [{"Available": free.data if only_one else {}, **each} for each in known.data]


def first_of(kind: str, text: object, found: Listing[Any]) -> Any:
    """The same among things that are here already."""
    wanted, column = IdText.read(text), id_column(kind)
    return join.the_one(kind, str(text), [each for each in found if wanted.matches(each[column])])
