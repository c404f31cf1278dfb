"""Every symbol of Flower that is used and is not part of its public interface: the pin is checked, not trusted."""

from __future__ import annotations

import dataclasses
import importlib
import inspect
from importlib.metadata import version
from typing import Any

import pytest

SYMBOLS = {
    "flwr.app": ("Array", "ArrayRecord", "ConfigRecord", "Context", "Error", "Message", "RecordDict"),
    "flwr.app.message": ("remove_content_from_message",),
    "flwr.cli.build": ("build_fab_from_files",),
    "flwr.common.serde": ("fab_to_proto", "message_from_proto", "message_to_proto", "user_config_to_proto"),
    "flwr.serverapp": ("Grid", "ServerApp"),
    "flwr.supercore.auth": ("load_superexec_auth_secret",),
    "flwr.supercore.control": ("ControlHttpClient",),
    "flwr.supercore.error": ("FlowerError",),
    "flwr.supercore.fab": ("Fab",),
    "flwr.supercore.inflatable.inflatable_object": (
        "get_all_nested_objects",
        "get_object_tree",
        "iterate_object_tree",
    ),
    "flwr.supercore.inflatable.inflatable_utils": ("inflate_object_from_contents",),
    "flwr.supercore.interceptors": ("RuntimeVersionHttpInterceptor",),
    "flwr.supercore.primitives.asymmetric": ("public_key_to_bytes",),
    "flwr.supercore.retry": ("make_simple_http_retry_invoker",),
    "flwr.superlink.cli.flower_superlink": ("SuperLinkLifespan",),
    "flwr.superlink.config_loader": ("SuperLinkLifespanConfig", "load_control_authn_plugin"),
    "flwr.superlink.grid": ("HttpGrid",),
    "flwr.superlink.main": ("create_app",),
    "flwr.supernode.fleet_http_client": ("FleetHttpClient",),
    "flwr.supernode.node_auth_http_interceptor": ("NodeAuthHttpInterceptor",),
}


def symbol(place: str, name: str) -> Any:
    return getattr(importlib.import_module(place), name)


def test_flower_is_the_version_that_was_read():
    assert version("flwr") == "1.41.0"


@pytest.mark.parametrize(("place", "name"), [(place, name) for place, names in SYMBOLS.items() for name in names])
def test_a_symbol_is_where_we_use_it(place: str, name: str):
    assert symbol(place, name) is not None


def test_the_servers_settings_are_those_that_we_give():
    fields = {
        field.name for field in dataclasses.fields(symbol("flwr.superlink.config_loader", "SuperLinkLifespanConfig"))
    }
    assert fields == {
        *("control_address", "health_server_address", "host", "port", "insecure", "certificates"),
        *("superexec_auth_secret", "authn_plugin", "event_log_plugin", "fleet_event_log_plugin", "enable_event_log"),
        *("artifact_provider", "enable_supernode_auth", "fleet_api_type", "fleet_api_address", "simulation"),
        *("ssl_ca_certfile", "ssl_certfile", "ssl_keyfile", "database", "isolation", "runtime_dependency_install"),
    }


def test_the_grid_has_the_parts_that_we_replace():
    grid = symbol("flwr.superlink.grid", "HttpGrid")(token="x")
    assert grid._client is None
    assert hasattr(grid._retry_invoker, "max_time")
    assert grid.node.node_id == 1
    assert isinstance(inspect.getattr_static(type(grid), "_runtime_client"), property)


def test_an_activated_node_may_say_that_it_lives_every_ten_seconds():
    assert symbol("flwr.common.constant", "HEARTBEAT_MIN_INTERVAL") <= 10
    assert symbol("flwr.common.constant", "HEARTBEAT_PATIENCE") == 2


def test_a_stopped_run_is_no_ordinary_exception():
    """Must: end the coordinator. Must not: be survived like an outage of the server."""
    assert not issubclass(symbol("flwr.supercore.run", "RunNotRunningException"), Exception)
