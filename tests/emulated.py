"""ministack with what it leaves out of a task's container.

- It starts containers without the task definition's entryPoint, which ECS honours (API reference, ContainerDefinition), and in a network that
  does not reach the servers of a test on loopback.
- It gives them the ciphertext of a SecureString, where ECS gives the value (Developer Guide, "Pass Systems Manager parameters through
  environment variables").

Everything else is its own.
"""

from functools import partial

from ministack.app import app  # noqa: F401  (served by hypercorn)
from ministack.services import ecs, ssm

_build_run_kwargs = ecs._build_run_kwargs


def _with_entry_point(cdef, *rest):
    arguments = _build_run_kwargs(cdef, *rest)
    if cdef.get("entryPoint"):
        arguments["entrypoint"] = cdef["entryPoint"]
    for name in ("network", "ports", "extra_hosts"):
        arguments.pop(name, None)
    arguments["network_mode"] = "host"
    return arguments


ecs._build_run_kwargs = _with_entry_point
# Nothing else of it asks for a parameter's value in this way while a stack of ours runs.
ssm.resolve_parameter_value = partial(ssm.resolve_parameter_value, decrypt=True)
