"""The prior broker's `WORKERS` string on one machine: where endpoints are without any registry."""

import json

import pytest

from .conftest import Shell
from .test_up import ready, system

MAPPING = {
    "workers": {"simulation": {"services": ["simulation-http"], "is_gpu_bound": True, "scaling_strategy": "per_gpu"}},
    "services": {"simulation-http": {"connector": "SimulationHttpConnector"}},
}


@pytest.mark.timeout(180)
@pytest.mark.row("001:126")
async def test_three_of_a_type_are_the_endpoints_of_three_gpus_from_its_first_port_on(shell: Shell) -> None:
    (shell.folder / "service-mapping.json").write_text(json.dumps(MAPPING))
    shell.environment |= {"WORKERS": "simulation:3", "HOSTLER_MAPPING": "service-mapping.json"}
    with system(shell) as up:
        await ready(up)
        listed = shell.run("services", "list", "--json", "--url", up.url).last["items"]
    assert sorted((one["url"], one["source"]) for one in listed) == [
        (f"http://127.0.0.1:{8299 + number}", "mapping") for number in range(3)
    ]
