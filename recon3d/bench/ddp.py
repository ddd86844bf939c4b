"""Lightning's `ddp` strategy, made to fit every method: one that trains nothing, batch norm, shares of unequal length.

Importing this module puts it in the place of Lightning's own below the names of `NAMES`, so that
``--trainer.strategy ddp`` and the default for several devices are this one.
"""

from __future__ import annotations

from typing import Any

from lightning.pytorch.strategies import DDPStrategy, StrategyRegistry
from torch import distributed

NAMES = {
    "ddp": {},
    "ddp_find_unused_parameters_false": {"find_unused_parameters": False},
    "ddp_find_unused_parameters_true": {"find_unused_parameters": True},
}


class MethodDDPStrategy(DDPStrategy):
    """One process per device, gradients averaged; differs from its base where that would refuse, hang or diverge."""

    def configure_ddp(self) -> None:
        """Wrap the method, unless it trains nothing: DistributedDataParallel refuses that, and has nothing to do."""
        assert self.lightning_module is not None
        if any(parameter.requires_grad for parameter in self.lightning_module.parameters()):
            super().configure_ddp()

    def validation_step(self, *args: Any, **kwargs: Any) -> Any:
        """Validate the method itself, not its wrapper.

        Each forward of the wrapper sends the buffers around, which waits for all processes; but one may have more
        batches than another, since no sample is repeated.
        """
        assert self.lightning_module is not None
        with self.precision_plugin.val_step_context():
            return self.lightning_module.validation_step(*args, **kwargs)

    def on_validation_start(self) -> None:
        """All processes validate what a checkpoint of now would hold."""
        self._share_buffers()

    def on_train_end(self) -> None:
        """All processes end with the method of the checkpoint."""
        self._share_buffers()

    def _share_buffers(self) -> None:
        """Give every process the running statistics of process 0, whose checkpoint is the one that is written."""
        assert self.lightning_module is not None
        if self.model is not self.lightning_module:
            for buffer in self.lightning_module.buffers():
                distributed.broadcast(buffer, src=0)


for _name, _arguments in NAMES.items():
    StrategyRegistry.register(_name, MethodDDPStrategy, override=True, start_method="popen", **_arguments)
