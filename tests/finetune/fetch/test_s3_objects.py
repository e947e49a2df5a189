"""Objects of a bucket on loopback: cut, continued, damaged, changed, refused; never half of them in the cache."""

from __future__ import annotations

import hashlib
import os
from collections.abc import Iterator
from pathlib import Path

import pytest

from hpotune.finetune.trial_errors import UserError
from hpotune.records.fetch_record import FetchItem
from tests.conftest import needs_torch
from tests.fixtures.s3_store import Store, start_store

pytest.importorskip("moto", reason="needs moto: pip install 'hpotune[dev]'")
pytest.importorskip("s3fs", reason="needs s3fs: pip install 'hpotune[s3]'")

BLOCK = 1_000_000
CONTENT = bytes(range(250)) * 14_000
"""3.5 MB: four blocks."""
URL = "s3://lab/runs/rows.jsonl"


@pytest.fixture(autouse=True)
def _quick(monkeypatch: pytest.MonkeyPatch) -> None:
    needs_torch()
    from hpotune.finetune.fetch import s3_objects

    monkeypatch.setattr(s3_objects, "BLOCK", BLOCK)
    monkeypatch.setattr(s3_objects, "PAUSE_S", 0.01)


@pytest.fixture
def store(monkeypatch: pytest.MonkeyPatch) -> Iterator[Store]:
    made = start_store()
    made.put("runs/rows.jsonl", CONTENT)
    use(made, monkeypatch)
    yield made
    made.stop()


def use(store: Store, monkeypatch: pytest.MonkeyPatch, **changed: str) -> None:
    """Let this process talk to the storage."""
    wanted = store.env(os.environ, **changed)
    for name in os.environ.keys() - wanted.keys():
        monkeypatch.delenv(name)
    for name, value in wanted.items():
        monkeypatch.setenv(name, value)


def listed(cache: Path, url: str = URL) -> FetchItem:
    from hpotune.finetune.fetch.s3_objects import in_cache, list_objects

    return in_cache(list_objects(url, key="data.path"), cache)


def fetched(cache: Path, url: str = URL) -> FetchItem:
    from hpotune.finetune.fetch.s3_objects import fetch_s3_item

    return fetch_s3_item(listed(cache, url))


def in_bucket(store: Store) -> list[str]:
    """The ranges of objects that were asked for."""
    return [line.rpartition(" ")[2] for line in store.proxy.requests if "bytes=" in line]


def visible(cache: Path) -> list[str]:
    return sorted(one.name for one in (cache / "s3").glob("*") if not one.name.startswith("."))


def test_object_is_fetched_and_hashed(store: Store, tmp_path: Path) -> None:
    item = fetched(tmp_path)
    assert item.is_file
    assert (item.files[0].path, item.files[0].size) == ("rows.jsonl", len(CONTENT))
    assert item.files[0].sha256 == hashlib.sha256(CONTENT).hexdigest()
    assert Path(str(item.folder), "rows.jsonl").read_bytes() == CONTENT
    assert visible(tmp_path) == [Path(str(item.folder)).name]
    store.proxy.requests.clear()
    assert fetched(tmp_path) == item
    assert in_bucket(store) == []


def test_objects_below_a_prefix(store: Store, tmp_path: Path) -> None:
    store.put("tree/a/b.json", b"{}")
    store.put("tree/empty.txt", b"")
    store.put("tree/a/", b"")  # the folder that web consoles make
    store.put("treetop/c.json", b"{}")
    item = fetched(tmp_path, "s3://lab/tree")
    assert not item.is_file
    assert [(one.path, one.size) for one in item.files] == [("a/b.json", 2), ("empty.txt", 0)]
    assert Path(str(item.folder), "a/b.json").read_bytes() == b"{}"
    assert Path(str(item.folder), "empty.txt").read_bytes() == b""


def test_cut_connection_is_tried_again(store: Store, tmp_path: Path) -> None:
    store.proxy.cuts += [400_000, 300]
    item = fetched(tmp_path)
    assert Path(str(item.folder), "rows.jsonl").read_bytes() == CONTENT
    assert len(in_bucket(store)) == 6  # four blocks, the first of them three times
    assert len({*in_bucket(store)}) == 4


def test_failed_download_continues(store: Store, tmp_path: Path) -> None:
    from hpotune.finetune.fetch.s3_objects import missing_bytes

    store.proxy.cuts += [2 * BLOCK, 2 * BLOCK, *[300] * 60]  # two blocks come, then only heads of answers
    with pytest.raises(UserError, match=rf"^data.path: {URL}: cannot be read from {store.url}") as raised:
        fetched(tmp_path)
    assert str(raised.value).endswith("run hpotune fetch again, it continues")
    assert "\n" not in str(raised.value)
    assert visible(tmp_path) == []
    assert missing_bytes(listed(tmp_path)) == len(CONTENT) - 2 * BLOCK
    store.proxy.cuts.clear()
    store.proxy.requests.clear()
    item = fetched(tmp_path)
    assert in_bucket(store) == ["bytes=2000000-2999999", "bytes=3000000-3499999"]
    assert item.files[0].sha256 == hashlib.sha256(CONTENT).hexdigest()
    assert visible(tmp_path) == [Path(str(item.folder)).name]


def test_damaged_file_is_fetched_again(store: Store, tmp_path: Path) -> None:
    from hpotune.finetune.fetch.s3_objects import fetch_s3_item

    item = fetched(tmp_path)
    file = Path(str(item.folder), "rows.jsonl")
    with file.open("r+b") as stream:
        stream.write(b"x")
    with pytest.raises(
        UserError, match=r"rows.jsonl has the SHA-256 \w+ and not \w+; run hpotune fetch again"
    ):
        fetch_s3_item(item)
    assert fetch_s3_item(item) == item
    assert file.read_bytes() == CONTENT


def test_damage_before_the_end_is_found(store: Store, tmp_path: Path) -> None:
    from hpotune.finetune.fetch.s3_objects import fetch_s3_item

    item = listed(tmp_path)
    unfinished = Path(str(item.folder)).with_name(f".{Path(str(item.folder)).name}.unfinished")
    unfinished.mkdir(parents=True)
    (unfinished / "rows.jsonl").write_bytes(b"x" * BLOCK)  # of a disk that lost what was written
    with pytest.raises(UserError, match=r"rows.jsonl has the MD5 \w+ and not \w+; run hpotune fetch again"):
        fetch_s3_item(item)
    assert visible(tmp_path) == []
    assert fetch_s3_item(item).files[0].sha256 == hashlib.sha256(CONTENT).hexdigest()


def test_change_while_reading_is_refused(store: Store, tmp_path: Path) -> None:
    from hpotune.finetune.fetch.s3_objects import fetch_s3_item

    item = listed(tmp_path)
    store.put("runs/rows.jsonl", CONTENT[::-1])
    with pytest.raises(UserError, match="the object was changed while it was read; run hpotune fetch again"):
        fetch_s3_item(item)
    assert visible(tmp_path) == []
    assert listed(tmp_path).folder != item.folder


def test_missing_object_and_bucket(store: Store, tmp_path: Path) -> None:
    with pytest.raises(UserError) as absent:
        listed(tmp_path, "s3://lab/runs/other.jsonl")
    assert str(absent.value) == (
        f"data.path: s3://lab/runs/other.jsonl: {store.url} has no such object, and none below it; correct the "
        "address, or AWS_ENDPOINT_URL"
    )
    with pytest.raises(UserError, match=r"s3://labs/rows.jsonl: \S+ has no such bucket; correct the address"):
        listed(tmp_path, "s3://labs/rows.jsonl")


def test_wrong_key_is_one_line(store: Store, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    key, secret = store.new_user()
    store.check_signatures()
    with pytest.raises(UserError) as unknown:
        listed(tmp_path)
    assert str(unknown.value) == (
        f"data.path: {URL}: {store.url} refuses the key (InvalidAccessKeyId); correct AWS_ACCESS_KEY_ID and "
        "AWS_SECRET_ACCESS_KEY, or AWS_PROFILE"
    )
    use(store, monkeypatch, AWS_ACCESS_KEY_ID=key, AWS_SECRET_ACCESS_KEY=f"{secret[:-3]}abc")
    with pytest.raises(UserError, match=r"refuses the key \(SignatureDoesNotMatch\)") as wrong:
        listed(tmp_path)
    assert secret[:-3] not in str(wrong.value)
    use(store, monkeypatch, AWS_ACCESS_KEY_ID=key, AWS_SECRET_ACCESS_KEY=secret)
    assert fetched(tmp_path).files[0].size == len(CONTENT)


def test_region_that_the_server_names(store: Store, tmp_path: Path) -> None:
    store.proxy.region = "eu-north-1"
    assert fetched(tmp_path).files[0].size == len(CONTENT)


def test_wrong_region_is_one_line(store: Store, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    store.proxy.region, store.proxy.names_region = "eu-north-1", False
    with pytest.raises(UserError) as raised:
        listed(tmp_path)
    assert str(raised.value) == (
        f"data.path: {URL}: the bucket is in another region (AuthorizationHeaderMalformed); set AWS_DEFAULT_REGION "
        "to that of the bucket"
    )
    use(store, monkeypatch, AWS_DEFAULT_REGION="eu-north-1")
    assert fetched(tmp_path).files[0].size == len(CONTENT)


def test_credentials_come_from_a_profile(
    store: Store, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    without = {"AWS_ACCESS_KEY_ID": "", "AWS_SECRET_ACCESS_KEY": ""}
    use(store, monkeypatch, **without)
    with pytest.raises(UserError, match="there are no credentials; set AWS_ACCESS_KEY_ID"):
        listed(tmp_path)
    key, secret = store.new_user()
    store.check_signatures()
    (tmp_path / "credentials").write_text(
        f"[lab]\naws_access_key_id = {key}\naws_secret_access_key = {secret}\n"
    )
    profile = {"AWS_SHARED_CREDENTIALS_FILE": str(tmp_path / "credentials"), "AWS_PROFILE": "lab"}
    use(store, monkeypatch, **without, **profile)
    assert fetched(tmp_path).files[0].size == len(CONTENT)
    use(store, monkeypatch, **without, **{**profile, "AWS_PROFILE": "other"})
    with pytest.raises(UserError, match=r"other\) could not be found; correct AWS_PROFILE"):
        listed(tmp_path)


def test_unreachable_endpoint_is_one_line(
    store: Store, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    use(store, monkeypatch, AWS_ENDPOINT_URL="http://127.0.0.1:9")
    with pytest.raises(
        UserError, match=r"cannot be read from http://127.0.0.1:9 \(.*\); run hpotune fetch again"
    ):
        listed(tmp_path)


def test_names_that_leave_the_folder(store: Store, tmp_path: Path) -> None:
    store.put("odd/../../../escaped.txt", b"x")
    with pytest.raises(UserError, match="is not a name of a file in a folder; rename the object"):
        listed(tmp_path, "s3://lab/odd")


def test_public_bucket_needs_no_credentials(
    store: Store, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    use(store, monkeypatch, AWS_ACCESS_KEY_ID="", AWS_SECRET_ACCESS_KEY="", AWS_NO_SIGN_REQUEST="1")
    with pytest.raises(UserError, match="denies the access"):
        fetched(tmp_path)
    store.make_public()
    assert Path(str(fetched(tmp_path).folder), "rows.jsonl").read_bytes() == CONTENT
    assert store.proxy.signed == {False}
