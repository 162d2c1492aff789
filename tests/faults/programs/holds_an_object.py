"""A session that puts a large object, says where it lies, and ends when it is told to."""

import pickle
import sys
from typing import cast

import actorrt
from actorrt.runtime.owner import current
from actorrt.runtime.owner.runtime import Runtime

actorrt.init(num_cpus=1)
ref = actorrt.put(bytes(range(256)) * (int(sys.argv[1]) // 256))
# Others may ask for it from now on.
pickle.dumps(ref)
runtime = cast("Runtime", current.runtime())
value = ref._entry.data  # pyright: ignore[reportPrivateUsage]
print(runtime.peers.session, value.node.hex(), value.owner.hex(), value.seq, value.size, flush=True)
sys.stdin.readline()
