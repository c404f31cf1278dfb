"""Where a federation on one host listens, and what its keepers compare."""

from __future__ import annotations

from pathlib import Path

import pytest

from common.errors import Refusal
from deploy.host import Addresses, layout_of, manifest_in
from tests.worlds import Desk, close, desk_of, scenario


@pytest.fixture(scope="module")
def desk(tmp_path_factory: pytest.TempPathFactory) -> Desk:
    made = desk_of(scenario("M2"), tmp_path_factory.mktemp("host") / "world")
    close(made)
    return made


def test_an_address_that_was_given_is_used_whether_or_not_the_other_was() -> None:
    assert Addresses.of("a.example:8443", None).public == "a.example:8443"
    assert Addresses.of(None, "127.0.0.1:8444").private == "127.0.0.1:8444"
    for wrong in (("x", None), (None, "x"), (None, "0.0.0.0:1"), ("127.0.0.1:9", "127.0.0.1:9")):
        with pytest.raises(Refusal):
            Addresses.of(*wrong)


def test_sites_of_this_host_say_how_they_fare_where_their_own_command_looks(desk: Desk) -> None:
    layout = layout_of(desk.federation.root)
    assert [site.run for site in layout.sites] == [site.root / "state" / "run" for site in desk.federation.sites]
    assert manifest_in(desk.federation.root).digest == desk.federation.manifest.digest


def test_a_folder_without_governance_is_refused(tmp_path: Path) -> None:
    with pytest.raises(Refusal, match=r"governance\.pub"):
        manifest_in(tmp_path)
