"""`trainer=fsdp`: transformer blocks sharded over devices with torch's fully_shard (FSDP2)."""

from __future__ import annotations

from torch import nn
from torch.distributed.device_mesh import DeviceMesh
from torch.distributed.fsdp import fully_shard

from gptexp.machine.lightning import pl


class ShardedStrategy(pl.strategies.ModelParallelStrategy):
    """A strategy with all devices in one data-parallel mesh; Lightning's `auto` makes it tensor-parallel."""

    def __init__(self, world_size: int) -> None:
        super().__init__(data_parallel_size=world_size, tensor_parallel_size=1, save_distributed_checkpoint=False)


def shard(model: nn.Module, mesh: DeviceMesh) -> None:
    """Shard each transformer block, then the remaining parameters, in place.

    The network is sharded, not the LightningModule, because `training_step` calls the network's `forward`, where
    FSDP2 gathers the weights.
    """
    for block in getattr(getattr(model, "transformer", None), "h", []):
        fully_shard(block, mesh=mesh)
    fully_shard(model, mesh=mesh)
