"""What a job is trained with: its model on a device, and the clip engine that is right for it and fast."""

from __future__ import annotations

from torch import nn

from client.trainer import Workbench, pick_device
from common.job import Job
from common.learning.tasks import Task
from common.models.front import parted
from common.privacy.clipping import choice
from common.privacy.clipping.engine import ClipEngine
from common.privacy.clipping.names import EngineName
from common.privacy.clipping.probes import Probe
from common.privacy.clipping.reference_engine import ReferenceEngine
from common.work import model_of


def workbench(job: Job, nominal_records: int, device: str = "cpu", engine: EngineName = "auto") -> Workbench:
    """The workbench of a job at a site of so many records, as public as they are.

    device, engine  as site.toml names them      Errors: Refusal CONFIG_INVALID, MODEL_INVALID.
    """
    place = pick_device(device)
    task = job.training.task(job.data.classes)
    model = model_of(job).to(place)
    clip = _engine(job, model, task, nominal_records, engine) if job.privacy.by_record else ReferenceEngine()
    front, head = parted(model)
    return Workbench(head, task, job.training, place, clip, front)


def _engine(job: Job, model: nn.Module, task: Task, nominal_records: int, engine: EngineName) -> ClipEngine:
    """The site's choice; where noise is replayed nothing is measured, so that results repeat bit for bit."""
    asked = choice.Work(
        key=job.digest(),
        losses=task.losses,
        probe=Probe(job.data.shape, job.data.classes),
        records=max(1, round((job.privacy.sampling_rate or 1.0) * nominal_records)),
    )
    return choice.choose(engine, model, asked, measured=job.privacy.noise != "replay")
