"""`actorrt memory`: the objects of a session, the largest first, and what they take."""

from __future__ import annotations

import json
from collections import Counter

import click

import actorrt
from actorrt.cli.sessions import ANSWER_S, joined, of_session
from actorrt.cli.tables import note_missing, size, table

state = actorrt.util.state


@click.command(short_help="Show objects: who owns and borrows them, their sizes, and where they lie.")
@click.option("--limit", default=50, metavar="N", help="Show the N largest.")
@click.option("--json", "as_json", is_flag=True, help="Print JSON with all columns, for programs.")
@of_session
def memory(limit: int, as_json: bool, address: str) -> None:
    """Show the objects of a session, the largest first: who owns each, how many refs the owner has, which processes
    borrow it, and where it lies.

    \b
    in       owner: in the process that owns it; memory, disk: of its node
    refs     refs in the process that owns it, those in calls under way counted
    kept by  what keeps it: refs, borrowers, `pinned` (a ref was pickled outside of a call: it is kept to the end)

    An object that nothing seems to keep is about to go. Of each process the first 10,000 objects are looked at.
    """
    with joined(address):
        found = state.list_objects(limit=10_000, timeout=ANSWER_S)
        limit_bytes = actorrt.statistics(ANSWER_S)["node"]["store_limit"]
    largest = sorted(found, key=lambda each: -each.object_size)[:limit]
    if as_json:
        missing = [each._asdict() for each in found.missing]
        rows = [each.asdict() for each in largest]
        print(json.dumps({"rows": rows, "total": found.total, "missing": missing}, indent=2))
        return
    print(
        table(
            ("object", "size", "state", "in", "owner", "refs", "readers", "made by", "kept by"),
            (
                (
                    state.short_id(each.object_id),
                    size(each.object_size) if each.object_size >= 0 else "",
                    each.state,
                    each.where or ("owner" if each.state == "INLINE" else ""),
                    f"{state.short_id(each.owner_id)} (pid {each.owner_pid})",
                    each.local_refs,
                    each.readers,
                    each.name,
                    _kept_by(each),
                )
                for each in largest
            ),
        )
    )
    print(f"\n{_summary(found, limit_bytes)}")
    if found.total > len(largest):
        print(f"the {len(largest)} largest of {found.total}: --limit shows more")
    note_missing(found.missing)


def _kept_by(one: state.ObjectState) -> str:
    parts = [f"{one.local_refs} ref{'s' * (one.local_refs != 1)}"] if one.local_refs else []
    parts += [f"{state.short_id(borrower)} borrows it" for borrower in one.borrowers]
    parts += ["pinned"] if one.is_pinned else []
    parts += ["the call that makes it"] if one.state == "PENDING" else []
    return ", ".join(parts)


def _summary(found: list[state.ObjectState], limit_bytes: int) -> str:
    number: Counter[str] = Counter()
    taken: Counter[str] = Counter()
    for each in found:
        where = each.where or {"INLINE": "their owners", "PENDING": "", "ERROR": ""}.get(each.state, "shared memory")
        number[where] += 1
        taken[where] += max(0, each.object_size)
    parts = [f"{number[where]} in {where}: {size(taken[where])}" for where in sorted(number) if where]
    if number[""]:
        parts.append(f"{number['']} without a value")
    return f"{'; '.join(parts) or 'no objects'}; shared memory may take {size(limit_bytes)}"
