"""ministack with what it leaves out of a task's container.

- It starts containers without the task definition's entryPoint, which ECS honours (API reference, ContainerDefinition), and in a network that
  does not reach the servers of a test on loopback.
- It gives them the ciphertext of a SecureString, where ECS gives the value (Developer Guide, "Pass Systems Manager parameters through
  environment variables").
- It starts tasks of a definition that was deregistered, which ECS refuses (API reference, `DeregisterTaskDefinition`), in the words of
  `it/aws/fixtures/answers/definition-inactive.json`.

Everything else is its own.
"""

import json
import re
from functools import partial

from ministack.app import app  # noqa: F401  (served by hypercorn)
from ministack.core.responses import error_response_json
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

_run_task = ecs._run_task


def _run_active_task(request):
    definition = ecs._task_defs.get(ecs._resolve_td_key(request.get("taskDefinition", "")))
    if definition and definition["status"] != "ACTIVE":
        return error_response_json("ClientException", "TaskDefinition is inactive", 400)
    return _run_task(request)


ecs._ACTION_MAP["RunTask"] = _run_active_task


# Each request that one of the stack's functions makes, as a line of JSON in `calls.jsonl`: what IAM would have been asked. The functions
# say who they are in their user agent, as they do on AWS.
_server = app


async def _body(receive):
    parts, more = [], True
    while more:
        message = await receive()
        parts.append(message.get("body", b""))
        more = message.get("more_body", False)
    return b"".join(parts)


async def app(scope, receive, send):  # noqa: F811
    headers = dict(scope.get("headers") or []) if scope["type"] == "http" else {}
    caller = re.search(rb"app/(mycli-[a-z0-9-]+)", headers.get(b"user-agent", b""))
    if not caller:
        return await _server(scope, receive, send)
    body = await _body(receive)
    call = {
        "function": caller[1].decode(),
        "target": headers.get(b"x-amz-target", b"").decode(),
        "body": json.loads(body or b"{}"),
    }
    with open("calls.jsonl", "a", encoding="utf-8") as file:
        file.write(json.dumps(call) + "\n")
    unread = [{"type": "http.request", "body": body, "more_body": False}]
    return await _server(scope, lambda: _next(unread, receive), send)


async def _next(unread, receive):
    return unread.pop() if unread else await receive()
