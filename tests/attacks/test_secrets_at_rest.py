"""Secrets at rest: what a thief finds in a site's files, byte by byte, at every moment of a round."""

from __future__ import annotations

import shutil
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
from cryptography.hazmat.primitives.asymmetric.x25519 import X25519PrivateKey

import client.secagg
import common.secagg.totals
from client.keystore import SqliteKeyStore
from common.secagg import IntegerCodec, RoundSeed, add_masks, pack
from server.secagg import Collecting
from simulations.bench.flower_round import Relay, play
from tests.attacks.opponents import FIRST, flower_sites, state_of, updates
from tests.secagg_federation import RULES, Federation, signer

CODEC = IntegerCodec(dimension=1000, sites_max=16)


def test_on_flower_private_keys_stay_in_the_sites_state_after_the_round():
    """Secrets at rest (SecAggPlusState.to_dict into Context.state): both private keys and the mask seed."""
    relay = Relay(flower_sites(updates(4)))
    assert play(relay, 4, 3).stopped is None
    left = state_of(relay.sites[FIRST])
    assert left["sk1"].startswith(b"-----BEGIN PRIVATE KEY-----")
    assert left["sk2"].startswith(b"-----BEGIN PRIVATE KEY-----")
    assert len(left["rd_seed"]) == 32


class Thief:
    """It knows every secret that was ever made, and looks for it in all files of all sites."""

    def __init__(self, monkeypatch: pytest.MonkeyPatch):
        self.one_time: list[bytes] = []
        self.masks: list[bytes] = []
        self.vectors: list[bytes] = []
        self._watch(monkeypatch)

    def _watch(self, monkeypatch: pytest.MonkeyPatch) -> None:
        class Noted:
            @staticmethod
            def generate():
                key = X25519PrivateKey.generate()
                self.one_time.append(key.private_bytes_raw())
                return key

        def noted(keys, lanes):
            self.masks.extend(keys)
            add_masks(keys, lanes)

        monkeypatch.setattr(client.secagg, "X25519PrivateKey", Noted)
        for room in (client.secagg, common.secagg.totals):  # masks are added there, and taken away
            monkeypatch.setattr(room, "add_masks", noted)

    def vector(self, site: int) -> np.ndarray:
        made = np.random.default_rng(site).integers(-CODEC.limit, CODEC.limit, CODEC.dimension)
        encoded = pack(CODEC.ring, CODEC.encode(made).lanes)
        self.vectors += [encoded[first : first + 16] for first in range(0, 4000, 400)]
        return made

    def found(self, folder: Path) -> list[bytes]:
        """Secrets of a round in the files below `folder`: none may ever be."""
        content = b"".join(path.read_bytes() for path in folder.rglob("*") if path.is_file())
        return [secret for secret in (*self.one_time, *self.masks, *self.vectors) if secret in content]


def on_disk(federation: Federation, folder: Path) -> None:
    for site in federation.manifest.ids:
        (folder / str(site)).mkdir(mode=0o700, parents=True)
        signer(site).save(folder / str(site) / "identity")
        federation.stores[site] = SqliteKeyStore.open(folder / str(site))


@pytest.mark.parametrize("suite", [1, 2])
def test_no_file_ever_holds_a_one_time_key_a_mask_key_or_a_value(tmp_path, monkeypatch, suite):
    """Must: keep what is needed to answer once. Must not: write what masks or is masked, in database or journal."""
    thief = Thief(monkeypatch)
    federation = Federation.open(4, rules=replace(RULES, suite=suite), codec=CODEC)
    on_disk(federation, tmp_path)
    federation = federation.again(bytes([suite]) * 32)
    for number in range(3):
        aggregation = federation.aggregation(number)
        state = Collecting.open(aggregation, federation.manifest.ids)
        for site in federation.manifest.ids:
            state = state.receive(site, federation.report(site, aggregation, thief.vector(site)))
            assert thief.found(tmp_path) == []
        federation.opened(state.close())
        assert thief.found(tmp_path) == []
    assert (len(thief.one_time), len(thief.masks)) == (12, 3 * (4 * 2 + 2 * 4))


def seeds_in(folder: Path, seeds: dict[int, RoundSeed]) -> list[int]:
    content = b"".join(path.read_bytes() for path in folder.iterdir())
    return [number for number, seed in seeds.items() if seed.reveal() in content]


def test_a_seed_is_gone_from_all_files_when_its_number_is_over_however_it_ended(tmp_path):
    """Answered, passed over, or its session replaced: no file holds the seed, with the store open or closed."""
    federation = Federation.open(3, codec=CODEC, numbers=8)
    on_disk(federation, tmp_path)
    federation = federation.again(bytes([1]) * 32, 8)
    first, second = federation.session.unmaskers
    seeds = {site: dict(federation.stores[site].seeds(federation.session.sid)) for site in (first, second)}
    assert seeds_in(tmp_path / str(first), seeds[first]) == list(range(8))
    federation.opened(federation.collected(1))  # answered
    federation.report(second, federation.aggregation(5))  # passed over: it reported for a later number
    assert seeds_in(tmp_path / str(first), seeds[first]) == [2, 3, 4, 5, 6, 7]
    assert seeds_in(tmp_path / str(second), seeds[second]) == [5, 6, 7]
    federation.stores[second].forget(federation.session.sid)
    federation.again(bytes([2]) * 32, 8)  # replaced
    for site in (first, second):
        assert seeds_in(tmp_path / str(site), seeds[site]) == []
        federation.stores[site].close()
        assert seeds_in(tmp_path / str(site), seeds[site]) == []


def test_files_stolen_in_the_middle_of_a_change_lose_their_erased_seeds_when_they_are_opened(tmp_path, monkeypatch):
    """A machine that stops between commit and the emptying of the journal: the next start finishes the erasure."""
    federation = Federation.open(3, codec=CODEC)
    on_disk(federation, tmp_path / "sites")
    federation = federation.again(bytes([1]) * 32)
    site = federation.session.unmaskers[0]
    seeds = dict(federation.stores[site].seeds(federation.session.sid))
    commit, moments = SqliteKeyStore._commit, []

    def stolen(self, cursor):
        commit(self, cursor)
        if self is federation.stores[site]:
            moments.append(tmp_path / f"moment-{len(moments)}")
            shutil.copytree(tmp_path / "sites" / str(site), moments[-1])

    monkeypatch.setattr(SqliteKeyStore, "_commit", stolen)
    federation.opened(federation.collected(2))
    assert len(moments) == 2  # its report, its answer
    monkeypatch.undo()
    for moment, left in zip(moments, ([2, 3], [3]), strict=True):
        SqliteKeyStore.open(moment).close()
        assert seeds_in(moment, seeds) == left
