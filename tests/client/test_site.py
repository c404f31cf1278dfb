"""site.toml: paths count from its folder, and nothing in it is guessed."""

from __future__ import annotations

from pathlib import Path

import pytest

from client.site import read_site
from common.errors import Code, Refusal

TEXT = """
name = "clinic-a"
id = 1
state = "state"
policy = "/etc/hushfed/policy.toml"

[federation]
manifest = "../manifest.json"
governance = "00"

[[data]]
dataset = "clinics"
holdout = 0.3
source = {path = "data.csv", kind = "table"}
"""


@pytest.fixture
def site(tmp_path: Path) -> Path:
    path = tmp_path / "site.toml"
    path.write_text(TEXT)
    return path


def refused(path: Path) -> Refusal:
    with pytest.raises(Refusal) as found:
        read_site(path)
    assert found.value.code is Code.CONFIG_INVALID
    return found.value


def test_relative_paths_count_from_the_folder_of_the_file(site: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(site.parent.parent)
    settings = read_site(Path(site.parent.name) / "site.toml")
    assert settings.state == str(site.parent / "state")
    assert settings.policy == "/etc/hushfed/policy.toml"
    assert settings.federation.manifest == str(site.parent / ".." / "manifest.json")
    assert settings.dataset("clinics").source.path == str(site.parent / "data.csv")


def test_what_is_not_given_stays_empty(site: Path) -> None:
    settings = read_site(site)
    assert settings.federation.ca == settings.federation.superlink == ""
    assert settings.noise_seed is None


@pytest.mark.parametrize("holdout", ["0.0", "0.95", "nan", "inf", '"0.3"'])
def test_a_share_held_out_must_leave_both_parts(site: Path, holdout: str) -> None:
    site.write_text(TEXT.replace("holdout = 0.3", f"holdout = {holdout}"))
    refused(site)


def test_an_unknown_setting_is_refused_in_every_table(site: Path) -> None:
    for table in ("id = 1", "[federation]", "[[data]]"):
        site.write_text(TEXT.replace(table, f"{table}\nholdot = 0.3"))
        assert "'holdot'" in refused(site).what


def test_another_data_set_is_refused_with_those_that_are_held(site: Path) -> None:
    with pytest.raises(Refusal, match="this site holds clinics") as found:
        read_site(site).dataset("patients")
    assert found.value.code is Code.POLICY_DATA
