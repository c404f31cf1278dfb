"""The rounds by Flower's simulation engine on Ray, as its documentation writes them: `flower_rounds.py FOLDER`."""

from __future__ import annotations

import sys
from pathlib import Path
from typing import Any


def main(folder: Path) -> None:
    """Play the rounds of `folder` and tell what they took."""
    from flwr.app import ArrayRecord, Context, Message, MetricRecord, RecordDict
    from flwr.clientapp import ClientApp
    from flwr.serverapp import Grid, ServerApp
    from flwr.serverapp.strategy import DifferentialPrivacyServerSideFixedClipping, FedAvg
    from flwr.simulation import run_simulation
    from networks import NETWORKS
    from peer_work import Clock, tell, work_of

    work, place = work_of(str(folder)), str(folder)
    network = NETWORKS[work.start.numel()]
    clock, ended, client, server = Clock(), {}, ClientApp(), ServerApp()

    @client.train()
    def train(message: Message, context: Context) -> Message:
        model = network()
        arrays: Any = message.content["arrays"]
        model.load_state_dict(arrays.to_torch_state_dict())
        site = int(context.node_config["partition-id"])
        here = work_of(place)  # closures travel with every message: the records must not be in them
        (_privately if here.local else type(here).train)(here, model, site)
        metrics = MetricRecord({"num-examples": here.inputs.shape[1]})
        return Message(RecordDict({"arrays": ArrayRecord(model.state_dict()), "metrics": metrics}), reply_to=message)

    @server.main()
    def play(grid: Grid, _context: Context) -> None:
        strategy: Any = FedAvg(
            fraction_train=work.cohort / work.population,
            fraction_evaluate=0.0,
            min_train_nodes=work.cohort,
            min_available_nodes=work.population,
        )
        if work.clip is not None:
            strategy = DifferentialPrivacyServerSideFixedClipping(strategy, work.noise, work.clip, work.cohort)
        start = ArrayRecord(work.begin(network()).state_dict())
        found = strategy.start(
            grid=grid, initial_arrays=start, num_rounds=work.rounds, evaluate_fn=lambda *_: clock.tick()
        )
        ended["arrays"] = found.arrays

    resources: Any = {"client_resources": {"num_cpus": 1, "num_gpus": 0.0}, "init_args": {"num_cpus": 2}}
    run_simulation(server_app=server, client_app=client, num_supernodes=work.population, backend_config=resources)
    model = work.begin(network())
    before = work.loss(model)
    model.load_state_dict(ended["arrays"].to_torch_state_dict())
    tell(clock, before, work.loss(model))


def _privately(work: Any, model: Any, site: int) -> None:
    """One epoch by Opacus' privacy engine; batches are not drawn, so that the work is the same."""
    import torch
    from opacus import PrivacyEngine
    from torch.nn import functional

    records = torch.utils.data.TensorDataset(work.inputs[site], work.labels[site])
    private, optimizer, loader = PrivacyEngine().make_private(
        module=model,
        optimizer=torch.optim.SGD(model.parameters(), lr=work.rate),
        data_loader=torch.utils.data.DataLoader(records, batch_size=work.batch),
        noise_multiplier=1.0,
        max_grad_norm=1.0,
        poisson_sampling=False,
    )
    for inputs, labels in loader:
        optimizer.zero_grad()
        functional.cross_entropy(private(inputs), labels).backward()  # type: ignore[no-untyped-call]  # torch
        optimizer.step()


if __name__ == "__main__":
    main(Path(sys.argv[1]))
