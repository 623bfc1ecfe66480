"""The broker in memory: obvious before fast, the reference that every other adapter is compared with."""

from hostler.broker.model_desk import ModelDesk
from hostler.broker.model_foreman import ModelForeman
from hostler.broker.model_registry import ModelRegistry
from hostler.broker.model_work import ModelWork


class ModelBroker(ModelWork, ModelDesk, ModelForeman, ModelRegistry):
    """Keeps every promise of the broker and registry ports within one process, and nothing beyond it.

    Nothing is durable and nobody waits: `wait_for_work` and `events` answer at once. Each claim sorts all
    ready jobs, so its cost grows with the backlog: it is for tests and for judging other adapters.
    """
