"""What the JSON of the simulated service means, whatever carries it: requests written, answers judged."""

import msgspec

from hostler.connectors.config import ConnectorConfig
from hostler.connectors.faults import failure, fault, off_protocol
from hostler.connectors.follow import Signal
from hostler.connectors.schemas import open_payload
from hostler.connectors.services.simulation.messages import CapabilitiesView, HealthView, RunEnd, RunView
from hostler.connectors.services.simulation.terms import CODES, ENDPOINT_STATES, PAYLOADS
from hostler.contracts.failure import FailureClass
from hostler.contracts.job import Progress
from hostler.contracts.offer import Pool
from hostler.contracts.service import (
    EndpointState,
    Failed,
    Finished,
    Probe,
    RemoteState,
    ServiceCall,
    ServiceCapabilities,
)


def submission_of(call: ServiceCall, *, connector: str) -> bytes:
    """Write the body of a submit; raises the fault `invalid_input` for what does not fit its kind."""
    shape = PAYLOADS.get(call.kind)
    if shape is None:
        raise fault(FailureClass.INVALID_INPUT, f"{connector} has no kind {call.kind}")
    asked = open_payload(call.payload, shape)
    return msgspec.json.encode({"id": call.job_id, "fence": call.fence, "kind": call.kind, "input": asked})


def probe_of(view: HealthView, config: ConnectorConfig) -> Probe:
    """Return what a service says of its health."""
    return Probe(
        state=ENDPOINT_STATES.get(view.state, EndpointState.UNKNOWN),
        message=f"the service says {view.state}",
        version=view.version,
        slots=config.slots or view.slots,
        busy=view.busy,
    )


def capabilities_of(view: CapabilitiesView, config: ConnectorConfig) -> ServiceCapabilities:
    """Return what a service has."""
    return ServiceCapabilities(
        kinds=tuple(kind for kind in PAYLOADS if kind in view.kinds),
        models=view.models,
        models_known=True,
        labels={**view.labels, **config.labels},
        versions={"simulation": view.version},
        pools={"slots": Pool(id=f"{config.endpoint}/slots", total=config.slots or view.slots)},
    )


def signal_of(view: RunView, *, cursor: str | None = None) -> Signal:
    """Return what a run says of itself."""
    progress = Progress(fraction=view.fraction, stage=view.stage, message=view.message, eta_s=view.eta_s)
    return Signal(state=view.state, progress=progress, cursor=cursor)


def end_of(end: RunEnd) -> Finished | Failed:
    """Return how a run ended; an end of what goes on is off the protocol."""
    match end.state:
        case RemoteState.SUCCEEDED:
            return Finished(result=end.result)
        case RemoteState.CANCELLED:
            return Failed(failure=failure(FailureClass.CANCELLED, "the service says that it was cancelled"))
        case RemoteState.FAILED if end.error is not None:
            class_ = CODES.get(end.error.code, FailureClass.TRANSIENT)
            return Failed(failure=failure(class_, end.error.message, code=end.error.code))
        case _:
            raise off_protocol(f"the service gave a result of work that is {end.state}")
