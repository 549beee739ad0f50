"""Would AWS understand this request? Asked of AWS's own API models, as botocore has them.

The emulator takes much that AWS refuses: names that are not there, texts that are too long, numbers out of range. AWS publishes what each
operation takes, so `check` finds the operation of a request by what is in the request alone (service from the signature, operation from
the target, the action or the path), reads its parameters and holds them to the model. `tests/emulated.py` asks before it passes a request on.

    python3 tests/models.py self-test          requests that must pass, and requests that must not
    python3 tests/models.py cost               how long a check takes
    python3 tests/models.py operations FOLDER  what `checked.jsonl` and `faults.jsonl` of an emulator's folder say

The data is read from the folder that tests/setup.sh made; the botocore package itself is not imported.
"""

import base64
import binascii
import gzip
import json
import os
import re
import sys
import time
import zlib
from datetime import datetime
from email.utils import parsedate_to_datetime
from functools import cache
from pathlib import Path
from urllib.parse import parse_qsl, unquote
from xml.etree import ElementTree

BOTOCORE = "1.44.8"  # As in tests/setup.sh.


def tool(name):
    """The folder that tests/setup.sh installed something into."""
    home = os.environ.get("XDG_CACHE_HOME") or Path.home() / ".cache"
    folder = Path(os.environ.get("MYCLI_TESTS_CACHE") or Path(home) / "mycli-tests") / "tools" / name
    if not folder.is_dir():
        raise SystemExit(f"{name} is missing: run tests/setup.sh")
    return folder


_FOLDER = tool(f"botocore-{BOTOCORE}")
# At the end: it has `regex`, and nothing else that anybody should find there first.
sys.path.append(str(_FOLDER))
import regex  # noqa: E402

# What is no fault of ours: (service, operation, what the fault says, why). The first three are regular expressions, each for the whole text.
# Nothing is here yet. An entry says in AWS's own words why AWS takes it.
ALLOWED = []

# Limits that the model has in words only: of a shape, or of a structure's member. The words are those of the documentation in the model.
_UP_TO_255 = "[A-Za-z0-9_-]{1,255}"
_BATCH_ID = {"pattern": "[A-Za-z0-9_-]{1,80}"}
_BATCH = {"min": 1, "max": 10}
_PAGE = {"min": 1, "max": 100}
WRITTEN = {
    # "The maximum number of entries you can include in a single SendMessageBatch, DeleteMessageBatch, or ChangeMessageVisibilityBatch
    # request is 10." (TooManyEntriesInBatchRequest) "The batch request doesn't contain any entries." (EmptyBatchRequest)
    ("sqs", "SendMessageBatchRequestEntryList"): _BATCH,
    ("sqs", "DeleteMessageBatchRequestEntryList"): _BATCH,
    ("sqs", "ChangeMessageVisibilityBatchRequestEntryList"): _BATCH,
    # "This identifier can have up to 80 characters. The following characters are accepted: alphanumeric characters, hyphens(-), and
    # underscores (_)."
    ("sqs", "SendMessageBatchRequestEntry.Id"): _BATCH_ID,
    ("sqs", "DeleteMessageBatchRequestEntry.Id"): _BATCH_ID,
    ("sqs", "ChangeMessageVisibilityBatchRequestEntry.Id"): _BATCH_ID,
    # "Valid values: 0 to 900. Maximum: 15 minutes."
    ("sqs", "SendMessageBatchRequestEntry.DelaySeconds"): {"min": 0, "max": 900},
    ("sqs", "SendMessageRequest.DelaySeconds"): {"min": 0, "max": 900},
    # "Valid values: 1 to 10."
    ("sqs", "ReceiveMessageRequest.MaxNumberOfMessages"): _BATCH,
    # "You can specify up to 10 tasks for each call."
    ("ecs", "RunTaskRequest.count"): {"max": 10},
    # "Up to 64 characters are allowed. The valid characters are characters in the range of 33-126, inclusive."
    ("ecs", "RunTaskRequest.clientToken"): {"pattern": "[!-~]{1,64}"},
    # "Up to 128 letters (uppercase and lowercase), numbers, hyphens (-), forward slash (/), and underscores (_) are allowed."
    ("ecs", "RunTaskRequest.startedBy"): {"pattern": "[A-Za-z0-9_/-]{1,128}"},
    # "There's a limit of 16 subnets that can be specified." "There's a limit of 5 security groups that can be specified."
    ("ecs", "AwsVpcConfiguration.subnets"): {"max": 16},
    ("ecs", "AwsVpcConfiguration.securityGroups"): {"max": 5},
    # "A list of up to 100 task IDs or full ARN entries." "You can specify up to 10 task definitions".
    ("ecs", "DescribeTasksRequest.tasks"): {"max": 100},
    ("ecs", "DeleteTaskDefinitionsRequest.taskDefinitions"): {"max": 10},
    # "This value can be between 1 and 100."
    ("ecs", "ListTasksRequest.maxResults"): _PAGE,
    ("ecs", "ListTaskDefinitionsRequest.maxResults"): _PAGE,
    ("ecs", "ListTaskDefinitionFamiliesRequest.maxResults"): _PAGE,
    # "Up to 255 letters (uppercase and lowercase), numbers, underscores, and hyphens are allowed."
    ("ecs", "RegisterTaskDefinitionRequest.family"): {"pattern": _UP_TO_255},
    ("ecs", "ContainerDefinition.name"): {"pattern": _UP_TO_255},
    # "For tasks that use the Fargate launch type, the max stop timeout value is 120 seconds".
    ("ecs", "ContainerDefinition.stopTimeout"): {"max": 120},
    # "Each attribute value is described as a name-value pair. The name is the data type, and the value is the data itself."
    ("dynamodb", "AttributeValue"): {"union": True},
    ("dynamodbstreams", "AttributeValue"): {"union": True},
}

# Where a signature's name is not that of the model's folder.
_SIGNED_AS = {
    "monitoring": "cloudwatch",
    "servicequotas": "service-quotas",
    "elasticloadbalancing": "elbv2",
    "states": "stepfunctions",
    "tagging": "resourcegroupstaggingapi",
}
# Two services that sign with another's name.
_BY_TARGET = {"DynamoDBStreams_20120810": "dynamodbstreams", "AnyScaleFrontendService": "application-autoscaling"}

# Headers of the signature and of the transport: no operation's parameters.
_TRANSPORT = {
    "x-amz-date",
    "x-amz-target",
    "x-amz-security-token",
    "x-amz-content-sha256",
    "x-amz-user-agent",
    "x-amz-decoded-content-length",
    "x-amz-trailer",
    "x-amz-sdk-checksum-algorithm",
    "x-amz-api-version",
}
_CHECKSUMS = ("content-md5", "x-amz-checksum-", "x-amz-trailer")

_INTEGERS = {"integer": 31, "long": 63, "short": 15, "byte": 7}
_ISO_8601 = re.compile(r"\d{4}-\d\d-\d\dT\d\d:\d\d:\d\d(\.\d+)?(Z|[+-]\d\d:?\d\d)")


def check(method, path, query_string, headers, body):
    """`(service, operation, faults)` of a request: its names in the models, and what AWS would not take, in words.

    `path` and `query_string` are as they came, percent-encoded; `headers` maps names in lower case to texts; `body` is bytes."""
    faults = []
    service, signed = _service(headers)
    if not service:
        return signed, None, [f"no model is known of a service that signs as {signed!r}: if AWS has it, _SIGNED_AS must name it"]
    model = _model(service)
    operation, note = model.read(method, path, query_string, headers, body, faults)
    told = [_told(fault) for fault in faults]
    if note:
        told.insert(0, note)
    return service, operation, [fault for fault in told if not _allowed(service, operation or "", fault)]


def refusal(service, faults):
    """`(headers, body)` of a 400 that says so in the form that the service's clients read."""
    text = "botocore's model refuses this: " + "; ".join(faults[:20])
    meta = _model(service).meta if _is_known(service) else {"protocol": "json"}
    kind = meta["protocol"]
    if "xml" in kind or kind in ("query", "ec2"):
        error = ElementTree.Element("Error")
        code = {"rest-xml": "InvalidRequest", "query": "ValidationError"}.get(kind, "InvalidParameterValue")
        for name, value in (("Type", "Sender"), ("Code", code), ("Message", _printable(text))):
            if name != "Type" or kind == "query":
                ElementTree.SubElement(error, name).text = value
        for wrap in {"ec2": ("Errors", "Response"), "query": ("ErrorResponse",)}.get(kind, ()):
            inner, error = error, ElementTree.Element(wrap)
            error.append(inner)
        return {"content-type": "text/xml"}, ElementTree.tostring(error)
    name = "ValidationException"
    said = {"__type": name, "message": text} if kind == "json" else {"message": text}
    version = meta.get("jsonVersion", "1.0")
    content_type = f"application/x-amz-json-{version}" if kind == "json" else "application/json"
    return {"content-type": content_type, "x-amzn-errortype": name}, json.dumps(said).encode()


def _printable(text):
    """XML knows no control characters."""
    return re.sub(r"[^\t\n\r\x20-\ud7ff\ue000-\ufffd\U00010000-\U0010ffff]", "?", text)


def is_signed(headers):
    """Whether a request is an SDK's to AWS; API Gateway's APIs (`execute-api`) are nobody's model."""
    scope = _SCOPE.search(headers.get("authorization", ""))
    return bool(scope) and scope[1] != "execute-api"


_SCOPE = re.compile(r"^AWS4-HMAC-SHA256 .*Credential=[^/,]+/\d{8}/[^/,]*/([^/,]+)/aws4_request")


def _service(headers):
    scope = _SCOPE.search(headers.get("authorization", ""))
    signed = scope[1] if scope else ""
    name = _BY_TARGET.get(headers.get("x-amz-target", "").partition(".")[0]) or _SIGNED_AS.get(signed, signed)
    return (name if _is_known(name) else None), signed


def _is_known(service):
    return bool(re.fullmatch("[a-z0-9-]+", service)) and (_data() / service).is_dir()


def _data():
    return _FOLDER / "botocore" / "data"


def _allowed(service, operation, fault):
    return any(
        re.fullmatch(one, service) and re.fullmatch(two, operation) and re.fullmatch(three, fault, re.DOTALL)
        for one, two, three, _ in ALLOWED
    )


def _told(fault):
    """A fault in words. A path is a chain `(the path above, a name or an index)`, which costs nothing where all is well."""
    path, text = fault
    names = []
    while path:
        path, name = path
        names.append(f"[{name}]" if isinstance(name, int) else f".{name}")
    where = "".join(reversed(names)).lstrip(".")
    return f"{where}: {text}" if where else text


@cache
def _model(service):
    versions = sorted(folder for folder in (_data() / service).iterdir() if (folder / "service-2.json.gz").exists())
    return Model(service, json.loads(gzip.decompress((versions[-1] / "service-2.json.gz").read_bytes())))


class Model:
    """One service. The check of a shape is made when the shape is first met, and kept."""

    def __init__(self, service, data):
        self.service = service
        self.meta = data["metadata"]
        self.shapes = data["shapes"]
        self.operations = data["operations"]
        self.protocols = self.meta.get("protocols") or [self.meta["protocol"]]
        self.checks = {}
        self.routes = None

    def shape(self, ref):
        return self.shapes[ref["shape"]]

    # --- From a request to its operation ---

    def read(self, method, path, query_string, headers, body, faults):
        """`(operation, what is wrong with the request as a whole)`; what is wrong with its parameters is added to `faults`."""
        encoding = headers.get("content-encoding", "")
        if encoding == "gzip":
            body = zlib.decompress(body, wbits=31)
        if "smithy-protocol" in headers:
            return None, f"the protocol {headers['smithy-protocol']} is not known to tests/models.py: teach it"
        if "x-amz-target" in headers:
            return self.read_json(method, headers, body, faults)
        if self.meta["protocol"] in ("query", "ec2") or "query" in self.protocols:
            return self.read_query(method, query_string, headers, body, faults)
        if self.meta["protocol"] in ("rest-json", "rest-xml"):
            return self.read_rest(method, path, query_string, headers, body, faults)
        return None, "no X-Amz-Target"

    def read_json(self, method, headers, body, faults):
        prefix, _, operation = headers["x-amz-target"].rpartition(".")
        if "json" not in self.protocols or prefix != self.meta.get("targetPrefix") or operation not in self.operations:
            return None, f"there is no target {headers['x-amz-target']!r}"
        kind = headers.get("content-type", "").partition(";")[0]
        if method != "POST" or not re.fullmatch(r"application/x-amz-json-1\.[01]", kind):
            return operation, f"a {method} of {kind!r}, where a POST of application/x-amz-json-{self.meta['jsonVersion']} is expected"
        try:
            value = json.loads(body or b"{}")
        except ValueError as error:
            return operation, f"the body is no JSON: {error}"
        self.input_check(operation)(value, None, faults)
        return operation, None

    def read_query(self, method, query_string, headers, body, faults):
        text = query_string
        if method == "POST":
            if headers.get("content-type", "").partition(";")[0] != "application/x-www-form-urlencoded":
                return None, "the body is no form"
            text = body.decode()
        given = parse_qsl(text, keep_blank_values=True)
        values = dict(given)
        operation = values.pop("Action", None)
        if operation not in self.operations:
            return None, f"there is no action {operation!r}"
        if len(values) + 1 != len(given):
            return operation, "a parameter is given twice"
        version = values.pop("Version", None)
        if version != self.meta["apiVersion"]:
            return operation, f"the version is {version!r}, where {self.meta['apiVersion']!r} is expected"
        tree = _tree(values, faults)
        ref = self.operations[operation].get("input")
        reader = Query(self, faults, ec2=self.meta["protocol"] == "ec2")
        value = reader.structure(tree, self.shape(ref), None) if ref else tree
        self.input_check(operation, decoded=True)(value, None, faults)
        return operation, None

    def read_rest(self, method, path, query_string, headers, body, faults):
        query = parse_qsl(query_string, keep_blank_values=True)
        # S3's paths alone do not tell its operations apart, so SDKs name them. botocore leaves the name out of its data.
        named = next((value for name, value in query if name == "x-id"), None) if self.service == "s3" else None
        query = [pair for pair in query if not (named and pair[0] == "x-id")]
        best = None
        for operation, labels, fixed in self.routes_of(method, path, query):
            if named and operation != named:
                continue
            rest = [pair for pair in query if pair not in fixed]
            found = []
            note = Rest(self, operation, found).read(labels, rest, headers, body)
            cost = len(found) + bool(note)
            if best is None or cost < best[0]:
                best = (cost, operation, note, found)
        if best is None:
            return None, f"there is no operation{f' {named}' if named else ''} at {method} {path}?{query_string}"
        _, operation, note, found = best
        faults.extend(found)
        return operation, note

    def routes_of(self, method, path, query):
        """The operations that a path may mean: those that say most about it, which may be several."""
        if self.routes is None:
            self.routes = sorted((_route(operation) for operation in self.operations.values()), key=lambda route: route[0])
        best = None
        for rank, name, verb, pattern, labels, fixed in self.routes:
            if verb != method or (best is not None and rank != best) or not all(pair in query for pair in fixed):
                continue
            match = pattern.fullmatch(path)
            if match:
                best = rank
                yield name, dict(zip(labels, map(unquote, match.groups()))), fixed

    # --- Checks ---

    def input_check(self, operation, decoded=False):
        ref = self.operations[operation].get("input")
        return self.check_of(ref, decoded) if ref else _no_parameters

    def check_of(self, ref, decoded, hidden=False, more=None):
        """What checks a value of a shape: a function of the value, its path and the list of faults.

        A value of JSON has the names of the wire, one that was `decoded` (from a form, from XML) those of the model. `hidden` values are
        not shown; `more` limits are those of the member that has the shape."""
        shape = self.shape(ref)
        hidden = hidden or shape.get("sensitive", False)
        key = (ref["shape"], decoded, hidden, id(more), ref.get("timestampFormat"))
        known = self.checks.get(key)
        if known is None:
            # A shape may have itself in it, so it must be there before it is made.
            made = []
            self.checks[key] = lambda value, path, faults: made[0](value, path, faults)
            facts = shape | WRITTEN.get((self.service, ref["shape"]), {}) | (more or {})
            made.append(self.make(ref, facts, decoded, hidden))
            known = self.checks[key] = made[0]
        return known

    def make(self, ref, facts, decoded, hidden):
        kind = facts["type"]
        if facts.get("document"):
            return _anything
        if kind == "structure":
            return self.make_structure(ref["shape"], facts, decoded, hidden)
        if kind == "list":
            return _list(self.check_of(facts["member"], decoded, hidden), facts)
        if kind == "map":
            return _map(self.check_of(facts["key"], True, hidden), self.check_of(facts["value"], decoded, hidden), facts)
        if kind == "string":
            return _string(facts, hidden)
        if kind == "blob":
            return _blob(facts)
        if kind == "timestamp":
            style = ref.get("timestampFormat") or facts.get("timestampFormat") or "unixTimestamp"
            return _timestamp("unixTimestamp" if decoded else style)
        if kind == "boolean":
            return _boolean
        return _number(facts, hidden)

    def make_structure(self, name, facts, decoded, hidden):
        members, names = {}, {}
        for member, ref in facts["members"].items():
            names[member] = member if decoded else ref.get("locationName", member)
            members[names[member]] = self.check_of(ref, decoded, hidden, WRITTEN.get((self.service, f"{name}.{member}")))
        required = {names[member] for member in facts.get("required", [])}
        return _structure(members, required, facts.get("union", False))


def _no_parameters(value, path, faults):
    if value != {}:
        faults.append((path, "the operation has no parameters"))


def _anything(_value, _path, _faults):
    """A document: any JSON."""


def _structure(members, required, union):
    def check_structure(value, path, faults):
        if type(value) is not dict:
            faults.append((path, f"{_kind(value)} where a structure is expected"))
            return
        for name, part in value.items():
            member = members.get(name)
            if member is None:
                faults.append(((path, name), "there is no such name" + _similar(name, members)))
            else:
                member(part, (path, name), faults)
        if not required <= value.keys():
            faults.extend(((path, name), "is required and missing") for name in sorted(required - value.keys()))
        if union and len(value) != 1:
            faults.append((path, f"exactly one of its names is expected, and there are {len(value)}"))

    return check_structure


def _similar(name, members):
    other = next((other for other in members if other.lower() == str(name).lower()), None)
    return f"; it is spelt {other!r}" if other else ""


def _list(member, facts):
    bounds = _bounds(facts, "elements")

    def check_list(value, path, faults):
        if type(value) is not list:
            faults.append((path, f"{_kind(value)} where a list is expected"))
            return
        if bounds:
            bounds(len(value), path, faults)
        for index, part in enumerate(value):
            member(part, (path, index), faults)

    return check_list


def _map(key, value_of, facts):
    bounds = _bounds(facts, "entries")

    def check_map(value, path, faults):
        if type(value) is not dict:
            faults.append((path, f"{_kind(value)} where a map is expected"))
            return
        if bounds:
            bounds(len(value), path, faults)
        for name, part in value.items():
            key(name, (path, name), faults)
            value_of(part, (path, name), faults)

    return check_map


def _string(facts, hidden):
    bounds, pattern, enum = _bounds(facts, "characters"), facts.get("pattern"), facts.get("enum")
    matches = _matcher(pattern) if pattern else None
    choices = frozenset(enum) if enum else None

    def check_string(value, path, faults):
        if type(value) is not str:
            faults.append((path, f"{_kind(value)} where a string is expected"))
            return
        if bounds:
            bounds(len(value), path, faults)
        if matches and not matches(value):
            faults.append((path, f"{_shown(value, hidden)} does not match {pattern}"))
        if choices and value not in choices:
            faults.append((path, f"{_shown(value, hidden)} is none of {', '.join(enum[:12])}{' …' if len(enum) > 12 else ''}"))

    return check_string


def _blob(facts):
    bounds = _bounds(facts, "bytes")

    def check_blob(value, path, faults):
        """Bytes as they came in a body or a header, else base64."""
        if type(value) is str:
            try:
                value = base64.b64decode(value, validate=True)
            except (binascii.Error, ValueError):
                faults.append((path, "a text that is no base64 where a blob is expected"))
                return
        if type(value) is not bytes:
            faults.append((path, f"{_kind(value)} where a blob is expected"))
        elif bounds:
            bounds(len(value), path, faults)

    return check_blob


def _boolean(value, path, faults):
    if type(value) is not bool:
        faults.append((path, f"{_kind(value)} where a boolean is expected"))


def _number(facts, hidden):
    kind, least, most = facts["type"], facts.get("min"), facts.get("max")
    whole = kind in _INTEGERS
    if whole:
        widest = 2 ** _INTEGERS[kind]
        least, most = max(-widest, least if least is not None else -widest), min(widest - 1, most if most is not None else widest - 1)

    def check_number(value, path, faults):
        if type(value) is not int and (whole or type(value) is not float):
            if whole or value not in ("NaN", "Infinity", "-Infinity"):
                faults.append((path, f"{_kind(value)} where {'an integer' if whole else 'a number'} is expected"))
        elif (least is not None and value < least) or (most is not None and value > most):
            faults.append((path, f"{_shown(value, hidden)} is not within {least} to {most}"))

    return check_number


def _timestamp(style):
    def check_timestamp(value, path, faults):
        if style == "unixTimestamp":
            right = type(value) in (int, float)
        elif style == "iso8601":
            right = type(value) is str and bool(_ISO_8601.fullmatch(value))
        else:
            right = type(value) is str and type(_time(value, style)) is float
        if not right:
            faults.append((path, f"{_kind(value)} where a time ({style}) is expected"))

    return check_timestamp


def _bounds(facts, what):
    least, most = facts.get("min", 0), facts.get("max")
    if least <= 0 and most is None:
        return None

    def check_bounds(length, path, faults):
        if length < least or (most is not None and length > most):
            faults.append((path, f"has {length} {what}, where {least} to {'any number' if most is None else most} are taken"))

    return check_bounds


@cache
def _matcher(pattern):
    """A pattern is Java's, and AWS holds the whole string to it. Its classes `\\d`, `\\w` and `\\s` are ASCII's there."""
    # A pair of surrogates is one character; sets in sets are what `regex` calls its version 1.
    translated = pattern.replace(r"\uD800\uDC00-\uDBFF\uDFFF", r"\U00010000-\U0010FFFF")
    version = regex.V1 if "&&" in translated or "[[" in translated else regex.V0
    # Its ASCII would make `\p{L}` that of ASCII too.
    return regex.compile(translated, version if r"\p" in translated else version | regex.ASCII).fullmatch


def _kind(value):
    names = {dict: "an object", list: "a list", str: "a text", bool: "a boolean", int: "an integer", float: "a number", type(None): "null"}
    return names.get(type(value), type(value).__name__)


def _shown(value, hidden):
    if hidden:
        return "what is given (not shown)"
    return repr(value if len(str(value)) <= 100 else f"{str(value)[:100]}…")


# --- From texts to values ---


def _typed(text, shape, style):
    """A scalar as its text says, or the text, which its check then refuses."""
    kind = shape["type"]
    if kind in _INTEGERS:
        return int(text) if re.fullmatch(r"-?\d+", text, re.ASCII) else text
    if kind in ("float", "double"):
        return float(text) if re.fullmatch(r"-?\d+(\.\d+)?([eE][+-]?\d+)?", text, re.ASCII) else text
    if kind == "boolean":
        return {"true": True, "false": False}.get(text, text)
    if kind == "timestamp":
        return _time(text, style)
    return text


def _time(text, style):
    try:
        if style == "iso8601":
            return datetime.fromisoformat(text).timestamp() if _ISO_8601.fullmatch(text) else text
        if style == "rfc822":
            return parsedate_to_datetime(text).timestamp()
        return float(text)
    except (TypeError, ValueError):
        return text


def _style(ref, shape, otherwise):
    return ref.get("timestampFormat") or shape.get("timestampFormat") or otherwise


def _tree(values, faults):
    """`{"A.1.B": "x"}` as `{"A": {"1": {"B": "x"}}}`."""
    tree = {}
    for name, value in values.items():
        *above, last = name.split(".")
        node = tree
        for part in above:
            node = node.setdefault(part, {}) if isinstance(node, dict) else None
        if not isinstance(node, dict) or last in node:
            faults.append(((None, name), "is given beside what is in it"))
        else:
            node[last] = value
    return tree


class Query:
    """Reads the parameters of a form, by the rules of the protocols `query` and `ec2`."""

    def __init__(self, model, faults, ec2):
        self.model, self.faults, self.ec2 = model, faults, ec2

    def name(self, member, ref):
        if self.ec2:
            name = ref.get("locationName", member)
            return ref.get("queryName") or name[:1].upper() + name[1:]
        shape = self.model.shape(ref)
        if shape["type"] == "list" and (shape.get("flattened") or ref.get("flattened")):
            return shape["member"].get("locationName") or ref.get("locationName", member)
        return ref.get("locationName", member)

    def value(self, node, ref, path):
        shape = self.model.shape(ref)
        kind = shape["type"]
        if kind == "structure":
            return self.structure(node, shape, path)
        if kind == "list":
            return self.list(node, ref, shape, path)
        if kind == "map":
            return self.map(node, ref, shape, path)
        if isinstance(node, dict):
            return node
        return _typed(node, shape, _style(ref, shape, "iso8601"))

    def structure(self, node, shape, path):
        if not isinstance(node, dict):
            return node if node else {}
        members = {self.name(member, ref): (member, ref) for member, ref in shape["members"].items()}
        values = {}
        for name, part in node.items():
            member, ref = members.get(name, (name, None))
            # A name that is not known stays, and its check says so.
            values[member if ref else _unknown(name, shape)] = self.value(part, ref, (path, name)) if ref else part
        return values

    def list(self, node, ref, shape, path):
        if node == "":
            return []
        if not self.ec2 and not (shape.get("flattened") or ref.get("flattened")):
            node = self.inner(node, shape["member"].get("locationName", "member"), path)
        return [self.value(part, shape["member"], (path, index)) for index, part in enumerate(self.numbered(node, path))]

    def map(self, node, ref, shape, path):
        if node == "":
            return {}
        if not (shape.get("flattened") or ref.get("flattened")):
            node = self.inner(node, "entry", path)
        values = {}
        key, value = shape["key"].get("locationName", "key"), shape["value"].get("locationName", "value")
        for part in self.numbered(node, path):
            if not isinstance(part, dict) or set(part) != {key, value}:
                self.faults.append((path, f"entries of {key!r} and {value!r} are expected"))
            else:
                values[part[key]] = self.value(part[value], shape["value"], (path, part[key]))
        return values

    def inner(self, node, name, path):
        if not isinstance(node, dict) or set(node) != {name}:
            self.faults.append((path, f"only {name!r} is expected in it"))
            return {}
        return node[name]

    def numbered(self, node, path):
        if not isinstance(node, dict) or set(node) != {str(number) for number in range(1, len(node) + 1)}:
            self.faults.append((path, "the numbers from 1 on are expected in it"))
            return []
        return [node[str(number)] for number in range(1, len(node) + 1)]


def _unknown(name, shape):
    """A name of the wire that is none, but may be that of a member which has another name there."""
    return name if name not in shape["members"] else f"{name} (on the wire)"


_NAMESPACE = re.compile(r"^\{([^}]*)\}")
_XSI = "{http://www.w3.org/2001/XMLSchema-instance}"


class Rest:
    """Reads the parameters of a request whose path, query, headers and body all hold some, and checks them."""

    def __init__(self, model, operation, faults):
        self.model, self.faults = model, faults
        self.operation = model.operations[operation]
        self.ref = self.operation.get("input")
        self.shape = model.shape(self.ref) if self.ref else {"type": "structure", "members": {}}
        self.is_json = model.meta["protocol"] == "rest-json"

    def read(self, labels, query, headers, body):
        """What is wrong with the request as a whole."""
        values, note = {}, None
        at = {place: {} for place in ("uri", "querystring", "header", "headers", "statusCode", "")}
        for member, ref in self.shape["members"].items():
            at[ref.get("location", "")][member] = ref
        for member, ref in at["uri"].items():
            name = ref.get("locationName", member)
            if name in labels:
                values[member] = self.scalar(labels[name], ref, "iso8601")
        self.read_query(at["querystring"], query, values)
        self.read_headers(at["header"], at["headers"], headers, values)
        note = self.read_body(at[""], body, headers, values)
        self.check(values)
        return note or self.checksum(headers)

    def check(self, values):
        """Not by the structure's own check: what came in JSON has the wire's names further in, and the rest has not."""
        name = self.ref["shape"] if self.ref else ""
        for member, value in values.items():
            ref = self.shape["members"][member]
            decoded = not self.is_json or "location" in ref
            more = WRITTEN.get((self.model.service, f"{name}.{member}"))
            self.model.check_of(ref, decoded, more=more)(value, (None, member), self.faults)
        for member in self.shape.get("required", []):
            if member not in values:
                self.faults.append(((None, member), "is required and missing"))

    def scalar(self, text, ref, style):
        shape = self.model.shape(ref)
        return _typed(text, shape, _style(ref, shape, style))

    def read_query(self, members, query, values):
        given = {}
        for name, value in query:
            given.setdefault(name, []).append(value)
        rest = None
        for member, ref in members.items():
            kind = self.model.shape(ref)["type"]
            if kind == "map":
                rest = (member, self.model.shape(self.model.shape(ref)["value"])["type"] == "list")
                continue
            texts = given.pop(ref.get("locationName", member), None)
            if texts is None:
                continue
            if kind == "list":
                values[member] = [self.scalar(text, self.model.shape(ref)["member"], "iso8601") for text in texts]
            else:
                values[member] = self.scalar(texts[0], ref, "iso8601")
                if len(texts) > 1:
                    self.faults.append(((None, member), "is given twice in the query"))
        if rest and given:
            values[rest[0]] = {name: texts if rest[1] else texts[0] for name, texts in given.items()}
        else:
            self.faults.extend(((None, name), "there is no such name in the query") for name in given)

    def read_headers(self, members, prefixed, headers, values):
        known = set()
        for member, ref in members.items():
            name = ref.get("locationName", member).lower()
            known.add(name)
            if name in headers:
                texts = headers[name]
                if self.model.shape(ref)["type"] == "list":
                    values[member] = [text.strip() for text in texts.split(",")]
                else:
                    values[member] = self.scalar(texts, ref, "rfc822")
        for member, ref in prefixed.items():
            prefix = ref.get("locationName", "").lower()
            found = {name[len(prefix) :]: value for name, value in headers.items() if prefix and name.startswith(prefix)}
            known.update(prefix + name for name in found)
            if found:
                values[member] = found
        for name in headers:
            ours = name.startswith("x-amz-") and not name.startswith("x-amz-checksum-") and name not in _TRANSPORT
            if ours and name not in known:
                self.faults.append(((None, name), "there is no such header"))

    def read_body(self, members, body, headers, values):
        payload = self.shape.get("payload")
        if payload:
            return self.read_payload(payload, self.shape["members"][payload], body, headers, values)
        if not members:
            return "the operation has no body, and there is one" if body not in (b"", b"{}", b"null") else None
        if self.is_json:
            try:
                content = json.loads(body or b"{}")
            except ValueError as error:
                return f"the body is no JSON: {error}"
            names = {ref.get("locationName", member): member for member, ref in members.items()}
            for name, value in content.items() if isinstance(content, dict) else ():
                if name in names:
                    values[names[name]] = value
                else:
                    self.faults.append(((None, name), "there is no such name in the body" + _similar(name, names)))
            return None if isinstance(content, dict) else "the body is no JSON object"
        if body:
            root, note = self.root(body, self.ref.get("locationName"), self.ref)
            if note:
                return note
            values.update(self.element(root, self.ref, {"type": "structure", "members": members}, None))
        return None

    def read_payload(self, member, ref, body, headers, values):
        shape = self.model.shape(ref)
        if shape["type"] in ("blob", "string"):
            required = member in self.shape.get("required", [])
            if body or (required and shape["type"] == "blob"):
                values[member] = body if shape["type"] == "blob" else body.decode(errors="replace")
        elif body and self.is_json:
            try:
                values[member] = json.loads(body)
            except ValueError as error:
                return f"the body is no JSON: {error}"
        elif body:
            root, note = self.root(body, ref.get("locationName") or shape.get("locationName") or ref["shape"], ref)
            if note:
                return note
            values[member] = self.element(root, ref, shape, (None, member))
        return None

    def root(self, body, name, ref):
        try:
            root = ElementTree.fromstring(body)
        except ElementTree.ParseError as error:
            return None, f"the body is no XML: {error}"
        space, local = _split(root.tag)
        wanted = (ref.get("xmlNamespace") or self.model.shape(ref).get("xmlNamespace") or {}).get("uri")
        if local != name or (space and wanted and space != wanted):
            return None, f"the body is {root.tag}, where {name} of {wanted} is expected"
        return root, None

    def element(self, element, ref, shape, path):
        kind = shape["type"]
        if kind == "structure":
            return self.structure(element, shape, path)
        if kind == "list":
            name = shape["member"].get("locationName", "member")
            for child in element:
                if _split(child.tag)[1] != name:
                    self.faults.append(((path, _split(child.tag)[1]), f"only {name!r} is expected here"))
            inner = shape["member"]
            return [self.element(child, inner, self.model.shape(inner), (path, index)) for index, child in enumerate(element)]
        if kind == "map":
            return {_split(child.tag)[1]: child.text or "" for child in element}
        return _typed(element.text or "", shape, _style(ref, shape, "iso8601"))

    def structure(self, element, shape, path):
        names, values = {}, {}
        for member, ref in shape["members"].items():
            name = ref.get("locationName", member)
            if not ref.get("xmlAttribute"):
                names[name] = (member, ref)
            elif (given := element.get(name.replace("xsi:", _XSI))) is not None:
                values[member] = given
        for child in element:
            name = _split(child.tag)[1]
            member, ref = names.get(name, (None, None))
            if not ref:
                values[_unknown(name, shape)] = child.text
                continue
            inner = self.model.shape(ref)
            if inner["type"] == "list" and (inner.get("flattened") or ref.get("flattened")):
                parts = values.setdefault(member, [])
                part = inner["member"]
                parts.append(self.element(child, part, self.model.shape(part), ((path, name), len(parts))))
            elif member in values:
                self.faults.append(((path, name), "is given twice"))
            else:
                values[member] = self.element(child, ref, inner, (path, name))
        return values

    def checksum(self, headers):
        wanted = self.operation.get("httpChecksum", {}).get("requestChecksumRequired") or self.operation.get("httpChecksumRequired")
        if wanted and not any(name.startswith(_CHECKSUMS) for name in headers):
            return "a checksum of the body is required, and there is none"
        return None


def _split(tag):
    space = _NAMESPACE.match(tag)
    return (space[1], tag[space.end() :]) if space else ("", tag)


def _route(operation):
    """How a path is matched, those first that say most: fixed queries, then fixed parts of the path."""
    uri, _, query = operation["http"]["requestUri"].partition("?")
    parts, labels, pattern, literals, greedy = uri.strip("/").split("/"), [], "", 0, False
    for part in parts if parts != [""] else []:
        pattern += "/"
        # A part may hold text beside its label.
        for piece in re.split(r"(\{[^}]+\})", part):
            if piece.startswith("{"):
                greedy = greedy or piece.endswith("+}")
                labels.append(piece.strip("{+}"))
                pattern += "(.+)" if piece.endswith("+}") else "([^/]+)"
            elif piece:
                literals += 1
                pattern += re.escape(piece)
    fixed = parse_qsl(query, keep_blank_values=True)
    rank = (-len(fixed), -literals, greedy, len(parts))
    return rank, operation["name"], operation["http"]["method"], re.compile(pattern + "/?"), labels, fixed


# --- Tried ---


def _signed(service, target=None, content_type=None, **more):
    headers = {
        "authorization": f"AWS4-HMAC-SHA256 Credential=test/20261130/us-east-1/{service}/aws4_request, SignedHeaders=host, Signature=0"
    }
    if target:
        headers["x-amz-target"] = target
    if content_type:
        headers["content-type"] = content_type
    return headers | {name.replace("_", "-"): value for name, value in more.items()}


_JSON = {"dynamodb": ("DynamoDB_20120810", "1.0"), "sqs": ("AmazonSQS", "1.0"), "ecs": ("AmazonEC2ContainerServiceV20141113", "1.1")}
_JSON |= {"logs": ("Logs_20140328", "1.1"), "events": ("AWSEvents", "1.1"), "ssm": ("AmazonSSM", "1.1")}
_JSON |= {"servicequotas": ("ServiceQuotasV20190624", "1.1")}


def _json(service, operation, value, version=None):
    prefix, usual = _JSON[service]
    headers = _signed(service, f"{prefix}.{operation}", f"application/x-amz-json-{version or usual}")
    return "POST", "/", "", headers, json.dumps(value).encode()


def _form(service, text, **more):
    return "POST", "/", "", _signed(service, content_type="application/x-www-form-urlencoded", **more), text.encode()


def _http(service, method, uri, body=b"", **more):
    path, _, query = uri.partition("?")
    return method, path, query, _signed(service, **more), body


def _transaction(count):
    item = {
        "pk": {"S": "execution#01JD8Z0000000000000000"},
        "sk": {"S": "state"},
        "n": {"N": "1"},
        "list": {"L": [{"S": "a"}, {"BOOL": True}]},
    }
    put = {"TableName": "mycli-default", "Item": item, "ConditionExpression": "attribute_not_exists(pk)"}
    return {"TransactItems": [{"Put": put} for _ in range(count)], "ClientRequestToken": "0" * 36}


def _batch(count, size):
    entries = [{"Id": str(number), "MessageBody": "x" * size, "DelaySeconds": 5} for number in range(count)]
    return {"QueueUrl": "http://127.0.0.1/000000000000/mycli-default-launch", "Entries": entries}


def _run_task(**more):
    network = {"awsvpcConfiguration": {"subnets": ["subnet-1"], "assignPublicIp": "ENABLED"}}
    return {"taskDefinition": "mycli-default-x:1", "cluster": "mycli-default", "count": 1, "networkConfiguration": network} | more


_STS = "Action=AssumeRole&Version=2011-06-15&RoleArn=arn:aws:iam::000000000000:role/somebody&RoleSessionName=me"
_STACK = "Action=CreateStack&Version=2010-05-15&StackName=mycli-default&TemplateURL=https://x/y&ClientRequestToken=mycli-1"
_EC2 = "Action=DescribeSubnets&Version=2016-11-15"
_PUT_CODE = "/2015-03-31/functions/mycli-default-submit/code"
_DELETE = (
    b'<Delete xmlns="http://s3.amazonaws.com/doc/2006-03-01/">'
    b"<Object><Key>a</Key></Object><Object><Key>b</Key></Object><Quiet>true</Quiet></Delete>"
)
_EVENT = {"Source": "mycli", "DetailType": "Execution State Change", "Detail": "{}", "EventBusName": "default", "Time": 1764500000}


# What it is, the request, and what a fault must say; nothing if there must be none.
def _cases():
    return [
        ("json: a transaction", _json("dynamodb", "TransactWriteItems", _transaction(25)), None),
        (
            "json: too many parts of a transaction",
            _json("dynamodb", "TransactWriteItems", _transaction(101)),
            "TransactItems: has 101 elements",
        ),
        (
            "json: a name that is not there",
            _json("dynamodb", "GetItem", {"TableName": "t", "Key": {}, "Consistent": True}),
            "Consistent: there is no such name",
        ),
        ("json: a name in the wrong case", _json("dynamodb", "GetItem", {"tableName": "t", "Key": {}}), "spelt 'TableName'"),
        ("json: something required is missing", _json("dynamodb", "GetItem", {"Key": {}}), "TableName: is required and missing"),
        ("json: a text for a number", _json("dynamodb", "Query", {"TableName": "t", "Limit": "5"}), "Limit: a text where an integer"),
        ("json: a number out of range", _json("dynamodb", "Query", {"TableName": "t", "Limit": 0}), "Limit: 0 is not within 1"),
        ("json: a number too wide", _json("dynamodb", "Query", {"TableName": "t", "Limit": 2**31}), "is not within"),
        (
            "json: a pattern",
            _json("dynamodb", "Query", {"TableName": "t", "IndexName": "by status"}),
            "IndexName: 'by status' does not match",
        ),
        (
            "json: two kinds of value at once",
            _json("dynamodb", "GetItem", {"TableName": "t", "Key": {"pk": {"S": "a", "N": "1"}}}),
            "Key.pk: exactly one",
        ),
        (
            "json: no kind of value deep inside",
            _json("dynamodb", "PutItem", {"TableName": "t", "Item": {"a": {"L": [{"M": {"b": {}}}]}}}),
            "Item.a.L[0].M.b: exactly one",
        ),
        ("json: no base64", _json("dynamodb", "PutItem", {"TableName": "t", "Item": {"a": {"B": "?"}}}), "no base64"),
        ("json: null", _json("dynamodb", "Query", {"TableName": "t", "Limit": None}), "Limit: null"),
        ("json: a value that is not known", _json("dynamodb", "Query", {"TableName": "t", "Select": "ALL"}), "is none of"),
        ("json: an operation that is not there", _json("dynamodb", "WriteItem", {}), "there is no target"),
        ("json: another version", _json("ecs", "RunTask", _run_task(), version="2.0"), "is expected"),
        ("json: no JSON", _json("ecs", "RunTask", {})[:4] + (b"{",), "no JSON"),
        ("json: a task", _json("ecs", "RunTask", _run_task(clientToken="t" * 64, startedBy="mycli/01JD")), None),
        ("json: a client token that is too long", _json("ecs", "RunTask", _run_task(clientToken="t" * 65)), "clientToken: 'ttt"),
        ("json: a client token with a space", _json("ecs", "RunTask", _run_task(clientToken="a b")), "clientToken: 'a b' does not match"),
        ("json: a hidden value is not shown", _json("ssm", "PutParameter", {"Name": "n", "Value": {"a": "planted"}}), "Value: an object"),
        ("json: a tag of letters from everywhere", _json("ecs", "RunTask", _run_task(tags=[{"key": "grüße", "value": "世界"}])), None),
        (
            "json: a tag that is no tag",
            _json("ecs", "RunTask", _run_task(tags=[{"key": "a", "value": "<"}])),
            "tags[0].value: '<' does not match",
        ),
        ("json: ten large messages", _json("sqs", "SendMessageBatch", _batch(10, 100_000)), None),
        ("json: eleven messages", _json("sqs", "SendMessageBatch", _batch(11, 1)), "Entries: has 11 elements"),
        ("json: an end", _json("events", "PutEvents", {"Entries": [_EVENT]}), None),
        (
            "json: a time in words",
            _json("events", "PutEvents", {"Entries": [_EVENT | {"Time": "2026-11-30T00:00:00Z"}]}),
            "Time: a text where a time",
        ),
        ("json: a log", _json("logs", "GetLogEvents", {"logGroupName": "/aws/mycli/default", "logStreamName": "task/main/0f9d"}), None),
        (
            "json: a stream's name",
            _json("logs", "GetLogEvents", {"logGroupName": "/aws/mycli/default", "logStreamName": "task:main"}),
            "logStreamName",
        ),
        ("json: a quota", _json("servicequotas", "GetServiceQuota", {"ServiceCode": "fargate", "QuotaCode": "L-3032A538"}), None),
        ("query: a role", _form("sts", _STS), None),
        ("query: who am I", _form("sts", "Action=GetCallerIdentity&Version=2011-06-15"), None),
        (
            "query: a parameter where there is none",
            _form("sts", "Action=GetCallerIdentity&Version=2011-06-15&A=1"),
            "A: there is no such name",
        ),
        ("query: a name that is not there", _form("sts", _STS + "&Duration=900"), "Duration: there is no such name"),
        ("query: a pattern", _form("sts", _STS + "%20and%20you"), "RoleSessionName: 'me and you' does not match"),
        ("query: a number out of range", _form("sts", _STS + "&DurationSeconds=899"), "DurationSeconds: 899 is not within"),
        ("query: a text for a number", _form("sts", _STS + "&DurationSeconds=soon"), "DurationSeconds: a text where an integer"),
        (
            "query: something required is missing",
            _form("sts", "Action=AssumeRole&Version=2011-06-15&RoleSessionName=me"),
            "RoleArn: is required",
        ),
        ("query: another version", _form("sts", _STS.replace("2011", "2010")), "the version is"),
        (
            "query: a list",
            _form("cloudformation", _STACK + "&Capabilities.member.1=CAPABILITY_IAM&Tags.member.1.Key=a&Tags.member.1.Value=b"),
            None,
        ),
        ("query: a list without members", _form("cloudformation", _STACK + "&Capabilities.1=CAPABILITY_IAM"), "only 'member' is expected"),
        ("query: a list with a gap", _form("cloudformation", _STACK + "&Capabilities.member.2=CAPABILITY_IAM"), "numbers from 1"),
        ("query: a token that is too long", _form("cloudformation", _STACK + "x" * 128), "ClientRequestToken: has"),
        ("query: a token with a pattern", _form("cloudformation", _STACK + "_"), "ClientRequestToken: 'mycli-1_' does not match"),
        ("query: a value that is not known", _form("cloudformation", _STACK + "&OnFailure=delete"), "OnFailure: 'delete' is none of"),
        ("query: a boolean", _form("cloudformation", _STACK + "&EnableTerminationProtection=True"), "a text where a boolean"),
        ("ec2: subnets", _form("ec2", _EC2 + "&SubnetId.1=subnet-1&Filter.1.Name=vpc-id&Filter.1.Value.1=vpc-1&DryRun=false"), None),
        (
            "ec2: a name of the model, not of the wire",
            _form("ec2", _EC2 + "&SubnetIds.1=subnet-1"),
            "SubnetIds (on the wire): there is no such name",
        ),
        ("ec2: a number out of range", _form("ec2", _EC2 + "&MaxResults=1001"), "MaxResults: 1001 is not within"),
        ("ec2: a text for a boolean", _form("ec2", _EC2 + "&DryRun=no"), "DryRun: a text where a boolean"),
        (
            "ec2: something required is missing",
            _form("ec2", "Action=CreateSubnet&Version=2016-11-15&CidrBlock=10.0.0.0/24"),
            "VpcId: is required",
        ),
        ("rest-json: code", _http("lambda", "PUT", _PUT_CODE, b'{"S3Bucket":"abc","S3Key":"k","DryRun":true}'), None),
        (
            "rest-json: a name that is not there",
            _http("lambda", "PUT", _PUT_CODE, b'{"S3Buckets":"abc"}'),
            "S3Buckets: there is no such name",
        ),
        ("rest-json: a name in the wrong case", _http("lambda", "PUT", _PUT_CODE, b'{"s3Bucket":"abc"}'), "spelt 'S3Bucket'"),
        ("rest-json: a pattern in the body", _http("lambda", "PUT", _PUT_CODE, b'{"S3Bucket":"a:b"}'), "S3Bucket: 'a:b' does not match"),
        (
            "rest-json: a pattern in the path",
            _http("lambda", "GET", "/2015-03-31/functions/a%20b/configuration"),
            "FunctionName: 'a b' does not match",
        ),
        ("rest-json: a query", _http("lambda", "GET", "/2015-03-31/functions/?MaxItems=50"), None),
        (
            "rest-json: a number out of range in the query",
            _http("lambda", "GET", "/2015-03-31/functions/?MaxItems=0"),
            "MaxItems: 0 is not within",
        ),
        ("rest-json: a query that is not there", _http("lambda", "GET", "/2015-03-31/functions/?Max=1"), "Max: there is no such name"),
        (
            "rest-json: something required is missing",
            _http("lambda", "POST", "/2015-03-31/functions", b'{"FunctionName":"a"}'),
            "Role: is required",
        ),
        ("rest-json: the wrong type", _http("lambda", "PUT", _PUT_CODE, b'{"DryRun":"yes"}'), "DryRun: a text where a boolean"),
        ("rest-json: a path that is not there", _http("lambda", "GET", "/2015-03-31/function"), "there is no operation"),
        ("rest-xml: a bucket", _http("s3", "PUT", "/mycli-code/", b""), None),
        ("rest-xml: an object", _http("s3", "PUT", "/mycli-code/a/b.zip?x-id=PutObject", b"zip", x_amz_checksum_crc32="AAAAAA=="), None),
        ("rest-xml: another's name", _http("s3", "PUT", "/mycli-code/a/b.zip?x-id=GetObject", b"zip"), "there is no operation GetObject"),
        ("rest-xml: deletes", _http("s3", "POST", "/mycli-code/?delete", _DELETE, content_md5="x"), None),
        ("rest-xml: without a checksum", _http("s3", "POST", "/mycli-code/?delete", _DELETE), "a checksum of the body is required"),
        (
            "rest-xml: a name that is not there",
            _http("s3", "POST", "/mycli-code/?delete", _DELETE.replace(b"Key>", b"Name>"), content_md5="x"),
            "Delete.Objects[0].Name: there is no such name",
        ),
        (
            "rest-xml: the wrong root",
            _http("s3", "POST", "/mycli-code/?delete", _DELETE.replace(b"Delete", b"Deletes"), content_md5="x"),
            "the body is",
        ),
        (
            "rest-xml: the wrong type",
            _http("s3", "POST", "/mycli-code/?delete", _DELETE.replace(b"true", b"yes"), content_md5="x"),
            "Quiet: a text where a boolean",
        ),
        (
            "rest-xml: something required is missing",
            _http("s3", "POST", "/mycli-code/?delete", _DELETE.split(b"<Object>")[0] + b"</Delete>", content_md5="x"),
            "Objects: is required",
        ),
        (
            "rest-xml: a header that is not there",
            _http("s3", "HEAD", "/mycli-code/a", x_amz_expected_owner="1"),
            "x-amz-expected-owner: there is no such header",
        ),
        ("rest-xml: a query that is not there", _http("s3", "GET", "/mycli-code/?versions&limit=1"), "limit: there is no such name"),
        ("a service that is not there", _http("sqz", "POST", "/"), "signs as 'sqz'"),
        ("the newer protocol", _form("monitoring", "", smithy_protocol="rpc-v2-cbor"), "is not known"),
    ]


def _self_test():
    """Tries each case, each pattern of the services we use, and each form of an answer; the number of failures."""
    failed, cases = 0, _cases()
    for what, request, wanted in cases:
        faults = check(*request)[2]
        right = any(wanted in fault for fault in faults) if wanted else not faults
        right = right and not any("planted" in fault for fault in faults)
        failed += not right
        print("PASS" if right else "FAIL", what, "" if right else f"- wanted {wanted!r}, got {faults}")
    services = "dynamodb dynamodbstreams sqs ecs logs events ssm service-quotas cloudformation sts s3 lambda ec2 iam".split()
    for service in services:
        wrong = []
        for shape in _model(service).shapes.values():
            try:
                _matcher(shape.get("pattern", ""))
            except regex.error as error:
                wrong.append(f"{shape['pattern']}: {error}")
        failed += bool(wrong)
        print("FAIL" if wrong else "PASS", f"patterns of {service}", wrong or "")
        headers, body = refusal(service, ["a < b: \x00"])
        parsed = ElementTree.fromstring(body) if headers["content-type"] == "text/xml" else json.loads(body)
        told = "".join(parsed.itertext()) if isinstance(parsed, ElementTree.Element) else parsed["message"]
        failed += "a < b" not in told
        print("PASS" if "a < b" in told else "FAIL", f"a refusal of {service}")
    print(f"{2 * len(services) + len(cases) - failed} passed, {failed} failed")
    return failed


def _cost():
    requests = {
        "GetItem": _json("dynamodb", "GetItem", {"TableName": "t", "Key": {"pk": {"S": "a"}, "sk": {"S": "b"}}, "ConsistentRead": True}),
        "TransactWriteItems of 25": _json("dynamodb", "TransactWriteItems", _transaction(25)),
        "SendMessageBatch of 10 small": _json("sqs", "SendMessageBatch", _batch(10, 100)),
        "SendMessageBatch of 10 with 100 kB": _json("sqs", "SendMessageBatch", _batch(10, 100_000)),
        "RunTask": _json("ecs", "RunTask", _run_task(clientToken="t" * 64)),
        "CreateStack": _form("cloudformation", _STACK + "&Capabilities.member.1=CAPABILITY_IAM"),
        "PutObject of 5 MB": _http("s3", "PUT", "/mycli-code/a/b.zip?x-id=PutObject", bytes(5_000_000)),
    }
    for what, request in requests.items():
        begun = time.perf_counter()
        check(*request)
        first = time.perf_counter() - begun
        begun = time.perf_counter()
        for _ in range(200):
            check(*request)
        print(f"{what}: {(time.perf_counter() - begun) * 1e6 / 200:.0f} µs; the first, which may load the model, {first * 1e3:.1f} ms")


def _operations(folder):
    for name in ("checked.jsonl", "faults.jsonl"):
        path = Path(folder, name)
        for line in path.read_text().splitlines() if path.exists() else []:
            said = json.loads(line)
            print(name.split(".")[0], said["service"], said["operation"], "; ".join(said.get("faults", [])))


def main(arguments):
    if arguments == ["self-test"]:
        return 1 if _self_test() else 0
    if arguments == ["cost"]:
        return _cost()
    if len(arguments) == 2 and arguments[0] == "operations":
        return _operations(arguments[1])
    print(__doc__, file=sys.stderr)
    return 2


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
