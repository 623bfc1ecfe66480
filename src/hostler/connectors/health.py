"""What a failed look at an endpoint means."""

from hostler.connectors.faults import ServiceFaultError, off_protocol
from hostler.connectors.transports.http import Answer
from hostler.contracts.service import EndpointState, Probe
from hostler.kernel.errors import ServiceUnavailableError


def probe_failure(error: ServiceFaultError) -> Probe:
    """Return the probe of an endpoint that did not answer as its protocol says."""
    return Probe(state=EndpointState.UNHEALTHY, message=f"{error.failure.label}: {error.failure.message}")


def service_unavailable(endpoint: str, error: ServiceFaultError) -> ServiceUnavailableError:
    """Return the error of an endpoint that cannot say what it has."""
    failure = error.failure
    return ServiceUnavailableError(
        f"endpoint {endpoint} does not answer: {failure.label}: {failure.message}",
        endpoint=endpoint,
        failure=failure.label,
    )


def expect_no_page(answer: Answer) -> None:
    """Raise a transient fault for an HTML page: a sign-in, a proxy or somebody else's service answers there."""
    if "html" in answer.headers.get("content-type", ""):
        raise off_protocol("the health path answers with an HTML page", status=answer.status)
