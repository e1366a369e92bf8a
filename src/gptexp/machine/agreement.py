"""Agreement of all ranks on small integers during training."""

from __future__ import annotations

import torch
from torch import distributed


class Agreement:
    """The maximum of small integers over all ranks, one call late, so that no step waits for another rank.

    All ranks must call `exchange` equally often. A single process gets its numbers back at once.
    """

    def __init__(self) -> None:
        together = distributed.is_available() and distributed.is_initialized() and distributed.get_world_size() > 1
        self._group = distributed.new_group(backend="gloo") if together else None
        self._pending: tuple[torch.Tensor, distributed.Work] | None = None

    def exchange(self, *numbers: int) -> list[int]:
        """Return the maximum over all ranks of the numbers of the previous call, and start the exchange of these."""
        if self._group is None:
            return list(numbers)
        agreed = self.settle() or [0] * len(numbers)
        shared = torch.tensor(numbers)
        work = distributed.all_reduce(shared, distributed.ReduceOp.MAX, self._group, async_op=True)
        assert work is not None
        self._pending = shared, work
        return agreed

    def settle(self) -> list[int]:
        """Wait for the pending exchange and return its result; [] without one."""
        if self._pending is None:
            return []
        shared, work = self._pending
        work.wait()
        self._pending = None
        return [int(number) for number in shared]
