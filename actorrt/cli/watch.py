"""Show a person how the deployments of an application come up, while the main thread waits for them."""

from __future__ import annotations

import threading
from typing import Final, Self

import actorrt
from actorrt.cli.progress import Progress

LOOK_S: Final = 0.1


class Watch:
    """A context manager. It looks only where there is a terminal to show it on, and never holds anything up."""

    def __init__(self, progress: Progress, application: str) -> None:
        self._progress, self._application = progress, application
        self._enough = threading.Event()

    def __enter__(self) -> Self:
        if self._progress.watched:
            # A daemon: a controller that does not answer must not keep the command from ending.
            threading.Thread(target=self._look, name="actorrt-watch", daemon=True).start()
        return self

    def __exit__(self, *_: object) -> None:
        self._enough.set()

    def _look(self) -> None:
        while not self._enough.wait(LOOK_S):
            try:
                said = describe(actorrt.serve.status(), self._application)
            except (actorrt.exceptions.ActorrtError, RuntimeError):  # it is being shut down
                return
            if said:
                self._progress.step(said)


def describe(status: actorrt.serve.ServeStatus, application: str) -> str:
    """One line: what is up, and what the others wait for. Empty where the application is not known yet."""
    parts: list[str] = []
    if application not in status.applications:
        return ""
    for name, deployment in status.applications[application].deployments.items():
        up = deployment.status is actorrt.serve.DeploymentStatus.HEALTHY
        parts.append(f"{name} is up" if up else f"{name}: {deployment.message or 'starting'}")
    return ", ".join(parts)
