"""The head of infra/aws/cluster.yaml starts, names and ends the machines of its own cluster, and touches no other.

The evaluator of the tests' server judges every right that AWS asks for. The server itself is not called: to start a
machine AWS asks for several rights, by resource and by tag, and the server's EC2 asks for one and knows no tags.
"""

from __future__ import annotations

import json
from string import Template
from typing import Any

from ministack.core.iam_evaluator import EvalContext, evaluate, parse_policy_document

from tests.infra.policies import POLICIES
from tests.support.s3server import REGION

ACCOUNT, CLUSTER = "000000000000", "anonlib"
WORKER_ROLE = f"arn:aws:iam::{ACCOUNT}:role/anonlib-job"
HERE = f"arn:aws:ec2:{REGION}:{ACCOUNT}"
MACHINE = f"{HERE}:instance/i-1"
MADE_OF = (
    f"arn:aws:ec2:{REGION}::image/ami-1",
    *(f"{HERE}:{one}" for one in ("key-pair/k", "network-interface/e", "security-group/sg-1", "subnet/s")),
    *(f"{HERE}:{one}" for one in ("spot-instances-request/r", "volume/v")),
)


Right = tuple[str, str, dict[str, Any]]
"""One question that AWS puts to the policy: an action, its resource, and what AWS knows of the request."""
OF = "aws:resourcetag/ray-cluster-name"


def tagged(tags: dict[str, str]) -> dict[str, Any]:
    return {f"aws:requesttag/{name}": value for name, value in tags.items()} | {"aws:tagkeys": [*tags]}


def start(cluster: str | None, machine: str = MACHINE) -> list[Right]:
    """RunInstances with the tags that Ray gives (TagSpecifications), or without any."""
    tags = {} if cluster is None else {"ray-cluster-name": cluster, "ray-node-kind": "worker", "Name": "a"}
    rights = [("ec2:RunInstances", machine, tagged(tags)), *(("ec2:RunInstances", part, {}) for part in MADE_OF)]
    name_it = ("ec2:CreateTags", machine, tagged(tags) | {"ec2:createaction": "RunInstances"})
    return [*rights, name_it] if tags else rights


def name(of: str, **tags: str) -> list[Right]:
    """CreateTags on a machine of a cluster, as Ray's autoscaler does while it sets a machine up."""
    return [("ec2:CreateTags", MACHINE, tagged({key.replace("_", "-"): tags[key] for key in tags}) | {OF: of})]


def on_machine(action: str, of: str) -> list[Right]:
    return [(f"ec2:{action}", MACHINE, {OF: of})]


def give(role: str, to: str = "ec2.amazonaws.com") -> list[Right]:
    return [("iam:PassRole", role, {"iam:passedtoservice": to})]


NEEDED = {
    "see machines": [("ec2:DescribeInstances", "*", {})],
    "start a worker": start(CLUSTER),
    "say how a worker is": name(CLUSTER, ray_node_status="up-to-date"),
    "end a worker": on_machine("TerminateInstances", CLUSTER),
    "give a worker its role": give(WORKER_ROLE),
}
REFUSED = {
    "start a machine that is in no cluster": start(None),
    "start a machine of another cluster": start("theirs"),
    "start a machine in another region": start(CLUSTER, machine=MACHINE.replace(REGION, "eu-west-9")),
    "take over a machine of another cluster": name("theirs", ray_cluster_name=CLUSTER),
    "take over a machine of no cluster": [("ec2:CreateTags", MACHINE, tagged({"ray-cluster-name": CLUSTER}))],
    "hand a worker to another cluster": name(CLUSTER, ray_cluster_name="theirs"),
    "give a worker another owner": name(CLUSTER, owner="me"),
    "name a volume": [("ec2:CreateTags", MADE_OF[-1], {OF: CLUSTER})],
    "end a machine of another cluster": on_machine("TerminateInstances", "theirs"),
    "stop a worker, with what is on its disk": on_machine("StopInstances", CLUSTER),
    "give a worker a mightier role": give("arn:aws:iam::000000000000:role/admin"),
    "give the role to a function": give(WORKER_ROLE, "lambda.amazonaws.com"),
    "change what reaches the machines": [("ec2:AuthorizeSecurityGroupIngress", MADE_OF[3], {})],
}


def document() -> dict[str, Any]:
    """head.json filled in with the test's names."""
    text = Template((POLICIES / "head.json").read_text())
    filled = text.substitute(region=REGION, account=ACCOUNT, worker_role=WORKER_ROLE, cluster=CLUSTER)
    return dict(json.loads(filled))


def done(policy: dict[str, Any]) -> set[str]:
    """The calls of which every right is given."""
    statements = [parse_policy_document(policy)]
    head = {"principal_arn": f"arn:aws:iam::{ACCOUNT}:role/anonlib-head", "principal_type": "AssumedRole"}

    def given(action: str, resource: str, known: dict[str, Any]) -> bool:
        about = {"action": action, "resource_arn": resource, "region": REGION, "service_context": known}
        return bool(evaluate(EvalContext(principal_account=ACCOUNT, **head, **about), statements).decision == "Allow")

    return {call for call, rights in (NEEDED | REFUSED).items() if all(given(*right) for right in rights)}


def test_the_head_may_do_what_rays_autoscaler_does_to_its_own_machines_and_no_more() -> None:
    assert done(document()) == set(NEEDED)
