"""For those who run a node."""

from __future__ import annotations

from server.http import examples
from server.http.openapi import Gives, Operation
from server.http.routes.route import Route
from server.wire.api import live, operations, queries

OPERATIONS = (
    Route(
        "GET",
        "/api/cluster",
        lambda views: views.cluster.show,
        Operation(
            "showCluster",
            "The nodes of the cluster",
            "operations",
            who=("author",),
            query=queries.NoQuery,
            gives=(
                Gives(
                    200,
                    "By name, as the node that answers knows them.",
                    operations.Cluster,
                    examples.CLUSTER,
                ),
            ),
        ),
    ),
    Route(
        "GET",
        "/api/ops",
        lambda views: views.live.show,
        Operation(
            "showLive",
            "What happens just now",
            "operations",
            who=("author",),
            query=queries.NoQuery,
            gives=(
                Gives(
                    200,
                    "All nodes by their heartbeats, and what each says of itself.",
                    live.LiveView,
                    examples.LIVE,
                ),
            ),
            codes=("not_admin",),
        ),
    ),
    Route(
        "GET",
        "/api/ops/events",
        lambda views: views.live.follow,
        Operation(
            "followLive",
            "What happens just now, as an event stream",
            "operations",
            who=("author",),
            query=queries.NoQuery,
            gives=(
                Gives(
                    200,
                    "Server-Sent Events of the type `live`: a LiveView at first, and every few seconds one "
                    "with the samples and events that are new.",
                    media_types={"text/event-stream": "string"},
                ),
            ),
            codes=("not_admin", "too_many_connections"),
        ),
    ),
    Route(
        "POST",
        "/api/cluster/nodes/{name}/drain",
        lambda views: views.cluster.drain,
        Operation(
            "drainNode",
            "Have a node move its sessions to the others",
            "operations",
            who=("author",),
            path={"name": queries.NodeName},
            query=queries.NoQuery,
            gives=(
                Gives(
                    202,
                    "The node knows. It is done when it has no sessions any more.",
                    operations.Draining,
                    examples.DRAINING,
                ),
            ),
            codes=("node_not_found", "last_node", "not_admin"),
        ),
    ),
    Route(
        "GET",
        "/healthz",
        lambda views: views.operations.healthz,
        Operation(
            "health",
            "Whether the event loop turns",
            "operations",
            gives=(Gives(200, "It does.", operations.Health, examples.HEALTH),),
        ),
    ),
    Route(
        "GET",
        "/readyz",
        lambda views: views.operations.readyz,
        Operation(
            "readiness",
            "Whether the node can take work",
            "operations",
            gives=(
                Gives(200, "It can.", operations.Readiness, examples.READY),
                Gives(503, "It cannot, for these reasons.", operations.Readiness, examples.NOT_READY),
            ),
        ),
    ),
    Route(
        "GET",
        "/health",
        lambda views: views.operations.health,
        Operation(
            "healthReport",
            "How the node is, by its components",
            "operations",
            who=("author", "all"),
            query=queries.NoQuery,
            gives=(
                Gives(200, "No component is down.", operations.HealthReport, examples.HEALTH_REPORT),
                Gives(503, "One is.", operations.HealthReport, examples.HEALTH_REPORT_DOWN),
            ),
        ),
    ),
    Route(
        "GET",
        "/metrics",
        lambda views: views.operations.metrics,
        Operation(
            "metrics",
            "Metrics for Prometheus",
            "operations",
            gives=(
                Gives(
                    200,
                    "Prometheus text exposition, or OpenMetrics for those who accept it.",
                    media_types={"text/plain": "string", "application/openmetrics-text": "string"},
                ),
            ),
        ),
    ),
    Route(
        "GET",
        "/openapi.json",
        lambda views: views.operations.openapi,
        Operation(
            "openapi",
            "This document",
            "operations",
            gives=(Gives(200, "OpenAPI 3.1.", media_types={"application/json": "object"}),),
        ),
    ),
    Route(
        "GET",
        "/asyncapi.json",
        lambda views: views.operations.asyncapi,
        Operation(
            "asyncapi",
            "The document of the WebSocket",
            "operations",
            gives=(Gives(200, "AsyncAPI 3.0.", media_types={"application/json": "object"}),),
        ),
    ),
)
