"""Lints every IAM policy of a CloudFormation template with parliament, which knows AWS's actions, resources and condition keys.

    python3 tests/policies.py FILE…       templates (JSON, YAML) and plain policy documents; - is standard input
    python3 tests/policies.py self-test   policies that must pass, and policies that must not

Prints `PASS|FAIL where: finding` for each policy, and exits with 1 if one has a finding that is not in ALLOWED. What a template says by
reference is put in as it would be in an account: parliament holds a resource's ARN to the form that the action wants, so an action on another
kind of resource is found.
"""

import contextlib
import io
import json
import re
import sys
import warnings
from pathlib import Path

sys.dont_write_bytecode = True  # Not beside the sources.
from models import tool  # noqa: E402

PARLIAMENT = "1.6.4"  # As in tests/setup.sh.
# First: its YAML and its setuptools are those that it was tried with.
sys.path.insert(0, str(tool(f"parliament-{PARLIAMENT}")))
with warnings.catch_warnings():
    warnings.simplefilter("ignore")
    import parliament
    import yaml

# Findings that are meant: (which policy, what is found, why). The first two are regular expressions, each for the whole text.
ALLOWED = [
    (
        "the document",
        r"RESOURCE_POLICY_PRIVILEGE_ESCALATION: .*-files due to s3:DeleteObject .* s3:PutLifecycleConfiguration",
        "A lifecycle can delete files. The user of docs/init-policy/stack.json also has commands.json, which empties the same bucket.",
    ),
    (
        "LauncherRole/launcher|the document",
        r"RESOURCE_STAR: .*ecs:ListTasks.*",
        "ListTasks' resource is a container instance (Service Authorization Reference, Amazon ECS), which Fargate has none of: the cluster "
        "is held to by the condition `ecs:cluster`.",
    ),
    (
        "LauncherRole/launcher",
        r"RESOURCE_STAR: .*ecs:RegisterTaskDefinition.*",
        "Whether the action knows a resource changed over the years (Service Authorization Reference, Amazon ECS), and an account that is asked "
        "for one that it does not know denies the call. What is registered can only be run with the roles that may be passed.",
    ),
    (
        "ExecutionRole/start-tasks",
        r"RESOURCE_MISMATCH: .*ecr:BatchImportUpstreamImage.*",
        "The linter's list knows the action with `*` alone. ECR's guide says that a repository's own policy may grant it too (pull through "
        "cache, required permissions), so it is asked for a repository, and is given for those below the prefix.",
    ),
    (
        "the document",
        r"RESOURCE_MISMATCH: .*dynamodb:GetResourcePolicy.*",
        "The linter's list knows the action for streams alone. DynamoDB asks for it on a table too (Developer Guide, \"Resource-based policies\"), "
        "and CloudFormation calls it for the table that it makes.",
    ),
    (
        "the document",
        r"UNKNOWN_ACTION: .*(ec2:DescribeVpcEncryptionControls|lambda:GetFunctionScalingConfig).*",
        "The actions are younger than the linter's list. CloudFormation's schemas of AWS::EC2::VPC and AWS::Lambda::Function have them.",
    ),
]

ACCOUNT, REGION = "123456789012", "us-east-1"
_PSEUDO = {
    "AWS::AccountId": ACCOUNT,
    "AWS::Partition": "aws",
    "AWS::Region": REGION,
    "AWS::URLSuffix": "amazonaws.com",
    "AWS::StackName": "mycli-default",
    "AWS::StackId": f"arn:aws:cloudformation:{REGION}:{ACCOUNT}:stack/mycli-default/0",
}
# For parameters without a default that can be used.
_PARAMETERS = {"StackName": "default", "KmsKeyArn": f"arn:aws:kms:{REGION}:{ACCOUNT}:key/0"}
# The end of a resource's ARN, by its type: what comes after account and region, and which property has the name.
_ARNS = {
    "AWS::DynamoDB::Table": ("dynamodb", "table/{}", "TableName"),
    "AWS::ECS::Cluster": ("ecs", "cluster/{}", "ClusterName"),
    "AWS::Events::EventBus": ("events", "event-bus/{}", "Name"),
    "AWS::Events::Rule": ("events", "rule/{}", "Name"),
    "AWS::Lambda::Function": ("lambda", "function:{}", "FunctionName"),
    "AWS::Logs::LogGroup": ("logs", "log-group:{}:*", "LogGroupName"),
    "AWS::SNS::Topic": ("sns", "{}", "TopicName"),
    "AWS::SQS::Queue": ("sqs", "{}", "QueueName"),
}
_GLOBAL_ARNS = {
    "AWS::IAM::ManagedPolicy": ("arn:aws:iam::" + ACCOUNT + ":policy/{}", "ManagedPolicyName"),
    "AWS::IAM::Role": ("arn:aws:iam::" + ACCOUNT + ":role/{}", "RoleName"),
    "AWS::S3::Bucket": ("arn:aws:s3:::{}", "BucketName"),
}
_NO_VALUE = object()


class Unknown(Exception):
    """Something that a template says and this cannot tell the value of."""


class Template:
    """What a template's references come to."""

    def __init__(self, document):
        self.parameters = document.get("Parameters", {})
        self.resources = document["Resources"]

    def value(self, node):
        """A part of the template with all references put in."""
        if isinstance(node, list):
            return [value for value in map(self.value, node) if value is not _NO_VALUE]
        if not isinstance(node, dict):
            return node
        if len(node) == 1:
            ((name, argument),) = node.items()
            if name == "Ref":
                return self.ref(argument)
            if name.startswith("Fn::"):
                return self.function(name[4:], argument)
        values = {name: self.value(part) for name, part in node.items()}
        return {name: value for name, value in values.items() if value is not _NO_VALUE}

    def function(self, name, argument):
        if name == "Sub":
            return self.sub(argument)
        if name == "GetAtt":
            return self.attribute(*(argument.split(".", 1) if isinstance(argument, str) else argument))
        if name == "If":
            # Either may come to be. The one with something in it says more.
            branches = [self.value(branch) for branch in argument[1:]]
            return next((branch for branch in branches if branch is not _NO_VALUE), _NO_VALUE)
        if name == "Join":
            return argument[0].join(map(str, self.value(argument[1])))
        if name == "Select":
            return self.value(argument[1])[int(argument[0])]
        if name == "Split":
            return self.value(argument[1]).split(argument[0])
        if name == "GetAZs":
            return [f"{REGION}{zone}" for zone in "abc"]
        if name == "ImportValue":
            return "imported"
        raise Unknown(f"Fn::{name}")

    def sub(self, argument):
        text, given = (argument, {}) if isinstance(argument, str) else argument

        def put_in(match):
            name = match[1]
            if name.startswith("!"):
                return "${" + name[1:] + "}"
            if name in given:
                return str(self.value(given[name]))
            return str(self.attribute(*name.split(".", 1)) if "." in name else self.ref(name))

        return re.sub(r"\$\{([^}]+)\}", put_in, text)

    def ref(self, name):
        if name == "AWS::NoValue":
            return _NO_VALUE
        if name in _PSEUDO:
            return _PSEUDO[name]
        if name in self.parameters:
            parameter = self.parameters[name]
            value = parameter.get("Default", "") or _PARAMETERS.get(name, name.lower())
            return str(value).split(",") if parameter["Type"].startswith(("CommaDelimitedList", "List<")) else str(value)
        resource = self.resources.get(name)
        if resource is None:
            raise Unknown(f"a reference to {name}, which is not there")
        if resource["Type"] == "AWS::SQS::Queue":
            return f"https://sqs.{REGION}.amazonaws.com/{ACCOUNT}/{self.name(name)}"
        return self.arn(name) if resource["Type"] in ("AWS::SNS::Topic", "AWS::IAM::ManagedPolicy") else self.name(name)

    def attribute(self, name, attribute):
        if name not in self.resources:
            raise Unknown(f"an attribute of {name}, which is not there")
        if attribute == "Arn":
            return self.arn(name)
        if attribute == "StreamArn":
            # It has a time in it, with colons. Where it knows of none, parliament takes a colon for the ARN of something else.
            return f"{self.arn(name)}/stream/2026-11-30T000000.000"
        if attribute.endswith(("Name", "Id")):
            return self.name(name)
        raise Unknown(f"the attribute {name}.{attribute}")

    def name(self, name):
        """A resource's own name, or what CloudFormation would make of its name here."""
        kind = self.resources[name]["Type"]
        named_by = (_ARNS.get(kind) or _GLOBAL_ARNS.get(kind) or (None,))[-1]
        given = self.resources[name].get("Properties", {}).get(named_by)
        return self.value(given) if given else f"mycli-default-{name}-0A1B2C3D"

    def arn(self, name):
        kind = self.resources[name]["Type"]
        if kind in _ARNS:
            service, end, _ = _ARNS[kind]
            return f"arn:aws:{service}:{REGION}:{ACCOUNT}:{end.format(self.name(name))}"
        if kind in _GLOBAL_ARNS:
            return _GLOBAL_ARNS[kind][0].format(self.name(name))
        raise Unknown(f"the ARN of {name}, which is a {kind}")


def policies_of(document):
    """`(name, policy)` of each policy in a template, or of the one that a document is. A policy that cannot be read is an `Unknown`."""
    if "Statement" in document:
        yield "the document", document
        return
    template = Template(document)
    for resource, about in template.resources.items():
        yield from _within(template, resource, about.get("Properties", {}), resource)


def _within(template, name, node, resource):
    """The policies in a part of a template: whatever has statements, wherever it is."""
    if isinstance(node, list):
        for index, part in enumerate(node):
            yield from _within(template, f"{name}[{index}]", part, resource)
    elif isinstance(node, dict) and "Statement" in node:
        try:
            yield name, template.value(node)
        except Unknown as unknown:
            yield name, unknown
    elif isinstance(node, dict):
        for part_name, part in node.items():
            # An inline policy has a name of its own.
            own = node.get("PolicyName") if part_name == "PolicyDocument" else None
            if isinstance(own, str):
                yield from _within(template, f"{resource}/{own}", part, resource)
            else:
                yield from _within(template, f"{name}/{part_name}", part, resource)


def findings_in(name, policy):
    """What parliament says of a policy, each as one line."""
    if isinstance(policy, Unknown):
        return [f"UNKNOWN: {policy}"]
    if name.endswith("/AssumeRolePolicyDocument"):
        # Whom a role trusts is said without a resource, which is the role. parliament wants one.
        statements = policy["Statement"] if isinstance(policy["Statement"], list) else [policy["Statement"]]
        policy = policy | {"Statement": [one | {"Resource": f"arn:aws:iam::{ACCOUNT}:role/somebody"} for one in statements]}
    with contextlib.redirect_stdout(io.StringIO()):
        findings = [parliament.enhance_finding(one) for one in parliament.analyze_policy_string(json.dumps(policy)).findings]
    return [f"{one.issue}: {one.title}; {_words(one)}" for one in findings if one.severity != "MUTED"]


def _words(finding):
    detail = finding.detail if isinstance(finding.detail, str) else json.dumps(finding.detail)
    where = finding.location.get("string")
    return " ".join(filter(None, [detail, f"at {where}" if where else ""]))


def _allowed(name, finding):
    return any(re.fullmatch(policy, name) and re.fullmatch(found, finding, re.DOTALL) for policy, found, _ in ALLOWED)


def lint(document):
    """`(name, findings)` of each policy."""
    for name, policy in policies_of(document):
        yield name, [finding for finding in findings_in(name, policy) if not _allowed(name, finding)]


def read(path):
    text = sys.stdin.read() if path == "-" else Path(path).read_text(encoding="utf-8")
    return yaml.load(text, Loader=_Loader)  # JSON is YAML.


class _Loader(yaml.SafeLoader):
    """YAML with CloudFormation's short forms; times stay texts."""

    yaml_implicit_resolvers = {
        first: [(tag, pattern) for tag, pattern in resolvers if tag != "tag:yaml.org,2002:timestamp"]
        for first, resolvers in yaml.SafeLoader.yaml_implicit_resolvers.items()
    }


def _short_form(loader, suffix, node):
    if isinstance(node, yaml.ScalarNode):
        value = loader.construct_scalar(node)
    elif isinstance(node, yaml.SequenceNode):
        value = loader.construct_sequence(node, deep=True)
    else:
        value = loader.construct_mapping(node, deep=True)
    return {suffix if suffix in ("Ref", "Condition") else f"Fn::{suffix}": value}


_Loader.add_multi_constructor("!", _short_form)


# --- Tried ---


def _policy(action, resource, **more):
    return {"Version": "2012-10-17", "Statement": [{"Effect": "Allow", "Action": action, "Resource": resource} | more]}


_QUEUE = f"arn:aws:sqs:{REGION}:{ACCOUNT}:mycli-default-launch"
_TABLE = f"arn:aws:dynamodb:{REGION}:{ACCOUNT}:table/mycli-default"
_TEMPLATE = """
Parameters: { StackName: { Type: String } }
Resources:
  Queue: { Type: AWS::SQS::Queue, Properties: { QueueName: !Sub "mycli-${StackName}-launch" } }
  Table: { Type: AWS::DynamoDB::Table }
  Role:
    Type: AWS::IAM::Role
    Properties:
      AssumeRolePolicyDocument:
        Version: "2012-10-17"
        Statement: [{ Effect: Allow, Principal: { Service: lambda.amazonaws.com }, Action: "sts:AssumeRole" }]
      Policies:
        - PolicyName: send
          PolicyDocument:
            Version: "2012-10-17"
            Statement: [{ Effect: Allow, Action: "sqs:SendMessage", Resource: !GetAtt WHAT.Arn }]
"""
# What it is, the document, and what a finding must say; nothing if there must be none.
_CASES = [
    ("a policy", _policy("sqs:SendMessage", _QUEUE), None),
    ("a misspelt action", _policy("sqs:SendMessages", _QUEUE), "UNKNOWN_ACTION"),
    ("a misspelt service", _policy("sqz:SendMessage", _QUEUE), "UNKNOWN_PREFIX"),
    ("a resource that does not fit the action", _policy("sqs:SendMessage", _TABLE), "RESOURCE_MISMATCH"),
    ("one of two actions that the resource does not fit", _policy(["sqs:SendMessage", "ecs:RunTask"], _QUEUE), "ecs:RunTask"),
    ("a resource where there is none to name", _policy("ecr:GetAuthorizationToken", _QUEUE), "RESOURCE_MISMATCH"),
    ("no ARN", _policy("sqs:SendMessage", "mycli-default-launch"), "INVALID_ARN"),
    ("any resource", _policy("sqs:SendMessage", "*"), "RESOURCE_STAR"),
    (
        "a condition key that is not there",
        _policy("sqs:SendMessage", _QUEUE, Condition={"StringEquals": {"sqs:Cluster": "a"}}),
        "UNKNOWN_CONDITION",
    ),
    ("an element that is not there", _policy("sqs:SendMessage", _QUEUE, Resources="*"), "MALFORMED"),
    ("a template", yaml.load(_TEMPLATE.replace("WHAT", "Queue"), Loader=_Loader), None),
    ("a template with a resource that does not fit", yaml.load(_TEMPLATE.replace("WHAT", "Table"), Loader=_Loader), "RESOURCE_MISMATCH"),
    ("a template with nothing there", yaml.load(_TEMPLATE.replace("WHAT", "Topic"), Loader=_Loader), "UNKNOWN"),
    (
        "a template that trusts nobody",
        yaml.load(_TEMPLATE.replace("WHAT", "Queue").replace("sts:AssumeRole", "sts:Assume"), Loader=_Loader),
        "UNKNOWN_ACTION",
    ),
]


def _self_test():
    failed = 0
    for what, document, wanted in _CASES:
        findings = [finding for _, found in lint(document) for finding in found]
        right = any(wanted in finding for finding in findings) if wanted else not findings
        failed += not right
        print("PASS" if right else "FAIL", what, "" if right else f"- wanted {wanted!r}, got {findings}")
    print(f"{len(_CASES) - failed} passed, {failed} failed")
    return 1 if failed else 0


def main(arguments):
    if arguments == ["self-test"]:
        return _self_test()
    if not arguments:
        print(__doc__, file=sys.stderr)
        return 2
    failed = passed = 0
    for path in arguments:
        for name, findings in lint(read(path)):
            for finding in findings:
                print(f"FAIL {name}: {finding}")
            if not findings:
                print(f"PASS {name}")
            failed, passed = failed + bool(findings), passed + (not findings)
    # Nothing found because nothing was read is no pass.
    if not failed + passed:
        print("FAIL no policy is in it")
        return 1
    print(f"{passed} passed, {failed} failed")
    return 1 if failed else 0


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
