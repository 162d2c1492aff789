"""A driver and the tree of processes under it, with small mains. Tells on stdout, a JSON line each, what is going on.

As "driver" it starts itself as "launcher" and lives until its input ends; the launcher forks the tree. Each of the
node's two workers starts a child in its group and a daemon in a session of its own.
"""

import asyncio
import json
import os
import signal
import subprocess
import sys
from typing import Any

from actorrt.runtime.base.process_watch import wait_child, watch_pidfd
from actorrt.runtime.machine.process_tree import HeadStart, NodeStart, fork_tree
from actorrt.runtime.machine.zygote import WorkerStart
from actorrt.runtime.machine.zygote_client import ZygoteClient


def tell(event: str, **facts: Any) -> None:
    os.write(1, (json.dumps({"event": event, **facts}) + "\n").encode())


def worker_main(start: WorkerStart) -> None:
    subprocess.run(["sh", "-c", "setsid sleep 1000 >/dev/null 2>&1 & echo $!"], check=True)
    print(subprocess.Popen(["sleep", "1000"]).pid)
    signal.pause()


def head_main(start: HeadStart) -> None:
    async def main() -> None:
        tell("head", pid=os.getpid())
        assert start.driver_pidfd is not None
        await watch_pidfd(start.driver_pidfd)

    asyncio.run(main())


def node_main(start: NodeStart) -> None:
    async def worker(client: ZygoteClient) -> dict[str, int]:
        read, write = os.pipe()
        pid = await client.fork(b"", stdout_fd=write, stderr_fd=2)
        os.close(write)
        stream = asyncio.StreamReader()
        loop = asyncio.get_running_loop()
        await loop.connect_read_pipe(lambda: asyncio.StreamReaderProtocol(stream), os.fdopen(read, "rb", buffering=0))
        return {"pid": pid, "daemon": int(await stream.readline()), "child": int(await stream.readline())}

    async def main() -> None:
        assert start.driver_pidfd is not None
        assert start.head_pid is not None
        client = ZygoteClient(
            start.zygote,
            start.zygote_pid,
            on_exit=lambda pid, status: tell("exit", pid=pid, status=status),
            on_lost=lambda reason: tell("lost", reason=reason),
            others={start.head_pid},
        )

        async def watch_head(pid: int) -> None:
            tell("head ended", status=await wait_child(pid))

        head = asyncio.ensure_future(watch_head(start.head_pid))
        workers = [await worker(client) for _ in range(2)]
        tell("up", node=os.getpid(), zygote=start.zygote_pid, head=start.head_pid, workers=workers)
        await watch_pidfd(start.driver_pidfd)
        await client.close()
        head.cancel()

    asyncio.run(main())


if __name__ == "__main__":
    if sys.argv[1] == "launcher":
        fork_tree(driver_pid=int(sys.argv[2]), node_main=node_main, head_main=head_main, worker_main=worker_main)
    launcher = os.posix_spawn(sys.executable, [sys.executable, __file__, "launcher", str(os.getpid())], os.environ)
    tell("driver", pid=os.getpid(), launcher=launcher)
    sys.stdin.read()
