"""ministack with what it leaves out of a task's container.

- It starts containers without the task definition's entryPoint, which ECS honours (API reference, ContainerDefinition), and in a network that
  does not reach the servers of a test on loopback.
- It knows no `dependsOn`. Here a container starts once those that it names by COMPLETE have ended; no other condition is known.
- It shares no volume between containers of a task. Here each has a volume of the engine, which goes with the task.
- A container that cannot be pulled or started has no reason of its own. Here it has ECS's: `CannotPullContainerError`, or
  `CannotStartContainerError`.
- A task's metadata has no exit codes, and no statuses of containers that have ended (Developer Guide, "Task metadata endpoint version 4").
- Its ECR names repositories by hosts of AWS. Here they are in a registry on loopback: its own, or the real one that MYCLI_TESTS_REGISTRY names
  (`images/registry.sh`), from which a container engine pulls. ECR's API then tells what that registry has.
- It follows a container's log through the engine alone. Podman often ends that after the first line of a container that has ended already (75 of
  200 containers with five lines each, on two processors under load). Here the rest is read once the container has ended, and a container is
  only removed after that. The log is split at newlines alone.
- It gives them the ciphertext of a SecureString, where ECS gives the value (Developer Guide, "Pass Systems Manager parameters through
  environment variables").
- It starts tasks of a definition that was deregistered, which ECS refuses (API reference, `DeregisterTaskDefinition`), in the words of
  `it/aws/fixtures/answers/definition-inactive.json`.
- It lists no families of task definitions where all are asked for (API reference, `ListTaskDefinitionFamilies`: `ALL`), so that `mycli destroy`
  would find none to remove.
- It takes no Spot capacity back. A StopTask for the reason that ECS gives then does (`it/aws/fixtures/events/spot-interruption.json`).
- Its account has ECS's service-linked role, as one that has used ECS has. With MYCLI_TESTS_NEW_ACCOUNT=1 it has none, and ECS cannot use
  the role yet when the first cluster is made (AWS-FACTS, "The first day").
- A stage of an API that a stack makes has no access log.
- It looks for every term of a subscription filter's pattern, also for those that are to be left out (CloudWatch Logs user guide, "Filter
  pattern syntax").
- It takes requests that AWS refuses. Each one that is signed is held to AWS's own API models first (`models.py`): a fault is a 400 that says
  so and a line of `faults.jsonl`, and `checked.jsonl` has a line for each operation that was seen. MYCLI_TESTS_NO_MODELS=1 leaves it out.
- It asks no policy. The calls that MYCLI_TESTS_DENIED names, as `iam:GetRole`, are denied in IAM's words, whoever makes them.
- A new index of a table is ready at once, and one update of a stack may change as many as it likes. DynamoDB takes its time, refuses other
  changes meanwhile (`ResourceInUseException`), and takes one index an update; CloudFormation does not wait for it.

Everything else is its own.
"""

import base64
import json
import os
import re
import threading
import time
import urllib.error
import urllib.request
from functools import partial
from urllib.parse import parse_qsl

from ministack.app import app  # noqa: F401  (served by hypercorn)
from ministack.core.responses import error_response_json
from ministack.services import cloudwatch_logs, dynamodb, ecr, ecs, ecs_metadata, iam, lambda_svc, ssm
from ministack.services.cloudformation import changesets, provisioners

models = None
if os.environ.get("MYCLI_TESTS_NO_MODELS") != "1":
    import models

_build_run_kwargs = ecs._build_run_kwargs


def _with_entry_point(cdef, *rest):
    arguments = _build_run_kwargs(cdef, *rest)
    if cdef.get("entryPoint"):
        arguments["entrypoint"] = cdef["entryPoint"]
    task = arguments["labels"]["com.amazonaws.ecs.task-arn"]
    shared = [
        f"{_volume(task, mount['sourceVolume'])}:{mount['containerPath']}:{'ro' if mount.get('readOnly') else 'rw'}"
        for mount in cdef.get("mountPoints", [])
    ]
    if shared:
        arguments["volumes"] = shared
    for name in ("network", "ports", "extra_hosts"):
        arguments.pop(name, None)
    arguments["network_mode"] = "host"
    return arguments


def _volume(task, name):
    return f"ministack-ecs-{task.rsplit('/', 1)[-1][:8]}-{name}"


ecs._build_run_kwargs = _with_entry_point


_register_metadata = ecs._register_metadata


def _register_reachable_metadata(task, cluster, td, cdef, launch_type, env, _host_mode, ip):
    """Containers are in the host's network here. They get none of the credentials that the emulator would give them: the functions of a test
    are to be the only callers that it counts."""
    before = set(env)
    token = _register_metadata(task, cluster, td, cdef, launch_type, env, True, ip)
    for name in set(env) - before - {"ECS_CONTAINER_METADATA_URI_V4"}:
        del env[name]
    return token


ecs._register_metadata = _register_reachable_metadata


_run_docker_container = ecs._run_docker_container


def _run_after_dependencies(docker_client, cdef, run_kwargs, **more):
    """Starts a container once those that it depends on have ended."""
    arn = run_kwargs["labels"]["com.amazonaws.ecs.task-arn"]
    task = ecs._tasks[arn]
    for dependency in cdef.get("dependsOn", []):
        if dependency["condition"] != "COMPLETE":
            raise RuntimeError(f"tests/emulated.py knows no dependsOn {dependency['condition']}")
        other = docker_client.containers.get(f"ministack-ecs-{arn.rsplit('/', 1)[-1][:8]}-{dependency['containerName']}")
        _note_end(task, dependency["containerName"], other.wait()["StatusCode"])
    try:
        if cdef["image"].startswith(f"{_registry}/"):
            _pull(docker_client, cdef["image"])
    except Exception as error:
        _note_reason(task, cdef["name"], f"CannotPullContainerError: {error}")
        raise ecs._ImagePullError(str(error)) from error
    try:
        return _run_docker_container(docker_client, cdef, run_kwargs, **more)
    except Exception as error:
        _note_reason(task, cdef["name"], f"CannotStartContainerError: {error}")
        raise


def _pull(docker_client, image):
    """As ECS does, from the registry, whatever the engine has already: the client's own `pull` passes over an error then."""
    repository, _, digest = image.partition("@")
    auth = {"username": "AWS", "password": _TOKEN}
    for line in docker_client.api.pull(repository, tag=digest, auth_config=auth, stream=True, decode=True):
        if "error" in line:
            raise RuntimeError(line["error"])


def _container(task, name):
    return next(one for one in task["containers"] if one["name"] == name)


def _note_end(task, name, code):
    container = _container(task, name)
    container["lastStatus"], container["exitCode"] = "STOPPED", code
    shown = ecs_metadata._TASKS.get(task["taskArn"], {}).get("Containers", [])
    for one in shown:
        if one["Name"] == name:
            one["KnownStatus"], one["ExitCode"] = "STOPPED", code


def _note_reason(task, name, reason):
    _container(task, name)["reason"] = reason


ecs._run_docker_container = _run_after_dependencies


_maybe_mark_stopped = ecs._maybe_mark_stopped


def _maybe_mark_stopped_and_tell(task, *rest):
    """The metadata of a task tells which of its containers have ended."""
    _maybe_mark_stopped(task, *rest)
    for container in task.get("containers", []):
        if container["lastStatus"] == "STOPPED" and container.get("exitCode") is not None:
            _note_end(task, container["name"], container["exitCode"])


ecs._maybe_mark_stopped = _maybe_mark_stopped_and_tell


_cleanup_task_resources = ecs._cleanup_task_resources


def _cleanup_with_volumes(task, docker_client, *rest):
    _cleanup_task_resources(task, docker_client, *rest)
    docker_client = docker_client or ecs._get_docker()
    td = ecs._task_defs.get(ecs._resolve_td_key(task["taskDefinitionArn"]), {})
    for volume in td.get("volumes", []) if docker_client else []:
        try:
            docker_client.volumes.get(_volume(task["taskArn"], volume["name"])).remove(force=True)
        except Exception:  # It was never made, or another thread was faster.
            pass


ecs._cleanup_task_resources = _cleanup_with_volumes


_start_awslogs_forwarder = ecs._start_awslogs_forwarder
_remove_docker_container = ecs._remove_docker_container
# By container: set once its whole log is in its stream.
_forwarded = {}
# More than the rest of any test's log takes.
_FORWARDED_WITHIN_SECONDS = 30
# The longest event, in bytes (API reference of CloudWatch Logs, `PutLogEvents`): 256 KB with 26 bytes for its time.
_EVENT_MAX = 256 * 1024 - 26


def _start_noted_forwarder(container, cdef, task_id):
    if ecs._awslogs_config(cdef, task_id, container.id):
        _forwarded[container.id] = threading.Event()
        _start_awslogs_forwarder(container, cdef, task_id)


def _forward_whole_log(container, config, account_id, region):
    done = _forwarded[container.id]
    try:
        with ecs.request_scope(account_id, region):
            if ecs._ensure_awslogs_stream(config):
                for line in _lines(_output(container)):
                    for at in range(0, len(line) or 1, _EVENT_MAX):
                        part = line[at : at + _EVENT_MAX]
                        ecs._emit_awslogs_event(config, part.decode("utf-8", errors="replace"))
    except Exception as error:
        ecs.logger.error("ECS: a part of the log of %s is missing: %s", config["stream"], error)
    finally:
        done.set()


def _output(container):
    """The whole output of a container: what the engine gives while it runs, and then what that left out."""
    followed = 0
    try:
        for chunk in container.logs(stream=True, follow=True, stdout=True, stderr=True):
            followed += len(chunk)
            yield chunk
    except Exception as error:  # The rest is read below.
        ecs.logger.warning("ECS: a log was not followed to its end: %s", error)
    container.wait()
    for chunk in container.logs(stream=True, follow=False, stdout=True, stderr=True):
        known = min(followed, len(chunk))
        followed -= known
        yield chunk[known:]


def _lines(chunks):
    """The lines of each chunk. A line is not put together from chunks, because they are of two streams."""
    for chunk in chunks:
        if chunk:
            yield from chunk.removesuffix(b"\n").split(b"\n")


def _remove_forwarded_container(docker_client, container_or_id):
    if docker_client and container_or_id is not None:
        try:
            container = docker_client.containers.get(getattr(container_or_id, "id", container_or_id))
            container.stop(timeout=5)
            if container.id in _forwarded:
                _forwarded[container.id].wait(_FORWARDED_WITHIN_SECONDS)
        except Exception:  # It is gone already.
            pass
    _remove_docker_container(docker_client, container_or_id)


ecs._start_awslogs_forwarder = _start_noted_forwarder
ecs._forward_awslogs = _forward_whole_log
ecs._remove_docker_container = _remove_forwarded_container


# The registry of ECR's repositories. A name has the emulator's port in it, because tests share the real one.
_PORT = os.environ.get("GATEWAY_PORT", "4566")
_real_registry = os.environ.get("MYCLI_TESTS_REGISTRY")
_registry = _real_registry or f"127.0.0.1:{_PORT}"
_TOKEN = "a-token-of-the-tests"  # As in images/registry.sh.
_MANIFESTS = ("application/vnd.oci.image.index.v1+json", "application/vnd.oci.image.manifest.v1+json")


def _in_registry(name):
    return f"emulator-{_PORT}/{name}" if _real_registry else name


def _get_authorization_token(_request):
    token = base64.b64encode(f"AWS:{_TOKEN}".encode()).decode()
    given = {"authorizationToken": token, "expiresAt": int(time.time()) + 43200, "proxyEndpoint": f"http://{_registry}"}
    return ecr.json_response({"authorizationData": [given]})


def _asked_registry(method, path):
    """Headers and body of the real registry's answer; none if it has no such thing."""
    request = urllib.request.Request(f"http://{_real_registry}/v2/{path}", method=method)
    request.add_header("Accept", ", ".join(_MANIFESTS))
    request.add_header("Authorization", "Basic " + base64.b64encode(f"AWS:{_TOKEN}".encode()).decode())
    try:
        with urllib.request.urlopen(request, timeout=10) as answer:
            return answer.headers, answer.read()
    except urllib.error.HTTPError as error:
        if error.code == 404:
            return None
        raise


def _images_of_registry(name):
    """The images in the form of the emulator's own."""
    listed = _asked_registry("GET", f"{_in_registry(name)}/tags/list")
    tags = (json.loads(listed[1])["tags"] or []) if listed else []
    images = {}
    for tag in tags:
        headers, _ = _asked_registry("HEAD", f"{_in_registry(name)}/manifests/{tag}")
        digest = headers["Docker-Content-Digest"]
        image = images.setdefault(digest, {"imageDigest": digest, "imageTags": [], "imageManifestMediaType": headers["Content-Type"]})
        image["imageTags"].append(tag)
    for image in images.values():
        image["imageId"] = {"imageDigest": image["imageDigest"], "imageTag": image["imageTags"][0]}
    return list(images.values())


def _with_images_of_registry(action):
    def acted(request):
        name = request.get("repositoryName", "")
        if _real_registry and name in ecr._repositories:
            ecr._images[name] = _images_of_registry(name)
        return action(request)

    return acted


def _describe_images(request):
    answer = _describe(request)
    if request.get("imageIds") and answer[0] == 200 and not json.loads(answer[2])["imageDetails"]:
        words = f"The image with imageId {request['imageIds'][0]} does not exist within the repository with name '{request['repositoryName']}'"
        return error_response_json("ImageNotFoundException", words, 400)
    return answer


def _delete_repository(request):
    name = request.get("repositoryName", "")
    images = _images_of_registry(name) if _real_registry else []
    deleted = _delete_from_api(request)
    if deleted[0] == 200:
        for image in images:
            _asked_registry("DELETE", f"{_in_registry(name)}/manifests/{image['imageDigest']}")
    return deleted


_delete_from_api = _with_images_of_registry(ecr._delete_repository)
ecr._delete_repository = _delete_repository
_describe = _with_images_of_registry(ecr._describe_images)
ecr._repo_uri = lambda name: f"{_registry}/{_in_registry(name)}"
ecr._get_authorization_token = _get_authorization_token
ecr._describe_images = _describe_images
ecr._list_images = _with_images_of_registry(ecr._list_images)
# Nothing else of it asks for a parameter's value in this way while a stack of ours runs.
ssm.resolve_parameter_value = partial(ssm.resolve_parameter_value, decrypt=True)


def _passes_filter(pattern, message):
    terms = re.findall(r'(-?)(?:"([^"]*)"|(\S+))', pattern or "")
    return all(((phrase or word) in message) != bool(left_out) for left_out, phrase, word in terms)


cloudwatch_logs._subscription_pattern_matches = _passes_filter
_run_task = ecs._run_task


def _run_active_task(request):
    definition = ecs._task_defs.get(ecs._resolve_td_key(request.get("taskDefinition", "")))
    if definition and definition["status"] != "ACTIVE":
        return error_response_json("ClientException", "TaskDefinition is inactive", 400)
    return _run_task(request)


ecs._ACTION_MAP["RunTask"] = _run_active_task


_list_families = ecs._list_task_definition_families


def _list_all_families(request):
    return _list_families(request | {"status": ""} if request.get("status") == "ALL" else request)


ecs._ACTION_MAP["ListTaskDefinitionFamilies"] = _list_all_families


_is_new_account = os.environ.get("MYCLI_TESTS_NEW_ACCOUNT") == "1"
_create_service_linked_role = iam._IAM_HANDLERS["CreateServiceLinkedRole"]
_cluster = provisioners._RESOURCE_HANDLERS["AWS::ECS::Cluster"]
_create_cluster = _cluster["create"]
_not_assumed = (
    'Resource handler returned message: "Invalid request provided: CreateCluster Invalid Request: Unable to assume the service linked role. '
    'Please verify that the ECS service linked role exists."'
)


def _create_role_once(request):
    made = _create_service_linked_role(request) if _is_new_account else None
    if made and made[0] == 200:
        return made
    words = "Service role name AWSServiceRoleForECS has been taken in this account, please try a different suffix."
    return iam._error(400, "InvalidInput", words, ns="iam")


def _create_cluster_the_second_time(*arguments, **more):
    global _is_new_account
    if _is_new_account:
        _is_new_account = False
        raise ValueError(_not_assumed)
    return _create_cluster(*arguments, **more)


iam._IAM_HANDLERS["CreateServiceLinkedRole"] = _create_role_once
_cluster["create"] = _create_cluster_the_second_time


_mark_task_stopped = ecs._mark_task_stopped


def _mark_task_stopped_or_interrupted(arn, task, reason, code, exit_code=None):
    if reason == "Your Spot Task was interrupted.":
        code, exit_code = "SpotInterruption", 143
    return _mark_task_stopped(arn, task, reason, code, exit_code=exit_code)


ecs._mark_task_stopped = _mark_task_stopped_or_interrupted


# Each request that one of the stack's functions makes, as a line of JSON in `calls.jsonl`: what IAM would have been asked, and what
# DynamoDB would have billed. The functions say who they are in their user agent, as they do on AWS.
_server = app
_WRITES = {"PutItem", "UpdateItem", "DeleteItem", "BatchWriteItem", "TransactWriteItems"}
# What was seen in `checked.jsonl`.
_checked = set()
_denied = os.environ.get("MYCLI_TESTS_DENIED", "").split()


async def _body(receive):
    parts, more = [], True
    while more:
        message = await receive()
        parts.append(message.get("body", b""))
        more = message.get("more_body", False)
    return b"".join(parts)


async def app(scope, receive, send):  # noqa: F811
    sent = scope.get("headers") or [] if scope["type"] == "http" else []
    headers = {name.decode("latin-1"): value.decode("latin-1") for name, value in sent}
    caller = re.search("app/(mycli-[a-z0-9-]+)", headers.get("user-agent", ""))
    signed = models and models.is_signed(headers)
    if not (caller or signed):
        return await _server(scope, receive, send)
    body = await _body(receive)
    refusal = _held_to_its_model(scope, headers, body) if signed else None
    if refusal:
        return await _answer(scope, send, *refusal)
    if not caller:
        return await _server(scope, _again(body, receive), send)
    if "x-amz-target" not in headers:
        _note("calls.jsonl", {"function": caller[1], "target": _rest_target(scope, headers, body), "body": {"path": scope["path"]}})
        return await _server(scope, _again(body, receive), send)
    asked = json.loads(body or b"{}")
    call = {"function": caller[1], "target": headers["x-amz-target"], "body": asked}
    service, _, operation = call["target"].partition(".")
    if service == "DynamoDB_20120810" and operation in _WRITES:
        body = json.dumps(asked | {"ReturnConsumedCapacity": "TOTAL"}).encode()
    answer = []
    await _server(scope, _again(body, receive), lambda message: _noted(answer, send, message))
    if service == "DynamoDB_20120810":
        answered = json.loads(b"".join(answer) or b"{}")
        call |= {"units": _units(operation, asked, answered), "refused": "__type" in answered}
    _note("calls.jsonl", call)


def _held_to_its_model(scope, headers, body):
    """Status, headers and body of a refusal, if AWS's model of the operation has one, or the call is to be denied."""
    request = scope["method"], scope["raw_path"].decode("latin-1"), scope["query_string"].decode("latin-1"), headers, body
    try:
        service, operation, faults = models.check(*request)
    except Exception as error:  # What it cannot read is no request that it may let pass.
        service, operation, faults = "", None, [f"tests/models.py failed: {error!r}"]
    if faults:
        agent = headers.get("user-agent", "")
        _note("faults.jsonl", {"service": service, "operation": operation, "faults": faults, "agent": agent})
        return 400, *models.refusal(service, faults)
    # The command line says who it is without a function's name.
    if re.search(r"app/mycli(?![a-z0-9-])", headers.get("user-agent", "")):
        asked = {"service": service, "operation": operation, "method": scope["method"], "path": scope["path"]}
        _note("commands.jsonl", asked | {"parameters": _parameters(headers, body)})
    if f"{service}:{operation}" in _denied:
        return 403, *_denial(service, operation)
    if (service, operation) not in _checked:
        _checked.add((service, operation))
        _note("checked.jsonl", {"service": service, "operation": operation})
    return None


def _rest_target(scope, headers, body):
    """The service and the operation of a request that names them by its method and path."""
    request = scope["method"], scope["raw_path"].decode("latin-1"), scope["query_string"].decode("latin-1"), headers, body
    service, operation, _ = models.check(*request) if models else ("s3", scope["method"], [])
    return f"{service}.{operation}"


def _parameters(headers, body):
    """Those of the query protocol and of JSON. A body of another kind is not looked at."""
    if headers.get("content-type", "").startswith("application/x-www-form-urlencoded"):
        return dict(parse_qsl(body.decode()))
    return json.loads(body or b"{}") if "x-amz-target" in headers else {}


def _denial(service, operation):
    """What IAM says, for services of the query protocol."""
    words = f"User: arn:aws:iam::000000000000:user/alice is not authorized to perform: {service}:{operation} on resource: *"
    error = f"<Error><Type>Sender</Type><Code>AccessDenied</Code><Message>{words}</Message></Error>"
    return {"content-type": "text/xml"}, f"<ErrorResponse>{error}<RequestId>0</RequestId></ErrorResponse>".encode()


async def _answer(scope, send, status, headers, body):
    named = [(name.encode(), value.encode()) for name, value in headers.items()]
    named.append((b"content-length", str(len(body)).encode()))
    await send({"type": "http.response.start", "status": status, "headers": named})
    # An answer to HEAD has none, and so no reason: `faults.jsonl` has it.
    await send({"type": "http.response.body", "body": b"" if scope["method"] == "HEAD" else body})


def _again(body, receive):
    unread = [{"type": "http.request", "body": body, "more_body": False}]
    return lambda: _next(unread, receive)


async def _next(unread, receive):
    return unread.pop() if unread else await receive()


async def _noted(answer, send, message):
    answer.append(message.get("body", b""))
    await send(message)


def _note(name, what):
    with open(name, "a", encoding="utf-8") as file:
        file.write(json.dumps(what) + "\n")


def _units(operation, asked, answer):
    """Write and read units of a call. Writes are what the emulator reports; a write that was refused by its condition is billed too, and
    counted here with the least it may be. Reads are reckoned from the sizes, because the emulator reports one flat unit for any query.
    (DynamoDB Developer Guide, "Read consumption", "Write consumption", "Condition expression".)"""
    if operation in _WRITES:
        failed = str(answer.get("__type", ""))
        if "TransactionCanceled" in failed:
            return {"writes": 2 * len(asked["TransactItems"]), "reads": 0}
        if "ConditionalCheckFailed" in failed:
            return {"writes": 1, "reads": 0}
        consumed = answer.get("ConsumedCapacity", [])
        consumed = consumed if isinstance(consumed, list) else [consumed]
        return {"writes": sum(one.get("CapacityUnits", 0) for one in consumed), "reads": 0}
    rate = 1 if asked.get("ConsistentRead") else 0.5
    if operation == "Query":
        return {"writes": 0, "reads": rate * _blocks(sum(map(_size, answer.get("Items", []))))}
    if operation == "BatchGetItem":
        found = [(table, item) for table, items in answer.get("Responses", {}).items() for item in items]
        missed = sum(len(keys["Keys"]) for keys in asked["RequestItems"].values()) - len(found)
        rates = {table: 1 if keys.get("ConsistentRead") else 0.5 for table, keys in asked["RequestItems"].items()}
        return {"writes": 0, "reads": sum(rates[table] * _blocks(_size(item)) for table, item in found) + missed}
    if operation == "TransactGetItems":
        return {"writes": 0, "reads": sum(2 * _blocks(_size(part.get("Item", {}))) for part in answer.get("Responses", []))}
    return {"writes": 0, "reads": rate * _blocks(_size(answer.get("Item", {})))}


def _blocks(size):
    return max(1, -(-size // 4096))


def _size(item):
    """The size of an item (DynamoDB Developer Guide, "Item sizes and formats")."""
    return sum(len(name.encode()) + _value_size(value) for name, value in item.items())


def _value_size(value):
    (kind, content), = value.items()
    if kind == "S":
        return len(content.encode())
    if kind == "N":
        return (len(content.lstrip("-").replace(".", "")) + 1) // 2 + 1
    if kind == "M":
        return 3 + len(content) + _size(content)
    if kind == "B":
        return len(base64.b64decode(content)) if isinstance(content, str) else len(content)
    if kind == "L":
        return 3 + sum(1 + _value_size(one) for one in content)
    return 1


# Each invocation of a function, as a line of JSON in `invocations.jsonl`: what invoked it, and how long that took.
_invoke = lambda_svc._execute_function_provided_warm


# An event source that is for an alias of a function names the alias in the ARN of an invocation. The emulator names the function alone.
_source_of_batch = threading.local()
_apply_filter = lambda_svc._apply_filter_criteria


def _apply_noted_filter(records, esm):
    _source_of_batch.qualifier = esm.get("Qualifier")
    return _apply_filter(records, esm)


lambda_svc._apply_filter_criteria = _apply_noted_filter


def _by_alias(func, event):
    qualifier = getattr(_source_of_batch, "qualifier", None) if "Records" in event else None
    _source_of_batch.qualifier = None
    if not qualifier:
        return func
    config = func.get("config") or func
    return func | {"config": config | {"FunctionArn": f"{config['FunctionArn']}:{qualifier}"}}


def _invoked(func, event, request_id):
    func = _by_alias(func, event)
    config = func.get("config") or func
    begun = time.monotonic()
    result = _invoke(func, event, request_id)
    took = time.monotonic() - begun
    said = {"function": config["FunctionName"], "source": _source(event), "records": len(event.get("Records") or [])}
    _note("invocations.jsonl", said | {"ms": 1000 * took, "memory": config["MemorySize"]})
    return result


def _source(event):
    records = event.get("Records") or [{}]
    if "eventSourceARN" in records[0]:
        return records[0]["eventSourceARN"]
    return next((name for name in ("httpMethod", "awslogs", "detail", "sweep") if name in event), "")


lambda_svc._execute_function_provided_warm = _invoked


_stage = provisioners._RESOURCE_HANDLERS["AWS::ApiGateway::Stage"]
_create_stage = _stage["create"]


_start_import = changesets._start_import


def _start_described_import(change_set, stack):
    """An import takes no tags, and the stack that it makes has the description of its template, which the emulator leaves out."""
    stack["Description"] = change_set["_template"].get("Description", "")
    stack["Tags"] = []
    _start_import(change_set, stack)


changesets._start_import = _start_described_import


def _create_logging_stage(logical_id, props, stack_name):
    made = _create_stage(logical_id, props, stack_name)
    log = props.get("AccessLogSetting")
    if log:
        stage = provisioners._apigw_v1._stages_v1[props["RestApiId"]][props["StageName"]]
        stage["accessLogSettings"] = {"destinationArn": log["DestinationArn"], "format": log["Format"]}
    return made


_stage["create"] = _create_logging_stage


# How many times an index that was added is described as being built.
_LOOKS = 3
_looks_left = {}
_describe_table = dynamodb._describe_table
_update_table_of_stack = provisioners._RESOURCE_HANDLERS["AWS::DynamoDB::Table"]["update"]


def _describe_building_table(request):
    name = request.get("TableName")
    for index in dynamodb._tables.get(name, {}).get("GlobalSecondaryIndexes", []):
        left = _looks_left.get((name, index["IndexName"]), 0)
        index["IndexStatus"] = "CREATING" if left else "ACTIVE"
        _looks_left[name, index["IndexName"]] = max(0, left - 1)
    return _describe_table(request)


def _update_one_index(physical_id, old, new, *rest, **more):
    before, after = ({index["IndexName"] for index in table.get("GlobalSecondaryIndexes", [])} for table in (old, new))
    changed = before ^ after
    if len(changed) > 1:
        raise ValueError("Cannot perform more than one GSI creation or deletion in a single update")
    if changed and any(left for (table, _), left in _looks_left.items() if table == physical_id):
        raise ValueError(f"Attempt to change a resource which is still in use: Table is being updated: {physical_id}")
    result = _update_table_of_stack(physical_id, old, new, *rest, **more)
    _looks_left.update({(physical_id, index): _LOOKS for index in after - before})
    return result


dynamodb._describe_table = _describe_building_table
provisioners._RESOURCE_HANDLERS["AWS::DynamoDB::Table"]["update"] = _update_one_index
