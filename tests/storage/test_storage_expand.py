"""An input URI names the files that a shell would, on disk and on S3, or says what is missing."""

from collections.abc import Iterator

import pytest
from braceexpand import braceexpand
from hypothesis import given
from hypothesis import strategies as st

from anonlib.errors import StorageError
from anonlib.storage import StorageOptions, expand, open_storage
from anonlib.storage.uri import expand_braces
from tests.support.s3server import S3Server

TRAIN = ["00000.tar", "00001.tar", "00002.tar"]
FILES = [*(f"train/{name}" for name in TRAIN), "train/sub/x.tar", "val/00000.tar", "notes.txt"]


def fill(uri: str, options: StorageOptions) -> None:
    storage = open_storage(uri, options)
    for name in FILES:
        storage.publish(name, name.encode())


@pytest.fixture(scope="module", params=["local", "s3"])
def root(
    request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory
) -> Iterator[tuple[str, StorageOptions]]:
    if request.param == "local":
        uri, options = str(tmp_path_factory.mktemp("expand") / "data"), StorageOptions()
        fill(uri, options)
        yield uri, options
        return
    server: S3Server = request.getfixturevalue("s3")
    with server.acting_as():
        uri = f"s3://{server.bucket()}/data"
        fill(uri, server.options)
        yield uri, server.options


@pytest.mark.parametrize(
    ("pattern", "base", "names"),
    [
        ("/train/00001.tar", "/train", ["00001.tar"]),
        ("/train/", "/train", [*TRAIN, "sub/x.tar"]),
        ("", "", sorted(FILES)),
        ("/*.txt", "", ["notes.txt"]),
        ("/train/*.tar", "/train", TRAIN),
        ("/train/**/*.tar", "/train", [*TRAIN, "sub/x.tar"]),
        ("/train/0000[!0].tar", "/train", ["00001.tar", "00002.tar"]),
        ("/train/0000?.tar", "/train", TRAIN),
        ("/train/{00002..00000}.tar", "/train", ["00002.tar", "00001.tar", "00000.tar"]),
        ("/{val,train}/00000.tar", "", ["val/00000.tar", "train/00000.tar"]),
        ("/{val,train/sub}", "", ["val/00000.tar", "train/sub/x.tar"]),
        ("/{val,train}/*2.tar", None, ["val/*2.tar"]),
        ("/train/{00001,00001}.tar", "/train", ["00001.tar"]),
        ("/train/{00001..00004}.tar", None, ["00003.tar", "00004.tar"]),
        ("/missing.tar", None, []),
        ("/train/*.parquet", None, []),
    ],
)
def test_a_pattern_names_these_files(
    root: tuple[str, StorageOptions], pattern: str, base: str | None, names: list[str]
) -> None:
    uri, options = root
    if base is None:
        with pytest.raises(StorageError) as caught:
            expand(uri + pattern, options)
        assert all(name in str(caught.value) for name in names)
        return
    folder, found = expand(uri + pattern, options)
    assert folder == f"{uri}{base}" and [file.path for file in found] == names
    storage = open_storage(folder, options)
    for file in found:
        content = f"{base}/{file.path}".removeprefix("/").encode()
        assert storage.read(file.path, file.etag) == content and file.size == len(content)


def test_a_pattern_in_the_bucket_name_is_refused() -> None:
    with pytest.raises(StorageError, match="below a bucket"):
        expand("s3://photos-{a,b}/x.tar")


@pytest.mark.parametrize("text", ["{0..9999999}", "{0..999}{0..999}{0..999}", "{1..900000}{1..2}"])
def test_a_range_that_would_fill_the_memory_is_refused(text: str) -> None:
    with pytest.raises(StorageError, match="more than"):
        expand_braces(text)


words = st.text("abc01-_./", max_size=4)
patterns = st.recursive(
    words | st.tuples(st.integers(0, 30), st.integers(0, 30)).map(lambda pair: f"{{{pair[0]}..{pair[1]}}}"),
    lambda inner: (
        st.lists(inner, min_size=2, max_size=3).map(lambda parts: "{" + ",".join(parts) + "}")
        | st.tuples(inner, inner).map("".join)
    ),
    max_leaves=5,
)


@given(patterns)
def test_braces_expand_as_an_independent_implementation_does(pattern: str) -> None:
    assert expand_braces(pattern) == list(braceexpand(pattern))
