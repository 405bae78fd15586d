"""The list of rules, and one function that judges an environment's resources by all of them."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Final

from infra.policy import cluster, containers
from infra.policy.model import Environment, Finding, Resource, Rule

RULES: Final = (
    Rule("known-kinds", "Every object is of a kind that the rules look into.", cluster.known_kinds),
    Rule("fixed-images", "Every image names a release or a digest, never latest.", containers.fixed_images),
    Rule("limits", "Every container has requests and limits; memory is reserved in full.", containers.limits),
    Rule(
        "no-privilege",
        "Non-root, read-only root, seccomp, no capabilities.",
        containers.no_privilege,
    ),
    Rule("probes", "Every server has startup, readiness and liveness probes that differ.", containers.probes),
    Rule("own-account", "Every workload has an account of its own, without a token.", containers.own_account),
    Rule(
        "least-rights",
        "No role grants everything, reads Secrets, strikes any pod or leaves the namespace.",
        containers.least_rights,
    ),
    Rule("grace", "Every pod says how long it may take to stop.", containers.grace),
    Rule("no-secret-in-clear", "Secrets stand in Secrets alone.", containers.no_secret_in_clear),
    Rule("consensus-readiness", "H2O is ready when all its nodes agree.", containers.consensus_readiness),
    Rule("h2o-memory", "H2O's heap is 70 % of its container's limit.", containers.h2o_memory),
    Rule(
        "disruption-budgets",
        "Every replicated workload has a budget that leaves a quorum.",
        cluster.disruption_budgets,
    ),
    Rule("spread", "Replicated workloads stand in several zones and on several nodes.", cluster.spread),
    Rule("network-policies", "Default deny, and for every pod exact flows.", cluster.network_policies),
    Rule(
        "tls",
        "All connections are encrypted, servers prove their names, the edge by TLS 1.3. Not to the API, for the edge "
        "and who reads metrics (ADR 10), nor to H2O, for its nodes and Mage (ADR 18): network rules alone keep these.",
        cluster.tls,
    ),
    Rule("kept-data", "No set deletes its volumes.", cluster.kept_data),
    Rule("scaled-by-one", "An autoscaled workload states no replicas.", cluster.scaled_by_one),
    Rule("no-chaos-in-production", "Production never opts in to faults.", cluster.no_chaos_in_production),
    Rule("pod-security", "The namespace enforces Pod Security restricted.", cluster.pod_security),
    Rule("one-namespace", "Everything stands in the environment's namespace.", cluster.one_namespace),
)


def judge(resources: Sequence[Resource], environment: Environment) -> list[Finding]:
    """Every breach of every rule, in the rules' order."""
    return [finding for rule in RULES for finding in rule.findings(resources, environment)]
