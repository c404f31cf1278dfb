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


@pytest.mark.parametrize("threads", ["-5", "-1", "1025", "1.0", "true"])
def test_a_number_of_threads_that_no_site_has_is_refused(site: Path, threads: str) -> None:
    site.write_text(f"threads = {threads}\n{TEXT}")
    assert "threads" in str(refused(site))


@pytest.mark.parametrize("threads", [0, 1, 1024])
def test_threads_from_none_named_to_the_most_are_accepted(site: Path, threads: int) -> None:
    site.write_text(f"threads = {threads}\n{TEXT}")
    assert read_site(site).threads == threads


def test_an_unknown_setting_is_refused_in_every_table(site: Path) -> None:
    for table in ("id = 1", "[federation]", "[[data]]"):
        site.write_text(TEXT.replace(table, f"{table}\nholdot = 0.3"))
        assert "'holdot'" in refused(site).what


def test_another_data_set_is_refused_with_those_that_are_held(site: Path) -> None:
    with pytest.raises(Refusal, match="this site holds clinics") as found:
        read_site(site).dataset("patients")
    assert found.value.code is Code.POLICY_DATA
