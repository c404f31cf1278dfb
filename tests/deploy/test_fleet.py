"""What is submitted to the coordination server: settings and a licence, no code."""

from __future__ import annotations

import io
import tomllib
import zipfile

from deploy.authority import LOCAL_NAMES, found_authority, issue_server
from deploy.fleet import SETTINGS, is_healthy, make_bundle
from deploy.up import free_address


def files(bundle: bytes) -> dict[str, bytes]:
    with zipfile.ZipFile(io.BytesIO(bundle)) as archive:
        return {name: archive.read(name) for name in archive.namelist()}


def test_a_bundle_holds_no_code():
    inside = files(make_bundle())
    assert set(inside) == {"pyproject.toml", "LICENSE", ".info/CONTENT"}
    assert not any(name.endswith(".py") for name in inside)


def test_a_bundle_names_the_installed_coordinator_and_every_setting():
    project = tomllib.loads(files(make_bundle())["pyproject.toml"].decode())
    flower = project["tool"]["flwr"]["app"]
    assert flower["components"]["serverapp"] == "server.app:app"
    assert flower["config"] == dict(SETTINGS)
    assert "dependencies" not in project["project"] or project["project"]["dependencies"] == []


def test_the_same_settings_make_the_same_bundle():
    assert make_bundle() == make_bundle()
    assert make_bundle(settings={**SETTINGS, "resume": True}) != make_bundle()


def test_a_server_that_is_not_there_is_not_healthy(tmp_path):
    server = issue_server(tmp_path / "s", found_authority(tmp_path / "a", "x"), LOCAL_NAMES)
    assert not is_healthy(free_address(), server.ca)
