"""The rounds by pfl-research, as its own benchmarks write them: `pfl_rounds.py FOLDER`."""

from __future__ import annotations

import sys
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch.nn import functional


class Net(torch.nn.Module):
    """The measured model with the two methods that pfl calls."""

    def __init__(self, inner: torch.nn.Module) -> None:
        super().__init__()
        self.inner = inner

    def forward(self, inputs: torch.Tensor) -> Any:
        """Logits."""
        return self.inner(inputs)

    def loss(self, inputs: torch.Tensor, labels: torch.Tensor, eval: bool = False) -> torch.Tensor:  # noqa: A002  # pfl calls it so
        """Mean cross entropy."""
        return functional.cross_entropy(self(inputs), labels)

    def metrics(self, inputs: torch.Tensor, labels: torch.Tensor, eval: bool = False) -> dict[str, Any]:  # noqa: A002  # pfl calls it so
        """None: they would cost a forward pass more."""
        return {}


def main(folder: Path) -> None:
    """Play the rounds of `folder` in one process and tell what they took."""
    from networks import NETWORKS
    from peer_work import Clock, tell, work_of
    from pfl.aggregate.simulate import SimulatedBackend
    from pfl.algorithm.base import NNAlgorithmParams
    from pfl.algorithm.federated_averaging import FederatedAveraging
    from pfl.hyperparam import NNTrainHyperParams
    from pfl.model.pytorch import PyTorchModel

    np.random.seed(0)  # noqa: NPY002  # what pfl draws its cohorts from
    work, clock = work_of(str(folder)), Clock()
    net = Net(work.begin(NETWORKS[work.start.numel()]()))
    before, sites = work.loss(net), _sites(work)
    FederatedAveraging().run(
        algorithm_params=NNAlgorithmParams(
            central_num_iterations=work.rounds,
            evaluation_frequency=10**6,
            train_cohort_size=work.cohort,
            val_cohort_size=0,
        ),
        backend=SimulatedBackend(training_data=sites, val_data=sites, postprocessors=_after(work)),
        model=PyTorchModel(net, torch.optim.SGD, torch.optim.SGD(net.parameters(), 1.0)),
        model_train_params=NNTrainHyperParams(
            local_learning_rate=work.rate, local_num_epochs=1, local_batch_size=work.batch
        ),
        model_eval_params=None,
        callbacks=[_ticking(clock)],
    )
    tell(clock, before, work.loss(net))


def _sites(work: Any) -> Any:
    """The records of all sites, and cohorts drawn at random."""
    from pfl.data.dataset import Dataset
    from pfl.data.federated_dataset import FederatedDataset
    from pfl.data.sampling import get_user_sampler

    sampler = get_user_sampler("random", list(range(work.population)))
    return FederatedDataset(lambda user: Dataset([work.inputs[user], work.labels[user]], user_id=str(user)), sampler)


def _after(work: Any) -> list[Any]:
    """What is done to updates: weights, and with a clip noise on their sum."""
    from pfl.aggregate.weighting import WeightByUser
    from pfl.privacy import CentrallyAppliedPrivacyMechanism, GaussianMechanism

    if work.clip is None:
        return [WeightByUser()]
    return [WeightByUser(), CentrallyAppliedPrivacyMechanism(GaussianMechanism(work.clip, work.noise))]


def _ticking(clock: Any) -> Any:
    """A callback that reads the clock before the first round and after each."""
    from pfl.callback.base import TrainingProcessCallback
    from pfl.metrics import Metrics

    class Tick(TrainingProcessCallback):  # type: ignore[misc]  # pfl is not installed where types are checked
        def on_train_begin(self, *, model: Any) -> Any:
            clock.tick()
            return Metrics()

        def after_central_iteration(self, aggregate_metrics: Any, model: Any, *, central_iteration: int) -> Any:
            clock.tick()
            return False, Metrics()

    return Tick()


if __name__ == "__main__":
    main(Path(sys.argv[1]))
