"""The rounds by pfl-research, as its own benchmarks write them: `pfl_rounds.py FOLDER`."""

from __future__ import annotations

import sys
from pathlib import Path
from typing import Any


def main(folder: Path) -> None:
    """Play the rounds of `folder` in one process and tell what they took."""
    import numpy as np
    import torch
    from networks import NETWORKS
    from peer_work import Clock, PeerWork, tell
    from pfl.aggregate.simulate import SimulatedBackend
    from pfl.aggregate.weighting import WeightByUser
    from pfl.algorithm.base import NNAlgorithmParams
    from pfl.algorithm.federated_averaging import FederatedAveraging
    from pfl.callback.base import TrainingProcessCallback
    from pfl.data.dataset import Dataset
    from pfl.data.federated_dataset import FederatedDataset
    from pfl.data.sampling import get_user_sampler
    from pfl.hyperparam import NNTrainHyperParams
    from pfl.metrics import Metrics
    from pfl.model.pytorch import PyTorchModel
    from pfl.privacy import CentrallyAppliedPrivacyMechanism, GaussianMechanism
    from torch.nn import functional

    torch.set_num_threads(1)
    np.random.seed(0)  # noqa: NPY002  # what pfl draws its cohorts from
    work, clock = PeerWork(folder), Clock()

    class Net(torch.nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.inner = work.begin(NETWORKS[work.start.numel()]())

        def forward(self, inputs: torch.Tensor) -> Any:
            return self.inner(inputs)

        def loss(self, inputs: torch.Tensor, labels: torch.Tensor, eval: bool = False) -> torch.Tensor:  # noqa: A002  # pfl calls it so
            return functional.cross_entropy(self(inputs), labels)

        def metrics(self, inputs: torch.Tensor, labels: torch.Tensor, eval: bool = False) -> dict[str, Any]:  # noqa: A002  # pfl calls it so
            return {}

    class Tick(TrainingProcessCallback):  # type: ignore[misc]  # pfl is not installed where types are checked
        def on_train_begin(self, *, model: Any) -> Any:
            clock.tick()
            return Metrics()

        def after_central_iteration(self, aggregate_metrics: Any, model: Any, *, central_iteration: int) -> Any:
            clock.tick()
            return False, Metrics()

    net = Net()
    before = work.loss(net)
    sampler = get_user_sampler("random", list(range(work.population)))
    sites = FederatedDataset(lambda user: Dataset([work.inputs[user], work.labels[user]], user_id=str(user)), sampler)
    steps = [WeightByUser()]
    if work.clip is not None:
        steps.append(CentrallyAppliedPrivacyMechanism(GaussianMechanism(work.clip, work.noise)))
    FederatedAveraging().run(
        algorithm_params=NNAlgorithmParams(
            central_num_iterations=work.rounds,
            evaluation_frequency=10**6,
            train_cohort_size=work.cohort,
            val_cohort_size=0,
        ),
        backend=SimulatedBackend(training_data=sites, val_data=sites, postprocessors=steps),
        model=PyTorchModel(net, torch.optim.SGD, torch.optim.SGD(net.parameters(), 1.0)),
        model_train_params=NNTrainHyperParams(
            local_learning_rate=work.rate, local_num_epochs=1, local_batch_size=work.batch
        ),
        model_eval_params=None,
        callbacks=[Tick()],
    )
    tell(clock, before, work.loss(net))


if __name__ == "__main__":
    main(Path(sys.argv[1]))
